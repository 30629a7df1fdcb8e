"""passthrough: the answer is content as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from ollamad.parsing.events import Content, Event, ParserFactory
from ollamad.wire import Message, Think, Tool


class Passthrough:
    """No tools, no reasoning."""

    has_tools: ClassVar[bool] = False
    has_thinking: ClassVar[bool] = False
    preserved_tokens: ClassVar[tuple[str, ...]] = ()

    def start(
        self, tools: Sequence[Tool], last: Message | None, think: Think | None
    ) -> Sequence[Tool]:
        """See ``Parser``."""
        return tools

    def feed(self, text: str) -> list[Event]:
        """See ``Parser``."""
        return [Content(text)] if text else []

    def finish(self) -> list[Event]:
        """See ``Parser``."""
        return []


PARSERS: Mapping[str, ParserFactory] = {"passthrough": Passthrough}
