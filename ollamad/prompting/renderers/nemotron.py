"""Nemotron 3: ChatML with tools and calls in an XML-like notation, reasoning in ``<think>``
(renderers-and-parsers 3.10). Version 3 can be switched by ``/think`` and ``/no_think`` in messages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ollamad.prompting.renderers.chatml import ASSISTANT, END, XML_CALL_INSTRUCTIONS, turn
from ollamad.prompting.renderers.conversation import Conversation, Renderer, is_on, last_index
from ollamad.prompting.renderers.forms import (
    number_text,
    parameters_object,
    property_object,
    spaced_raw,
    with_sorted_keys,
)
from ollamad.prompting.renderers.images import tagged_contents
from ollamad.wire import Message, Tool, ToolCall

_OPEN, _CLOSE = "<think>", "</think>"
_ON, _OFF = "/think", "/no_think"
#: The closing tag holds the "on" marker and is not one.
_MARKERS = re.compile("</think>|/no_think|/think")
_EFFICIENT = "\n\n{reasoning effort: efficient}"


def _render(conversation: Conversation, *, has_switches: bool) -> str:
    """``has_switches``: version 3, where texts can switch thinking; version 3.5 otherwise."""
    messages = conversation.messages
    texts = [m.content for m in messages]
    if has_switches:
        texts = [_without_switches(i, m) for i, m in enumerate(messages)]
    contents = tagged_contents(messages, texts, tag=conversation.tag_images)
    last_user = last_index(messages, "user")
    if not has_switches and conversation.think == "medium" and last_user >= 0:
        contents[last_user] += _EFFICIENT

    has_first_system = bool(messages) and messages[0].role == "system"
    system = contents[0] if has_first_system else ""
    prompt = [turn("system", _with_tools(system, conversation.tools))]
    for index in range(int(has_first_system), len(messages)):
        message, content = messages[index], contents[index]
        if message.role == "assistant":
            text = _assistant(message, content, gap="\n" if has_switches else "")
            prompt.append(_assistant_turn(text, message.tool_calls, is_old=index < last_user))
        elif message.role == "tool":
            prompt.append(_result(messages, index, content))
        else:
            prompt.append(turn(message.role, content))
    thinks = _thinks(conversation, has_switches)
    prompt.append(f"{ASSISTANT}<think>\n" if thinks else f"{ASSISTANT}<think></think>")
    return "".join(prompt)


# --- switches -------------------------------------------------------------------------------------


def _thinks(conversation: Conversation, has_switches: bool) -> bool:
    thinks = conversation.think is None or is_on(conversation.think)
    if not has_switches:
        return thinks
    for message in conversation.messages:
        if message.role in ("user", "system"):
            if _ON in message.content.replace(_CLOSE, ""):
                thinks = True
            elif _OFF in message.content:
                thinks = False
    return thinks


def _without_switches(index: int, message: Message) -> str:
    if message.role not in ("user", "system"):
        return message.content
    text = _MARKERS.sub(lambda found: _CLOSE if found[0] == _CLOSE else "", message.content)
    is_first_system = index == 0 and message.role == "system"
    return text if is_first_system else text.strip()


# --- messages -------------------------------------------------------------------------------------


def _assistant(message: Message, content: str, *, gap: str) -> str:
    """Reasoning and content as one text; ``gap`` stands around the closing tag."""
    if message.thinking:
        return f"{_OPEN}\n{message.thinking}{gap}{_CLOSE}{gap}{content}"
    if _OPEN in content or _CLOSE in content:
        return content
    return f"{_OPEN}{_CLOSE}{content}"


def _assistant_turn(text: str, calls: Sequence[ToolCall] | None, *, is_old: bool) -> str:
    """``is_old``: the user has spoken since, so the reasoning is cut."""
    if not calls:
        if is_old and _OPEN in text and _CLOSE in text:
            text = f"{_OPEN}{_CLOSE}{text.rpartition(_CLOSE)[2]}"
        return turn("assistant", text.strip())
    if is_old:
        if _CLOSE in text:
            rest = text.rpartition(_CLOSE)[2]
        else:
            rest = text.partition(_OPEN)[0]
        text = f"{_OPEN}{_CLOSE}{rest.strip()}"
    return f"{ASSISTANT}{text.strip()}\n{''.join(map(_call, calls))}{END}"


def _call(call: ToolCall) -> str:
    arguments = "".join(
        f"<parameter={name}>\n{_value(value)}\n</parameter>\n"
        for name, value in call.function.arguments.items()
    )
    return f"<tool_call>\n<function={call.function.name}>\n{arguments}</function>\n</tool_call>\n"


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return str(value)  # as the model's Python writes them
    if isinstance(value, int | float):
        return number_text(value)
    return spaced_raw(with_sorted_keys(value))


def _result(messages: Sequence[Message], index: int, content: str) -> str:
    """One tool message; those in a row share a user turn, which the very first does not open."""
    opens = index > 0 and messages[index - 1].role != "tool"
    closes = index + 1 == len(messages) or messages[index + 1].role != "tool"
    opening = "<|im_start|>user\n" if opens else ""
    return f"{opening}<tool_response>\n{content}\n</tool_response>\n{END if closes else ''}"


# --- tools ----------------------------------------------------------------------------------------


def _with_tools(system: str, tools: Sequence[Tool]) -> str:
    if not tools:
        return system
    gap = "\n\n" if system else ""
    listed = "".join(_tool(tool) for tool in tools)
    return (
        f"{system}{gap}# Tools\n\nYou have access to the following functions:\n\n<tools>{listed}"
        f"\n</tools>{XML_CALL_INSTRUCTIONS}"
    )


def _tool(tool: Tool) -> str:
    function = tool.function
    parameters = parameters_object(function.parameters)
    lines = ["\n<function>", f"<name>{function.name}</name>"]
    lines += _description(function.description)
    lines.append("<parameters>")
    for name, declared in (function.parameters.properties or {}).items():
        whole = property_object(declared)
        lines += ["<parameter>", f"<name>{name}</name>"]
        if "type" in whole:
            lines.append(f"<type>{_types(whole['type'])}</type>")
        lines += _description(declared.description)
        lines += _extra(whole, "enum", "anyOf", "items", "properties", "required")
        lines.append("</parameter>")
    lines += _extra(parameters, "$defs", "items", "required")
    lines += ["</parameters>", "</function>"]
    return "\n".join(lines)


def _description(text: str) -> list[str]:
    trimmed = text.strip()
    return [f"<description>{trimmed}</description>"] if trimmed else []


def _types(declared: str | list[str]) -> str:
    if isinstance(declared, str):
        return declared
    return "[" + ", ".join(f"'{name}'" for name in declared) + "]"


def _extra(whole: Mapping[str, Any], *keys: str) -> list[str]:
    return [f"<{key}>{spaced_raw(whole[key])}</{key}>" for key in keys if key in whole]


RENDERERS = tuple(
    Renderer(name, partial(_render, has_switches=has_switches), places_images=True)
    for name, has_switches in (("nemotron-3-nano", True), ("nemotron-3.5-nano", False))
)
