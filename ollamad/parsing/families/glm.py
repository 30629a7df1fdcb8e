"""glm-4.7 and glm-ocr. Pure. Source: renderers-and-parsers.md 3.11.

Unlike the reference, a call that cannot be read is content.
"""

from __future__ import annotations

from typing import ClassVar

from ollamad.parsing.declared import is_satisfied
from ollamad.parsing.events import Call, Content, ParserFactory, Thinking
from ollamad.parsing.families.glm_call import read_glm_call
from ollamad.parsing.families.stages import StagedParser
from ollamad.parsing.withholding import may_begin, partial_tag, remainder
from ollamad.wire import Message, Think

_THINK, _THINK_END = "<think>", "</think>"
_CALL, _CALL_END = "<tool_call>", "</tool_call>"


class GlmOcrParser(StagedParser):
    """Thinking if the answer begins with ``<think>``, then content and calls."""

    preserved_tokens: ClassVar[tuple[str, ...]] = (
        _THINK,
        _THINK_END,
        _CALL,
        _CALL_END,
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
    )

    def _begin(self, last: Message | None, think: Think | None) -> None:
        self._stage = self._looking

    def _looking(self, done: bool) -> bool:
        text = self._buffer.lstrip()
        if text.startswith(_THINK):
            self._buffer = text[len(_THINK) :]
            return self._go(self._thinking, skip_space=True)
        if not text or may_begin(text, (_THINK,)):
            if done:
                self._say(Content, remainder(self._buffer))
                self._buffer = ""
            return False
        return self._go(self._content)

    def _thinking(self, done: bool) -> bool:
        if self._stream(Thinking, (_THINK_END,), done):
            return self._go(self._content, skip_space=True)
        return False

    def _content(self, done: bool) -> bool:
        tag = self._stream(Content, (_CALL,), done)
        return tag is not None and self._go(self._call)

    def _call(self, done: bool) -> bool:
        split = self._await((_CALL_END,))
        if split is not None:
            self._buffer = split.after
            try:
                self._events.append(read_glm_call(split.before, self._tools))
            except ValueError:
                self._say(Content, self._gap + _CALL + split.before + _CALL_END)
            return self._go(self._content, skip_space=True)
        if done:
            self._events.append(self._unfinished() or Content(self._gap + _CALL + self._buffer))
            self._buffer = ""
        return False

    def _unfinished(self) -> Call | None:
        """The call in the buffer, if only the closing tag is missing."""
        text = self._buffer[: len(self._buffer) - partial_tag(self._buffer, (_CALL_END,))]
        try:
            call = read_glm_call(text, self._tools, repair=False)
        except ValueError:
            return None
        whole = all(call.arguments) and is_satisfied(self._tools, call.name, call.arguments)
        return call if whole else None


class Glm47Parser(GlmOcrParser):
    """Thinking from the start unless it is off."""

    has_thinking: ClassVar[bool] = True

    def _begin(self, last: Message | None, think: Think | None) -> None:
        self._stage = self._looking if think is False else self._thinking


PARSERS: dict[str, ParserFactory] = {"glm-4.7": Glm47Parser, "glm-ocr": GlmOcrParser}
