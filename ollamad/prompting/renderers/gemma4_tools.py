"""How gemma4 declares tools (renderers-and-parsers 3.5, point 3).

Two kinds of schemas occur: properties of the tool (`ToolProperty`), and what stands under ``items``
(free JSON), with slightly different rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ollamad.prompting.renderers.forms import property_types, value_text
from ollamad.prompting.renderers.gemma_calls import Notation
from ollamad.wire import Tool, ToolFunctionParameters, ToolProperty

QUOTED = Notation('<|"|>')
_ITEMS = Notation('<|"|>', quotes_keys=True)
#: Keywords of a schema: never written as names of properties.
_KEYWORDS = frozenset(("description", "nullable", "properties", "required", "type"))


def declaration(tool: Tool) -> str:
    body = function_body(tool, QUOTED, _properties)
    return f"<|tool>declaration:{tool.function.name}{body}<tool|>"


def function_body(
    tool: Tool, notation: Notation, properties: Callable[[Mapping[str, ToolProperty]], str]
) -> str:
    """What stands behind a declared name; ``properties`` writes the properties with braces."""
    body = f"description:{notation.string(tool.function.description)}"
    parameters = tool.function.parameters
    if parameters.properties is not None or parameters.type:
        body += f",parameters:{_parameters(parameters, notation, properties)}"
    return f"{{{body}}}"


def _parameters(
    parameters: ToolFunctionParameters,
    notation: Notation,
    properties: Callable[[Mapping[str, ToolProperty]], str],
) -> str:
    fields = []
    if parameters.properties:
        fields.append(f"properties:{properties(parameters.properties)}")
    if parameters.required:
        fields.append(f"required:{notation.strings(parameters.required)}")
    if parameters.type:
        fields.append(f"type:{notation.string(parameters.type.upper())}")
    return _braces(fields)


def _braces(fields: list[str]) -> str:
    return f"{{{','.join(fields)}}}"


# --- properties -----------------------------------------------------------------------------------


def _properties(properties: Mapping[str, ToolProperty]) -> str:
    names = sorted(properties.keys() - _KEYWORDS)
    return _braces([f"{name}:{_property(properties[name])}" for name in names])


def _property(declared: ToolProperty) -> str:
    fields = []
    if declared.description:
        fields.append(f"description:{QUOTED.string(declared.description)}")
    types = [name.upper() for name in _types(declared)]
    if len(types) > 1:
        union = ", ".join(f"'{name}'" for name in types)
        fields.append(f"type:{QUOTED.string(f'[{union}]')}")
        return _braces(fields)
    kind = types[0] if types else ""
    fields += _string_or_array(kind, declared.enum, declared.items)
    if kind == "OBJECT":
        fields.append(f"properties:{_properties(declared.properties or {})}")
        if declared.required:
            fields.append(f"required:{QUOTED.strings(declared.required)}")
    if kind:
        fields.append(f"type:{QUOTED.string(kind)}")
    return _braces(fields)


def _types(declared: ToolProperty) -> list[str]:
    """The types of a property, or those of its alternatives if these say nothing but types."""
    if own := property_types(declared.type):
        return own
    if not all(_is_bare(alternative) for alternative in declared.anyOf):
        return []
    names = [name for each in declared.anyOf for name in property_types(each.type)]
    return list(dict.fromkeys(names))


def _is_bare(declared: ToolProperty) -> bool:
    return declared == ToolProperty(type=declared.type) and bool(property_types(declared.type))


def _string_or_array(kind: str, enum: Any, items: Any) -> list[str]:
    """What strings and lists have besides their type."""
    if kind == "STRING" and isinstance(enum, list) and enum:
        return [f"enum:{QUOTED.strings([value_text(value) for value in enum])}"]
    if kind == "ARRAY" and isinstance(items, Mapping) and items:
        return [f"items:{_items(items)}"]
    return []


# --- what stands under items ----------------------------------------------------------------------


def _items(items: Mapping[str, Any]) -> str:
    fields = []
    for key in sorted(items):
        value = items[key]
        if value is None:
            continue
        if key == "properties" and isinstance(value, Mapping):
            text = _free_properties(value)
        elif key == "required" and isinstance(value, list):
            text = QUOTED.strings([value_text(name) for name in value])
        elif key == "type" and isinstance(value, str | list):
            text = _free_type(value)
        else:
            text = _ITEMS.value(value)
        fields.append(f"{key}:{text}")
    return _braces(fields)


def _free_type(type_: str | list[Any]) -> str:
    if isinstance(type_, str):
        return QUOTED.string(type_.upper())
    return QUOTED.strings([value_text(name).upper() for name in type_])


def _free_properties(properties: Mapping[str, Any]) -> str:
    names = sorted(properties.keys() - _KEYWORDS)
    schemas = [(name, properties[name]) for name in names]
    return _braces([f"{n}:{_free_property(s)}" for n, s in schemas if isinstance(s, Mapping)])


def _free_property(schema: Mapping[str, Any]) -> str:
    fields = []
    description, type_ = schema.get("description"), schema.get("type")
    if isinstance(description, str) and description:
        fields.append(f"description:{QUOTED.string(description)}")
    types = [value_text(name) for name in type_] if isinstance(type_, list) else type_
    if not isinstance(types, str | list):
        types = ""
    names = property_types(types)
    kind = names[0].upper() if names else ""
    fields += _string_or_array(kind, schema.get("enum"), schema.get("items"))
    if schema.get("nullable") is True:
        fields.append("nullable:true")
    if kind == "OBJECT":
        inner = schema.get("properties")
        # Without "properties" the schema's own keys that hold schemas are taken for them.
        fields.append(
            f"properties:{_free_properties(inner if isinstance(inner, Mapping) else schema)}"
        )
        required = schema.get("required")
        if isinstance(required, list) and required:
            fields.append(f"required:{QUOTED.strings([value_text(name) for name in required])}")
    if names:
        fields.append(f"type:{_free_type(names if len(names) > 1 else names[0])}")
    return _braces(fields)
