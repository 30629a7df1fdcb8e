"""Strings and numbers under one verb of ``printf``, with flags, width and precision. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ollamad.gotemplate.numbers import format_float
from ollamad.gotemplate.quoting import encode_text, quote, quote_character


@dataclass(slots=True)
class Flags:
    """``width`` and ``precision`` in characters and digits; None when not given.

    ``source``: ``%#v``, which writes values as in Go's source.
    """

    plus: bool = False
    minus: bool = False
    sharp: bool = False
    space: bool = False
    zero: bool = False
    width: int | None = None
    precision: int | None = None
    source: bool = False

    @classmethod
    def of(cls, marks: str) -> Flags:
        return cls("+" in marks, "-" in marks, "#" in marks, " " in marks, "0" in marks)

    def of_v(self) -> Flags:
        """``%+v`` and ``%#v`` are about structures and source text, not about signs."""
        if not self.plus and not self.sharp:
            return self
        return replace(self, plus=False, sharp=False, source=self.source or self.sharp)


def pad(text: str, flags: Flags, *, zero: bool = False) -> str:
    """``text`` in its width; with ``zero`` filled with zeros on the left."""
    if flags.width is None or len(text) >= flags.width:
        return text
    if flags.minus:
        return text.ljust(flags.width)
    return text.rjust(flags.width, "0" if zero else " ")


# --- strings --------------------------------------------------------------------------------------


def string_text(text: str, verb: str, flags: Flags) -> str:
    """``verb`` is one of ``v s q x X``."""
    if verb in "xX":
        return _hexadecimal(encode_text(text), verb, flags)
    if flags.precision is not None:
        text = text[: flags.precision]
    if verb == "q" or (verb == "v" and flags.source):
        if flags.sharp and verb == "q" and _can_be_raw(text):
            text = "`" + text + "`"
        else:
            text = quote(text, ascii_only=flags.plus)
    return pad(text, flags, zero=flags.zero)


def _can_be_raw(text: str) -> bool:
    return all(c == "\t" or (c >= " " and c not in "`\x7f\ufeff") for c in text) and not any(
        "\ud800" <= c <= "\udfff" for c in text
    )


def _hexadecimal(data: bytes, verb: str, flags: Flags) -> str:
    if flags.precision is not None:
        data = data[: flags.precision]
    if not data:
        return pad("", flags, zero=flags.zero)
    pairs = [f"{byte:02x}" for byte in data]
    prefix = "0x" if flags.sharp else ""
    if flags.space:
        text = " ".join(prefix + pair for pair in pairs)
    else:
        text = prefix + "".join(pairs)
    return pad(text.upper() if verb == "X" else text, flags, zero=flags.zero)


# --- integers -------------------------------------------------------------------------------------

_BASES = {"v": "d", "d": "d", "b": "b", "o": "o", "O": "o", "x": "x", "X": "X"}
_PREFIXES = {"b": "0b", "x": "0x", "X": "0X"}


def integer_text(value: int, verb: str, flags: Flags) -> str:
    """``verb`` is one of ``v d b o O x X c q U``."""
    if verb == "c":
        code = value if 0 <= value <= 0x10FFFF and not 0xD800 <= value <= 0xDFFF else 0xFFFD
        return pad(chr(code), flags, zero=flags.zero)
    if verb == "q":
        return pad(quote_character(value, ascii_only=flags.plus), flags, zero=flags.zero)
    if verb == "U":
        return _code_point(value, flags)
    if flags.precision == 0 and value == 0:
        return " " * (flags.width or 0)
    digits = format(abs(value), _BASES[verb])
    sign = "-" if value < 0 else "+" if flags.plus else " " if flags.space else ""
    if flags.precision is not None:
        digits = digits.zfill(flags.precision)
    elif flags.zero and not flags.minus and flags.width is not None:
        digits = digits.zfill(flags.width - len(sign))
    if flags.sharp and verb in "oO" and not digits.startswith("0"):
        digits = "0" + digits
    elif flags.sharp:
        digits = _PREFIXES.get(verb, "") + digits
    if verb == "O":
        digits = "0o" + digits
    return pad(sign + digits, flags)


def _code_point(value: int, flags: Flags) -> str:
    digits = max(4, flags.precision or 0)
    code = value % 2**64
    text = f"U+{code:0{digits}X}"
    if flags.sharp and 0 <= value <= 0x10FFFF and chr(value).isprintable():
        text += f" '{chr(value)}'"
    return pad(text, flags)


# --- floats ---------------------------------------------------------------------------------------


def float_text(value: float, verb: str, flags: Flags) -> str:
    """``verb`` is one of ``v b g G x X f F e E``."""
    if not math.isfinite(value):
        return _not_finite(value, flags)
    digits = _float_digits(abs(value), verb, flags)
    negative = math.copysign(1, value) < 0
    sign = "-" if negative else "+" if flags.plus else " " if flags.space else ""
    if flags.zero and not flags.minus and flags.width is not None:
        return sign + digits.zfill(flags.width - len(sign))
    return pad(sign + digits, flags)


def _not_finite(value: float, flags: Flags) -> str:
    sign = "+" if flags.plus else " " if flags.space else ""
    if math.isnan(value):
        return pad(sign + "NaN", flags)
    return pad("-Inf" if value < 0 else (sign or "+") + "Inf", flags)


def _float_digits(value: float, verb: str, flags: Flags) -> str:
    precision = flags.precision
    if verb == "b":
        mantissa, exponent = math.frexp(value)
        return f"{int(mantissa * 2**53)}p{exponent - 53:+d}" if value else "0p-1074"
    if verb in "xX":
        text = _hex_float(value, precision)
        return text.upper() if verb == "X" else text
    if verb in "fFeE":
        mark = "#" if flags.sharp else ""
        return format(value, f"{mark}.{6 if precision is None else precision}{verb}")
    if precision is not None:
        mark = "#" if flags.sharp else ""
        return format(value, f"{mark}.{precision}{'G' if verb == 'G' else 'g'}")
    text = format_float(value)
    if flags.sharp:
        text = _with_zeros(text)
    return text.upper() if verb == "G" else text


def _with_zeros(text: str) -> str:
    """A decimal point and at least six digits, as ``%#g`` wants them."""
    mantissa, mark, exponent = text.partition("e")
    if "." not in mantissa:
        mantissa += "."
    missing = 6 - len(mantissa.replace(".", "").lstrip("0") or "0")
    return mantissa + "0" * max(0, missing) + mark + exponent


def _hex_float(value: float, precision: int | None) -> str:
    """``0x1.4p+01``; the precision, when there is one, in hexadecimal digits."""
    if value == 0:
        return "0x0" + ("." + "0" * precision if precision else "") + "p+00"
    mantissa, exponent = math.frexp(value)
    exponent -= 1
    digits = 13 if precision is None else precision
    scaled = round(mantissa * 2 * 2.0 ** min(52, 4 * digits))
    scaled <<= max(0, 4 * digits - 52)
    if scaled >> (4 * digits) > 1:
        scaled, exponent = scaled >> 1, exponent + 1
    fraction = f"{scaled & ((1 << 4 * digits) - 1):0{digits}x}" if digits else ""
    if precision is None:
        fraction = fraction.rstrip("0")
    point = "." if fraction else ""
    return f"0x1{point}{fraction}p{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
