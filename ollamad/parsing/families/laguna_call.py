"""The text of a Laguna call: JSON, a name and JSON, or a name and pairs. Pure.

Source: renderers-and-parsers.md 3.14.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ollamad.parsing.call_objects import read_object
from ollamad.parsing.declared import find_tool
from ollamad.parsing.events import Call
from ollamad.parsing.values import coerce, property_types
from ollamad.wire import Tool

_PAIR = re.compile(
    r"\s*<arg_key>(?P<key>[^<]*)</arg_key>\s*<arg_value>(?P<value>.*?)</arg_value>", re.DOTALL
)
_NAME = re.compile(r"[^\s{<]+")
#: Names from the model's training for tools that are declared under other ones.
ALIASES = {"read_file": "read", "write_file": "write", "edit_file": "edit", "web_fetch": "webfetch"}
_KEYS = {"name", "arguments", "id", "type"}
_NESTED = "<tool_call>"


def read_laguna_call(text: str, tools: Sequence[Tool]) -> Call:
    """The call that ``text`` is. Raises ValueError if it is none; the name need not be declared."""
    text = text.strip()
    while text.startswith(_NESTED):
        text = text.removeprefix(_NESTED).lstrip()
    if text.startswith("{"):
        return _from_object(read_object(text), tools)
    found = _NAME.match(text)
    if found is None:
        raise ValueError("empty Laguna tool call name")
    name, rest = _declared(found[0], tools), text[found.end() :].strip()
    while rest.startswith(_NESTED):
        rest = rest.removeprefix(_NESTED).lstrip()
    if rest.startswith("{"):
        return Call(name, _arguments(rest))
    return Call(name, _pairs(rest, name, tools))


def read_bare_call(text: str, tools: Sequence[Tool]) -> Call | None:
    """The call of a declared tool that ``text``, found without call tags, is; else None."""
    try:
        call = read_laguna_call(text, tools)
    except ValueError:
        return None
    return call if find_tool(tools, call.name) else None


def _from_object(value: dict[str, Any] | None, tools: Sequence[Tool]) -> Call:
    if value is None:
        raise ValueError("failed to parse Laguna JSON tool call")
    name = value.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("empty Laguna tool call name")
    if not value.keys() <= _KEYS:
        raise ValueError("more than a call")
    return Call(_declared(name, tools), _arguments(value.get("arguments")))


def _arguments(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        value = read_object(value)
    elif value is None:
        value = {}
    if not isinstance(value, dict):
        raise ValueError("failed to parse Laguna JSON tool call arguments")
    return value


def _pairs(text: str, name: str, tools: Sequence[Tool]) -> dict[str, Any]:
    arguments = {}
    at = 0
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None:
            raise ValueError("no pair of arg_key and arg_value")
        key = pair["key"].strip()
        if key in arguments:
            raise ValueError(f'repeated argument "{key}"')  # one of the values would be lost
        arguments[key] = coerce(pair["value"], property_types(tools, name, key))
        at = pair.end()
    return arguments


def _declared(name: str, tools: Sequence[Tool]) -> str:
    if not find_tool(tools, name) and find_tool(tools, ALIASES.get(name, "")):
        return ALIASES[name]
    return name
