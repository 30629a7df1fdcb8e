"""ministral. Pure. Source: renderers-and-parsers.md 3.13.

Unlike the reference: a call of an undeclared tool, or one that is no JSON object, is content, and
tags count in the order in which they stand.
"""

from __future__ import annotations

from typing import ClassVar

from ollamad.parsing.call_objects import ObjectScanner, read_object
from ollamad.parsing.declared import find_tool
from ollamad.parsing.events import Call, Content, ParserFactory, Thinking
from ollamad.parsing.families.stages import StagedParser

_CALL, _ARGUMENTS = "[TOOL_CALLS]", "[ARGS]"
_THINK, _THINK_END = "[THINK]", "[/THINK]"


class MinistralParser(StagedParser):
    """Content, thinking between tags, and calls without a closing tag."""

    preserved_tokens: ClassVar[tuple[str, ...]] = (_CALL, _THINK, _THINK_END, _ARGUMENTS)

    def __init__(self) -> None:
        super().__init__()
        self._head = ""  # a call's text before its object
        self._scanner = ObjectScanner(0)

    def _content(self, done: bool) -> bool:
        tag = self._stream(Content, (_CALL, _THINK), done)
        return tag is not None and self._go(self._name if tag == _CALL else self._thinking)

    def _thinking(self, done: bool) -> bool:
        if self._stream(Thinking, (_THINK_END,), done, loose=(_THINK_END,)):
            return self._go(self._content, skip_space=True)
        return False

    def _name(self, done: bool) -> bool:
        split = self._await((_ARGUMENTS, _CALL, _THINK))
        if split is not None and split.tag == _ARGUMENTS:
            self._head, self._buffer = split.before, split.after
            self._scanner = ObjectScanner(0)
            return self._go(self._arguments)
        if split is None and not done:
            return False
        text = split.before if split else self._buffer
        self._say(Content, self._gap + _CALL + text)
        self._buffer = self._buffer[len(text) :]
        return self._go(self._content)

    def _arguments(self, done: bool) -> bool:
        text = self._buffer.lstrip()
        if not done and not text:
            return False
        if text.startswith("{"):
            end = self._scanner.end(text)
            if end is None and not done:
                return False
            value, name = read_object(text[:end]), self._head.strip()
            if value is not None and find_tool(self._tools, name):
                self._events.append(Call(name, value))
                self._buffer = text[end:]
                return self._go(self._content)
        # No call: its text is content, and tags may follow in what is left.
        self._say(Content, self._gap + _CALL + self._head + _ARGUMENTS)
        return self._go(self._content)


PARSERS: dict[str, ParserFactory] = {"ministral": MinistralParser}
