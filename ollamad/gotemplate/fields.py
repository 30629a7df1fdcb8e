"""Fields of dot, variables and pipelines: from a chain of names to what fetches its value. Pure."""

from __future__ import annotations

from typing import Any

from ollamad.gotemplate.frame import Evaluate, Frame, Located, Unit
from ollamad.gotemplate.values import GoObject, GoStruct, boxes, is_int, type_name


class FieldError(Exception):
    """A field that is not there; the text is Go's."""


def fetch(value: Any, names: tuple[str, ...], *, is_boxed: bool) -> tuple[Any, bool]:
    """The value of the chain ``names`` from ``value``, and whether it is an ``interface {}``.

    ``is_boxed`` says that of ``value``. Absent keys of maps are nil. A nil that is no interface
    stands for no value at all: it has every field, and none of them has a value. Raises FieldError.
    """
    if value is None and not is_boxed:
        return None, False
    for name in names:
        if isinstance(value, dict):
            is_boxed = boxes(value)
            value = value.get(name)
            continue
        if isinstance(value, GoStruct):
            try:
                value = value.go_field(name)
            except KeyError:
                raise FieldError(_unknown(value, name, is_boxed)) from None
            is_boxed = value is None
            continue
        if value is None:
            raise FieldError(f"nil pointer evaluating interface {{}}.{name}")
        raise FieldError(_unknown(value, name, is_boxed))
    return value, is_boxed


def _unknown(value: Any, name: str, is_boxed: bool) -> str:
    # Data has no ints and no objects in boxes: those are elements of typed lists and of integers.
    is_interface = is_boxed and not isinstance(value, GoObject) and not is_int(value)
    return f"can't evaluate field {name} in type " + (
        "interface {}" if is_interface else type_name(value)
    )


def refuse_arguments(value: Any, names: tuple[str, ...], *, is_boxed: bool) -> None:
    """What a chain does that is called with arguments: fails, unless there is no value at all."""
    holder, is_boxed = fetch(value, names[:-1], is_boxed=is_boxed)
    if holder is None and not is_boxed:
        return
    fetch(holder, names[-1:], is_boxed=is_boxed)
    if isinstance(holder, GoStruct):
        raise FieldError(f"{names[-1]} has arguments but cannot be invoked as function")
    raise FieldError(f"{names[-1]} is not a method but has arguments")


def chain(
    unit: Unit,
    start: Evaluate | None,
    names: tuple[str, ...],
    node: Located,
    *,
    is_boxed: bool,
    has_arguments: bool = False,
) -> Evaluate:
    """Fetches ``names`` from what ``start`` gives, from dot without it; ``node`` is blamed."""
    if has_arguments:

        def refuse(frame: Frame, dot: Any) -> Any:
            value = dot if start is None else start(frame, dot)
            try:
                refuse_arguments(value, names, is_boxed=is_boxed)
            except FieldError as error:
                unit.fail(node, str(error))

        return refuse

    if start is None and len(names) == 1:
        # By far the most frequent operand.
        name = names[0]

        def fetch_from_dot(frame: Frame, dot: Any) -> Any:
            if type(dot) is dict:
                return dot.get(name)
            try:
                return fetch(dot, names, is_boxed=is_boxed)[0]
            except FieldError as error:
                unit.fail(node, str(error))

        return fetch_from_dot

    def fetch_from_start(frame: Frame, dot: Any) -> Any:
        value = dot if start is None else start(frame, dot)
        try:
            return fetch(value, names, is_boxed=is_boxed)[0]
        except FieldError as error:
            unit.fail(node, str(error))

    return fetch_from_start


def held_in_a_box(start: Evaluate | None, names: tuple[str, ...], *, is_boxed: bool) -> Evaluate:
    """Whether the value of the chain is an ``interface {}`` for Go; it must have been fetched."""

    def evaluate(frame: Frame, dot: Any) -> bool:
        value = dot if start is None else start(frame, dot)
        value, is_interface = fetch(value, names, is_boxed=is_boxed)
        return is_interface and not isinstance(value, GoObject) and not is_int(value)

    return evaluate
