"""Laguna and poolside-v1: turns as elements, the first with a line to each of their parts, the
second without (renderers-and-parsers 3.14).
"""

from __future__ import annotations

from collections.abc import Sequence

from ollamad.prompting.renderers.conversation import Conversation, Renderer, is_on
from ollamad.prompting.renderers.forms import spaced, tool_object, with_sorted_keys
from ollamad.wire import Message, Tool, ToolCall

_BOS = "〈|EOS|〉"
_THINK_OPEN, _THINK_CLOSE = "<think>", "</think>"
_DEFAULT_SYSTEM = (
    "You are a helpful, conversationally-fluent assistant made by Poolside. You are here to be "
    "helpful to users through natural language conversations."
)
_BEFORE_TOOLS = """\
### Tools

You may call functions to assist with the user query.
All available function signatures are listed below:
<available_tools>
"""
_AFTER_TOOLS = "</available_tools>"
_WITH_THINKING = "Wrap your thinking in '<think>', '</think>' tags, followed by a function call. "
_CALL_FORMAT = (
    "For each function call, return an unescaped XML-like object with function name and arguments "
    "within '<tool_call>' and '</tool_call>' tags, like here:\n"
)
_SAMPLE_THINKING = "<think> your thoughts here </think>\n"
_SAMPLE_CALL = """\
<tool_call>function-name
<arg_key>argument-key</arg_key>
<arg_value>value-of-argument-key</arg_value>
</tool_call>"""


# --- laguna ---------------------------------------------------------------------------------------


def _render_laguna(conversation: Conversation) -> str:
    thinks = is_on(conversation.think)
    text, flow = _system_and_flow(conversation)
    prompt = [_BOS]
    if text or conversation.tools:
        block = f"\n{text}" if text else ""
        if conversation.tools:
            block += f"\n\n{_tools(conversation.tools)}\n\n{_call_format(thinks)}"
        prompt.append(f"<system>\n{block}\n</system>\n")
    for index, message in enumerate(flow):
        if message.role == "assistant":
            prompt.append(_laguna_assistant(message, is_final=index == len(flow) - 1))
        elif message.role == "tool":
            prompt.append(f"<tool_response>\n{message.content}\n</tool_response>\n")
        else:
            prompt.append(f"<{message.role}>\n{message.content}\n</{message.role}>\n")
    if not flow or flow[-1].role != "assistant":
        prompt.append(f"<assistant>\n{_THINK_OPEN if thinks else _THINK_CLOSE}")
    return "".join(prompt)


def _call_format(thinks: bool) -> str:
    if thinks:
        return _WITH_THINKING + _CALL_FORMAT + _SAMPLE_THINKING + _SAMPLE_CALL
    return _CALL_FORMAT + _SAMPLE_CALL


def _laguna_assistant(message: Message, *, is_final: bool) -> str:
    """One assistant turn. A final one that has something in it is left open: the model goes on."""
    thinking, content = _split(message)
    turn = "<assistant>\n"
    turn += f"<think>\n{thinking}\n</think>\n" if thinking else "</think>\n"
    if content:
        turn += f"{content}\n"
    for call in message.tool_calls or ():
        turn += _call(call, "\n")
    if is_final and (message.content or message.thinking or message.tool_calls):
        return turn
    return turn + "</assistant>\n"


def _split(message: Message) -> tuple[str, str]:
    """Reasoning and content, both trimmed; content that holds reasoning is taken apart."""
    thinking, content = message.thinking, message.content
    if _THINK_CLOSE in content:
        if not thinking:
            before = content.partition(_THINK_CLOSE)[0]
            thinking = before.rpartition(_THINK_OPEN)[2]
        content = content.rpartition(_THINK_CLOSE)[2]
    return thinking.strip(), content.strip()


# --- poolside-v1 ----------------------------------------------------------------------------------


def _render_poolside(conversation: Conversation) -> str:
    thinks = is_on(conversation.think)
    text, flow = _system_and_flow(conversation)
    prompt = [_BOS]
    if text or conversation.tools or thinks:
        tools = _tools(conversation.tools) if conversation.tools else ""
        gap = "\n\n" if text and tools else ""
        prompt.append(f"<system>{text}{gap}{tools}</system>\n")
    for message in flow:
        if message.role == "assistant":
            thinking = f"<think>{message.thinking}</think>" if thinks else "</think>"
            calls = "".join(_call(call, "") for call in message.tool_calls or ())
            prompt.append(f"<assistant>{thinking}{message.content}{calls}</assistant>\n")
        elif message.role == "tool":
            prompt.append(f"<tool_response>{message.content}</tool_response>\n")
        else:
            prompt.append(f"<{message.role}>{message.content}</{message.role}>\n")
    prompt.append(f"<assistant>{_THINK_OPEN if thinks else _THINK_CLOSE}")
    return "".join(prompt)


# --- shared ---------------------------------------------------------------------------------------


def _system_and_flow(conversation: Conversation) -> tuple[str, list[Message]]:
    """The first system text, right-trimmed, or the default one; and the other messages."""
    flow = list(conversation.messages)
    first = next((i for i, message in enumerate(flow) if message.role == "system"), None)
    text = _DEFAULT_SYSTEM if first is None else flow.pop(first).content
    return text.rstrip(), flow


def _tools(tools: Sequence[Tool]) -> str:
    lines = "".join(f"{spaced(tool_object(tool))}\n" for tool in tools)
    return f"{_BEFORE_TOOLS}{lines}{_AFTER_TOOLS}"


def _call(call: ToolCall, gap: str) -> str:
    """``gap`` follows the name and each element."""
    arguments = "".join(
        f"<arg_key>{name}</arg_key>{gap}<arg_value>{_value(value)}</arg_value>{gap}"
        for name, value in call.function.arguments.items()
    )
    return f"<tool_call>{call.function.name}{gap}{arguments}</tool_call>{gap}"


def _value(value: object) -> str:
    return value if isinstance(value, str) else spaced(with_sorted_keys(value))


RENDERERS = (
    Renderer("laguna", _render_laguna, leading_bos=_BOS),
    Renderer("poolside-v1", _render_poolside, leading_bos=_BOS),
)
