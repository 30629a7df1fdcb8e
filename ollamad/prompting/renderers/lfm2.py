"""LFM2: ChatML after a start token, the tools as one JSON list, calls as Python-like text in front
of the content (renderers-and-parsers 3.12).
"""

from __future__ import annotations

from functools import partial

from ollamad.prompting.renderers.chatml import ASSISTANT, END, turn
from ollamad.prompting.renderers.conversation import (
    Conversation,
    Renderer,
    is_on,
    last_index,
)
from ollamad.prompting.renderers.forms import spaced_raw, tool_object, with_sorted_keys
from ollamad.prompting.renderers.images import tagged_contents
from ollamad.wire import Message, ToolCall

_BOS = "<|startoftext|>"
_THINK_CLOSE = "</think>"
_CALLS_OPEN = "<|tool_call_start|>"


def _render(conversation: Conversation, *, thinks: bool) -> str:
    messages = conversation.messages
    contents = tagged_contents(messages, tag=conversation.tag_images)
    first_system = next((i for i, m in enumerate(messages) if m.role == "system"), -1)
    last_assistant = last_index(messages, "assistant")
    keeps_reasoning = thinks and is_on(conversation.think)
    last = len(messages) - 1

    system = "" if first_system < 0 else contents[first_system]
    prompt = [_BOS]
    if text := _with_tools(system, conversation):
        prompt.append(turn("system", text))
    for index, (message, content) in enumerate(zip(messages, contents, strict=True)):
        if index == first_system:
            continue
        if message.role == "assistant":
            cut = not keeps_reasoning and index != last_assistant
            prompt.append(ASSISTANT + _assistant(message, content, thinks, cut))
            if index != last:
                prompt.append(END)
        elif message.role == "tool":
            response = f"<|tool_response_start|>{content}<|tool_response_end|>"
            prompt.append(turn("tool", response))
        else:
            prompt.append(turn(message.role, content))
    if last < 0 or messages[last].role != "assistant":
        prompt.append(ASSISTANT)
    return "".join(prompt)


def _with_tools(system: str, conversation: Conversation) -> str:
    if not conversation.tools:
        return system
    functions = spaced_raw([tool_object(tool)["function"] for tool in conversation.tools])
    listed = f"List of tools: <|tool_list_start|>{functions}<|tool_list_end|>"
    return f"{system}\n{listed}" if system else listed


def _assistant(message: Message, content: str, thinks: bool, cut: bool) -> str:
    """The text of an assistant turn; ``cut``: without the reasoning that it holds."""
    thinking = ""
    if _THINK_CLOSE in content:
        if cut:
            content = content.rpartition(_THINK_CLOSE)[2].strip()
    elif thinks and message.thinking:
        if cut:
            content = content.strip()
        else:
            thinking = f"<think>{message.thinking}{_THINK_CLOSE}"
    if message.tool_calls and _CALLS_OPEN not in content:
        calls = _calls(message.tool_calls)
        content = f"{calls}\n{content}" if content.strip() else calls
    return thinking + content


def _calls(calls: list[ToolCall]) -> str:
    listed = []
    for call in calls:
        arguments = with_sorted_keys(call.function.arguments)
        pairs = ",".join(f"{name}={spaced_raw(value)}" for name, value in arguments.items())
        listed.append(f"{call.function.name}({pairs})")
    return f"{_CALLS_OPEN}[{','.join(listed)}]<|tool_call_end|>"


RENDERERS = tuple(
    Renderer(name, partial(_render, thinks=thinks), leading_bos=_BOS, places_images=True)
    for name, thinks in (("lfm2", False), ("lfm2-thinking", True))
)
