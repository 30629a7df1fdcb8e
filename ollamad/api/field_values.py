"""How single JSON values become field values, and how the reference complains. Pure.

Source: http-api.md 3.1, 8.2, 8.6 and 8.8. Types are never converted: a reader takes a value that is
not null and returns it, or raises.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable
from typing import Any

import msgspec

from ollamad import wire
from ollamad.api.base64_text import base64_bytes
from ollamad.api.json_reader import Literal, Object
from ollamad.errors import BadRequest, quoted
from ollamad.store.json_text import well_formed
from ollamad.units import parse_duration

_NOT_AN_OBJECT = "Value looks like object, but can't find closing '}' symbol"
_THINK_LEVELS = ("high", "medium", "low", "max")
_THINK_TEXT = '"high", "medium", "low", "max", true, or false'
_MAX_INT = 2**63 - 1

# --- errors ---------------------------------------------------------------------------------------


class Mismatch(Exception):
    """A value of the wrong type. The path to it is collected on the way out.

    ``struct`` is the innermost type of the reference around the value, except that a type which
    decodes itself passes the naming on to the type around it.
    """

    def __init__(self, kind: str, go_type: str) -> None:
        self.kind = kind
        self.go_type = go_type
        self.struct: str | None = None
        self.path: list[str] = []

    def text(self) -> str:
        path = ".".join(reversed(self.path))
        return (
            f"json: cannot unmarshal {self.kind} into Go struct field "
            f"{self.struct}.{path} of type {self.go_type}"
        )


def kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, Literal | int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "object" if type(value) is Object else "array"


# --- scalars --------------------------------------------------------------------------------------
# A reader takes a value that is not null. A Literal is no str to ``type(value) is str``.

Reader = Callable[[Any], Any]


def text(value: Any) -> str:
    if type(value) is not str:
        raise Mismatch(kind(value), "string")
    return well_formed(value)


def boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise Mismatch(kind(value), "bool")
    return value


def integer(value: Any, go_type: str = "int") -> int:
    if type(value) is int and -_MAX_INT - 1 <= value <= _MAX_INT:
        return value
    if type(value) is Literal:
        digits = value.removeprefix("-")
        if digits.isdigit() and len(digits) < 20 and abs(int(value)) <= _MAX_INT:
            return int(value)
        raise Mismatch(f"number {value}", go_type)
    raise Mismatch(kind(value), go_type)


def anything(value: Any) -> Any:
    """Free-form JSON with the keys of objects in order, as the reference writes them again."""
    kind = type(value)
    if kind is str:
        return well_formed(value)
    if kind is Literal or kind is float or (kind is int and not -(2**63) <= value < 2**64):
        number = _as_float(value)
        if not math.isfinite(number):
            raise Mismatch(f"number {value}", "float64")
        return number
    if kind is Object:
        members = {well_formed(key): anything(item) for key, item in value}
        return dict(sorted(members.items()))
    if kind is list:
        return [anything(item) for item in value]
    return value


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def keep_alive(value: Any) -> int:
    """Nanoseconds; negative means forever (8.2)."""
    if type(value) is bool:
        raise BadRequest("Unsupported type: 'bool'")
    if type(value) is list:
        raise BadRequest("Unsupported type: '[]interface {}'")
    if type(value) is Object:
        raise BadRequest("Unsupported type: 'map[string]interface {}'")
    if type(value) is str:
        try:
            nanoseconds = parse_duration(well_formed(value))
        except ValueError as error:
            raise BadRequest(str(error)) from None
        return wire.FOREVER if nanoseconds < 0 else min(nanoseconds, wire.FOREVER)
    seconds = _as_float(value)
    if seconds < 0 or seconds * 1e9 >= wire.FOREVER:
        return wire.FOREVER
    return int(seconds * 1e9)


def think(value: Any) -> wire.Think:
    if type(value) is bool:
        return value
    if type(value) is not str:
        raise BadRequest(f"think must be a boolean or string ({_THINK_TEXT})")
    if value not in _THINK_LEVELS:
        shown = quoted(well_formed(value))
        raise BadRequest(f"invalid think value: {shown} (must be {_THINK_TEXT})")
    return typing.cast(wire.Think, value)


def image(value: Any) -> bytes:
    """Base64 text, or a list of byte values."""
    if type(value) is str:
        return base64_bytes(value)
    if type(value) is not list:
        raise Mismatch(kind(value), "api.ImageData")
    octets = bytearray()
    for item in value:
        octet = 0 if item is None else integer(item, "uint8")
        if not 0 <= octet <= 255:
            raise Mismatch(f"number {octet}", "uint8")
        octets.append(octet)
    return bytes(octets)


def role(value: Any) -> str:
    return text(value).lower()


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw()  # `decode` puts the client's own text in its place


# --- containers -----------------------------------------------------------------------------------


def list_of(item: Reader, go_type: str, empty: Callable[[], Any]) -> Reader:
    def read(value: Any) -> list[Any]:
        if type(value) is not list:
            raise Mismatch(kind(value), go_type)
        return [empty() if element is None else item(element) for element in value]

    return read


def map_of(item: Reader, go_type: str, empty: Callable[[], Any]) -> Reader:
    def read(value: Any) -> dict[str, Any]:
        if type(value) is not Object:
            raise Mismatch(kind(value), go_type)
        return {
            well_formed(key): empty() if element is None else item(element)
            for key, element in value
        }

    return read


def ordered_map_of(item: Reader, empty: Callable[[], Any]) -> Reader:
    """A map that the reference reads with a parser of its own."""
    members = map_of(item, "", empty)

    def read(value: Any) -> dict[str, Any]:
        if type(value) is not Object:
            raise BadRequest(_NOT_AN_OBJECT)
        return typing.cast(dict[str, Any], members(value))

    return read


_texts = list_of(text, "[]string", str)


def property_type(value: Any) -> str | list[str]:
    """A list of one name is that name (8.8)."""
    if type(value) is str:
        return well_formed(value)
    names = _texts(value)
    return names[0] if len(names) == 1 else names or ""
