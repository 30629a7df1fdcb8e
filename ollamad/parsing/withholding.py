"""What of the text read so far may be shown, and what may yet turn out to be a tag. Pure.

Functions on (buffer, tags). A parser looks for a complete tag first; only when there is none it
shows what one of the two rules gives and keeps the rest as its buffer. Applied so, what comes out
does not depend on how the text was cut, as long as no tag is part of another.

Whitespace is Unicode whitespace. Source: renderers-and-parsers.md 1.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Split(NamedTuple):
    """A text around its first complete tag; nothing is trimmed."""

    before: str
    tag: str
    after: str


class Held(NamedTuple):
    """``show`` can be passed on now, ``keep`` is the new buffer."""

    show: str
    keep: str


def first_tag(text: str, tags: Sequence[str]) -> Split | None:
    """``text`` split at the tag that begins first, or None if it holds none of them."""
    found = [(at, tag) for tag in tags if (at := text.find(tag)) >= 0]
    if not found:
        return None
    at, tag = min(found, key=lambda place: (place[0], -len(place[1])))
    return Split(text[:at], tag, text[at + len(tag) :])


def up_to_tag(text: str, tags: Sequence[str]) -> Split:
    """``first_tag``, or rule N: ``before`` can be passed on, ``after`` is the new buffer.

    ``tag`` is empty while none has come.
    """
    split = first_tag(text, tags)
    if split is not None:
        return split
    held = hold_tag(text, tags)
    return Split(held.show, "", held.keep)


def partial_tag(text: str, tags: Sequence[str]) -> int:
    """The length of the longest end of ``text`` that is the beginning, not all, of a tag."""
    longest = 0
    for tag in tags:
        # From one of its first characters to the next: ordinary text holds none.
        at = text.find(tag[0], max(0, len(text) - len(tag) + 1))
        while 0 <= at < len(text) - longest:
            if tag.startswith(text[at:]):
                longest = len(text) - at
                break
            at = text.find(tag[0], at + 1)
    return longest


def may_begin(text: str, tags: Sequence[str]) -> bool:
    """Whether more text could still make one of ``tags`` of the whole of ``text``."""
    return any(len(text) < len(tag) and tag.startswith(text) for tag in tags)


def hold(buffer: str, tags: Sequence[str]) -> Held:
    """Rule H: a partial tag at the end is kept, and so is the whitespace at the end or before it.

    So whitespace before a tag that follows can be dropped with it.
    """
    show = _without_partial(buffer, tags).rstrip()
    return Held(show, buffer[len(show) :])


def hold_tag(buffer: str, tags: Sequence[str]) -> Held:
    """Rule N: only a partial tag at the end is kept."""
    show = _without_partial(buffer, tags)
    return Held(show, buffer[len(show) :])


def remainder(kept: str) -> str:
    """What of a kept buffer is text at the end of the answer: nothing if it is only whitespace."""
    return "" if kept.isspace() else kept


def _without_partial(buffer: str, tags: Sequence[str]) -> str:
    return buffer[: len(buffer) - partial_tag(buffer, tags)]
