"""When to read a stream of tokens next: at once, or with the tokens that follow.

Pure. A token that is passed on takes a core from the runner for a third of a millisecond, because
the model's weights have meanwhile pushed everything else out of the caches. Of a fast model several
tokens are therefore read together, fifty times a second: nobody reads faster, each keeps its own
event, and the model gets that time back.
"""

from __future__ import annotations

#: Seconds between two reads of a fast stream. Frames of all streams begin together, so that one
#: wake-up serves them all.
FRAME = 0.02

#: Events that are passed on as they come before any are gathered: a short answer is not delayed.
_AT_ONCE = 8

#: Seconds an event of streams so fast that what one read brings is many anyway.
_FASTEST = FRAME / 64


class Frames:
    """Of one stream. ``limit``: after how many events it ends at the latest, 0 or less: unknown."""

    __slots__ = ("_began", "_count", "_limit")

    def __init__(self, limit: int = 0) -> None:
        self._limit = limit
        self._count = 0
        self._began = 0.0

    def next_read(self, events: int, now: float) -> float | None:
        """When to read again after ``events`` more were read at ``now``; None: as soon as there is
        something. Times are seconds of one clock."""
        if not self._count:
            self._began = now
        self._count += events
        if self._count <= _AT_ONCE:
            return None
        pace = (now - self._began) / (self._count - 1)
        if not _FASTEST < pace <= FRAME / 2:
            return None
        # A clock that stands a hair before a frame has reached it.
        frame = (now / FRAME + 0.01) // 1 * FRAME + FRAME
        if 0 < self._limit <= self._count + (frame - now) / pace + 1:
            return None  # the end would have to wait
        return frame
