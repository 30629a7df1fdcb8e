"""gemma4, small and large (renderers-and-parsers 3.5)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile

from ollamad.prompting.renderers.conversation import (
    Conversation,
    Render,
    Renderer,
    is_on,
    last_index,
)
from ollamad.prompting.renderers.gemma4_tools import QUOTED, declaration
from ollamad.prompting.renderers.images import tagged_contents
from ollamad.wire import Message, ToolCall

_BOS = "<bos>"
_TURN_END = "<turn|>\n"
_THOUGHT = "<|channel>thought\n"
_THOUGHT_END = "<channel|>"
_CHANNEL = re.compile(r"<\|channel>.*?(?:<channel\|>|\Z)", re.DOTALL)


def _renderer(*, large: bool) -> Render:
    def render(conversation: Conversation) -> str:
        return _rendered(conversation, large=large)

    return render


def _rendered(conversation: Conversation, *, large: bool) -> str:
    messages = conversation.messages
    thinking = is_on(conversation.think)
    contents = _contents(conversation)
    has_system = bool(messages) and messages[0].role in ("system", "developer")
    parts = [_BOS]
    if has_system or conversation.tools or thinking:
        think = "<|think|>\n" if thinking else ""
        system = contents[0] if has_system else ""
        tools = "".join(declaration(tool) for tool in conversation.tools)
        parts.append(f"<|turn>system\n{think}{system}{tools}{_TURN_END}")

    last_user = last_index(messages, "user")
    # Tool messages are written with the calls they answer, wherever else they stand they are lost.
    turns = [i for i, m in enumerate(messages) if m.role != "tool" and not (i == 0 and has_system)]
    before = None
    calls: Sequence[ToolCall] = ()
    responses = ""
    for position, index in enumerate(turns):
        message = messages[index]
        calls = (message.tool_calls or ()) if message.role == "assistant" else ()
        following = messages[turns[position + 1]] if position + 1 < len(turns) else None
        responses = _responses(messages, contents, index, calls)
        if not (message.role == "assistant" and before == "assistant"):
            role = "model" if message.role == "assistant" else message.role
            parts.append(f"<|turn>{role}\n")
        if message.role == "assistant" and message.thinking and index > last_user:
            parts.append(f"{_THOUGHT}{message.thinking}\n{_THOUGHT_END}")
        parts += [_call(call) for call in calls]
        parts += [responses, contents[index]]
        if calls and not responses:
            parts.append("<|tool_response>")  # the results are what the model waits for
        elif not _goes_on(message, following, bool(responses), contents[index]):
            parts.append(_TURN_END)
        before = message.role
    parts.append(_generation(calls=bool(calls), responses=bool(responses), thinking=thinking))
    if large and not thinking and not calls:
        parts.append(_THOUGHT + _THOUGHT_END)
    return "".join(parts)


def _contents(conversation: Conversation) -> list[str]:
    """What each message says: trimmed first, then tagged; results stay as they are."""
    texts = []
    for message in conversation.messages:
        text = message.content
        if message.role == "assistant":
            text = _CHANNEL.sub("", text)
        texts.append(text if message.role == "tool" else text.strip())
    return tagged_contents(conversation.messages, texts, tag=conversation.tag_images)


def _goes_on(
    message: Message, following: Message | None, has_responses: bool, content: str
) -> bool:
    """Whether the turn is left open behind this message."""
    if message.role == "assistant" and following is not None and following.role == "assistant":
        return True
    return has_responses and not content and following is None


def _generation(*, calls: bool, responses: bool, thinking: bool) -> str:
    if responses:
        return _THOUGHT if thinking else ""
    return "" if calls else "<|turn>model\n"


def _call(call: ToolCall) -> str:
    arguments = QUOTED.object(call.function.arguments)
    return f"<|tool_call>call:{call.function.name}{arguments}<tool_call|>"


def _responses(
    messages: Sequence[Message], contents: Sequence[str], index: int, calls: Sequence[ToolCall]
) -> str:
    """The results that directly follow the calls of the message at ``index``."""
    if not calls:
        return ""
    names = {call.id: call.function.name for call in reversed(calls) if call.id}
    text = ""
    for at in takewhile(lambda i: messages[i].role == "tool", range(index + 1, len(messages))):
        result = messages[at]
        name = names.get(result.tool_call_id) or result.tool_name or "unknown"
        value = QUOTED.string(contents[at])
        text += f"<|tool_response>response:{name}{{value:{value}}}<tool_response|>"
    return text


RENDERERS = (
    Renderer("gemma4", _renderer(large=False), leading_bos=_BOS, places_images=True),
    Renderer("gemma4-large", _renderer(large=True), leading_bos=_BOS, places_images=True),
    Renderer("gemma4-small", _renderer(large=False), leading_bos=_BOS, places_images=True),
)
