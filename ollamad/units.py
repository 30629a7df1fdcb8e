"""Sizes, counts, ages and durations as people read and write them (``cli.md`` 10 and 5.4).

Pure; imports next to nothing, because the command line starts with it. Times are Unix nanoseconds,
durations nanoseconds, sizes bytes.
"""

from __future__ import annotations

from typing import Final

NANOSECOND: Final = 1
MICROSECOND: Final = 1_000
MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE

_UNITS: Final = {
    "ns": NANOSECOND,
    "us": MICROSECOND,
    "\u00b5s": MICROSECOND,  # micro sign
    "\u03bcs": MICROSECOND,  # Greek mu
    "ms": MILLISECOND,
    "s": SECOND,
    "m": MINUTE,
    "h": HOUR,
}
_INT64_MAX: Final = 2**63 - 1
_DIGITS: Final = "0123456789"


def human_bytes(size: int) -> str:
    """Decimal units as in tables: ``999 B``, ``1.5 KB``, ``15 GB``. From 10 on truncated."""
    if size < 1000:
        return f"{size} B"
    divisor, unit = 1000, "KB"
    for larger in ("MB", "GB", "TB"):
        if size < divisor * 1000:
            break
        divisor, unit = divisor * 1000, larger
    value = size / divisor
    if value >= 10:
        return f"{int(value)} {unit}"
    return f"{int(value)} {unit}" if size % divisor == 0 else f"{value:.1f} {unit}"


def human_gib(size: int) -> str:
    """Binary units as in logs and memory errors: ``1023 B``, ``1.0 KiB``, ``2.0 GiB``."""
    for divisor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= divisor:
            return f"{size / divisor:.1f} {unit}"
    return f"{size} B"


def human_number(count: int) -> str:
    """Parameter counts: ``999``, ``1K``, ``133.70M``, ``2.8B``."""
    for divisor, unit, decimals in ((10**9, "B", 1), (10**6, "M", 2)):
        if count >= divisor:
            return f"{count / divisor:.{0 if count % divisor == 0 else decimals}f}{unit}"
    return f"{count / 1000:.0f}K" if count >= 1000 else str(count)


def human_time(moment: int | None, now: int, zero: str) -> str:
    """How far ``moment`` is from ``now``: ``2 days ago``, ``4 minutes from now``, ``Forever``.

    ``zero`` is the text for None, the time that was never set.
    """
    if moment is None:
        return zero
    if moment - now >= 21 * 365 * 24 * HOUR:
        return "Forever"
    if moment > now:
        return f"{_human_span(moment - now)} from now"
    return f"{_human_span(now - moment)} ago"


def _human_span(span: int) -> str:
    seconds = span // SECOND
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    minutes = seconds // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    # Minutes are cut, hours are rounded: 89 minutes are an hour, 90 are two.
    hours = (span + HOUR // 2) // HOUR
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // (24 * 7)} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // (24 * 30)} months"
    return f"{span // HOUR // (24 * 365)} years"


def parse_duration(text: str) -> int:
    """Nanoseconds of ``1h30m``, ``1.5h``, ``-300ms``, ``0``.

    Raises ValueError with the texts of ``http-api.md`` 8.2: ``time: invalid duration "abc"``,
    ``time: missing unit in duration "10"``, ``time: unknown unit "x" in duration "5x"``. Counts
    beyond 64 signed bits are invalid durations.
    """
    invalid = f"time: invalid duration {_quoted(text)}"
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(invalid)
    total = 0
    while rest:
        whole, rest = _split(rest, _DIGITS)
        fraction = ""
        if rest[:1] == ".":
            fraction, rest = _split(rest[1:], _DIGITS)
        if not whole and not fraction:
            raise ValueError(invalid)
        name, rest = _split_unit(rest)
        if not name:
            raise ValueError(f"time: missing unit in duration {_quoted(text)}")
        unit = _UNITS.get(name)
        if unit is None:
            raise ValueError(f"time: unknown unit {_quoted(name)} in duration {_quoted(text)}")
        # A length check keeps huge digit strings from becoming huge integers.
        if len(whole.lstrip("0")) > 19:
            raise ValueError(invalid)
        total += int(whole or "0") * unit + _fraction(fraction, unit)
        if total > _INT64_MAX + 1:
            raise ValueError(invalid)
    if text[0] == "-":
        return -total
    if total > _INT64_MAX:
        raise ValueError(invalid)
    return total


def format_duration(nanoseconds: int) -> str:
    """Canonical text: ``0s``, ``113.2ms``, ``1m2.5s``, ``1h0m0s``; `parse_duration` reads it."""
    if nanoseconds < 0:
        return f"-{format_duration(-nanoseconds)}"
    if nanoseconds < SECOND:
        if nanoseconds == 0:
            return "0s"
        if nanoseconds < MICROSECOND:
            return f"{nanoseconds}ns"
        if nanoseconds < MILLISECOND:
            return f"{_decimal(nanoseconds, MICROSECOND, 3)}\u00b5s"
        return f"{_decimal(nanoseconds, MILLISECOND, 6)}ms"
    minutes, rest = divmod(nanoseconds, MINUTE)
    seconds = f"{_decimal(rest, SECOND, 9)}s"
    if not minutes:
        return seconds
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}"


def _decimal(value: int, unit: int, digits: int) -> str:
    whole, rest = divmod(value, unit)
    return f"{whole}.{rest:0{digits}d}".rstrip("0").rstrip(".")


def _split(text: str, characters: str) -> tuple[str, str]:
    rest = text.lstrip(characters)
    return text[: len(text) - len(rest)], rest


def _split_unit(text: str) -> tuple[str, str]:
    end = next((i for i, c in enumerate(text) if c == "." or c in _DIGITS), len(text))
    return text[:end], text[end:]


def _fraction(digits: str, unit: int) -> int:
    # 18 digits are more than any unit can show; binary floats as in the reference.
    digits = digits[:18]
    return int(int(digits) * (unit / 10 ** len(digits))) if digits else 0


def _quoted(text: str) -> str:
    """Double quotes around ``text``, its UTF-8 bytes beyond ASCII and controls as ``\\xhh``."""
    shown = []
    for byte in text.encode("utf-8", "surrogateescape"):
        if byte < 0x20 or byte >= 0x80:
            shown.append(f"\\x{byte:02x}")
        else:
            shown.append(f"\\{chr(byte)}" if byte in b'"\\' else chr(byte))
    return f'"{"".join(shown)}"'
