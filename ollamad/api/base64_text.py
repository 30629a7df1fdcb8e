"""Binary fields: standard base64 with padding, nothing else (http-api.md 3.1.9). Pure."""

from __future__ import annotations

import binascii

from ollamad.errors import BadRequest

_DIGITS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
_LINE_BREAKS = b"\r\n"


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
    digits = 0
    group = 0  # where the present group of four starts
    for at, byte in enumerate(raw):
        if byte in _LINE_BREAKS:
            continue
        if byte in _DIGITS:
            digits += 1
            if digits % 4 == 0:
                group = at + 1
            continue
        return _wrong_padding(raw, at, digits % 4) if byte == ord("=") else at
    return group


def _wrong_padding(raw: bytes, at: int, digits: int) -> int:
    """``at`` is the first padding byte, after ``digits`` digits of its group."""
    if digits < 2:
        return at
    rest = [place for place in range(at, len(raw)) if raw[place] not in _LINE_BREAKS]
    if digits == 2:
        if len(rest) < 2:
            return len(raw)
        if raw[rest[1]] != ord("="):
            return rest[1] - 1
    wanted = 4 - digits
    return rest[wanted] if len(rest) > wanted else at
