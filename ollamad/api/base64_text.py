"""Binary fields: standard base64 with padding, nothing else (http-api.md 3.1.9). Pure."""

from __future__ import annotations

import binascii
import re
from itertools import islice

from ollamad.errors import BadRequest

_LINE_BREAKS = b"\r\n"
_NO_DIGIT = re.compile(rb"[^A-Za-z0-9+/\r\n]")
_NO_LINE_BREAK = re.compile(rb"[^\r\n]")


def base64_bytes(text: str) -> bytes:
    """The bytes of ``text``. Line breaks are skipped.

    Raises BadRequest with the offset of the first wrong byte.
    """
    compact = text.replace("\r", "").replace("\n", "")
    try:
        return binascii.a2b_base64(compact, strict_mode=True)
    except ValueError:
        offset = _wrong_byte(text.encode("utf-8", "replace"))
        raise BadRequest(f"illegal base64 data at input byte {offset}") from None


def _wrong_byte(raw: bytes) -> int:
    """The offset that the reference names: of the offending byte, or of a group that is cut off."""
    wrong = _NO_DIGIT.search(raw)
    end = wrong.start() if wrong else len(raw)
    digits = end - raw.count(b"\r", 0, end) - raw.count(b"\n", 0, end)
    if wrong:
        return _wrong_padding(raw, end, digits % 4) if wrong[0] == b"=" else end
    # No byte is wrong, so the last group of four is not complete: where does it start?
    rest = raw
    for _ in range(digits % 4):
        rest = rest.rstrip(_LINE_BREAKS)[:-1]
    return len(rest.rstrip(_LINE_BREAKS))


def _wrong_padding(raw: bytes, at: int, digits: int) -> int:
    """``at`` is the first padding byte, after ``digits`` digits of its group."""
    if digits < 2:
        return at
    # The padding byte and what follows it, without line breaks: more than two tell nothing.
    rest = [place.start() for place in islice(_NO_LINE_BREAK.finditer(raw, at), 3)]
    if digits == 2:
        if len(rest) < 2:
            return len(raw)
        if raw[rest[1]] != ord("="):
            return rest[1] - 1
    wanted = 4 - digits
    return rest[wanted] if len(rest) > wanted else at
