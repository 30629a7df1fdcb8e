"""Request bodies into Structs by the reference's rules, with its error texts (http-api.md 3.1).

Keys match without regard to case, unknown ones are skipped, repeated maps merge, ``null`` means
absent, types are never converted, and the first error in the order of the body is the one that is
reported. What each field takes is derived from the annotations of ``ollamad.wire`` once a type.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeVar

import msgspec

from ollamad import wire
from ollamad.api.base64_text import base64_bytes
from ollamad.api.json_reader import Document, Literal, Object, well_formed
from ollamad.errors import BadRequest, quoted
from ollamad.units import parse_duration

T = TypeVar("T", bound=msgspec.Struct)

_NOT_AN_OBJECT = "Value looks like object, but can't find closing '}' symbol"
_THINK_LEVELS = ("high", "medium", "low", "max")
_THINK_TEXT = '"high", "medium", "low", "max", true, or false'
_MAX_INT = 2**63 - 1


def decode(type_: type[T], body: bytes) -> T:
    """The request in ``body``. ``null`` gives all defaults.

    Raises BadRequest with the reference's text.
    """
    document = Document(body)
    try:
        return _decoded(type_, document)
    except RecursionError:
        return _decoded(type_, document.shallow())


def _decoded(type_: type[T], document: Document) -> T:
    value = document.value
    name = type_.__name__
    if value is None:
        value = Object()
    elif type(value) is not Object:
        raise BadRequest(f"json: cannot unmarshal {_kind(value)} into Go value of type api.{name}")
    shape = _shape(type_)
    try:
        request = _fill(shape, value)
    except _Mismatch:
        # Once more with the numbers as they are spelled, which the text may quote.
        try:
            request = _fill(shape, document.with_literals())
        except _Mismatch as error:
            raise BadRequest(error.text()) from None
    if "format" in shape.fields and request.format is not None:  # type: ignore[attr-defined]
        request.format = msgspec.Raw(document.member_text("format"))  # type: ignore[attr-defined]
    return typing.cast(T, request)


# --- errors ---------------------------------------------------------------------------------------


class _Mismatch(Exception):
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


def _kind(value: Any) -> str:
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


def _text(value: Any) -> str:
    if type(value) is not str:
        raise _Mismatch(_kind(value), "string")
    return well_formed(value)


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise _Mismatch(_kind(value), "bool")
    return value


def _integer(value: Any, go_type: str = "int") -> int:
    if type(value) is int and -_MAX_INT - 1 <= value <= _MAX_INT:
        return value
    if type(value) is Literal:
        digits = value.removeprefix("-")
        if digits.isdigit() and len(digits) < 20 and abs(int(value)) <= _MAX_INT:
            return int(value)
        raise _Mismatch(f"number {value}", go_type)
    raise _Mismatch(_kind(value), go_type)


def _anything(value: Any) -> Any:
    """Free-form JSON with the keys of objects in order, as the reference writes them again."""
    kind = type(value)
    if kind is str:
        return well_formed(value)
    if kind is Literal or kind is float or (kind is int and not -(2**63) <= value < 2**64):
        number = _as_float(value)
        if not math.isfinite(number):
            raise _Mismatch(f"number {value}", "float64")
        return number
    if kind is Object:
        members = {well_formed(key): _anything(item) for key, item in value}
        return dict(sorted(members.items()))
    if kind is list:
        return [_anything(item) for item in value]
    return value


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _keep_alive(value: Any) -> int:
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


def _think(value: Any) -> wire.Think:
    if type(value) is bool:
        return value
    if type(value) is not str:
        raise BadRequest(f"think must be a boolean or string ({_THINK_TEXT})")
    if value not in _THINK_LEVELS:
        shown = quoted(well_formed(value))
        raise BadRequest(f"invalid think value: {shown} (must be {_THINK_TEXT})")
    return typing.cast(wire.Think, value)


def _image(value: Any) -> bytes:
    """Base64 text, or a list of byte values."""
    if type(value) is str:
        return base64_bytes(value)
    if type(value) is not list:
        raise _Mismatch(_kind(value), "api.ImageData")
    octets = bytearray()
    for item in value:
        octet = 0 if item is None else _integer(item, "uint8")
        if not 0 <= octet <= 255:
            raise _Mismatch(f"number {octet}", "uint8")
        octets.append(octet)
    return bytes(octets)


def _role(value: Any) -> str:
    return _text(value).lower()


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw()  # `decode` puts the client's own text in its place


# --- containers -----------------------------------------------------------------------------------


def _list_of(item: Reader, go_type: str, empty: Callable[[], Any]) -> Reader:
    def read(value: Any) -> list[Any]:
        if type(value) is not list:
            raise _Mismatch(_kind(value), go_type)
        return [empty() if element is None else item(element) for element in value]

    return read


def _map_of(item: Reader, go_type: str, empty: Callable[[], Any]) -> Reader:
    def read(value: Any) -> dict[str, Any]:
        if type(value) is not Object:
            raise _Mismatch(_kind(value), go_type)
        return {
            well_formed(key): empty() if element is None else item(element)
            for key, element in value
        }

    return read


def _ordered_map_of(item: Reader, empty: Callable[[], Any]) -> Reader:
    """A map that the reference reads with a parser of its own."""
    members = _map_of(item, "", empty)

    def read(value: Any) -> dict[str, Any]:
        if type(value) is not Object:
            raise BadRequest(_NOT_AN_OBJECT)
        return typing.cast(dict[str, Any], members(value))

    return read


_texts = _list_of(_text, "[]string", str)


def _property_type(value: Any) -> Any:
    return [well_formed(value)] if type(value) is str else _texts(value)


# --- Structs --------------------------------------------------------------------------------------


class _Field(NamedTuple):
    attribute: str
    wire_name: str
    read: Reader
    #: Makes the value for a body without this field: the Struct's default, or the type's zero.
    empty: Callable[[], Any]
    #: Whether a later ``null`` takes back an earlier value.
    nullable: bool


class _Shape(NamedTuple):
    type: type[msgspec.Struct]
    #: What error texts call the type; None for one that passes the naming on.
    name: str | None
    fields: dict[str, _Field]
    folded: dict[str, _Field]
    #: The fields that a body must have for the Struct to be complete.
    required: tuple[_Field, ...]


def _fill(shape: _Shape, members: Object) -> msgspec.Struct:
    values: dict[str, Any] = {}
    for key, value in members:
        field = shape.fields.get(key) or shape.folded.get(key.casefold())
        if field is None:
            continue
        if value is None:
            if field.nullable:
                values.pop(field.attribute, None)
            continue
        try:
            read = field.read(value)
        except _Mismatch as error:
            error.path.append(field.wire_name)
            error.struct = None if shape.name is None else error.struct or shape.name
            raise
        earlier = values.get(field.attribute)
        if type(earlier) is dict and type(read) is dict:
            read = earlier | read
        values[field.attribute] = read
    for field in shape.required:
        if field.attribute not in values:
            values[field.attribute] = field.empty()
    return shape.type(**values)


#: Types that the reference decodes with a method of their own.
_OWN_METHOD = (wire.Message, wire.ToolProperty)
#: How error texts name elements and lists that do not follow the rule.
_ELEMENT_NAMES: dict[Any, str] = {
    wire.Message: "api.Alias",
    bytes: "api.ImageData",
    str: "string",
    int: "int",
    bool: "bool",
    Any: "interface {}",
}
_LIST_NAMES: dict[Any, str] = {wire.Tool: "api.Tools", wire.Message: "[]api.Message"}
#: Fields whose annotation does not tell how they are read.
_SPECIAL: dict[tuple[type[msgspec.Struct], str] | str, Reader] = {
    "keep_alive": _keep_alive,
    "think": _think,
    (wire.Message, "role"): _role,
    (wire.ToolProperty, "type"): _property_type,
    (wire.ToolCallFunction, "arguments"): _ordered_map_of(_anything, lambda: None),
}
_SCALARS: dict[Any, tuple[Reader, Callable[[], Any]]] = {
    str: (_text, str),
    bool: (_boolean, bool),
    int: (_integer, int),
    bytes: (_image, bytes),
    Any: (_anything, lambda: None),
    msgspec.Raw: (_raw, lambda: None),
}


@cache
def _shape(type_: type[msgspec.Struct]) -> _Shape:
    hints = typing.get_type_hints(type_)
    fields: dict[str, _Field] = {}
    required: list[_Field] = []
    for info in msgspec.structs.fields(type_):
        hint = hints[info.name]
        nullable = hint is Any or type(None) in typing.get_args(hint)
        special = _SPECIAL.get((type_, info.name)) or _SPECIAL.get(info.name)
        read, empty = (special, _zero(hint)) if special else _reader(hint)
        field = _Field(info.name, info.encode_name, read, empty, nullable)
        fields[info.encode_name] = field
        if info.required:
            required.append(field)
    folded = {name.casefold(): field for name, field in fields.items()}
    own = type_ in _OWN_METHOD
    return _Shape(type_, None if own else type_.__name__, fields, folded, tuple(required))


def _reader(hint: Any) -> tuple[Reader, Callable[[], Any]]:
    """How a value of the annotation ``hint`` is read, and what stands for its absence."""
    hint, zero = _without_none(hint), _zero(hint)
    if hint in _SCALARS:
        return _SCALARS[hint][0], zero
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        item, empty = _reader(arguments[0])
        go_type = _LIST_NAMES.get(arguments[0], f"[]{_go_name(arguments[0])}")
        return _list_of(item, go_type, empty), zero
    if origin is dict:
        item, empty = _reader(arguments[1])
        if arguments[1] is wire.ToolProperty:
            return _ordered_map_of(item, empty), zero
        return _map_of(item, f"map[string]{_go_name(arguments[1])}", empty), zero
    return _struct_reader(hint), zero


def _struct_reader(type_: type[msgspec.Struct]) -> Reader:
    go_type = _go_name(type_)

    def read(value: Any) -> msgspec.Struct:
        if type(value) is not Object:
            raise _Mismatch(_kind(value), go_type)
        return _fill(_shape(type_), value)

    return read


def _zero(hint: Any) -> Callable[[], Any]:
    if _without_none(hint) is not hint:
        return lambda: None
    if hint in _SCALARS:
        return _SCALARS[hint][1]
    origin = typing.get_origin(hint)
    if origin is list or origin is dict:
        return typing.cast(Callable[[], Any], origin)
    return lambda: _fill(_shape(hint), Object())


def _without_none(hint: Any) -> Any:
    arguments = typing.get_args(hint)
    if (
        typing.get_origin(hint) not in (types.UnionType, typing.Union)
        or type(None) not in arguments
    ):
        return hint
    rest = [argument for argument in arguments if argument is not type(None)]
    return rest[0] if len(rest) == 1 else typing.Union[tuple(rest)]  # noqa: UP007 - built at run time


def _go_name(hint: Any) -> str:
    return _ELEMENT_NAMES.get(hint) or f"api.{hint.__name__}"
