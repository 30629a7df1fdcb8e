"""One request on a leased runner: send, read, stop. Shared by generate, chat and embed.

Source: runners-and-scheduling.md 3.8, 3.12 and 3.14.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import trio

from ollamad.errors import BadRequest, RunnerError
from ollamad.parsing.frames import Frames
from ollamad.parsing.stream import Piece, PieceStream, feed_all
from ollamad.prompting.messages import cut_tokens
from ollamad.runners.log import is_out_of_memory
from ollamad.runners.process import Runner
from ollamad.scheduler.lease import Lease
from ollamad.scheduler.shell import Scheduler


async def pieces(
    scheduler: Scheduler[Runner],
    lease: Lease[Runner],
    path: str,
    body: bytes,
    stream: PieceStream,
    *,
    limit: int = 0,
) -> AsyncGenerator[list[Piece], None]:
    """The pieces of an answer, those that arrived together in one list.

    ``limit``: how many tokens it may have, 0 or less: unknown.

    Ends with ``stream.final`` set and the runner's connection closed. Raises RunnerError for a
    refusal, an error event, and a stream that ends early. Closing this generator cancels the
    request down to the runner's slot.
    """
    what = "chat response" if "chat" in path else "response"
    frames = Frames(limit)
    try:
        async with lease.runner.client.stream(path, body) as response:
            async for payloads in response.batches(what):
                batch, error = feed_all(stream, payloads)
                if batch:
                    yield batch
                if error is not None:
                    raise error
                if stream.abandoned:
                    break
                if stream.final is None:
                    frame = frames.next_read(len(payloads), trio.current_time())
                    if frame is not None:
                        await trio.sleep_until(frame)
        if stream.final is None:
            raise RunnerError(
                "an error was encountered while running the model: "
                + (await lease.runner.logged() or "unexpected EOF")
            )
    except RunnerError as error:
        forget_all_when_out_of_memory(scheduler, error)
        raise


def forget_all_when_out_of_memory(scheduler: Scheduler[Runner], error: RunnerError) -> None:
    """After memory ran out every model is unloaded, so that the next request starts clean."""
    if error.out_of_memory or is_out_of_memory(error.message):
        scheduler.expire_all()


async def cut_prompt(
    lease: Lease[Runner], text: str, *, num_keep: int, adds_bos: bool, shift: bool
) -> tuple[str | list[int], int]:
    """``text``, or its tokens without the middle when it is too long; and how many went (3.5).

    Raises BadRequest when it is too long and the runner may not shift its context.
    """
    if lease.num_ctx <= 1 or len(text.encode()) < lease.num_ctx:
        return text, 0
    tokens = await lease.runner.client.tokenize(text, add_special=True)
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
