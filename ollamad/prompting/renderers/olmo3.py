"""The Olmo 3 family: ChatML with the tools as a JSON list in the system turn, calls as Python-like
text (renderers-and-parsers 3.9).
"""

from __future__ import annotations

from ollamad.prompting.renderers.chatml import ASSISTANT, END, turn
from ollamad.prompting.renderers.conversation import Conversation, Render, Renderer
from ollamad.prompting.renderers.forms import compact, spaced, tool_object, with_sorted_keys
from ollamad.wire import Message, ToolCall

_OLMO = (
    "You are Olmo, a helpful AI assistant built by Ai2. Your date cutoff is December 2024, and "
    "your model weights are available at https://huggingface.co/allenai."
)
_NO_FUNCTIONS = "You do not currently have access to any functions. <functions></functions>"
_INSTRUCTIONS = (
    "You are provided with function signatures within <functions></functions> XML tags. You may "
    "call one or more functions to assist with the user query. Output any function calls within "
    "<function_calls></function_calls> XML tags. Do not make assumptions about what values to "
    "plug into functions."
)


def _calling(default: str) -> Render:
    """Renders for a model that calls tools and does not think."""

    def render(conversation: Conversation) -> str:
        system, flow = _without_systems(conversation)
        tools = ""
        if conversation.tools:
            listed = spaced([tool_object(tool) for tool in conversation.tools])
            tools = f"<functions>{listed}</functions>"
        if system is not None:
            text = system + tools
        else:
            text = f"{default} " + (_INSTRUCTIONS + tools if tools else _NO_FUNCTIONS)
        prompt = [turn("system", text)]
        last = len(flow) - 1
        for index, message in enumerate(flow):
            if message.role == "assistant":
                prompt.append(ASSISTANT + message.content)
                if message.tool_calls:
                    prompt.append(_calls(message.tool_calls))
                if message.tool_calls or index != last:
                    prompt.append(END)
            else:
                role = "environment" if message.role == "tool" else message.role
                prompt.append(turn(role, message.content))
        if not (flow and _is_prefill(flow[last])):
            prompt.append(ASSISTANT)
        return "".join(prompt)

    return render


def _thinking(default: str) -> Render:
    """Renders for a model that always thinks and knows no tools: what has to do with them goes."""

    def render(conversation: Conversation) -> str:
        system, flow = _without_systems(conversation)
        prompt = [turn("system", default if system is None else f"{system} {_NO_FUNCTIONS}")]
        prompt += [turn(m.role, m.content) for m in flow if m.role != "tool"]
        prompt.append(ASSISTANT + "<think>")
        return "".join(prompt)

    return render


def _without_systems(conversation: Conversation) -> tuple[str | None, list[Message]]:
    """The first system text (``None`` without one; it may be empty) and the other messages."""
    systems = (m.content for m in conversation.messages if m.role == "system")
    return next(systems, None), [m for m in conversation.messages if m.role != "system"]


def _is_prefill(last: Message) -> bool:
    return last.role == "assistant" and bool(last.content) and not last.tool_calls


def _calls(calls: list[ToolCall]) -> str:
    lines = []
    for call in calls:
        arguments = with_sorted_keys(call.function.arguments)
        pairs = ", ".join(f"{name}={compact(value)}" for name, value in arguments.items())
        lines.append(f"{call.function.name}({pairs})")
    return "<function_calls>" + "\n".join(lines) + "</function_calls>"


RENDERERS = (
    Renderer("olmo3", _calling("You are a helpful function-calling AI assistant.")),
    Renderer("olmo3.1", _calling(_OLMO)),
    Renderer("olmo3-think", _thinking(_OLMO)),
    Renderer("olmo3-32b-think", _thinking("You are a helpful AI assistant.")),
)
