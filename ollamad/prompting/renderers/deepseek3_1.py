"""deepseek3.1 (renderers-and-parsers 3.7)."""

from __future__ import annotations

from collections.abc import Sequence

from ollamad.prompting.renderers.conversation import Conversation, Renderer, is_on, last_index
from ollamad.prompting.renderers.forms import arguments_object, compact, parameters_object
from ollamad.wire import Message, Tool, ToolCall

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
USER = "<｜User｜>"
ASSISTANT = "<｜Assistant｜>"
CALLS_BEGIN, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL_BEGIN, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
SEPARATOR = "<｜tool▁sep｜>"
OUTPUT_BEGIN, OUTPUT_END = "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"

_TOOLS_HEAD = "\n\n## Tools\nYou have access to the following tools:\n"
_TOOLS_TAIL = (
    "\nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n"
    f"{CALLS_BEGIN}{CALL_BEGIN}tool_call_name{SEPARATOR}tool_call_arguments{CALL_END}"
    f"{{{{additional_tool_calls}}}}{CALLS_END}\n"
    "\n"
    "Where:\n"
    "\n"
    "- `tool_call_name` must be an exact match to one of the available tools\n"
    "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters "
    "Schema\n"
    "- For multiple tool calls, chain them directly without separators or spaces\n"
)


def _render(conversation: Conversation) -> str:
    messages = conversation.messages
    thinking = is_on(conversation.think)
    last_user = last_index(messages, "user")
    parts = [BOS, "\n\n".join(m.content for m in messages if m.role == "system")]
    if conversation.tools:
        parts.append(_tools(conversation.tools))
    previous = ""  # the role before, among user, assistant and tool
    for index, message in enumerate(messages):
        if message.role == "user":
            parts.append(USER + message.content)
        elif message.role == "assistant":
            if previous == "user":
                reasons = thinking and message.thinking and index > last_user
                opens = reasons and not message.tool_calls
                parts.append(ASSISTANT + ("<think>" if opens else "</think>"))
            parts.append(_answer(message, previous))
        elif message.role == "tool":
            parts.append(OUTPUT_BEGIN + message.content + OUTPUT_END)
        else:
            continue
        previous = message.role
    if previous == "user":
        parts.append(ASSISTANT + ("<think>" if thinking else "</think>"))
    return "".join(parts)


def _answer(message: Message, previous: str) -> str:
    if message.tool_calls:
        calls = "".join(_call(call) for call in message.tool_calls)
        return f"{message.content}{CALLS_BEGIN}{calls}{CALLS_END}{EOS}"
    content = message.content
    if previous != "tool":
        before, closed, after = content.partition("</think>")
        content = after if closed else before
    return content + EOS


def _call(call: ToolCall) -> str:
    arguments = compact(arguments_object(call.function.arguments))
    return f"{CALL_BEGIN}{call.function.name}{SEPARATOR}{arguments}{CALL_END}"


def _tools(tools: Sequence[Tool]) -> str:
    listed = "".join(
        f"\n### {tool.function.name}\nDescription: {tool.function.description}\n\n"
        f"Parameters: {compact(parameters_object(tool.function.parameters))}\n"
        for tool in tools
    )
    return _TOOLS_HEAD + listed + _TOOLS_TAIL


RENDERERS = (Renderer("deepseek3.1", _render, leading_bos=BOS),)
