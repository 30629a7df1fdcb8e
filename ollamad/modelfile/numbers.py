"""32-bit floats: the decimal that a parameter is sent, stored and printed as (1.7). Pure."""

from __future__ import annotations

import math
import struct
from decimal import Decimal


def nearest_float32(value: float) -> float:
    """``value`` rounded to 32 bits. Raises OverflowError beyond their range."""
    if math.isinf(value):
        raise OverflowError("not a number of 32 bits")
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


def shortest_float32(value: float) -> float:
    """The double with the fewest decimal digits that rounds to the same 32-bit float.

    0.1 as a 32-bit float is 0.10000000149011612 as a double; nobody wants to read that.
    Raises OverflowError beyond the range of 32-bit floats.
    """
    wanted = nearest_float32(value)
    for digits in range(1, 9):
        short = float(f"{wanted:.{digits}g}")
        try:
            if nearest_float32(short) == wanted:
                return short
        except OverflowError:
            continue  # fewer digits may round up beyond the largest 32-bit float
    return float(f"{wanted:.9g}")


def integral_or_float(value: float) -> float | int:
    """``value`` as an int where JSON writes it without fraction and exponent (below 1e21).

    Minus zero stays a float, so that its sign is kept.
    """
    if value.is_integer() and abs(value) < 1e21 and not (value == 0 and str(value) == "-0.0"):
        return int(Decimal(repr(value)))
    return value
