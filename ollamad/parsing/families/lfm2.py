"""lfm2 and lfm2-thinking. Pure. Source: renderers-and-parsers.md 3.12.

Unlike the reference: split tags do not leak; a block that does not parse is content; an answer that
is nothing but a list of calls is found however it was cut.
"""

from __future__ import annotations

from typing import ClassVar

from ollamad.parsing.events import Call, Content, ParserFactory, Thinking
from ollamad.parsing.families.stages import StagedParser
from ollamad.parsing.python_call import UnfinishedError, read_call
from ollamad.parsing.start import continues_answer, thinking_is_on
from ollamad.parsing.withholding import may_begin
from ollamad.wire import Message, Think

_THINK, _THINK_END = "<think>", "</think>"
_CALLS, _CALLS_END = "<|tool_call_start|>", "<|tool_call_end|>"


class Lfm2Parser(StagedParser):
    """Content and lists of calls."""

    preserved_tokens: ClassVar[tuple[str, ...]] = (_THINK, _THINK_END, _CALLS, _CALLS_END)

    def _begin(self, last: Message | None, think: Think | None) -> None:
        self._stage = self._bare
        self._tried = 0

    def _bare(self, done: bool) -> bool:
        """The answer may be a list of calls without tags: then it is held to its end."""
        text = self._buffer.strip()
        names = [tool.function.name for tool in self._tools]
        starts = [bracket + name + "(" for name in names for bracket in ("[", "")]
        if not done and starts and (not text or may_begin(text, starts)):
            return False
        if not text.startswith(tuple(starts)):
            return self._go(self._content)
        if not done and len(text) < self._tried:
            return False
        # Tried again at twice the length: prose is found out, and a long list costs little.
        self._tried = 2 * len(text)
        try:
            calls = _read(text)
        except UnfinishedError:
            return self._go(self._content) if done else False
        except ValueError:
            return self._go(self._content)
        if not done:
            return False
        if not all(call.name in names for call in calls):
            return self._go(self._content)
        self._events += calls
        self._buffer = ""
        return False

    def _content(self, done: bool) -> bool:
        tag = self._stream(Content, (_CALLS,), done)
        return tag is not None and self._go(self._block)

    def _block(self, done: bool) -> bool:
        split = self._await((_CALLS_END,))
        if split is None:
            if done:
                self._say(Content, self._gap + _CALLS + self._buffer)
                self._buffer = ""
            return False
        self._buffer = split.after
        try:
            self._events += _read(split.before.strip())
        except ValueError:
            self._say(Content, self._gap + _CALLS + split.before + _CALLS_END)
        return self._go(self._content, skip_space=True)


class Lfm2ThinkingParser(Lfm2Parser):
    """Thinking first, if it is on and the answer begins with ``<think>``."""

    has_thinking: ClassVar[bool] = True

    def _begin(self, last: Message | None, think: Think | None) -> None:
        super()._begin(last, think)
        if thinking_is_on(think) and not continues_answer(last):
            self._go(self._opening, skip_space=True)

    def _opening(self, done: bool) -> bool:
        if self._buffer.startswith(_THINK):
            self._buffer = self._buffer[len(_THINK) :]
            return self._go(self._thinking, skip_space=True)
        if not done and (not self._buffer or may_begin(self._buffer, (_THINK,))):
            return False
        return self._go(self._bare)

    def _thinking(self, done: bool) -> bool:
        if self._stream(Thinking, (_THINK_END,), done):
            return self._go(self._bare, skip_space=True)
        return False


def _read(text: str) -> list[Call]:
    """The calls of ``[f(a=1), g()]``, brackets optional.

    Raises ValueError for anything else, UnfinishedError if more text could make a list of it.
    """
    calls: list[Call] = []
    bracketed = text.startswith("[")
    rest = text[bracketed:].lstrip()
    wants_call = False
    while rest:
        if bracketed and rest.startswith("]"):
            if rest[1:].strip():
                raise ValueError("text after the calls")
            return calls
        if calls and not wants_call:
            raise ValueError("no comma between calls")
        # As in the reference, what stands between the quotes is taken as it is.
        call, end = read_call(rest, 0, escapes=False)
        calls.append(call)
        rest = rest[end:].lstrip()
        wants_call = rest.startswith(",")
        rest = rest.removeprefix(",").lstrip()
    if bracketed or wants_call:
        raise UnfinishedError("a list without an end")
    return calls


PARSERS: dict[str, ParserFactory] = {"lfm2": Lfm2Parser, "lfm2-thinking": Lfm2ThinkingParser}
