"""The functions that every template may call (prompting 2.4). Pure."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ollamad.gotemplate import escapes
from ollamad.gotemplate.errors import CallError
from ollamad.gotemplate.formatting import sprint, sprintf, sprintln
from ollamad.gotemplate.quoting import decode_text, encode_text
from ollamad.gotemplate.values import NO_VALUE, is_int, is_true, shown, type_name

ALL = sys.maxsize


@dataclass(frozen=True, slots=True)
class Function:
    """``call`` takes the values of the arguments and may raise CallError.

    ``at_least``, ``at_most``: how many arguments (None: any number). ``texts``: how many of them,
    from the first, must be strings. ``boxed_from``: from this argument on a value that is an
    ``interface {}`` for Go arrives as `BOXED` (a quirk of ``slice``).
    """

    call: Callable[..., Any]
    at_least: int = 0
    at_most: int | None = None
    texts: int = 0
    boxed_from: int = ALL


#: Stands for a value of which the function sees only that its type is ``interface {}``.
BOXED = object()


# --- comparison -----------------------------------------------------------------------------------


def _basic_kind(value: object) -> str:
    """``bool``, ``int``, ``float64``, ``string``; empty for what has no order and no value."""
    return type_name(value) if isinstance(value, bool | int | float | str) else ""


def _incompatible(first: object, second: object) -> CallError:
    return CallError(
        f"incompatible types for comparison: {type_name(first)} and {type_name(second)}"
    )


def _equal(first: object, second: object) -> bool:
    if type(first) is str and type(second) is str:
        return first == second
    kind = _basic_kind(first)
    if first is None or second is None:
        return first is second
    if kind != _basic_kind(second):
        raise _incompatible(first, second)
    if kind:
        return first == second
    if isinstance(first, list | dict) or isinstance(second, list | dict):
        if type_name(first) == type_name(second):
            raise CallError(f"non-comparable type {sprintf('%s', [second])}: {type_name(first)}")
        raise CallError(
            f"non-comparable types {sprintf('%s', [first])}: {type_name(first)}, "
            f"{type_name(second)}: {shown(second)}"
        )
    return first is second


def equal_to_any(first: object, *others: object) -> bool:
    if not others:
        raise CallError("missing argument for comparison")
    return any(_equal(first, other) for other in others)


def _unequal(first: object, second: object) -> bool:
    return not _equal(first, second)


def _less(first: Any, second: Any) -> bool:
    kinds = _basic_kind(first), _basic_kind(second)
    if not all(kinds):
        raise CallError("invalid type for comparison")
    if kinds[0] != kinds[1]:
        raise _incompatible(first, second)
    if kinds[0] == "bool":
        raise CallError("invalid type for comparison")
    return bool(first < second)


def _less_or_equal(first: object, second: object) -> bool:
    return _less(first, second) or _equal(first, second)


def _greater(first: object, second: object) -> bool:
    return not _less_or_equal(first, second)


def _greater_or_equal(first: object, second: object) -> bool:
    return not _less(first, second)


# --- lists, maps, strings -------------------------------------------------------------------------


def _length(value: object) -> int:
    if value is None:
        raise CallError("len of nil pointer")
    if isinstance(value, str):
        return len(value) if value.isascii() else len(encode_text(value))
    if isinstance(value, list | tuple | dict | bytes):
        return len(value)
    raise CallError(f"len of type {type_name(value)}")


def _index_number(index: object, limit: int) -> int:
    if not is_int(index):
        if index is None:
            raise CallError("cannot index slice/array with nil")
        raise CallError(f"cannot index slice/array with type {type_name(index)}")
    assert isinstance(index, int)
    if not 0 <= index <= limit:
        raise CallError(f"index out of range: {index}")
    return index


def _index(item: Any, *indexes: Any) -> object:
    if item is None:
        raise CallError("index of untyped nil")
    for index in indexes:
        if item is None:
            raise CallError("index of nil pointer")
        if isinstance(item, str):
            item = _at(encode_text(item), index, "string")
        elif isinstance(item, list | tuple | bytes):
            item = _at(item, index, "slice")
        elif isinstance(item, dict):
            if index is None:
                raise CallError("value is nil; should be of type string")
            if not isinstance(index, str):
                raise CallError(f"value has type {type_name(index)}; should be string")
            item = item.get(index)
        else:
            raise CallError(f"can't index item of type {type_name(item)}")
    return item


def _at(items: Any, index: object, what: str) -> Any:
    number = _index_number(index, len(items))
    if number == len(items):
        raise CallError(f"reflect: {what} index out of range")
    return items[number]


def _slice(item: Any, *indexes: Any) -> object:
    """Strings are cut at bytes. Unlike in Go, a list is never cut beyond its length."""
    if item is None:
        raise CallError("slice of untyped nil")
    if len(indexes) > 3:
        raise CallError(f"too many slice indexes: {len(indexes)}")
    if isinstance(item, str):
        if len(indexes) == 3:
            raise CallError("cannot 3-index slice a string")
        data: Any = encode_text(item)
    elif isinstance(item, list | tuple):
        data = list(item)
    else:
        raise CallError(f"can't slice item of type {type_name(item)}")
    numbers = [_index_number(index, len(data)) for index in indexes]
    for low, high in pairwise(numbers):
        if low > high:
            raise CallError(f"invalid slice index: {low} > {high}")
    start = numbers[0] if numbers else 0
    part = data[start : numbers[1] if len(numbers) > 1 else len(data)]
    return decode_text(part) if isinstance(item, str) else part


# --- texts ----------------------------------------------------------------------------------------


def _text_of(values: tuple[object, ...]) -> str:
    return sprint([NO_VALUE if value is None else value for value in values])


def _print(*values: object) -> str:
    return sprint(values)


def _println(*values: object) -> str:
    return sprintln(values)


def _printf(template: str, *values: object) -> str:
    return sprintf(template, values)


def _html(*values: object) -> str:
    return escapes.html(_text_of(values))


def _js(*values: object) -> str:
    return escapes.js(_text_of(values))


def _urlquery(*values: object) -> str:
    return escapes.urlquery(_text_of(values))


def _not(value: object) -> bool:
    return not is_true(value)


def _decided_elsewhere(*values: object) -> object:
    """``and``, ``or`` and ``call`` need more than values: the compiler has them."""
    raise NotImplementedError


BUILTINS: dict[str, Function] = {
    "and": Function(_decided_elsewhere, 1),
    "or": Function(_decided_elsewhere, 1),
    "call": Function(_decided_elsewhere, 1),
    "not": Function(_not, 1, 1),
    "eq": Function(equal_to_any, 1),
    "ne": Function(_unequal, 2, 2),
    "lt": Function(_less, 2, 2),
    "le": Function(_less_or_equal, 2, 2),
    "gt": Function(_greater, 2, 2),
    "ge": Function(_greater_or_equal, 2, 2),
    "len": Function(_length, 1, 1),
    "index": Function(_index, 1),
    "slice": Function(_slice, 1, boxed_from=1),
    "print": Function(_print),
    "println": Function(_println),
    "printf": Function(_printf, 1, texts=1),
    "html": Function(_html),
    "js": Function(_js),
    "urlquery": Function(_urlquery),
}
