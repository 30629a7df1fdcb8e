"""laguna and poolside-v1. Pure. Source: renderers-and-parsers.md 3.14.

Unlike the reference: calls without call tags are looked for at the start of the content and of its
lines only, but found however the text was cut; what cannot be read as a call is content. Reasoning
that was not wanted is dropped only once it is closed: until then it may be prose about the tag.
"""

from __future__ import annotations

from typing import ClassVar

from ollamad.parsing.call_objects import ObjectScanner
from ollamad.parsing.declared import is_satisfied
from ollamad.parsing.events import Call, Content, ParserFactory, Thinking
from ollamad.parsing.families.laguna_call import ALIASES, read_bare_call, read_laguna_call
from ollamad.parsing.families.stages import StagedParser
from ollamad.parsing.start import thinking_is_on
from ollamad.parsing.withholding import may_begin
from ollamad.wire import Message, Think

_THINK, _THINK_END = "<think>", "</think>"
_CALL, _CALL_END = "<tool_call>", "</tool_call>"
_OBJECT, _USER, _USER_END = '{"', "<user>", "</user>"
#: Closing tags without an opening one, dropped where content begins.
_STRAY = (_THINK_END, _CALL_END)
#: How an object that may be a call begins, after ``_OBJECT``.
_FIRST_KEYS = ('name"', 'arguments"')


class PoolsideParser(StagedParser):
    """Thinking from the start if it is on, content, and calls with or without their tags."""

    has_thinking: ClassVar[bool] = True
    preserved_tokens: ClassVar[tuple[str, ...]] = (
        _THINK,
        _THINK_END,
        _CALL,
        _CALL_END,
        _USER,
        _USER_END,
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
    )
    #: Whether an answer that goes on with an assistant message starts as content.
    continues_messages: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self._wants_thinking = False
        self._opener = ""  # of a call without tags, with the line end before it
        self._scanner = ObjectScanner(0)

    def _begin(self, last: Message | None, think: Think | None) -> None:
        self._wants_thinking = thinking_is_on(think)
        continues = self.continues_messages and last is not None and last.role == "assistant"
        thinks = self._wants_thinking and not continues
        self._go(self._opening if thinks else self._line_start, skip_space=True)

    def _opening(self, done: bool) -> bool:
        """The start of the thinking that the prompt has opened: it may be opened once more."""
        if self._buffer.startswith(_THINK):
            self._buffer = self._buffer[len(_THINK) :]
            return self._go(self._thinking, skip_space=True)
        if not done and (not self._buffer or may_begin(self._buffer, (_THINK,))):
            return False
        return self._go(self._thinking)

    def _thinking(self, done: bool) -> bool:
        tag = self._stream(Thinking, (_THINK_END, _CALL), done)
        if tag is None:
            return False
        if tag == _CALL:
            return self._go(self._call)
        return self._go(self._line_start, skip_space=True)

    def _hiding(self, done: bool) -> bool:
        split = self._await((_THINK_END, _CALL))
        if split is None:
            if done:
                self._say(Content, _THINK + self._buffer)
                self._buffer = ""
            return False
        self._gap, self._buffer = "", split.after
        if split.tag == _CALL:
            return self._go(self._call)
        return self._go(self._line_start, skip_space=True)

    def _line_start(self, done: bool) -> bool:
        """Where content begins, after its whitespace."""
        openers = (_OBJECT, _USER) if self._tools else ()
        for tag in (*_STRAY, *openers):
            if self._buffer.startswith(tag):
                self._buffer = self._buffer[len(tag) :]
                if tag in _STRAY:
                    return self._go(self._line_start, skip_space=True)
                return self._open(tag)
        if not done and (not self._buffer or may_begin(self._buffer, (*_STRAY, *openers))):
            return False
        return self._go(self._content)

    def _content(self, done: bool) -> bool:
        openers = ("\n" + _OBJECT, "\n" + _USER) if self._tools else ()
        loose = (_THINK, *openers)
        tag = self._stream(Content, (_CALL, *loose), done, loose=loose)
        if tag is None:
            return False
        if tag == _CALL:
            return self._go(self._call)
        if tag == _THINK:
            return self._go(
                self._thinking if self._wants_thinking else self._hiding, skip_space=True
            )
        return self._open(tag)

    def _call(self, done: bool) -> bool:
        split = self._await((_CALL_END,))
        if split is None and not done:
            return False
        text = split.before if split else self._buffer
        self._buffer = split.after if split else ""
        if text.strip():
            raw = self._gap + _CALL + text + _CALL_END * bool(split)
            self._events.append(self._read(text, closed=bool(split)) or Content(raw))
        return split is not None and self._go(self._line_start, skip_space=True)

    def _read(self, text: str, *, closed: bool) -> Call | None:
        try:
            call = read_laguna_call(text, self._tools)
        except ValueError:
            return None
        return call if closed or is_satisfied(self._tools, call.name, call.arguments) else None

    def _open(self, opener: str) -> bool:
        """Go on with what begins with ``opener`` and may be a call without call tags."""
        self._opener = opener
        self._scanner = ObjectScanner(0)
        return self._go(self._bare_object if opener.endswith(_OBJECT) else self._user)

    def _release(self, text: str) -> bool:
        """No call: ``text`` is content, and so is what follows, but for its tags."""
        self._say(Content, self._opener + text)
        self._buffer = self._buffer[len(text) :]
        return self._go(self._content)

    def _bare_object(self, done: bool) -> bool:
        text = _OBJECT + self._buffer
        if not self._buffer.startswith(_FIRST_KEYS) and (
            done or (self._buffer and not may_begin(self._buffer, _FIRST_KEYS))
        ):
            return self._release("")
        end = self._scanner.end(text)
        if end is None:
            return self._release("") if done else False
        call = read_bare_call(text[:end], self._tools)
        if call is None:
            return self._release(text[len(_OBJECT) : end])
        self._events.append(call)
        self._buffer = text[end:]
        return self._go(self._line_start, skip_space=True)

    def _user(self, done: bool) -> bool:
        split = self._await((_USER_END,))
        text = split.before if split else self._buffer
        if not self._may_call(text.lstrip()):
            return self._release("")
        if split is None:
            return self._release("") if done else False
        call = read_bare_call(text, self._tools)
        if call is None:
            return self._release(text + _USER_END)
        self._events.append(call)
        self._buffer = split.after
        return self._go(self._line_start, skip_space=True)

    def _may_call(self, text: str) -> bool:
        """Whether ``text`` may become a call of a declared tool."""
        names = {tool.function.name for tool in self._tools} | ALIASES.keys()
        return text[:1] in ("", "{") or any(
            name.startswith(text) or text.startswith(name) for name in names
        )


class LagunaParser(PoolsideParser):
    """As poolside-v1, but an assistant message at the end of the prompt is gone on with."""

    continues_messages: ClassVar[bool] = True


PARSERS: dict[str, ParserFactory] = {"laguna": LagunaParser, "poolside-v1": PoolsideParser}
