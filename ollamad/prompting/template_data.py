"""Messages and tools as templates see them: Go's field names, sorted maps, numbers as floats. Pure.

Everything here prints as JSON where the reference prints a struct: models were trained on JSON.
Source: prompting.md 3.3, 3.4.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from ollamad.gotemplate.values import GoList, GoMap, GoObject, GoStruct
from ollamad.store import json_text
from ollamad.wire import Message, Tool, ToolCall, ToolFunctionParameters, ToolProperty


def collated(messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """The system texts as one, and the messages with neighbours of the same role merged.

    Of merged messages only the first keeps what is not content. Tool results stay apart.
    """
    system = "\n\n".join(m.content for m in messages if m.role == "system")
    merged: list[Message] = []
    contents: list[list[str]] = []
    for message in messages:
        if merged and message.role == merged[-1].role != "tool":
            contents[-1].append(message.content)
        else:
            merged.append(message)
            contents.append([message.content])
    return system, [
        _with_content(m, "\n\n".join(c)) if len(c) > 1 else m
        for m, c in zip(merged, contents, strict=True)
    ]


def _with_content(message: Message, content: str) -> Message:
    return Message(
        role=message.role,
        content=content,
        thinking=message.thinking,
        images=message.images,
        tool_calls=message.tool_calls,
        tool_name=message.tool_name,
        tool_call_id=message.tool_call_id,
    )


def json_of(value: Any) -> str:
    """``value`` as compact JSON with sorted keys and HTML escapes (2.6)."""
    return json_text.encode(plain(value)).decode()


def plain(value: Any) -> Any:
    """``value`` of what JSON is made of, with keys in the order in which they are written."""
    if isinstance(value, _Data):
        return value.plain()
    if isinstance(value, dict):
        return {key: plain(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value


def floated(value: Any) -> Any:
    """JSON data of a client with its numbers as templates must see them: floats."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, dict):
        return {key: floated(item) for key, item in value.items()}
    if isinstance(value, list):
        return [floated(item) for item in value]
    return value


class _Data(GoObject):
    """What all values here have in common."""

    def plain(self) -> Any:
        """The value made of what JSON is made of."""
        raise NotImplementedError

    def go_json(self) -> str:
        return json_text.encode(self.plain()).decode()

    def go_text(self) -> str:
        return self.go_json()


class _Struct(_Data, GoStruct):
    """A struct with ``fields`` by their Go names; its JSON has them too if not said otherwise."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def go_field(self, name: str) -> Any:
        return self._fields[name]

    def plain(self) -> Any:
        return {name: plain(value) for name, value in self._fields.items()}


class _List(_Data, GoList):
    """A list that may be absent (Go's nil): then its JSON is ``null``."""

    def __init__(self, items: Sequence[Any] | None) -> None:
        super().__init__(items or ())
        self._absent = items is None

    def plain(self) -> Any:
        return None if self._absent else [plain(item) for item in self]


class _Map(_Data, GoMap):
    """A map whose keys are written in sorted order."""

    def plain(self) -> Any:
        return {key: plain(self[key]) for key in sorted(self)}


# --- messages -------------------------------------------------------------------------------------


class MessageData(_Struct):
    go_type = "*template.templateMessage"

    def __init__(self, message: Message) -> None:
        calls = message.tool_calls or None
        super().__init__(
            {
                "Role": message.role,
                "Content": message.content,
                "Thinking": message.thinking,
                "Images": _List(message.images or None),
                "ToolCalls": _List(calls and [ToolCallData(call) for call in calls]),
                "ToolName": message.tool_name,
                "ToolCallID": message.tool_call_id,
            }
        )


class MessagesData(_List):
    go_type = "[]*template.templateMessage"


class ToolCallData(_Struct):
    go_type = "template.templateToolCall"

    def __init__(self, call: ToolCall) -> None:
        super().__init__({"ID": call.id, "Function": _CalledFunction(call)})


class _CalledFunction(_Struct):
    go_type = "template.templateToolCallFunction"

    def __init__(self, call: ToolCall) -> None:
        function = call.function
        arguments = _Arguments(floated(function.arguments or {}))
        super().__init__({"Index": function.index, "Name": function.name, "Arguments": arguments})


class _Arguments(_Map):
    go_type = "template.templateArgs"


# --- tools ----------------------------------------------------------------------------------------


class ToolsData(_List):
    """The tools of a request; None prints ``null``, an empty list ``[]``."""

    go_type = "template.templateTools"

    def __init__(self, tools: Sequence[Tool] | None) -> None:
        super().__init__(None if tools is None else [ToolData(tool) for tool in tools])


class ToolData(_Struct):
    go_type = "template.templateTool"

    def __init__(self, tool: Tool) -> None:
        super().__init__(
            {
                "Type": tool.type,
                "Items": floated(tool.items),
                "Function": _FunctionData(tool),
            }
        )

    def plain(self) -> Any:
        fields = self._fields
        return {
            "type": fields["Type"],
            **_present("items", fields["Items"]),
            "function": plain(fields["Function"]),
        }


class _FunctionData(_Struct):
    go_type = "template.templateToolFunction"

    def __init__(self, tool: Tool) -> None:
        function = tool.function
        super().__init__(
            {
                "Name": function.name,
                "Description": function.description,
                "Parameters": _ParametersData(function.parameters),
            }
        )

    def plain(self) -> Any:
        return {name.lower(): plain(value) for name, value in self._fields.items()}


class _ParametersData(_Struct):
    go_type = "template.templateToolFunctionParameters"

    def __init__(self, parameters: ToolFunctionParameters) -> None:
        super().__init__(
            {
                "Type": parameters.type,
                "Defs": floated(parameters.defs),
                "Items": floated(parameters.items),
                "Required": list(parameters.required),
                "Properties": _properties(parameters.properties),
            }
        )
        self._has_properties = parameters.properties is not None

    def plain(self) -> Any:
        fields = self._fields
        properties = plain(fields["Properties"]) if self._has_properties else None
        return {
            "type": fields["Type"],
            **_present("$defs", fields["Defs"]),
            **_present("items", fields["Items"]),
            **_filled("required", fields["Required"]),
            "properties": properties,
        }


def _properties(properties: dict[str, ToolProperty] | None) -> _Properties:
    return _Properties({n: PropertyData(p) for n, p in (properties or {}).items()})


class _Properties(_Map):
    go_type = "template.templateProperties"


class PropertyData(_Struct):
    """One parameter of a tool, or a part of one."""

    go_type = "api.ToolProperty"

    def __init__(self, declared: ToolProperty) -> None:
        names = declared.type if isinstance(declared.type, list) else [declared.type]
        nested = declared.properties
        #: The names of its types, none if it has none.
        self.types = [name for name in names if name]
        self.any_of = [PropertyData(alternative) for alternative in declared.anyOf]
        self._order = list(nested or ())
        super().__init__(
            {
                "AnyOf": self.any_of,
                "Type": _TypeNames(self.types),
                "Items": floated(declared.items),
                "Description": declared.description,
                "Enum": floated(declared.enum),
                "Properties": _properties(nested) if nested is not None else None,
                "Required": list(declared.required),
            }
        )

    def plain(self) -> Any:
        fields = self._fields
        # Unlike those of a whole tool, properties inside of a property keep the client's order.
        nested = {name: plain(fields["Properties"][name]) for name in self._order}
        return {
            **_filled("anyOf", fields["AnyOf"]),
            **_filled("type", fields["Type"]),
            **_present("items", fields["Items"]),
            **_filled("description", fields["Description"]),
            **_filled("enum", fields["Enum"]),
            **({"properties": nested} if nested else {}),
            **_filled("required", fields["Required"]),
        }


class _TypeNames(_List):
    go_type = "api.PropertyType"

    def plain(self) -> Any:
        return self[0] if len(self) == 1 else list(self)

    def go_text(self) -> str:
        if len(self) < 2:
            return "".join(self)
        return "[" + " ".join(self) + "]"


def _present(key: str, value: Any) -> dict[str, Any]:
    return {} if value is None else {key: plain(value)}


def _filled(key: str, value: Any) -> dict[str, Any]:
    return {key: plain(value)} if value else {}
