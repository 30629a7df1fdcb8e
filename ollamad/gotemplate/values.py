"""Values as templates see them (prompting 2.3). Pure.

What JSON gives is None, bool, float, str, list and dict; templates add ints. Numbers of the data
must be floats: an int of the data would behave as Go's int (``eq .i 3`` would then succeed).
Objects with a type of their own derive from one of the three classes here.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ollamad.gotemplate.numbers import format_float
from ollamad.gotemplate.quoting import decode_text, encode_text

#: How nil is printed as the value of an action, and anywhere else.
NO_VALUE, NIL = "<no value>", "<nil>"


class GoObject:
    """A value whose Go type has a name and prints in its own way."""

    #: The type as Go names it in errors and for ``%T``.
    go_type: ClassVar[str] = "interface {}"

    def go_text(self) -> str:
        """What ``{{ . }}`` and ``print`` show."""
        raise NotImplementedError

    def go_json(self) -> str:
        """Compact JSON text for a ``json`` function; the engine itself never asks for it."""
        raise NotImplementedError


class GoStruct(GoObject):
    """An object with fields: always true, neither indexed nor iterated."""

    def go_field(self, name: str) -> Any:
        """The value of a field by its Go name; raises KeyError when the type has none such."""
        raise KeyError(name)


class GoList(GoObject, list[Any]):
    """A list of a named type."""

    #: Whether the elements are ``interface {}`` for Go, as those of a plain list.
    boxes: ClassVar[bool] = False


class GoMap(GoObject, dict[str, Any]):
    """A map of a named type."""

    #: Whether the values are ``interface {}`` for Go, as those of a plain dict.
    boxes: ClassVar[bool] = False


def boxes(container: object) -> bool:
    """Whether what ``container`` holds is ``interface {}`` for Go: errors name that type."""
    if isinstance(container, GoList | GoMap):
        return container.boxes
    return isinstance(container, list | tuple | dict)


def type_name(value: object) -> str:
    """The Go type of ``value`` as ``%T`` and errors name it; ``<nil>`` for none."""
    if isinstance(value, GoObject):
        return value.go_type
    for kind, name in _TYPES:
        if isinstance(value, kind):
            return name
    return NIL if value is None else "interface {}"


_TYPES: tuple[tuple[type, str], ...] = (
    (str, "string"),
    (bool, "bool"),
    (int, "int"),
    (float, "float64"),
    (list, "[]interface {}"),
    (tuple, "[]interface {}"),
    (dict, "map[string]interface {}"),
    (bytes, "[]uint8"),
)


def is_true(value: object) -> bool:
    """Not empty: objects with fields always, the rest unless zero or of length zero."""
    return bool(value)


def is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def printed(value: object) -> str:
    """``value`` as an action prints it."""
    return NO_VALUE if value is None else shown(value)


def shown(value: object) -> str:
    """``value`` as ``%v`` shows it, alone or inside of another value."""
    kind = type(value)
    if kind is str:
        return value  # type: ignore[return-value]
    if isinstance(value, GoObject):
        return value.go_text()
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return format_float(value)
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{shown(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join([shown(item) for item in value]) + "]"
    if isinstance(value, bytes):
        return "[" + " ".join(map(str, value)) + "]"
    return NIL


def joined(parts: list[str]) -> str:
    """The parts as one text; bytes of one character that come together become that character."""
    text = "".join(parts)
    return text if text.isascii() else decode_text(encode_text(text))


def final_text(text: str) -> str:
    """``text`` as it may leave: U+FFFD for every byte that is no part of a character."""
    if text.isascii():
        return text
    return "".join(
        ["\ufffd" if "\ud800" <= c <= "\udfff" else c for c in decode_text(encode_text(text))]
    )
