"""Times in the server's answers: RFC 3339 with nanoseconds and offsets. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))?",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = 1_000_000_000


def unix_ns(text: str) -> int | None:
    """Unix nanoseconds, or None for the time that was never set (the year 1) and for no time."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    try:
        moment = datetime(*map(int, match.group(1, 2, 3, 4, 5, 6)), tzinfo=UTC)  # type: ignore[misc, arg-type]
    except ValueError:
        return None
    if moment.year <= 1:
        return None
    since = moment - _EPOCH
    seconds = since.days * 86_400 + since.seconds
    if match[8]:
        offset = int(match[9]) * 3600 + int(match[10]) * 60
        seconds += offset if match[8] == "-" else -offset
    return seconds * _SECOND + int((match[7] or "").ljust(9, "0")[:9])
