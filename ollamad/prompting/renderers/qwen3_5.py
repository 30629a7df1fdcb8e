"""qwen3.5, ornith and qwen3.8: ChatML, tools in JSON, calls in XML (renderers-and-parsers 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ollamad.errors import OllamadError
from ollamad.prompting.renderers.chatml import (
    ASSISTANT,
    END,
    THINK_OPEN,
    XML_CALL_INSTRUCTIONS,
    last_query,
    tool_result,
    turn,
)
from ollamad.prompting.renderers.conversation import Conversation, Render, Renderer
from ollamad.prompting.renderers.forms import spaced, tool_object, value_text
from ollamad.prompting.renderers.images import tagged_contents
from ollamad.wire import Message, Think, Tool, ToolCall

_TOOLS_HEAD = "# Tools\n\nYou have access to the following functions:\n\n<tools>"
_NO_REASONING = "<think>\n\n</think>\n\n"
_EFFORT_HIGH = (
    "Reasoning effort is set to xhigh. Please think carefully through the task, validate key "
    "assumptions, consider plausible alternatives, and prioritize correctness, consistency, and "
    "clarity in the final answer."
)
_EFFORT_LOW = (
    "Reasoning effort is set to low. Keep your thinking brief and focused, moving directly to the "
    "conclusion without unnecessary elaboration."
)


class _Variant(NamedTuple):
    """``keeps_reasoning``: every assistant turn has a think block. ``strict``: the rules that only
    qwen3.8 has: effort text, merged system messages, refusals, unknown roles, no tagged reasoning.
    """

    keeps_reasoning: bool = False
    strict: bool = False


def _renderer(variant: _Variant) -> Render:
    def render(conversation: Conversation) -> str:
        return _rendered(conversation, variant)

    return render


def _rendered(conversation: Conversation, variant: _Variant) -> str:
    messages: Sequence[Message] = conversation.messages
    effort = ""
    if variant.strict:
        messages = _with_one_system(messages)
        effort = _effort(conversation.think)
    query = last_query(messages, trimmed=True)
    if variant.strict and query is None:
        raise OllamadError("no user query found in messages")
    thinking = conversation.think is not False
    reasons_from = len(messages) if query is None or not thinking else query + 1
    contents = [c.strip() for c in tagged_contents(messages, tag=conversation.tag_images)]
    has_system = bool(messages) and messages[0].role == "system"
    parts = [_system(conversation.tools, contents[0] if has_system else None, effort)]
    final = len(messages) - 1
    for index, (message, content) in enumerate(zip(messages, contents, strict=True)):
        if message.role == "assistant":
            has_block = variant.keeps_reasoning or index >= reasons_from
            parts.append(_answer(message, content, has_block=has_block, strict=variant.strict))
            if index < final:
                parts.append(END)
        elif message.role == "tool":
            parts.append(tool_result(messages, index, content))
        elif message.role == "user" or (index > 0 if message.role == "system" else variant.strict):
            parts.append(turn(message.role, content))
    if messages and messages[-1].role != "assistant":
        parts.append(ASSISTANT + (THINK_OPEN if thinking else _NO_REASONING))
    return "".join(parts)


# --- system ---------------------------------------------------------------------------------------


def _system(tools: Sequence[Tool], content: str | None, effort: str) -> str:
    """The system turn; ``content`` is none when the conversation starts without such a message."""
    if tools:
        listed = "".join(f"\n{spaced(tool_object(tool))}" for tool in tools)
        blocks = [effort, f"{_TOOLS_HEAD}{listed}\n</tools>{XML_CALL_INSTRUCTIONS}", content]
    elif effort or content is not None:
        blocks = [effort, content]
    else:
        return ""
    return turn("system", "\n\n".join(block for block in blocks if block))


def _effort(think: Think | None) -> str:
    if think in (None, "high", "max"):
        return _EFFORT_HIGH
    return _EFFORT_LOW if think == "low" else ""


def _with_one_system(messages: Sequence[Message]) -> Sequence[Message]:
    """All system and developer messages as one in front, which is left out when it is empty."""
    if not messages:
        raise OllamadError("no messages provided")
    texts = []
    rest = []
    for message in messages:
        if message.role not in ("system", "developer"):
            rest.append(message)
            continue
        if message.images:
            raise OllamadError(f"{message.role} message cannot contain images")
        texts.append(message.content.strip())
    merged = "\n\n".join(text for text in texts if text)
    return [Message(role="system", content=merged), *rest] if merged else rest


# --- answers --------------------------------------------------------------------------------------


def _answer(message: Message, content: str, *, has_block: bool, strict: bool) -> str:
    reasoning = message.thinking.strip()
    if not strict and not (has_block and message.thinking):
        reasoning, content = _split_reasoning(content)
    block = f"<think>\n{reasoning}\n</think>\n\n" if has_block else ""
    calls = ""
    for number, call in enumerate(message.tool_calls or ()):
        gap = "\n" if number else "\n\n" if content else ""
        calls += gap + _call(call)
    return ASSISTANT + block + content + calls


def _split_reasoning(content: str) -> tuple[str, str]:
    """Reasoning that stands with its tags in the content, and the content without it."""
    before, closed, after = content.partition("</think>")
    if not closed:
        return "", content
    return before.rpartition("<think>")[2].strip(), after.lstrip("\n")


def _call(call: ToolCall) -> str:
    arguments = "".join(
        f"<parameter={name}>\n{value_text(value)}\n</parameter>\n"
        for name, value in call.function.arguments.items()
    )
    return f"<tool_call>\n<function={call.function.name}>\n{arguments}</function>\n</tool_call>"


RENDERERS = (
    Renderer("ornith", _renderer(_Variant(keeps_reasoning=True)), places_images=True),
    Renderer("qwen3.5", _renderer(_Variant()), places_images=True),
    Renderer("qwen3.8", _renderer(_Variant(keeps_reasoning=True, strict=True)), places_images=True),
)
