"""Where the first JSON value of a file ends, or why there is none, in the reference's words. Pure.

Runs only on files that the fast decoder refused: it is a scan byte by byte with its own stack, so
nesting cannot exhaust Python's.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_MAX_DEPTH = 10_000
_BLANKS = re.compile(rb"[ \t\r\n]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_DIGITS = re.compile(rb"[0-9]*")
_HEX = b"0123456789abcdefABCDEF"
_SHOWN = dict(zip(b"'\\\a\b\t\n\v\f\r", ("\\" + letter for letter in "'\\abtnvfr"), strict=True))


class FirstValue(NamedTuple):
    """``raw[start:end]`` is the value; or ``error`` says what is wrong."""

    start: int
    end: int
    error: str | None


class _SyntaxError(Exception):
    pass


def first_value(raw: bytes) -> FirstValue:
    """Find the first JSON value in ``raw``."""
    start = _skip_blanks(raw, 0)
    if start == len(raw):
        return FirstValue(start, start, "EOF")
    try:
        return FirstValue(start, _scan(raw, start), None)
    except _SyntaxError as error:
        return FirstValue(start, start, str(error))


def _skip_blanks(raw: bytes, at: int) -> int:
    blanks = _BLANKS.match(raw, at)
    return blanks.end() if blanks else at


def _byte(raw: bytes, at: int) -> int:
    if at >= len(raw):
        raise _SyntaxError("unexpected EOF")
    return raw[at]


def _invalid(byte: int, context: str) -> _SyntaxError:
    default = chr(byte) if chr(byte).isprintable() else f"\\x{byte:02x}"
    return _SyntaxError(f"invalid character '{_SHOWN.get(byte, default)}' {context}")


def _scan(raw: bytes, at: int) -> int:
    """The end of the value that starts at ``at``."""
    closers: list[int] = []
    while True:
        at = _skip_blanks(raw, at)
        byte = _byte(raw, at)
        if byte in b"{[":
            closers.append(byte + 2)
            if len(closers) > _MAX_DEPTH:
                raise _SyntaxError("exceeded max depth")
            at = _skip_blanks(raw, at + 1)
            if _byte(raw, at) != closers[-1]:
                if byte == ord("{"):
                    at = _key(raw, at)
                continue
            closers.pop()
            at += 1
        else:
            at = _scalar(raw, at)
        while closers:
            at = _skip_blanks(raw, at)
            byte = _byte(raw, at)
            at += 1
            in_object = closers[-1] == ord("}")
            if byte == closers[-1]:
                closers.pop()
            elif byte == ord(","):
                if in_object:
                    at = _key(raw, _skip_blanks(raw, at))
                break
            else:
                place = "object key:value pair" if in_object else "array element"
                raise _invalid(byte, f"after {place}")
        else:
            return at


def _key(raw: bytes, at: int) -> int:
    """The place after ``"key":``."""
    if _byte(raw, at) != ord('"'):
        raise _invalid(raw[at], "looking for beginning of object key string")
    at = _skip_blanks(raw, _string(raw, at))
    if _byte(raw, at) != ord(":"):
        raise _invalid(raw[at], "after object key")
    return at + 1


def _scalar(raw: bytes, at: int) -> int:
    byte = raw[at]
    if byte == ord('"'):
        return _string(raw, at)
    if byte == ord("-") or 0x30 <= byte <= 0x39:
        return _number(raw, at)
    for literal in (b"true", b"false", b"null"):
        if byte == literal[0]:
            for offset, wanted in enumerate(literal):
                if _byte(raw, at + offset) != wanted:
                    context = f"in literal {literal.decode()} (expecting '{chr(wanted)}')"
                    raise _invalid(raw[at + offset], context)
            return at + len(literal)
    raise _invalid(byte, "looking for beginning of value")


def _string(raw: bytes, at: int) -> int:
    at += 1
    while True:
        plain = _PLAIN.match(raw, at)
        at = plain.end() if plain else at
        byte = _byte(raw, at)
        if byte == ord('"'):
            return at + 1
        if byte != ord("\\"):
            raise _invalid(byte, "in string literal")
        escape = _byte(raw, at + 1)
        if escape == ord("u"):
            for place in range(at + 2, at + 6):
                if _byte(raw, place) not in _HEX:
                    raise _invalid(raw[place], r"in \u hexadecimal character escape")
            at += 6
        elif escape in b'bfnrt\\/"':
            at += 2
        else:
            raise _invalid(escape, "in string escape code")


def _number(raw: bytes, at: int) -> int:
    if raw[at] == ord("-"):
        at += 1
    if _byte(raw, at) == ord("0"):
        at += 1
    else:
        at = _digits(raw, at, "in numeric literal")
    if at < len(raw) and raw[at] == ord("."):
        at = _digits(raw, at + 1, "after decimal point in numeric literal")
    if at < len(raw) and raw[at] in b"eE":
        at += 1
        if _byte(raw, at) in b"+-":
            at += 1
        at = _digits(raw, at, "in exponent of numeric literal")
    return at


def _digits(raw: bytes, at: int, context: str) -> int:
    digits = _DIGITS.match(raw, at)
    end = digits.end() if digits else at
    if end == at:
        raise _invalid(_byte(raw, at), context)
    return end
