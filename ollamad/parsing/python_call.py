"""Calls in Python's syntax, ``f(a=1, b="x")``, as olmo3 and lfm2 write them. Pure.

Source: renderers-and-parsers.md 3.9, 3.12.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from ollamad.parsing.events import Call
from ollamad.parsing.values import read_integer, read_json, read_number

_NAME = re.compile(r"[\w.:/-]+")
_KEY = re.compile(r"[^\s=()\[\]{},\"']+")
_STRUCTURE = re.compile(r"[()\[\]{},:\"']")
_STRING_END = re.compile(r"\\.|[\"']", re.DOTALL)
_ESCAPE = re.compile(r"\\([\\\"'ntr])")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}
_CLOSING = {"(": ")", "[": "]", "{": "}"}
#: A quote opens a string only where a value begins: in ``a=it's`` it is an apostrophe.
_BEFORE_VALUE = "=,:([{"
_CONSTANTS: dict[str, Any] = {
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    "null": None,
    "None": None,
    "nil": None,
}
_NO_VALUE = object()
_MAX_DEPTH = 100


class _Parts(NamedTuple):
    texts: list[str]  # between the commas, untrimmed
    end: int  # after the closing bracket


class UnfinishedError(ValueError):
    """The text ends in the middle of what it may yet become."""


class FoundCall(NamedTuple):
    """A call and where it ends."""

    call: Call
    end: int


def read_call(text: str, at: int, *, escapes: bool) -> FoundCall:
    """The call that begins at ``at``. Raises ValueError if there is none, UnfinishedError if there
    may be one once more text has come.

    ``escapes``: whether a quoted argument's escapes are resolved.
    """
    name = _NAME.match(text, at)
    if name is None:
        raise ValueError("no call")
    if name.end() == len(text):
        raise UnfinishedError("no call yet")
    if text[name.end()] != "(":
        raise ValueError("no call")
    parts = _parts(text, name.end() + 1, ")")
    arguments: dict[str, Any] = {}
    for part in _entries(parts.texts):
        key, equals, value = part.partition("=")
        if not equals or not _KEY.fullmatch(key.strip()):
            raise ValueError("an argument without a name")
        if key.strip() in arguments:
            raise ValueError("a repeated argument")
        arguments[key.strip()] = _value(value.strip(), escapes, _MAX_DEPTH)
    return FoundCall(Call(name[0], arguments), parts.end)


def _parts(text: str, at: int, closing: str) -> _Parts:
    """The texts between commas from ``at`` to the bracket that closes; ValueError without one."""
    texts: list[str] = []
    start = begin = at
    expected = [closing]
    while found := _STRUCTURE.search(text, at):
        at = found.end()
        match found[0]:
            case "," if len(expected) == 1:
                texts.append(text[start : at - 1])
                start = at
            case "," | ":":
                pass
            case "'" | '"' as quote:
                if _begins_value(text, begin, at - 1):
                    at = _string_end(text, at, quote)
            case "(" | "[" | "{" as opening:
                expected.append(_CLOSING[opening])
            case bracket:
                if bracket != expected.pop():
                    raise ValueError("brackets do not match")
                if not expected:
                    return _Parts([*texts, text[start : at - 1]], at)
    raise UnfinishedError("a bracket is not closed")


def _begins_value(text: str, begin: int, at: int) -> bool:
    while at > begin and text[at - 1].isspace():
        at -= 1
    return at == begin or text[at - 1] in _BEFORE_VALUE


def _string_end(text: str, at: int, quote: str) -> int:
    while found := _STRING_END.search(text, at):
        at = found.end()
        if found[0] == quote:
            return at
    raise UnfinishedError("a string is not closed")


def _entries(texts: list[str]) -> list[str]:
    """The parts without a last empty one: no entries, or a comma at the end."""
    return texts if texts[-1].strip() else texts[:-1]


def _value(text: str, escapes: bool, depth: int) -> Any:
    """What an argument's text stands for; what is nothing else is text."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[:1] in ("'", '"'):
        string = _string(text, escapes)
        return text if string is None else string
    if text[:1] in ("[", "{"):
        collection = _collection(text, depth)
        return text if collection is _NO_VALUE else collection
    integer = read_integer(text)
    number = read_number(text) if integer is None else integer
    return text if number is None else number


def _string(text: str, escapes: bool) -> str | None:
    try:
        whole = _string_end(text, 1, text[0]) == len(text)
    except ValueError:
        whole = False
    if not whole:
        return None
    return _unescaped(text[1:-1]) if escapes else text[1:-1]


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), text)


def _collection(text: str, depth: int) -> Any:
    """The JSON or Python list or dict that ``text`` is, or ``_NO_VALUE``."""
    try:
        return read_json(text)
    except ValueError:
        pass  # perhaps Python's
    try:
        parts = _parts(text, 1, _CLOSING[text[0]])
        if parts.end != len(text) or depth == 0:
            return _NO_VALUE
        entries = _entries(parts.texts)
        if text[0] == "[":
            return [_value(entry.strip(), True, depth - 1) for entry in entries]
        return dict(_pair(entry.strip(), depth - 1) for entry in entries)
    except ValueError:
        return _NO_VALUE


def _pair(text: str, depth: int) -> tuple[str, Any]:
    if text[:1] in ("'", '"'):
        end = _string_end(text, 1, text[0])
        key, rest = _unescaped(text[1 : end - 1]), text[end:].lstrip()
        if not rest.startswith(":"):
            raise ValueError("a key without a value")
        value = rest[1:]
    else:
        key, colon, value = text.partition(":")
        if not colon or not key.strip():
            raise ValueError("a key without a value")
    return key.strip(), _value(value.strip(), True, depth)
