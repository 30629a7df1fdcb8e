"""qwen3-coder: ChatML with tools and calls in an XML-like notation (renderers-and-parsers 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ollamad.prompting.renderers.chatml import (
    ASSISTANT,
    XML_CALL_INSTRUCTIONS,
    tool_result,
    turn,
)
from ollamad.prompting.renderers.conversation import Conversation, Renderer
from ollamad.prompting.renderers.forms import (
    compact,
    parameters_object,
    property_object,
    value_text,
    with_sorted_keys,
)
from ollamad.wire import Tool, ToolCall, ToolFunctionParameters

_DEFAULT_SYSTEM = (
    "You are Qwen, a helpful AI assistant that can interact with a computer to solve tasks."
)
_TOOLS_HEAD = "\n\n# Tools\n\nYou have access to the following functions:\n\n<tools>"


def _render(conversation: Conversation) -> str:
    messages = [m for m in conversation.messages if m.role != "system"]
    system = next(
        (m.content for m in conversation.messages if m.role == "system" and m.content), ""
    )
    tools = conversation.tools
    parts = []
    if tools:
        parts.append(turn("system", (system or _DEFAULT_SYSTEM) + _tools(tools)))
    elif system:
        parts.append(turn("system", system))
    for index, message in enumerate(messages):
        if message.role == "tool":
            parts.append(tool_result(messages, index, message.content))
        elif message.role == "assistant" and message.tool_calls:
            before = f"{message.content}\n" if message.content else ""
            calls = "".join(_call(call) for call in message.tool_calls)
            parts.append(turn("assistant", before + calls))
        elif message.role == "assistant" and index + 1 == len(messages):
            parts.append(ASSISTANT + message.content)  # left open: the model goes on from here
        else:
            parts.append(turn(message.role, message.content))
    if messages and messages[-1].role != "assistant":
        parts.append(ASSISTANT)
    return "".join(parts)


def _call(call: ToolCall) -> str:
    arguments = "".join(
        f"\n<parameter={name}>\n{value_text(value)}\n</parameter>"
        for name, value in call.function.arguments.items()
    )
    return f"\n<tool_call>\n<function={call.function.name}>{arguments}\n</function>\n</tool_call>"


def _tools(tools: Sequence[Tool]) -> str:
    listed = "".join(_tool(tool) for tool in tools)
    return f"{_TOOLS_HEAD}{listed}\n</tools>{XML_CALL_INSTRUCTIONS}"


def _tool(tool: Tool) -> str:
    function = tool.function
    return (
        f"\n<function>\n<name>{function.name}</name>"
        + _description(function.description)
        + tool_parameters(function.parameters)
        + "\n</function>"
    )


def tool_parameters(parameters: ToolFunctionParameters) -> str:
    """The ``<parameters>`` element of a declared tool, from the newline before it."""
    listed = ""
    for name, declared in (parameters.properties or {}).items():
        whole = property_object(declared)
        listed += f"\n<parameter>\n<name>{name}</name>"
        if "type" in whole:
            kind = whole["type"]
            listed += f"\n<type>{kind if isinstance(kind, str) else compact(kind)}</type>"
        listed += _description(declared.description)
        listed += _extra_keys(whole, "type", "description") + "\n</parameter>"
    extra = _extra_keys(parameters_object(parameters), "type", "properties")
    return f"\n<parameters>{listed}{extra}\n</parameters>"


def _description(text: str) -> str:
    return f"\n<description>{text}</description>" if text else ""


def _extra_keys(whole: Mapping[str, Any], *written: str) -> str:
    """What has no element of its own, each key as its own element."""
    return "".join(
        f"\n<{key}>{_extra_value(value)}</{key}>"
        for key, value in whole.items()
        if key not in written and value is not None
    )


def _extra_value(value: Any) -> str:
    if isinstance(value, Mapping | list):
        return compact(with_sorted_keys(value))
    return value_text(value)


RENDERERS = (Renderer("qwen3-coder", _render),)
