"""functiongemma (renderers-and-parsers 3.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ollamad.prompting.renderers.conversation import Conversation, Renderer
from ollamad.prompting.renderers.forms import property_types
from ollamad.prompting.renderers.gemma4_tools import function_body
from ollamad.prompting.renderers.gemma_calls import Notation
from ollamad.wire import Message, Tool, ToolCall, ToolProperty

_BOS = "<bos>"
_TURN_END = "<end_of_turn>\n"
_RESPONSE = "<start_function_response>"
_ESCAPED = Notation("<escape>")
_TOOLS_HEAD = "You can do function calling with the following functions:"


def _render(conversation: Conversation) -> str:
    messages = conversation.messages
    has_system = bool(messages) and messages[0].role in ("system", "developer")
    system = messages[0].content.strip() if has_system else ""
    parts = [_BOS, _developer(system, conversation.tools)]
    in_turn = False  # results leave the model's turn open, whoever speaks next
    for index, message in enumerate(messages):
        if index == 0 and has_system:
            continue
        if message.role == "tool":
            awaited = index > 0 and _awaits_result(messages, index - 1)
            opening = "" if awaited else _RESPONSE
            result = _ESCAPED.string(message.content)
            name = _call_name(messages, index)
            parts.append(f"{opening}response:{name}{{{result}}}<end_function_response>")
            in_turn = True
            continue
        answers = message.role in ("user", "assistant")
        if not (in_turn and answers):
            role = "model" if message.role == "assistant" else message.role
            parts.append(f"<start_of_turn>{role}\n")
        parts.append(message.content.strip())
        if message.role == "assistant":
            parts += [_call(call) for call in message.tool_calls or ()]
        parts.append(_RESPONSE if _awaits_result(messages, index) else _TURN_END)
        in_turn = in_turn and not answers
    if not in_turn:
        parts.append("<start_of_turn>model\n")
    return "".join(parts)


def _awaits_result(messages: Sequence[Message], index: int) -> bool:
    """Whether the message at ``index`` makes calls and a tool message follows."""
    message = messages[index]
    if message.role != "assistant" or not message.tool_calls:
        return False
    return index + 1 < len(messages) and messages[index + 1].role == "tool"


def _call_name(messages: Sequence[Message], index: int) -> str:
    """The call that a tool message answers, by its place among the results; empty when unknown."""
    place = 0
    for message in reversed(messages[:index]):
        if message.role == "tool":
            place += 1
        elif message.role == "assistant" and message.tool_calls:
            calls = message.tool_calls
            return calls[place].function.name if place < len(calls) else ""
    return ""


def _call(call: ToolCall) -> str:
    arguments = _ESCAPED.object(call.function.arguments)
    return f"<start_function_call>call:{call.function.name}{arguments}<end_function_call>"


# --- declarations ---------------------------------------------------------------------------------


def _developer(system: str, tools: Sequence[Tool]) -> str:
    if not system and not tools:
        return ""
    text = system
    if tools:
        text += "\n" if system else ""
        text += "" if system == _TOOLS_HEAD else _TOOLS_HEAD
        text += "".join(_declaration(tool) for tool in tools)
    return f"<start_of_turn>developer\n{text}{_TURN_END}"


def _declaration(tool: Tool) -> str:
    body = function_body(tool, _ESCAPED, _properties)
    name = tool.function.name
    return f"<start_function_declaration>declaration:{name}{body}<end_function_declaration>"


def _properties(properties: Mapping[str, ToolProperty]) -> str:
    return "{" + ",".join(f"{n}:{_property(properties[n])}" for n in sorted(properties)) + "}"


def _property(declared: ToolProperty) -> str:
    text = f"description:{_ESCAPED.string(declared.description)}"
    if types := property_types(declared.type):
        text += f",type:{_ESCAPED.string(types[0].upper())}"
    return f"{{{text}}}"


RENDERERS = (Renderer("functiongemma", _render, leading_bos=_BOS),)
