"""Times as the API writes them: RFC 3339, trailing zeros of nanoseconds cut (http-api.md 3.2.5)."""

from __future__ import annotations

import time
from datetime import datetime

_SECOND = 1_000_000_000


def _fraction(nanoseconds: int) -> str:
    return f".{nanoseconds:09d}".rstrip("0").rstrip(".")


class UtcClock:
    """Formats the present time; the part before the fraction is made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def now(self) -> str:
        """For example ``2026-08-22T01:48:00.12345Z``."""
        return self.format(time.time_ns())

    def format(self, unix_ns: int) -> str:
        second, rest = divmod(unix_ns, _SECOND)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}{_fraction(rest)}Z"


def local_time(unix_ns: int) -> str:
    """In the local zone with a numeric offset, ``Z`` when that is UTC.

    A time that the platform's calendar cannot express (a model kept forever lies 292 years ahead)
    still comes out right: only its offset is that of UTC.
    """
    second, rest = divmod(unix_ns, _SECOND)
    try:
        moment = datetime.fromtimestamp(second).astimezone()
    except (OverflowError, OSError, ValueError):
        return UtcClock().format(unix_ns)
    offset = moment.strftime("%z")
    zone = "Z" if offset in ("+0000", "-0000") else f"{offset[:3]}:{offset[3:5]}"
    return f"{moment.strftime('%Y-%m-%dT%H:%M:%S')}{_fraction(rest)}{zone}"
