"""Numbers as tables and scripts expect them. Pure."""

from __future__ import annotations

import math
from decimal import Decimal

from ollamad.modelfile.numbers import shortest_float32

#: Where a shortest-digits number changes to its form with an exponent.
SHORT, LONG = 6, 21


def shortest(value: float, exponent_from: int) -> str:
    """The fewest digits that mean ``value``: ``131072``, ``8e+09``, ``1e-05``.

    With an exponent (two digits at least) when the decimal exponent is below -4 or from
    ``exponent_from`` on.
    """
    try:
        value = float(value)
    except OverflowError:
        return "+Inf" if value > 0 else "-Inf"
    if not math.isfinite(value):
        return {"inf": "+Inf", "-inf": "-Inf"}.get(str(value), "NaN")
    sign, digits, exponent = _digits(value)
    if exponent < -4 or exponent >= exponent_from:
        fraction = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{fraction}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    return sign + _plain(digits, exponent)


def float32_json(value: float) -> str:
    """A 32-bit float as JSON in its fewest digits: ``1e-9``, ``1``, ``123456790``."""
    try:
        value = shortest_float32(value)
    except OverflowError:
        return repr(value)
    sign, digits, exponent = _digits(value)
    if value and not 1e-6 <= abs(value) < 1e21:
        fraction = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{fraction}e{exponent:+}".replace("e+0", "e+")
    return sign + _plain(digits, exponent)


def _digits(value: float) -> tuple[str, str, int]:
    """Sign, significant digits without trailing zeros, and the exponent of the first digit."""
    decimal = Decimal(repr(value))
    sign, digits, exponent = decimal.as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits)).lstrip("0")
    if not text:
        return ("-" if sign else ""), "0", 0
    first = len(text) - 1 + exponent
    return ("-" if sign else ""), text.rstrip("0"), first


def _plain(digits: str, exponent: int) -> str:
    if exponent < 0:
        return f"0.{'0' * (-exponent - 1)}{digits}"
    whole = digits[: exponent + 1].ljust(exponent + 1, "0")
    fraction = digits[exponent + 1 :]
    return f"{whole}.{fraction}" if fraction else whole
