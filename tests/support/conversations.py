"""Conversations for the tests of renderers (renderers-and-parsers.md 2.3) and short words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ollamad.prompting.renderers.conversation import Conversation
from ollamad.prompting.renderers.registry import find_renderer
from ollamad.wire import (
    Message,
    Think,
    Tool,
    ToolCall,
    ToolCallFunction,
    ToolFunction,
    ToolFunctionParameters,
    ToolProperty,
)


def user(content: str, images: int = 0) -> Message:
    return Message(role="user", content=content, images=[b"x"] * images or None)


def system(content: str) -> Message:
    return Message(role="system", content=content)


def assistant(content: str, *calls: ToolCall, thinking: str = "") -> Message:
    return Message(
        role="assistant", content=content, thinking=thinking, tool_calls=list(calls) or None
    )


def result(content: str, *, name: str = "", id: str = "", images: int = 0) -> Message:
    return Message(
        role="tool",
        content=content,
        tool_name=name,
        tool_call_id=id,
        images=[b"x"] * images or None,
    )


def call(name: str, arguments: Mapping[str, Any] | None = None, *, id: str = "") -> ToolCall:
    function = ToolCallFunction(index=0, name=name, arguments=dict(arguments or {}))
    return ToolCall(id=id, function=function)


def tool(
    name: str,
    properties: Mapping[str, ToolProperty] | None = None,
    *,
    description: str = "",
    type: str = "object",
    required: Sequence[str] = (),
    **more: Any,
) -> Tool:
    parameters = ToolFunctionParameters(
        type=type,
        properties=None if properties is None else dict(properties),
        required=list(required),
        **more,
    )
    return Tool(
        type="function",
        function=ToolFunction(name=name, description=description, parameters=parameters),
    )


def prompt(
    renderer: str,
    messages: Sequence[Message],
    *,
    tools: Sequence[Tool] = (),
    think: Think | None = None,
    tag_images: bool = True,
) -> str:
    return find_renderer(renderer).render(Conversation(messages, tools, think, tag_images))


def turn(role: str, content: str) -> str:
    """One ChatML turn."""
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


WEATHER = tool(
    "get_weather",
    {
        "city": ToolProperty(type="string", description="City name"),
        "days": ToolProperty(type="integer"),
    },
    description="Current weather",
    required=["city"],
)

WEATHER_SJ = (
    '{"type": "function", "function": {"name": "get_weather", "description": "Current weather", '
    '"parameters": {"type": "object", "required": ["city"], "properties": {"city": {"type": '
    '"string", "description": "City name"}, "days": {"type": "integer"}}}}}'
)

#: "CW": the conversation of the worked examples.
CW = (
    system("Be brief."),
    user("Weather in Paris?"),
    assistant(
        "Checking.",
        call("get_weather", {"city": "Paris", "days": 2}, id="call_1"),
        thinking="Need the tool.",
    ),
    result("22C", name="get_weather", id="call_1"),
)

#: Values that the dialects write differently, and whole calls with them (the Cases).
VALUES = {"n": None, "f": 1.5, "t": True, "l": [1, "x"], "o": {"b": 1, "a": "<"}}
NUMBERS = {"a": 1000000, "b": 2097152, "c": 1234567.5, "d": 1e20, "e": 0.00001}
BIG = 12345678901234567890
