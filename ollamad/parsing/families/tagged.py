"""``<think>…</think>``, text, ``<tool_call>…</tool_call>``: Qwen's and Nemotron's parsers.

Source: renderers-and-parsers.md 3.1 to 3.4 and 3.10. Where the reference trims "as far as already
in the buffer", whitespace is dropped until text arrives, so that the cuts do not matter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum, auto
from typing import ClassVar

from ollamad.parsing.events import Content, Event, Thinking
from ollamad.parsing.start import continues_answer
from ollamad.parsing.withholding import first_tag, hold, may_begin, remainder
from ollamad.wire import Message, Think, Tool

THINK, THINK_END = "<think>", "</think>"
CALL, CALL_END = "<tool_call>", "</tool_call>"


class _State(Enum):
    OPENING = auto()  # before the reasoning's first character
    THINKING = auto()
    CONTENT = auto()
    CALL = auto()


class TaggedParser(ABC):
    """The states; a family says how the answer begins and what stands between the call tags."""

    has_tools: ClassVar[bool] = True
    has_thinking: ClassVar[bool] = False
    preserved_tokens: ClassVar[tuple[str, ...]] = (THINK, THINK_END, CALL, CALL_END)
    #: One opening tag at the very start of the reasoning is dropped, with the whitespace around.
    drops_opening_tag: ClassVar[bool] = False
    #: Whitespace at the start of the reasoning is dropped even without an opening tag.
    drops_leading_space: ClassVar[bool] = False

    def __init__(self) -> None:
        self._buffer = ""
        self._state = _State.CONTENT
        self._eating = False
        self._gap = ""  # whitespace dropped before a call, put back if it is none
        self._tools: Sequence[Tool] = ()

    def start(
        self, tools: Sequence[Tool], last: Message | None, think: Think | None
    ) -> Sequence[Tool]:
        """See ``Parser``: the tools as they are."""
        self._tools = tools
        if self.has_thinking and self.starts_thinking(last, think):
            self._state = _State.OPENING
        return tools

    def starts_thinking(self, last: Message | None, think: Think | None) -> bool:
        """Whether the prompt has already opened the reasoning."""
        return think is not False and not continues_answer(last)

    @abstractmethod
    def read_calls(self, text: str, tools: Sequence[Tool]) -> list[Event]:
        """The events that ``text`` between the call tags is; ValueError if it is no call."""

    def feed(self, text: str) -> list[Event]:
        """See ``Parser``."""
        self._buffer += text
        events: list[Event] = []
        while self._advanced(events):
            pass
        return events

    def finish(self) -> list[Event]:
        """See ``Parser``: a call that was not closed is content."""
        rest = remainder(self._buffer)
        self._buffer = ""
        if self._state is _State.CALL:
            return [Content(self._gap + CALL + rest)]
        if not rest:
            return []
        in_thinking = self._state in (_State.OPENING, _State.THINKING)
        return [Thinking(rest) if in_thinking else Content(rest)]

    def _advanced(self, events: list[Event]) -> bool:
        """Go on to another state; False if that needs more text."""
        if self._eating:
            self._buffer = self._buffer.lstrip()
            self._eating = not self._buffer
        if not self._buffer:
            return False
        match self._state:
            case _State.OPENING:
                return self._open()
            case _State.THINKING:
                return self._think(events)
            case _State.CONTENT:
                return self._write(events)
            case _State.CALL:
                return self._call(events)

    def _open(self) -> bool:
        text = self._buffer.lstrip()
        if self.drops_opening_tag:
            if may_begin(text, (THINK,)):
                return False
            if text.startswith(THINK):
                self._buffer = text[len(THINK) :]
                self._eating = True
        if self.drops_leading_space:
            self._eating = True
        self._state = _State.THINKING
        return True

    def _think(self, events: list[Event]) -> bool:
        found = first_tag(self._buffer, (THINK_END, CALL))
        if not found:
            show, self._buffer = hold(self._buffer, (THINK_END, CALL))
            if show:
                events.append(Thinking(show))
            return False
        if before := found.before.rstrip():
            events.append(Thinking(before))
        self._buffer = found.after
        if found.tag == CALL:
            self._gap, self._state = "", _State.CALL
        else:
            self._eating, self._state = True, _State.CONTENT
        return True

    def _write(self, events: list[Event]) -> bool:
        found = first_tag(self._buffer, (CALL,))
        if not found:
            show, self._buffer = hold(self._buffer, (CALL,))
            if show:
                events.append(Content(show))
            return False
        if before := found.before.rstrip():
            events.append(Content(before))
        self._gap, self._buffer = found.before[len(before) :], found.after
        self._state = _State.CALL
        return True

    def _call(self, events: list[Event]) -> bool:
        found = first_tag(self._buffer, (CALL_END,))
        if not found:
            return False
        try:
            events += self.read_calls(found.before, self._tools)
            self._eating = True
        except ValueError:
            events.append(Content(self._gap + CALL + found.before + CALL_END))
        self._buffer, self._state = found.after, _State.CONTENT
        return True
