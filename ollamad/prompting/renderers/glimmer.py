"""Glimmer: messages with a recipient in their header, calls as elements in the ``atem:`` namespace
(renderers-and-parsers 3.16).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ollamad.prompting.day import Day
from ollamad.prompting.renderers.conversation import Conversation, Renderer
from ollamad.prompting.renderers.forms import (
    number_text,
    spaced_raw,
    tool_object,
    with_sorted_keys,
)
from ollamad.prompting.renderers.images import tagged_contents
from ollamad.wire import Message, Think, Tool, ToolCall

_BOS = "<|begin_of_text|>"
_END_OF_TURN, _MORE_FOLLOWS = "<|eot|>", "<|eom|>"
_RESPELLED = tuple(
    (f"{reasoning} {effort}", f"{reasoning} {strength}")
    for reasoning, effort, strength in (
        ("reasoning", "effort", "strength"),
        ("REASONING", "EFFORT", "STRENGTH"),
        ("Reasoning", "effort", "strength"),
        ("Reasoning", "Effort", "Strength"),
    )
)
_BEFORE_TOOLS = """

In this environment you have access to a set of tools you can use to answer the user's question.

You can invoke a function by writing a "<atem:function_calls>" block like the following:
<atem:function_calls>
<atem:invoke name="$FUNCTION_NAME">
<atem:parameter name="$PARAMETER_NAME">$PARAMETER_VALUE</atem:parameter>
...
</atem:invoke>
</atem:function_calls>

String and scalar parameters should be specified as is, while lists and objects should use JSON \
format. Note that spaces for string values are not stripped. The output is not expected to be \
valid XML and is parsed with regular expressions.
Here are the functions available in JSONSchema format:
"""
_AFTER_TOOLS = """

Here's an example of how to call a function in the tool set:
(If the tool namespace is not specified, invoke the function directly as `example_function_name` \
rather than `example_tool_name.example_function_name`)

to=example_tool_name.example_function_name

<atem:function_calls>
<atem:invoke name="example_tool_name.example_function_name">
<atem:parameter name="example_parameter_1">value_1</atem:parameter>
<atem:parameter name="example_parameter_2">This is the value for the second parameter
that can span
"multiple" lines
</atem:parameter>
</atem:invoke>
</atem:function_calls>"""


def _render(conversation: Conversation) -> str:
    messages, tools = conversation.messages, conversation.tools
    contents = tagged_contents(messages, tag=conversation.tag_images)
    namespaces = list(dict.fromkeys(tool.function.name.partition(".")[0] for tool in tools))
    shared = _tools(tools, namespaces) + _recipients(namespaces)
    callees = {
        call.id: call.function.name
        for message in messages
        for call in message.tool_calls or ()
        if call.id
    }

    prompt = [_BOS]
    if not any(message.role == "system" for message in messages):
        text = _default_system(conversation.today) + _strength(conversation.think)
        prompt.append(_message("system", text + shared))
    for index, (message, content) in enumerate(zip(messages, contents, strict=True)):
        if message.role == "system":
            text = _with_strength(content, conversation.think)
            prompt.append(_message("system", text + shared))
        elif message.role == "assistant":
            is_split = index + 1 < len(messages) and messages[index + 1].role == "assistant"
            prompt += _assistant(message, content, is_split=is_split)
        elif message.role == "tool":
            called = message.tool_call_id
            name = message.tool_name or callees.get(called, called)
            body = f'<tool_output name="{name}">\n{content}\n</tool_output>'
            prompt.append(_message(f"tool {name}", body))
        else:
            prompt.append(_message(message.role, content))
    prompt.append("<|start|>assistant")
    return "".join(prompt)


def _message(header: str, body: str, end: str = _END_OF_TURN) -> str:
    return f"<|start|>{header}<|message|>{body}{end}"


# --- system ---------------------------------------------------------------------------------------


def _default_system(today: Day | None) -> str:
    text = "You are a helpful AI assistant.\nKnowledge cutoff: 2026-01-04."
    return text if today is None else f"{text}\nCurrent date: {today.isoformat()}."


def _with_strength(text: str, think: Think | None) -> str:
    for effort, strength in _RESPELLED:
        text = text.replace(effort, strength)
    return text if "reasoning strength" in text.lower() else text + _strength(think)


def _strength(think: Think | None) -> str:
    if think is None or think is True:
        level = "high"
    else:
        level = think or "none"
    return f"\n\nReasoning strength: {level}."


def _tools(tools: Sequence[Tool], namespaces: Sequence[str]) -> str:
    if not tools:
        return ""
    lines = ["// Tool metadata"]
    lines += [spaced_raw({"name": namespace, "description": ""}) for namespace in namespaces]
    lines.append("// Function schemas")
    lines += [spaced_raw(tool_object(tool)["function"]) for tool in tools]
    return _BEFORE_TOOLS + "\n".join(lines) + _AFTER_TOOLS


def _recipients(namespaces: Sequence[str]) -> str:
    names = ["self", *(f"{namespace}.*" for namespace in namespaces), "user"]
    return "\n\n# Valid recipients: " + ", ".join(f'"{name}"' for name in names) + "."


# --- assistant ------------------------------------------------------------------------------------


def _assistant(message: Message, content: str, *, is_split: bool) -> list[str]:
    """The messages of one assistant turn; ``is_split``: the next message goes on with it."""
    parts = []
    if message.thinking:
        parts.append(_message("assistant to=self", message.thinking, _MORE_FOLLOWS))
    if calls := message.tool_calls:
        # The format has no place for content beside calls.
        *others, last = [(f"assistant to={c.function.name}", _call(c)) for c in calls]
        parts += [_message(header, body, _MORE_FOLLOWS) for header, body in others]
        parts.append(_message(*last, _MORE_FOLLOWS if is_split else _END_OF_TURN))
    elif content or not message.thinking:
        parts.append(_message("assistant to=user", content))
    return parts


def _call(call: ToolCall) -> str:
    arguments = "".join(
        f'<atem:parameter name="{name}">{_value(value)}</atem:parameter>\n'
        for name, value in call.function.arguments.items()
    )
    return (
        f'<atem:function_calls>\n<atem:invoke name="{call.function.name}">\n{arguments}'
        "</atem:invoke>\n</atem:function_calls>"
    )


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number_text(value)
    return spaced_raw(with_sorted_keys(value))


RENDERERS = (Renderer("glimmer", _render, leading_bos=_BOS, places_images=True),)
