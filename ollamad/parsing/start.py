"""What a request says about how its answer begins. Pure. Source: renderers-and-parsers.md 2."""

from __future__ import annotations

from ollamad.wire import Message, Think


def thinking_is_on(think: Think | None) -> bool:
    """Whether ``think`` is true or a level; absent is not on (nor off: that is ``False``)."""
    return think is not None and think is not False


def continues_answer(last: Message | None) -> bool:
    """Whether the answer goes on with an assistant message that has content (prefill)."""
    return last is not None and last.role == "assistant" and bool(last.content)
