"""olmo3 and olmo3-think. Pure. Source: renderers-and-parsers.md 3.9.

Unlike the reference: a block with anything but calls, or without an end, is content as a whole; a
quoted argument may hold line breaks.
"""

from __future__ import annotations

from typing import ClassVar

from ollamad.parsing.events import Call, Content, ParserFactory, Thinking
from ollamad.parsing.families.stages import StagedParser
from ollamad.parsing.python_call import read_call
from ollamad.parsing.start import continues_answer
from ollamad.wire import Message, Think

_CALLS, _CALLS_END = "<function_calls>", "</function_calls>"
_THINK_END = "</think>"


class Olmo3Parser(StagedParser):
    """Content and blocks of calls, one on each line."""

    preserved_tokens: ClassVar[tuple[str, ...]] = (_CALLS, _CALLS_END)

    def _content(self, done: bool) -> bool:
        tag = self._stream(Content, (_CALLS,), done, loose=(_CALLS,))
        return tag is not None and self._go(self._block)

    def _block(self, done: bool) -> bool:
        split = self._await((_CALLS_END,))
        if split is None:
            if done:
                self._say(Content, _CALLS + self._buffer)
                self._buffer = ""
            return False
        self._buffer = split.after
        try:
            self._events += _read(split.before)
        except ValueError:
            self._say(Content, _CALLS + split.before + _CALLS_END)
        return self._go(self._content)


def _read(text: str) -> list[Call]:
    """The calls of a block; raises ValueError if it holds anything else."""
    calls: list[Call] = []
    rest = text.strip()
    while rest:
        call, end = read_call(rest, 0, escapes=True)
        line_end = rest[end:].partition("\n")[0]
        if line_end.strip() or not _is_word(call.name):
            raise ValueError("no call")
        calls.append(call)
        rest = rest[end:].lstrip()
    return calls


def _is_word(name: str) -> bool:
    return name.replace("_", "a").isalnum()


class Olmo3ThinkParser(StagedParser):
    """Thinking up to ``</think>``, then content, whatever ``think`` is."""

    has_tools: ClassVar[bool] = False
    has_thinking: ClassVar[bool] = True
    preserved_tokens: ClassVar[tuple[str, ...]] = (_THINK_END,)

    def _begin(self, last: Message | None, think: Think | None) -> None:
        if not continues_answer(last):
            self._stage = self._thinking

    def _thinking(self, done: bool) -> bool:
        if self._stream(Thinking, (_THINK_END,), done):
            return self._go(self._content, skip_space=True)
        return False

    def _content(self, done: bool) -> bool:
        self._say(Content, self._buffer)
        self._buffer = ""
        return False


PARSERS: dict[str, ParserFactory] = {"olmo3": Olmo3Parser, "olmo3-think": Olmo3ThinkParser}
