"""Go's quoted strings: read as in source text, written as ``%q`` does (prompting 2.1, 2.5). Pure.

A byte that is no part of valid UTF-8 is held in text as Python's surrogate escape, so that texts
can be cut at any byte and joined again.
"""

from __future__ import annotations

_SIMPLE = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92}
_HEX = {"x": 2, "u": 4, "U": 8}
_NAMED = {code: "\\" + name for name, code in _SIMPLE.items()}
_INVALID = "invalid syntax"


def encode_text(text: str) -> bytes:
    """The bytes that ``text`` stands for; half of a surrogate pair from elsewhere is U+FFFD."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return "".join(
            "\ufffd" if "\ud800" <= c <= "\udfff" and not "\udc80" <= c <= "\udcff" else c
            for c in text
        ).encode("utf-8", "surrogateescape")


def decode_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def unquoted(text: str) -> str:
    """The value of a ``"quoted"`` or a raw string with its quotes; raises ValueError."""
    if text.startswith("`"):
        return text[1:-1].replace("\r", "")
    if "\\" not in text:
        return text[1:-1]
    parts: list[str] = []
    position, end = 1, len(text) - 1
    while position < end:
        kind = text[position + 1] if text[position] == "\\" else ""
        code, position = unquoted_character(text, position, '"')
        # \x and octal escapes are bytes, all others are characters.
        is_byte = (kind == "x" or kind.isdecimal()) and code >= 0x80
        parts.append(chr(0xDC00 + code) if is_byte else chr(code))
    joined = "".join(parts)
    return joined if joined.isascii() else decode_text(encode_text(joined))


def unquoted_character(text: str, position: int, quote: str) -> tuple[int, int]:
    """The character or byte at ``position``, escapes resolved, and the position after it.

    Raises ValueError for an escape that does not exist, and for a bare ``quote``.
    """
    if position >= len(text) or text[position] == quote:
        raise ValueError(_INVALID)
    character = text[position]
    if character != "\\":
        return ord(character), position + 1
    escape = text[position + 1 : position + 2]
    if escape in _SIMPLE:
        return _SIMPLE[escape], position + 2
    if escape and escape == quote:
        return ord(escape), position + 2
    if escape in _HEX:
        start, base, size = position + 2, 16, _HEX[escape]
    elif escape and escape in "01234567":
        start, base, size = position + 1, 8, 3
    else:
        raise ValueError(_INVALID)
    digits = text[start : start + size]
    allowed = "0123456789abcdefABCDEF" if base == 16 else "01234567"
    if len(digits) < size or any(digit not in allowed for digit in digits):
        raise ValueError(_INVALID)
    code = int(digits, base)
    is_character = escape in "uU"
    if code > (0x10FFFF if is_character else 0xFF) or (is_character and 0xD800 <= code <= 0xDFFF):
        raise ValueError(_INVALID)
    return code, start + size


def quote(text: str, *, ascii_only: bool = False) -> str:
    """``text`` in double quotes as ``%q`` writes it (``%+q`` with ``ascii_only``)."""
    return '"' + "".join(_escaped(c, '"', ascii_only) for c in text) + '"'


def quote_character(code: int, *, ascii_only: bool = False) -> str:
    """A character constant as ``%q`` of an integer writes it; U+FFFD for what is none."""
    if not 0 <= code <= 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        code = 0xFFFD
    return "'" + _escaped(chr(code), "'", ascii_only) + "'"


def is_printable(character: str) -> bool:
    """Letters, marks, numbers, punctuation, symbols and the ASCII space, as Go has it."""
    return character.isprintable()


def _escaped(character: str, mark: str, ascii_only: bool) -> str:
    code = ord(character)
    if character in (mark, "\\"):
        return "\\" + character
    if (code < 0x80 or not ascii_only) and is_printable(character):
        return character
    if code in _NAMED:
        return _NAMED[code]
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
