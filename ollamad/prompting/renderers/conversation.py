"""What a renderer takes and what it is (renderers-and-parsers 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ollamad.prompting.day import Day
from ollamad.wire import Message, Think, Tool


class Conversation(NamedTuple):
    """Prepared messages, oldest first, and what was asked for with them.

    ``think`` is absent (``None``), off, on or a level: families treat the first two differently.
    ``tag_images``: write ``[img-N]`` where images stand; false while tokens are counted
    (prompting.md 5.2). ``today``: the local date, for families that write it.
    """

    messages: Sequence[Message]
    tools: Sequence[Tool]
    think: Think | None
    tag_images: bool
    today: Day | None = None


#: Raises OllamadError (500) for a conversation that the family's format has no place for.
Render = Callable[[Conversation], str]


class Renderer(NamedTuple):
    """One entry of the registry.

    ``leading_bos``: what is taken off the prompt's front when the tokenizer adds a BOS by itself
    (renderers-and-parsers 1.3). ``places_images``: the family has places for images (1.4); the
    others leave them out.
    """

    name: str
    render: Render
    leading_bos: str = ""
    places_images: bool = False


def is_on(think: Think | None) -> bool:
    """``think`` is true or a level."""
    return think is not None and think is not False


def last_index(messages: Sequence[Message], *roles: str) -> int:
    """The index of the last message with one of ``roles``, -1 when there is none."""
    return max((i for i, message in enumerate(messages) if message.role in roles), default=-1)
