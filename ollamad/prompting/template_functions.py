"""The functions that templates of models have besides those of the language. Pure.

Source: prompting.md 2.4, 2.6, 2.7.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ollamad.gotemplate.errors import CallError
from ollamad.gotemplate.functions import BUILTINS, Function
from ollamad.prompting.day import Day
from ollamad.prompting.template_data import PropertyData, json_of

_today: ContextVar[Day | None] = ContextVar("today", default=None)


@contextmanager
def on(day: Day | None) -> Iterator[None]:
    """Templates that run within have ``day`` as the current date; none makes them fail if they ask
    for it."""
    token = _today.set(day)
    try:
        yield
    finally:
        _today.reset(token)


def _date(days_ago: int) -> str:
    today = _today.get()
    if today is None:
        raise CallError("the date is not known here")
    return type(today).fromordinal(today.toordinal() - days_ago).isoformat()


def _current_date(*_ignored: str) -> str:
    return _date(0)


def _yesterday_date(*_ignored: str) -> str:
    return _date(1)


_TYPESCRIPT = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}


def _typescript_type(value: object) -> str:
    if not isinstance(value, PropertyData):
        return "any"
    if value.any_of:
        return " | ".join(map(_typescript_type, value.any_of))
    return " | ".join(_TYPESCRIPT.get(name, "any") for name in value.types) or "any"


#: Names to functions, those of the language included.
FUNCTIONS: dict[str, Function] = {
    **BUILTINS,
    "json": Function(json_of, 1, 1),
    "currentDate": Function(_current_date, texts=sys.maxsize),
    "yesterdayDate": Function(_yesterday_date, texts=sys.maxsize),
    "toTypeScriptType": Function(_typescript_type, 1, 1),
}
