"""cogito: the marks of deepseek3.1 with tools and calls in JSON fences (3.8)."""

from __future__ import annotations

from collections.abc import Sequence

from ollamad.prompting.renderers.conversation import Conversation, Renderer, is_on
from ollamad.prompting.renderers.deepseek3_1 import (
    ASSISTANT,
    BOS,
    CALL_BEGIN,
    CALL_END,
    CALLS_BEGIN,
    CALLS_END,
    EOS,
    OUTPUT_BEGIN,
    OUTPUT_END,
    SEPARATOR,
    USER,
)
from ollamad.prompting.renderers.forms import arguments_object, compact, indented, tool_object
from ollamad.wire import Message, Tool, ToolCall

_OUTPUTS_BEGIN, _OUTPUTS_END = "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>"
_DEFAULT_SYSTEM = (
    "You are Cogito, an AI assistant created by Deep Cogito, which is an AI research lab based in "
    "San Francisco."
)
_THINK_SYSTEM = "Enable deep thinking subroutine.\n\n"


def _render(conversation: Conversation) -> str:
    messages = conversation.messages
    thinking = is_on(conversation.think)
    parts = [BOS, _system(messages, thinking=thinking), _tools(conversation.tools)]
    previous = ""  # the role before, among user, assistant and tool
    for index, message in enumerate(messages):
        if message.role == "user":
            parts.append(USER + message.content + ASSISTANT)
        elif message.role == "assistant":
            parts.append(message.content + _calls(message.tool_calls or ()) + EOS)
        elif message.role == "tool":
            parts.append(_tool_output(messages, index))
        else:
            continue
        previous = message.role
    if previous != "user":
        parts.append(ASSISTANT)
    if thinking:
        parts.append("<think>\n")
    return "".join(parts)


def _system(messages: Sequence[Message], *, thinking: bool) -> str:
    given = next((m.content for m in messages if m.role == "system"), "")
    text = (_THINK_SYSTEM if thinking else "") + _DEFAULT_SYSTEM
    if given:
        text += f"\n\n{given}" + ("\n\n" if thinking else "")
    return text


def _tools(tools: Sequence[Tool]) -> str:
    if not tools:
        return ""
    listed = "".join(f"```json\n{indented(tool_object(tool))}\n```\n" for tool in tools)
    return "\nYou have the following functions available:\n" + listed


def _calls(calls: Sequence[ToolCall]) -> str:
    return CALLS_BEGIN + "\n".join(map(_call, calls)) + CALLS_END if calls else ""


def _call(call: ToolCall) -> str:
    arguments = compact(arguments_object(call.function.arguments))
    name = call.function.name
    return f"{CALL_BEGIN}function{SEPARATOR}{name}\n```json\n{arguments}\n```{CALL_END}"


def _tool_output(messages: Sequence[Message], index: int) -> str:
    """Results in a row share one pair of outer marks."""
    first = index == 0 or messages[index - 1].role != "tool"
    last = index + 1 == len(messages) or messages[index + 1].role != "tool"
    output = OUTPUT_BEGIN + messages[index].content + OUTPUT_END
    return (_OUTPUTS_BEGIN if first else "\n") + output + (_OUTPUTS_END if last else "")


RENDERERS = (Renderer("cogito", _render, leading_bos=BOS),)
