"""qwen3-vl: ChatML with images, tools and calls in JSON (renderers-and-parsers 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

from ollamad.prompting.renderers.chatml import (
    ASSISTANT,
    END,
    THINK_OPEN,
    last_query,
    tool_result,
    turn,
)
from ollamad.prompting.renderers.conversation import Conversation, Render, Renderer, is_on
from ollamad.prompting.renderers.forms import arguments_object, spaced, tool_object
from ollamad.prompting.renderers.images import tagged_contents
from ollamad.wire import Message, Tool

_TOOLS_HEAD = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
)
_TOOLS_TAIL = (
    "</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)


def _renderer(*, thinks: bool) -> Render:
    def render(conversation: Conversation) -> str:
        think = conversation.think
        return _rendered(conversation, thinking=thinks if think is None else is_on(think))

    return render


def _rendered(conversation: Conversation, *, thinking: bool) -> str:
    messages = conversation.messages
    contents = tagged_contents(messages, tag=conversation.tag_images)
    has_system = bool(messages) and messages[0].role == "system"
    parts = []
    if conversation.tools:
        system = f"{contents[0]}\n\n" if has_system else ""
        parts.append(turn("system", system + _tools(conversation.tools)))
    elif has_system:
        parts.append(turn("system", contents[0]))
    query = last_query(messages, trimmed=False)
    reasons_from = len(messages) if query is None else query + 1
    final = len(messages) - 1
    for index, (message, content) in enumerate(zip(messages, contents, strict=True)):
        if message.role == "user" or (message.role == "system" and index > 0):
            parts.append(turn(message.role, content))
        elif message.role == "assistant":
            reasons = thinking and index >= reasons_from and (index == final or message.thinking)
            parts.append(_answer(message, content, reasons=bool(reasons)))
            if index < final:
                parts.append(END)
        elif message.role == "tool":
            parts.append(tool_result(messages, index, content))
    if messages and messages[-1].role != "assistant":
        parts.append(ASSISTANT + (THINK_OPEN if thinking else ""))
    return "".join(parts)


def _answer(message: Message, content: str, *, reasons: bool) -> str:
    text = ASSISTANT
    if reasons:
        text += THINK_OPEN + message.thinking.strip("\n")
        if content:
            text += "\n</think>\n\n" + content.lstrip("\n")
    else:
        text += content
    for number, call in enumerate(message.tool_calls or ()):
        gap = "\n" if number or content else ""
        name = spaced(call.function.name)
        arguments = spaced(arguments_object(call.function.arguments))
        text += f'{gap}<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'
    return text


def _tools(tools: Sequence[Tool]) -> str:
    return _TOOLS_HEAD + "".join(f"{spaced(tool_object(t))}\n" for t in tools) + _TOOLS_TAIL


RENDERERS = (
    Renderer("qwen3-vl-instruct", _renderer(thinks=False), places_images=True),
    Renderer("qwen3-vl-thinking", _renderer(thinks=True), places_images=True),
)
