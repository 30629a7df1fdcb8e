"""Request bodies into Structs by the reference's rules, with its error texts (http-api.md 3.1).

Keys match without regard to case, unknown ones are skipped, repeated maps merge, ``null`` means
absent, types are never converted, and the first error in the order of the body is the one that is
reported. What each field takes is derived from the annotations of ``ollamad.wire`` once a type.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeVar

import msgspec

from ollamad import wire
from ollamad.api import field_values as readers
from ollamad.api.field_values import Mismatch, Reader
from ollamad.api.json_reader import Document, Object
from ollamad.errors import BadRequest

T = TypeVar("T", bound=msgspec.Struct)


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
        raise BadRequest(
            f"json: cannot unmarshal {readers.kind(value)} into Go value of type api.{name}"
        )
    shape = _shape(type_)
    try:
        request = _fill(shape, value)
    except Mismatch:
        # Once more with the numbers as they are spelled, which the text may quote.
        try:
            request = _fill(shape, document.with_literals())
        except Mismatch as error:
            raise BadRequest(error.text()) from None
    if "format" in shape.fields and request.format is not None:  # type: ignore[attr-defined]
        request.format = msgspec.Raw(document.member_text("format"))  # type: ignore[attr-defined]
    return typing.cast(T, request)


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
        except Mismatch as error:
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
    "keep_alive": readers.keep_alive,
    "think": readers.think,
    (wire.Message, "role"): readers.role,
    (wire.ToolProperty, "type"): readers.property_type,
    (wire.ToolCallFunction, "arguments"): readers.ordered_map_of(readers.anything, lambda: None),
}
_SCALARS: dict[Any, tuple[Reader, Callable[[], Any]]] = {
    str: (readers.text, str),
    bool: (readers.boolean, bool),
    int: (readers.integer, int),
    bytes: (readers.image, bytes),
    Any: (readers.anything, lambda: None),
    msgspec.Raw: (readers.raw, lambda: None),
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
        return readers.list_of(item, go_type, empty), zero
    if origin is dict:
        item, empty = _reader(arguments[1])
        if arguments[1] is wire.ToolProperty:
            return readers.ordered_map_of(item, empty), zero
        return readers.map_of(item, f"map[string]{_go_name(arguments[1])}", empty), zero
    return _struct_reader(hint), zero


def _struct_reader(type_: type[msgspec.Struct]) -> Reader:
    go_type = _go_name(type_)

    def read(value: Any) -> msgspec.Struct:
        if type(value) is not Object:
            raise Mismatch(readers.kind(value), go_type)
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
