"""What a model said, in the order in which it said it: the output of every parser.

Pure. A parser takes the text of an answer in pieces, however cut, and never fails: what it cannot
make sense of comes out as content. Source: renderers-and-parsers.md 1.5, prompting.md 7 and 8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Protocol

import msgspec

from ollamad.wire import Message, Think, Tool


class Content(msgspec.Struct, frozen=True):
    """Text of the answer."""

    text: str


class Thinking(msgspec.Struct, frozen=True):
    """Text of the reasoning before, or between, the answer."""

    text: str


class Call(msgspec.Struct, frozen=True):
    """One tool call; ``arguments`` in the model's order."""

    name: str
    arguments: dict[str, Any]


Event = Content | Thinking | Call


class Parser(Protocol):
    """One answer's parser. However the text is cut, the events are the same once merged."""

    #: Whether the format has tool calls, and reasoning: what the model is then capable of.
    has_tools: ClassVar[bool]
    has_thinking: ClassVar[bool]
    #: Special tokens that the runner must leave in the text.
    preserved_tokens: ClassVar[tuple[str, ...]]

    def start(
        self, tools: Sequence[Tool], last: Message | None, think: Think | None
    ) -> Sequence[Tool]:
        """Prepare for an answer to a conversation that ends with ``last``.

        Returns the tools as the prompt shall name them. To be called once, before ``feed``.
        """
        ...

    def feed(self, text: str) -> list[Event]:
        """The events that ``text`` completes. Never raises."""
        ...

    def finish(self) -> list[Event]:
        """The answer has ended: what was withheld."""
        ...


#: Makes the parser of one answer: what a family's module gives for each of its names.
ParserFactory = Callable[[], Parser]


def merged(events: Iterable[Event]) -> list[Event]:
    """``events`` with neighbours of the same kind of text joined, empty ones left out."""
    result: list[Event] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, Call):
            result.append(event)
        elif isinstance(event, Content) and isinstance(last, Content):
            result[-1] = Content(last.text + event.text)
        elif isinstance(event, Thinking) and isinstance(last, Thinking):
            result[-1] = Thinking(last.text + event.text)
        elif event.text:
            result.append(event)
    return result
