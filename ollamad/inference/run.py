"""One request on a leased runner: send, read, stop. Shared by generate, chat and embed.

Source: runners-and-scheduling.md 3.8, 3.12 and 3.14.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Protocol

import msgspec

from ollamad.errors import BadRequest, OllamadError, RunnerError
from ollamad.parsing.stream import Final, Piece
from ollamad.prompting.messages import cut_tokens
from ollamad.runners.log import is_out_of_memory
from ollamad.scheduler.shell import Lease, Scheduler


class PieceStream(Protocol):
    """What reads a runner's stream: ``ollamad.parsing.stream``."""

    final: Final | None
    abandoned: bool

    def feed(self, payload: bytes) -> Piece | None: ...


async def pieces(
    scheduler: Scheduler, lease: Lease, path: str, body: bytes, stream: PieceStream
) -> AsyncGenerator[list[Piece], None]:
    """The pieces of an answer, those that arrived together in one list.

    Ends with ``stream.final`` set and the runner's connection closed. Raises RunnerError for a
    refusal, an error event, and a stream that ends early. Closing this generator cancels the
    request down to the runner's slot.
    """
    try:
        async with lease.runner.client.stream(path, body) as response:
            if response.status >= 400:
                raise refusal(lease, response.status, await response.read())
            async for payloads in response.batches():
                batch = [p for p in map(stream.feed, payloads) if p is not None]
                if batch:
                    yield batch
                if stream.abandoned:
                    break
        if stream.final is None:
            raise RunnerError(
                "an error was encountered while running the model: "
                + (lease.runner.last_error() or "unexpected EOF")
            )
    except RunnerError as error:
        forget_all_when_out_of_memory(scheduler, error)
        raise


def refusal(lease: Lease, status: int, body: bytes) -> RunnerError:
    """A runner's answer with an error status: its raw body, and what its log says of memory."""
    message = body.decode(errors="replace").strip()
    last = lease.runner.last_error()
    if last and is_out_of_memory(last) and last.lower() not in message.lower():
        message += "\n" + last
    return RunnerError(message, status=status)


def forget_all_when_out_of_memory(scheduler: Scheduler, error: RunnerError) -> None:
    """After memory ran out every model is unloaded, so that the next request starts clean."""
    if error.out_of_memory or is_out_of_memory(error.message):
        scheduler.expire_all()


class _Tokens(msgspec.Struct):
    tokens: list[int]


class _Content(msgspec.Struct):
    content: str


class _Prompt(msgspec.Struct):
    prompt: str | None = None
    error: Any = None


class _InputTokens(msgspec.Struct):
    input_tokens: int


async def tokenize(lease: Lease, text: str, *, add_special: bool = False) -> list[int]:
    """Token ids of ``text``. Raises OllamadError (500) with the runner's words."""
    body: dict[str, Any] = {"content": text}
    if add_special:
        body["add_special"] = True
    data = await _call(lease, "/tokenize", body, "tokenize error: ")
    return msgspec.json.decode(data, type=_Tokens).tokens


async def detokenize(lease: Lease, tokens: list[int]) -> str:
    """Text of token ids. Raises OllamadError (500) with the runner's words."""
    data = await _call(lease, "/detokenize", {"tokens": tokens}, "detokenize error: ")
    return msgspec.json.decode(data, type=_Content).content


async def apply_template(lease: Lease, chat_body: bytes) -> str:
    """The prompt that the runner's chat template makes of a chat body."""
    status, data = await lease.runner.client.request_json("/apply-template", chat_body)
    if status >= 400:
        raise refusal(lease, status, data)
    answer = msgspec.json.decode(data, type=_Prompt)
    if answer.prompt is None:
        raise OllamadError(f"llama-server template error: {answer.error}")
    return answer.prompt


async def input_tokens(lease: Lease, chat_body: bytes) -> int:
    """How many tokens a chat body is, media included."""
    status, data = await lease.runner.client.request_json(
        "/v1/chat/completions/input_tokens", chat_body
    )
    if status >= 400:
        raise refusal(lease, status, data)
    return msgspec.json.decode(data, type=_InputTokens).input_tokens


async def cut_prompt(
    lease: Lease, text: str, *, num_keep: int, adds_bos: bool, shift: bool
) -> tuple[str | list[int], int]:
    """``text``, or its tokens without the middle when it is too long; and how many went (3.5).

    Raises BadRequest when it is too long and the runner may not shift its context.
    """
    if lease.num_ctx <= 1 or len(text.encode()) < lease.num_ctx:
        return text, 0
    tokens = await tokenize(lease, text, add_special=True)
    kept = cut_tokens(len(tokens), num_ctx=lease.num_ctx, num_keep=num_keep, adds_bos=adds_bos)
    if kept is None:
        return text, 0
    if not shift:
        raise BadRequest(
            "the prompt is longer than the context length currently available to the model; "
            "shorten the prompt, adjust the context length in settings, or use a model with a "
            "longer context length"
        )
    first, last = kept
    return tokens[:first] + tokens[len(tokens) - last :], len(tokens) - first - last


async def _call(lease: Lease, path: str, body: dict[str, Any], prefix: str) -> bytes:
    status, data = await lease.runner.client.request_json(path, msgspec.json.encode(body))
    if status >= 400:
        raise OllamadError(prefix + data.decode(errors="replace").strip())
    return data
