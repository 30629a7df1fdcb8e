"""Argument values from the text in which a model wrote them. Pure.

Source: renderers-and-parsers.md 1.7.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from ollamad.store.json_text import well_formed
from ollamad.wire import Tool, ToolProperty

#: Levels of nesting that every part of the program can walk and encode.
_MAX_DEPTH = 100
_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**63 - 1

_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?")
_HEXADECIMAL = re.compile(
    r"[+-]?0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP][+-]?[0-9]+"
)
#: Longer ones are no 64-bit numbers, and slow to read.
_MAX_DIGITS = 400


def read_json(text: str) -> Any:
    """The one JSON value that ``text`` is. Raises ValueError for anything else.

    Line breaks and other control characters inside strings are taken as they are: models write
    them. Integers beyond 64 bits become floats, halves of surrogate pairs U+FFFD; a number beyond a
    64-bit float and a value nested more than 100 deep are errors.
    """
    try:
        value = json.loads(text, strict=False, parse_constant=_refuse, parse_int=_read_integer)
    except RecursionError:
        raise ValueError("exceeded max depth") from None
    return _checked(value, _MAX_DEPTH)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"not JSON: {name}")


def _read_integer(text: str) -> int | float:
    number = int(text) if len(text) <= _MAX_DIGITS else math.inf
    return number if _MIN_INTEGER <= number <= _MAX_INTEGER else float(text)


def _checked(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, float) and math.isinf(value):
        raise ValueError("number out of range")
    if isinstance(value, list | dict) and depth == 0:
        raise ValueError("exceeded max depth")
    if isinstance(value, list):
        return [_checked(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return {well_formed(key): _checked(item, depth - 1) for key, item in value.items()}
    return value


def property_types(tools: Sequence[Tool], function: str, parameter: str) -> tuple[str, ...]:
    """The types declared for one parameter; none if the function or the parameter is unknown.

    Of a property with alternatives (``anyOf``) only theirs count.
    """
    for tool in tools:
        if tool.function.name == function:
            declared = (tool.function.parameters.properties or {}).get(parameter)
            return _types(declared) if declared else ()
    return ()


def _types(declared: ToolProperty) -> tuple[str, ...]:
    types: list[str] = []
    for source in declared.anyOf or [declared]:
        types += [source.type] if isinstance(source.type, str) else source.type
    return tuple(name for name in types if name)


def without_line_ends(text: str) -> str:
    """``text`` without one newline at its beginning and one at its end."""
    return text.removeprefix("\n").removesuffix("\n")


def coerce(text: str, types: Sequence[str], *, keep_line_ends: bool = False) -> Any:
    """V: the value that ``text`` is for a parameter of ``types``; at worst the text itself."""
    if not keep_line_ends:
        text = without_line_ends(text)
    lowered = text.lower()
    if lowered == "null":
        return None
    if "boolean" in types:
        if lowered in ("true", "false"):
            return lowered == "true"
        if set(types) == {"boolean"}:
            return False
    if "integer" in types and (integer := read_integer(text)) is not None:
        return integer
    if "number" in types and (number := read_number(text)) is not None:
        return number
    for name, kind in (("array", list), ("object", dict)):
        if name in types:
            try:
                value = read_json(text)
            except ValueError:
                continue
            if isinstance(value, kind):
                return value
    return text


def read_integer(text: str) -> int | None:
    """A decimal 64-bit integer with optional sign, or None."""
    if len(text) > _MAX_DIGITS or not _INTEGER.fullmatch(text):
        return None
    value = int(text)
    return value if _MIN_INTEGER <= value <= _MAX_INTEGER else None


def read_number(text: str) -> int | float | None:
    """A number in the syntax of 1.7, an integer if it is integral and has 64 bits; or None."""
    if len(text) > _MAX_DIGITS:
        return None
    if _HEXADECIMAL.fullmatch(text):
        value = _from_hexadecimal(text)
    elif _DECIMAL.fullmatch(text):
        value = float(text.replace("_", ""))
    else:
        return None
    if math.isinf(value):
        return None
    integral = value.is_integer() and _MIN_INTEGER <= value <= _MAX_INTEGER
    return int(value) if integral else value


def _from_hexadecimal(text: str) -> float:
    try:
        return float.fromhex(text)
    except OverflowError:
        return math.inf
