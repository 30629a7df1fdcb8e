"""JSON and value texts as renderers write them (renderers-and-parsers 1.2).

Numbers pass through 64-bit floats, as in the reference, so that a prompt (and with it the runner's
cache) is the same for a call that the client sends back with ``2`` or ``2.0``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ollamad.gotemplate.numbers import format_float
from ollamad.store.json_text import number, well_formed
from ollamad.wire import Tool, ToolFunctionParameters, ToolProperty

_HTML = re.compile("[<>&]")


class _HtmlEscaped(dict[str, Any]):
    """An object inside which every dialect escapes ``<``, ``>`` and ``&``."""


# --- texts ----------------------------------------------------------------------------------------


def compact(value: Any) -> str:
    """CJ: no spaces, HTML-escaped, object keys in the order given."""
    return "".join(_pieces(value, ",", ":", html=True))


def spaced(value: Any) -> str:
    """SJ: as CJ with a space after every ``:`` and ``,`` outside of strings."""
    return "".join(_pieces(value, ", ", ": ", html=True))


def spaced_raw(value: Any) -> str:
    """SJ-raw: as SJ without HTML escapes, except in the properties of a `tool_object`."""
    return "".join(_pieces(value, ", ", ": ", html=False))


def indented(value: Any, *, step: str = "    ", margin: str = "") -> str:
    """CJ with one member per line; empty objects and lists stay on theirs."""
    if not value or not isinstance(value, Mapping | list | tuple):
        return compact(value)
    inner = margin + step
    if isinstance(value, Mapping):
        lines = [
            f"{inner}{_text(key, html=True)}: {indented(item, step=step, margin=inner)}"
            for key, item in value.items()
        ]
        opening, closing = "{}"
    else:
        lines = [inner + indented(item, step=step, margin=inner) for item in value]
        opening, closing = "[]"
    return f"{opening}\n" + ",\n".join(lines) + f"\n{margin}{closing}"


def value_text(value: Any) -> str:
    """A value on its own: text as it is, numbers as templates print them, the rest as CJ."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number_text(value)
    return compact(with_sorted_keys(value))


def number_text(value: float) -> str:
    """A number as templates print it: ``2``, ``1.5``, ``1e+06`` (prompting.md 2.3)."""
    return format_float(float(value))


def _pieces(value: Any, comma: str, colon: str, *, html: bool) -> Iterator[str]:
    if isinstance(value, str):
        yield _text(value, html=html)
    elif value is None:
        yield "null"
    elif isinstance(value, bool):
        yield "true" if value else "false"
    elif isinstance(value, int | float):
        yield number(float(value))
    elif isinstance(value, Mapping):
        html = html or isinstance(value, _HtmlEscaped)
        lead = "{"
        for key, item in value.items():
            yield lead + _text(key, html=html) + colon
            yield from _pieces(item, comma, colon, html=html)
            lead = comma
        yield "}" if value else "{}"
    else:
        lead = "["
        for item in value:
            yield lead
            yield from _pieces(item, comma, colon, html=html)
            lead = comma
        yield "]" if value else "[]"


def _text(text: str, *, html: bool) -> str:
    quoted = json.dumps(well_formed(text), ensure_ascii=False)
    if not quoted.isascii():
        quoted = quoted.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return _HTML.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted) if html else quoted


# --- objects --------------------------------------------------------------------------------------


def with_sorted_keys(value: Any) -> Any:
    """``value`` with the keys of all its objects sorted."""
    if isinstance(value, Mapping):
        return {key: with_sorted_keys(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [with_sorted_keys(item) for item in value]
    return value


def arguments_object(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call: the client's order on top, sorted keys below."""
    return {name: with_sorted_keys(value) for name, value in arguments.items()}


def property_types(type_: str | Sequence[str]) -> list[str]:
    """The names in a property's ``type``, however the client wrote them."""
    if isinstance(type_, str):
        return [type_] if type_ else []
    return list(type_)


def tool_object(tool: Tool) -> dict[str, Any]:
    """A declared tool as JSON, keys in the order of the dialects."""
    function: dict[str, Any] = {"name": tool.function.name}
    if tool.function.description:
        function["description"] = tool.function.description
    function["parameters"] = parameters_object(tool.function.parameters)
    whole: dict[str, Any] = {"type": tool.type}
    if tool.items is not None:
        whole["items"] = with_sorted_keys(tool.items)
    whole["function"] = function
    return whole


def parameters_object(parameters: ToolFunctionParameters) -> dict[str, Any]:
    """The parameters of a tool as JSON; ``properties`` is null when none were sent."""
    whole: dict[str, Any] = {"type": parameters.type}
    if parameters.defs is not None:
        whole["$defs"] = with_sorted_keys(parameters.defs)
    if parameters.items is not None:
        whole["items"] = with_sorted_keys(parameters.items)
    if parameters.required:
        whole["required"] = list(parameters.required)
    properties = parameters.properties
    whole["properties"] = None if properties is None else _properties(properties)
    return whole


def property_object(declared: ToolProperty) -> dict[str, Any]:
    """One property as JSON: what is empty is left out."""
    whole: dict[str, Any] = {}
    if declared.anyOf:
        whole["anyOf"] = [property_object(alternative) for alternative in declared.anyOf]
    if types := property_types(declared.type):
        whole["type"] = types[0] if len(types) == 1 else types
    if declared.items is not None:
        whole["items"] = with_sorted_keys(declared.items)
    if declared.description:
        whole["description"] = declared.description
    if declared.enum:
        whole["enum"] = with_sorted_keys(declared.enum)
    if declared.properties is not None:
        whole["properties"] = _properties(declared.properties)
    if declared.required:
        whole["required"] = list(declared.required)
    return whole


def _properties(properties: Mapping[str, ToolProperty]) -> _HtmlEscaped:
    return _HtmlEscaped({name: property_object(item) for name, item in properties.items()})
