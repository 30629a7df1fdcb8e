"""Cohere's Command models: everything between tokens, tools, calls and results as JSON
(renderers-and-parsers 3.15).
"""

from __future__ import annotations

from collections.abc import Sequence

from ollamad.prompting.renderers.conversation import Conversation, Renderer, is_on
from ollamad.prompting.renderers.forms import arguments_object, parameters_object, spaced
from ollamad.wire import Message, Tool, ToolCall

_TURN, _TURN_END = "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"
_SYSTEM, _USER, _CHATBOT = "<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"
_TEXT, _TEXT_END = "<|START_TEXT|>", "<|END_TEXT|>"
_THINKING, _THINKING_END = "<|START_THINKING|>", "<|END_THINKING|>"
# Left over from the layout of the template that the models were trained with.
_BEFORE_ACTION = f"\n{' ' * 12}\n{' ' * 16}"


def _render(conversation: Conversation) -> str:
    flow = list(conversation.messages)
    first_system = next((i for i, message in enumerate(flow) if _role(message) == "system"), None)
    system = "" if first_system is None else flow.pop(first_system).content
    head = f"{system}\n\n\n\n" if system else ""
    prompt = [_turn(_SYSTEM, f"{head}{_tools(conversation.tools)}")]
    numbers: dict[str, int] = {}
    called = 0
    is_prefilled = False
    for index, message in enumerate(flow):
        role = _role(message)
        if role == "assistant":
            thinking = f"{_THINKING}{message.thinking}{_THINKING_END}" if message.thinking else ""
            if calls := message.tool_calls:
                prompt.append(_action_turn(thinking, calls, called))
                numbers |= {call.id: called + n for n, call in enumerate(calls) if call.id}
                called += len(calls)
            elif index == len(flow) - 1:
                is_prefilled = True
                prompt.append(f"{_TURN}{_CHATBOT}{thinking}{_TEXT}{message.content}")
            else:
                prompt.append(_turn(_CHATBOT, message.content, thinking))
        elif role == "tool":
            opens = index == 0 or _role(flow[index - 1]) != "tool"
            closes = index + 1 == len(flow) or _role(flow[index + 1]) != "tool"
            prompt.append(f"{_TURN}{_SYSTEM}<|START_TOOL_RESULT|>[" if opens else ",")
            prompt.append(_result(message, numbers))
            if closes:
                prompt.append(f"\n\n]<|END_TOOL_RESULT|>{_TURN_END}")
        else:
            prompt.append(_turn(_SYSTEM if role == "system" else _USER, message.content))
    if not is_prefilled:
        thinks = conversation.think is None or is_on(conversation.think)
        prompt.append(f"{_TURN}{_CHATBOT}{_THINKING}{'' if thinks else _THINKING_END}")
    return "".join(prompt)


def _role(message: Message) -> str:
    role = message.role.lower()
    return "assistant" if role == "chatbot" else role


def _turn(speaker: str, text: str, before: str = "") -> str:
    return f"{_TURN}{speaker}{before}{_TEXT}{text}{_TEXT_END}{_TURN_END}"


def _tools(tools: Sequence[Tool]) -> str:
    entries = ",\n\n".join(f"\n    {_tool(tool)}" for tool in tools)
    return f"# Available Tools\n```json\n[\n{entries}\n\n\n]\n```"


def _tool(tool: Tool) -> str:
    function = tool.function
    return spaced(
        {
            "name": function.name,
            "description": function.description,
            "parameters": parameters_object(function.parameters),
            "responses": None,
        }
    )


def _action_turn(thinking: str, calls: Sequence[ToolCall], first: int) -> str:
    """Calls, numbered from ``first``. There is no place for content beside them."""
    entries = ",".join(
        "\n\n    "
        + spaced(
            {
                "tool_call_id": str(first + n),
                "tool_name": call.function.name,
                "parameters": arguments_object(call.function.arguments),
            }
        )
        for n, call in enumerate(calls)
    )
    return (
        f"{_TURN}{_CHATBOT}{_BEFORE_ACTION}{thinking}"
        f"<|START_ACTION|>[{entries}\n\n]<|END_ACTION|>{_TURN_END}"
    )


def _result(message: Message, numbers: dict[str, int]) -> str:
    """One result; ``numbers``: of the calls so far, by their id."""
    call = str(numbers.get(message.tool_call_id, message.tool_call_id))
    return (
        "\n    {\n"
        f'        "tool_call_id": {spaced(call)},\n'
        '        "results": {\n'
        "\n"
        "            \n"
        f'            "0": {spaced({"content": message.content})}\n'
        "\n"
        "        },\n"
        '        "is_error": null\n'
        "    }"
    )


RENDERERS = (Renderer("cohere", _render, leading_bos="<BOS_TOKEN>"),)
