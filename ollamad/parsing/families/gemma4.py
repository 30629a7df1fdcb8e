"""gemma4: reasoning in ``<|channel>thought``, calls in ``<|tool_call>``, text between.

Source: renderers-and-parsers.md 3.5 (parser). Unlike the reference, whitespace around tags goes
however the text was cut, and the tag that begins first counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import ClassVar

from ollamad.parsing.events import Content, Event, ParserFactory, Thinking
from ollamad.parsing.families.gemma4_call import QUOTE, read_call
from ollamad.parsing.start import thinking_is_on
from ollamad.parsing.withholding import first_tag, hold, may_begin, partial_tag
from ollamad.wire import Message, Think, Tool

CHANNEL, CHANNEL_END = "<|channel>", "<channel|>"
CALL, CALL_END, RESPONSE = "<|tool_call>", "<tool_call|>", "<|tool_response>"
_CHANNEL_NAME = "thought\n"


class _State(Enum):
    CONTENT = auto()
    CHANNEL_NAME = auto()
    THINKING = auto()
    CALL = auto()
    AFTER_CALL = auto()


class Gemma4:
    """Reasoning is given if it is on, otherwise dropped."""

    has_tools: ClassVar[bool] = True
    has_thinking: ClassVar[bool] = True
    preserved_tokens: ClassVar[tuple[str, ...]] = (
        CHANNEL,
        CHANNEL_END,
        CALL,
        CALL_END,
        RESPONSE,
        QUOTE,
    )

    def __init__(self) -> None:
        self._buffer = ""
        self._state = _State.CONTENT
        self._eating = False
        self._gap = ""  # whitespace dropped before a call, put back if it is none
        self._tools: Sequence[Tool] = ()
        self._reports_thinking = False

    def start(
        self, tools: Sequence[Tool], last: Message | None, think: Think | None
    ) -> Sequence[Tool]:
        """See ``Parser``: the tools as they are."""
        self._tools = tools
        self._reports_thinking = self.has_thinking and thinking_is_on(think)
        if self._reports_thinking and last is not None and last.role == "tool":
            # The prompt ends inside the channel, after its name.
            self._state = _State.THINKING
        return tools

    def feed(self, text: str) -> list[Event]:
        """See ``Parser``."""
        self._buffer += text
        events: list[Event] = []
        while self._advanced(events):
            pass
        return events

    def finish(self) -> list[Event]:
        """See ``Parser``: a call that was not closed counts if it can be read."""
        rest, self._buffer = self._buffer, ""
        match self._state:
            case _State.CALL:
                closing = partial_tag(rest, (CALL_END,))
                call = read_call(rest[: len(rest) - closing], self._tools)
                return [call or Content(self._gap + CALL + rest)]
            case _State.CHANNEL_NAME | _State.THINKING:
                return self._thought(rest)
            case _State.CONTENT | _State.AFTER_CALL:
                return [Content(rest)] if rest else []

    def _thought(self, text: str) -> list[Event]:
        return [Thinking(text)] if text and self._reports_thinking else []

    def _advanced(self, events: list[Event]) -> bool:
        """Go on to another state; False if that needs more text."""
        if self._eating:
            self._buffer = self._buffer.lstrip()
            self._eating = not self._buffer
        if not self._buffer:
            return False
        match self._state:
            case _State.CONTENT:
                return self._write(events)
            case _State.CHANNEL_NAME:
                if may_begin(self._buffer, (_CHANNEL_NAME,)):
                    return False
                self._buffer = self._buffer.removeprefix(_CHANNEL_NAME)
                self._state = _State.THINKING
                return True
            case _State.THINKING:
                return self._think(events)
            case _State.CALL:
                return self._call(events)
            case _State.AFTER_CALL:
                return self._skip()

    def _write(self, events: list[Event]) -> bool:
        found = first_tag(self._buffer, (CHANNEL, CALL))
        if not found:
            show, self._buffer = hold(self._buffer, (CHANNEL, CALL))
            if show:
                events.append(Content(show))
            return False
        if before := found.before.rstrip():
            events.append(Content(before))
        self._gap, self._buffer = found.before[len(before) :], found.after
        self._state = _State.CALL if found.tag == CALL else _State.CHANNEL_NAME
        return True

    def _think(self, events: list[Event]) -> bool:
        found = first_tag(self._buffer, (CHANNEL_END,))
        if not found:
            show, self._buffer = hold(self._buffer, (CHANNEL_END,))
            events += self._thought(show)
            return False
        events += self._thought(found.before.rstrip())
        self._buffer = found.after
        self._eating, self._state = True, _State.CONTENT
        return True

    def _call(self, events: list[Event]) -> bool:
        found = first_tag(self._buffer, (CALL_END,))
        if not found:
            return False
        call = read_call(found.before, self._tools)
        events.append(call or Content(self._gap + CALL + found.before + CALL_END))
        self._buffer = found.after
        self._eating, self._state = call is not None, _State.AFTER_CALL
        return True

    def _skip(self) -> bool:
        """Closing tags without a call, and the response's that the model is not to write."""
        for tag in (CALL_END, RESPONSE):
            if self._buffer.startswith(tag):
                self._buffer = self._buffer[len(tag) :]
                self._eating = True
                return True
        if may_begin(self._buffer, (CALL_END, RESPONSE)):
            return False
        self._state = _State.CONTENT
        return True


class Gemma4NoThinking(Gemma4):
    """Reasoning is always dropped."""

    has_thinking: ClassVar[bool] = False


PARSERS: Mapping[str, ParserFactory] = {"gemma4": Gemma4, "gemma4-no-thinking": Gemma4NoThinking}
