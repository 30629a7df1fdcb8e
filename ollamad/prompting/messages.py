"""The list of messages that a model sees, and what may be dropped from it to fit a context.

Source: prompting.md 5.1 (message list), 1.6 (generate), 5.2 and 5.3 (truncation).
"""

from __future__ import annotations

from collections.abc import Sequence

from ollamad.wire import Message

#: What one image counts when a prompt is measured, in tokens (prompting.md 5.2).
IMAGE_TOKENS = 768

_THINK_OPEN = "<think>"
_THINK_CLOSE = "</think>"


def forgets_reasoning(family: str, model_name: str) -> bool:
    """Whether old reasoning is cut out of a conversation for this model (prompting.md 5.1.4)."""
    return family == "qwen3" or model_name == "deepseek-r1"


def chat_conversation(
    request: Sequence[Message],
    *,
    stored: Sequence[Message],
    system: str,
    forget_reasoning: bool = False,
) -> list[Message]:
    """The conversation of a chat request.

    The model's stored messages come first, then the request's; the model's system text goes in
    front of everything unless the request itself starts with a system message.
    """
    conversation = [*stored, *request]
    if system and (not request or request[0].role != "system"):
        conversation.insert(0, Message(role="system", content=system))
    return without_old_reasoning(conversation) if forget_reasoning else conversation


def generate_conversation(
    prompt: str,
    *,
    images: list[bytes] | None,
    system: str,
    stored: Sequence[Message],
    has_context: bool,
) -> list[Message]:
    """The conversation of a generate request: one user message after system and history.

    ``has_context``: the request continues an earlier answer, so the stored history is left out.
    """
    conversation: list[Message] = []
    if system:
        conversation.append(Message(role="system", content=system))
    if not has_context:
        conversation.extend(stored)
    conversation.append(Message(role="user", content=prompt, images=images))
    return conversation


def without_old_reasoning(messages: Sequence[Message]) -> list[Message]:
    """Drop a leading think block from assistant messages before the last user message."""
    last_user = max((i for i, m in enumerate(messages) if m.role == "user"), default=-1)
    return [
        Message(
            role=m.role,
            content=_without_leading_thinking(m.content),
            thinking=m.thinking,
            images=m.images,
            tool_calls=m.tool_calls,
            tool_name=m.tool_name,
            tool_call_id=m.tool_call_id,
        )
        if m.role == "assistant" and i < last_user
        else m
        for i, m in enumerate(messages)
    ]


def _without_leading_thinking(content: str) -> str:
    text = content.lstrip()
    if not text.startswith(_THINK_OPEN):
        return content
    _, closed, rest = text.partition(_THINK_CLOSE)
    return rest.lstrip() if closed else ""


def kept_from(messages: Sequence[Message], start: int) -> list[Message]:
    """Messages ``start`` and later, behind all system messages that come before ``start``."""
    return [m for m in messages[:start] if m.role == "system"] + list(messages[start:])


def image_count(messages: Sequence[Message]) -> int:
    return sum(len(m.images) for m in messages if m.images)


def length_bound(messages: Sequence[Message], *, template: str, tools_bytes: int) -> int:
    """An upper bound, in bytes and so in tokens, of the rendered conversation.

    A chat template adds at most its own text to each message. Templates that repeat the tools or
    compute long texts can exceed this; the runner then refuses, so nothing is lost.
    """
    text = sum(
        len(m.content.encode())
        + len(m.thinking.encode())
        + len(m.tool_name.encode())
        + (256 + len(repr(m.tool_calls)) if m.tool_calls else 0)
        for m in messages
    )
    return text + (len(messages) + 1) * min(len(template.encode()) + 16, 2048) + tools_bytes


class Cut:
    """Finds the first message that can stay, by measuring few candidates.

    Sans-I/O: ``candidate`` is the list to measure next; ``measured(n)`` takes its length in
    tokens (``None``: the template refused it). When ``done``, ``kept`` is the answer and
    ``dropped_tokens`` what was lost. The length falls as messages are dropped, so a search by
    halves is enough; the last message is always kept.
    """

    def __init__(self, messages: Sequence[Message], limit: int) -> None:
        self._messages = messages
        self._limit = limit
        self._low = 0
        self._high = len(messages) - 1
        self._next = 0
        self._full = 0
        self._kept_tokens: dict[int, int] = {}
        self.done = len(messages) <= 1
        self.start = 0

    @property
    def candidate(self) -> list[Message]:
        return kept_from(self._messages, self._next)

    @property
    def kept(self) -> list[Message]:
        return kept_from(self._messages, self.start)

    @property
    def dropped_tokens(self) -> int:
        if self.start == 0:
            return 0
        return max(0, self._full - self._kept_tokens.get(self.start, 0))

    def measured(self, tokens: int | None) -> None:
        if self._next == 0:
            self._full = tokens or 0
        fits = tokens is not None and tokens <= self._limit
        if tokens is not None:
            self._kept_tokens[self._next] = tokens
        if fits:
            self._high = self._next
        else:
            self._low = min(self._next + 1, len(self._messages) - 1)
        if self._low >= self._high:
            self.start = self._high
            # One more measurement tells how much was lost when the last message was never measured.
            self.done = self.start in self._kept_tokens or tokens is None
            self._next = self.start
        else:
            self._next = (self._low + self._high) // 2


def cut_tokens(
    count: int, *, num_ctx: int, num_keep: int, adds_bos: bool
) -> tuple[int, int] | None:
    """How a prompt of ``count`` tokens is cut at token level: (first kept, last kept), or ``None``.

    The middle goes: ``num_keep`` tokens (negative: all) stay in front, the rest is filled from the
    end so that half of the free context is left for the answer (runners-and-scheduling 3.5).
    """
    if num_ctx <= 1 or count <= num_ctx - 1:
        return None
    keep = count if num_keep < 0 else num_keep
    if adds_bos:
        keep += 1
    keep = min(keep, num_ctx - 1)
    limit = num_ctx - max((num_ctx - keep) // 2, 1)
    return keep, limit - keep
