"""GLM: turns opened by a role token and closed by nothing, calls as key and value elements
(renderers-and-parsers 3.11).
"""

from __future__ import annotations

from ollamad.prompting.renderers.conversation import Conversation, Renderer, is_on
from ollamad.prompting.renderers.forms import compact, spaced, tool_object, with_sorted_keys
from ollamad.prompting.renderers.images import tagged_contents
from ollamad.wire import ToolCall

_BEFORE_TOOLS = """\
<|system|>
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
"""
_AFTER_TOOLS = """\
</tools>

For each function call, output the function name and arguments within the following XML format:
<tool_call>{function-name}<arg_key>{arg-key-1}</arg_key><arg_value>{arg-value-1}</arg_value>\
<arg_key>{arg-key-2}</arg_key><arg_value>{arg-value-2}</arg_value>...</tool_call>"""


def _render_glm47(conversation: Conversation) -> str:
    prompt = [_opening(conversation)]
    previous = ""
    for message in conversation.messages:
        if message.role == "assistant":
            thinking = f"<think>{message.thinking}" if message.thinking else ""
            prompt.append(f"<|assistant|>{thinking}</think>{message.content}")
            prompt += map(_call, message.tool_calls or ())
        elif message.role == "tool":
            if previous != "tool":
                prompt.append("<|observation|>")
            prompt.append(f"<tool_response>{message.content}</tool_response>")
        else:
            prompt.append(f"<|{message.role}|>{message.content}")
        previous = message.role
    thinks = conversation.think is None or is_on(conversation.think)
    prompt.append("<|assistant|><think>" if thinks else "<|assistant|></think>")
    return "".join(prompt)


def _render_glm_ocr(conversation: Conversation) -> str:
    # Only an explicit "off" is written: this model does not think unless it wants to.
    is_off = conversation.think is False
    contents = tagged_contents(conversation.messages, tag=conversation.tag_images)
    prompt = [_opening(conversation)]
    previous = ""
    for message, content in zip(conversation.messages, contents, strict=True):
        if message.role == "assistant":
            prompt.append(f"<|assistant|>\n<think>{message.thinking.strip()}</think>")
            if text := content.strip():
                prompt.append(f"\n{text}")
            prompt += [f"\n{_call(call)}" for call in message.tool_calls or ()]
            prompt.append("\n")
        elif message.role == "tool":
            if previous != "tool":
                prompt.append("<|observation|>")
            prompt.append(f"\n<tool_response>\n{content}\n</tool_response>\n")
        elif message.role == "user":
            switch = "/nothink" if is_off and not content.endswith("/nothink") else ""
            prompt.append(f"<|user|>\n{content}{switch}")
        else:
            prompt.append(f"<|{message.role}|>\n{content}\n")
        previous = message.role
    prompt.append("<|assistant|>\n")
    if is_off:
        prompt.append("<think></think>\n")
    return "".join(prompt)


def _opening(conversation: Conversation) -> str:
    if not conversation.tools:
        return "[gMASK]<sop>"
    lines = "".join(f"{spaced(tool_object(tool))}\n" for tool in conversation.tools)
    return f"[gMASK]<sop>{_BEFORE_TOOLS}{lines}{_AFTER_TOOLS}"


def _call(call: ToolCall) -> str:
    arguments = "".join(
        f"<arg_key>{name}</arg_key><arg_value>{_value(value)}</arg_value>"
        for name, value in call.function.arguments.items()
    )
    return f"<tool_call>{call.function.name}{arguments}</tool_call>"


def _value(value: object) -> str:
    return value if isinstance(value, str) else compact(with_sorted_keys(value))


RENDERERS = (
    Renderer("glm-4.7", _render_glm47),
    Renderer("glm-ocr", _render_glm_ocr, places_images=True),
)
