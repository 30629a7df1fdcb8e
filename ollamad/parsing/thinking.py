"""Reasoning in front of an answer, between the tags that the model's template uses. Pure.

For models without a parser of their own. Only reasoning with which the answer begins counts; tags
further on are text. Source: prompting.md 7.2 and 7.3.
"""

from __future__ import annotations

from enum import Enum, auto

from ollamad.parsing.events import Content, Event, Thinking
from ollamad.parsing.withholding import may_begin, up_to_tag


class _State(Enum):
    LOOKING = auto()
    AFTER_OPEN = auto()
    THINKING = auto()
    AFTER_CLOSE = auto()
    DONE = auto()


class ThinkingParser:
    """Splits one answer into reasoning and content.

    Whitespace after either tag is dropped, everything else is passed on as it is. Raises ValueError
    when a tag is empty.
    """

    def __init__(self, opening: str, closing: str) -> None:
        if not opening or not closing:
            raise ValueError("both tags around the reasoning must be known")
        self._opening = opening
        self._closing = closing
        self._state = _State.LOOKING
        self._buffer = ""

    def assume_open(self) -> None:
        """The prompt itself ended with the opening tag. To be called before ``feed``."""
        self._state = _State.AFTER_OPEN

    def feed(self, text: str) -> list[Event]:
        """The events that ``text`` completes. Never raises."""
        self._buffer += text
        events: list[Event] = []
        while self._step(events):
            pass
        return events

    def finish(self) -> list[Event]:
        """What was withheld: a part of the opening tag is content, one of the closing tag is
        reasoning; whitespace beside a tag is dropped."""
        kept, self._buffer = self._buffer, ""
        if not kept:
            return []
        if self._state is _State.THINKING:
            return [Thinking(kept)]
        return [Content(kept)]

    def _step(self, events: list[Event]) -> bool:
        """Take one step; whether there is another to try."""
        if self._state is _State.LOOKING:
            return self._look(events)
        if self._state in (_State.AFTER_OPEN, _State.AFTER_CLOSE):
            self._buffer = self._buffer.lstrip()
            if not self._buffer:
                return False
            after_open = self._state is _State.AFTER_OPEN
            self._state = _State.THINKING if after_open else _State.DONE
            return True
        if self._state is _State.THINKING:
            return self._think(events)
        if self._buffer:
            events.append(Content(self._buffer))
            self._buffer = ""
        return False

    def _look(self, events: list[Event]) -> bool:
        text = self._buffer.lstrip()
        if text.startswith(self._opening):
            self._buffer = text[len(self._opening) :]
            self._state = _State.AFTER_OPEN
            return True
        if may_begin(text, (self._opening,)):
            return False
        self._state = _State.DONE
        return True

    def _think(self, events: list[Event]) -> bool:
        split = up_to_tag(self._buffer, (self._closing,))
        if split.before:
            events.append(Thinking(split.before))
        self._buffer = split.after
        if not split.tag:
            return False
        self._state = _State.AFTER_CLOSE
        return True
