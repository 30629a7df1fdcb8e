"""The current day, which prompts may hold and which what makes them must be told."""

from __future__ import annotations

from typing import Protocol


class Day(Protocol):
    """A calendar day: what a prompt needs of ``datetime.date``."""

    def isoformat(self) -> str: ...

    def toordinal(self) -> int: ...

    @classmethod
    def fromordinal(cls, ordinal: int, /) -> Day: ...
