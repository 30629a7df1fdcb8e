"""Ollama's Python SDK in four ways: sync and async, an answer whole and streamed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import ollama


class Turn(NamedTuple):
    """One answer, put together from its parts."""

    thinking: str
    content: str
    calls: list[ollama.Message.ToolCall]
    parts: list[ollama.ChatResponse]

    def message(self) -> dict[str, Any]:
        """What a client puts into its history."""
        return {
            "role": "assistant",
            "thinking": self.thinking,
            "content": self.content,
            "tool_calls": self.calls,
        }


#: ``ask(url, **what a chat takes)``
Ask = Callable[..., Turn]


def _gathered(parts: Iterable[ollama.ChatResponse]) -> Turn:
    seen = list(parts)
    assert [part.done for part in seen] == [False] * (len(seen) - 1) + [True]
    messages = [part.message for part in seen]
    return Turn(
        "".join(m.thinking or "" for m in messages),
        "".join(m.content or "" for m in messages),
        [call for m in messages for call in m.tool_calls or []],
        seen,
    )


def whole(url: str, **asked: Any) -> Turn:
    return _gathered([ollama.Client(host=url).chat(**asked)])


def streamed(url: str, **asked: Any) -> Turn:
    return _gathered(ollama.Client(host=url).chat(stream=True, **asked))


def async_whole(url: str, **asked: Any) -> Turn:
    async def ask() -> ollama.ChatResponse:
        answer: ollama.ChatResponse = await ollama.AsyncClient(host=url).chat(**asked)
        return answer

    return _gathered([asyncio.run(ask())])


def async_streamed(url: str, **asked: Any) -> Turn:
    async def ask() -> list[ollama.ChatResponse]:
        client = ollama.AsyncClient(host=url)
        return [part async for part in await client.chat(stream=True, **asked)]

    return _gathered(asyncio.run(ask()))


WAYS = {
    "whole": whole,
    "streamed": streamed,
    "async whole": async_whole,
    "async streamed": async_streamed,
}
