"""What the parsers of marked-up answers share: a buffer, and the stage that reads it. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from ollamad.parsing.events import Content, Event, Thinking
from ollamad.parsing.withholding import Held, Split, first_tag, hold, hold_tag, remainder
from ollamad.wire import Message, Think, Tool

#: Reads what it can of the buffer; true if it, or the stage it has set, can read on at once.
#: Its argument: nothing follows, so nothing may stay in the buffer.
Stage = Callable[[bool], bool]


class StagedParser(ABC):
    """Base of parsers that go from stage to stage at tags; see the Parser protocol.

    A stage decides on complete tags only, so the events do not depend on how the text was cut.
    Where the reference drops the whitespace after a tag "as far as already in the buffer", all of
    it goes until text arrives.
    """

    has_tools: ClassVar[bool] = True
    has_thinking: ClassVar[bool] = False
    preserved_tokens: ClassVar[tuple[str, ...]] = ()
    #: Whitespace at the end of an answer is given; otherwise it is dropped.
    keeps_last_space: ClassVar[bool] = False

    def __init__(self) -> None:
        self._tools: Sequence[Tool] = ()
        self._buffer = ""
        self._stage: Stage = self._content
        self._skips_space = False
        self._gap = ""  # whitespace dropped before the last tag, put back if it begins no call
        self._searched = 0  # so much of the buffer holds none of the tags awaited
        self._events: list[Event] = []

    def start(
        self, tools: Sequence[Tool], last: Message | None, think: Think | None
    ) -> Sequence[Tool]:
        """See Parser.start; here the tools keep their names."""
        self._tools = tools
        self._begin(last, think)
        return tools

    def feed(self, text: str) -> list[Event]:
        """See Parser.feed."""
        self._buffer += text
        return self._run(False)

    def finish(self) -> list[Event]:
        """See Parser.finish."""
        return self._run(True)

    def _begin(self, last: Message | None, think: Think | None) -> None:  # noqa: B027 (optional)
        """Choose the first stage, if it is not the content."""

    @abstractmethod
    def _content(self, done: bool) -> bool:
        """The stage outside of all tags, with which an answer begins."""

    def _run(self, done: bool) -> list[Event]:
        while True:
            if self._skips_space:
                self._buffer = self._buffer.lstrip()
                self._skips_space = not self._buffer
                if self._skips_space and not done:
                    break
            if not self._stage(done):
                break
        events, self._events = self._events, []
        return events

    def _go(self, stage: Stage, *, skip_space: bool = False) -> bool:
        """Go to ``stage``; with ``skip_space`` the whitespace before it is dropped. True."""
        self._stage = stage
        self._skips_space = skip_space
        self._searched = 0
        return True

    def _say(self, kind: type[Content] | type[Thinking], text: str) -> None:
        if text:
            self._events.append(kind(text))

    def _await(self, tags: Sequence[str]) -> Split | None:
        """The buffer split at the first of ``tags``; of a growing one only the new end is searched.

        For a stage that leaves the buffer as it is until a tag has come.
        """
        at = max(0, self._searched - max(map(len, tags)))
        split = first_tag(self._buffer[at:], tags)
        if split is None:
            self._searched = len(self._buffer)
            return None
        self._searched = 0
        return split._replace(before=self._buffer[:at] + split.before)

    def _stream(
        self,
        kind: type[Content] | type[Thinking],
        tags: Sequence[str],
        done: bool,
        *,
        loose: Sequence[str] = (),
    ) -> str | None:
        """Pass on the text before the first of ``tags``; the tag, or None if more text is needed.

        The whitespace before a tag is dropped unless the tag is ``loose``.
        """
        split = first_tag(self._buffer, tags)
        if split is not None:
            show = split.before if split.tag in loose else split.before.rstrip()
            self._gap, self._buffer = split.before[len(show) :], split.after
            self._say(kind, show)
            return split.tag
        held = (hold_tag if len(loose) == len(tags) else hold)(self._buffer, tags)
        if done:
            last = held.keep if self.keeps_last_space else remainder(held.keep)
            held = Held(held.show + last, "")
        self._buffer = held.keep
        self._say(kind, held.show)
        return None
