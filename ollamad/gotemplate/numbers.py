"""Numbers as Go prints them and as its templates write them (prompting 2.1, 2.3). Pure."""

from __future__ import annotations

import math
import re

from ollamad.gotemplate.quoting import unquoted_character

INT_MIN, INT_MAX, UINT_MAX = -(2**63), 2**63 - 1, 2**64 - 1

#: From this decimal exponent on, and below the other, a float is printed with an exponent.
EXPONENT_FROM, EXPONENT_BELOW = 6, -4


def format_float(value: float) -> str:
    """``value`` as ``%v`` prints it: the shortest digits that read back, an exponent early.

    ``3``, ``2.5``, ``100000``, ``1e+06``, ``1.048576e+06``, ``1e-05``, ``-0``, ``+Inf``, ``NaN``.
    """
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    sign, digits, exponent = shortest_digits(value)
    if exponent < EXPONENT_BELOW or exponent >= EXPONENT_FROM:
        mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
        return f"{sign}{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    whole, fraction = digits[: exponent + 1].ljust(exponent + 1, "0"), digits[exponent + 1 :]
    return f"{sign}{whole}.{fraction}" if fraction else sign + whole


def shortest_digits(value: float) -> tuple[str, str, int]:
    """Sign (``""`` or ``"-"``), decimal digits without trailing zeros, decimal exponent.

    1234567.0 gives ``("", "1234567", 6)``, 0.05 gives ``("", "5", -2)``. ``value`` is finite.
    """
    text = repr(value)
    sign = "-" if text.startswith("-") else ""
    mantissa, _, exponent_text = text.lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return sign, "0", 0
    exponent = int(exponent_text or "0") + len(whole) - 1
    exponent -= len(whole + fraction) - len(digits)
    return sign, digits.rstrip("0"), exponent


_INTEGER = re.compile(
    r"[+-]?(?:0[xX](?:_?[0-9a-fA-F])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+|0(?:_?[0-7])*"
    r"|[1-9](?:_?[0-9])*)"
)
_FLOAT = re.compile(
    r"[+-]?(?:[0-9](?:_?[0-9])*(?:\.(?:[0-9](?:_?[0-9])*)?)?|\.[0-9](?:_?[0-9])*)"
    r"(?:[eE][+-]?[0-9](?:_?[0-9])*)?"
)
_HEX_FLOAT = re.compile(
    r"[+-]?0[xX](?:(?:_?[0-9a-fA-F])+(?:\.(?:[0-9a-fA-F](?:_?[0-9a-fA-F])*)?)?"
    r"|\.[0-9a-fA-F](?:_?[0-9a-fA-F])*)[pP][+-]?[0-9](?:_?[0-9])*"
)


def parse_number(text: str) -> int | float:
    """The value of a numeric constant; an int, or a float when the text looks like one.

    Integers above the range of a Go int (up to 64 unsigned bits) are given as they are: using one
    fails when the template runs. Raises ValueError with Go's text. Imaginary numbers are refused.
    """
    if text.startswith("'"):
        return _character(text)
    if _INTEGER.fullmatch(text):
        value = _integer(text)
        if INT_MIN <= value <= UINT_MAX and not (value > INT_MAX and text.startswith("+")):
            return value
    number = _float(text)
    if number is None:
        raise ValueError(f'illegal number syntax: "{text}"')
    if not any(mark in text for mark in ".eEpP"):
        raise ValueError(f'integer overflow: "{text}"')
    return number


def _integer(text: str) -> int:
    digits = text.lstrip("+-").replace("_", "")
    if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
        digits = "0o" + digits[1:]
    value = int(digits, 0)
    return -value if text.startswith("-") else value


def _float(text: str) -> float | None:
    try:
        if _FLOAT.fullmatch(text):
            value = float(text.replace("_", ""))
        elif _HEX_FLOAT.fullmatch(text):
            value = float.fromhex(text.replace("_", ""))
        else:
            return None
    except OverflowError:
        return None
    return None if math.isinf(value) else value


def _character(text: str) -> int:
    code, end = unquoted_character(text, 1, "'")
    if text[end:] != "'":
        raise ValueError(f"malformed character constant: {text}")
    return code
