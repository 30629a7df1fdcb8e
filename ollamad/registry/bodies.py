"""Bodies of answers, read within bounds of size and of waiting: their senders are not trusted."""

from __future__ import annotations

import math
import zlib
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import TYPE_CHECKING, cast

import trio

from ollamad.errors import quoted
from ollamad.registry.errors import BodyCut, RegistryError, TransportError

if TYPE_CHECKING:
    import httpx

#: An unread rest up to this size is read for the sake of the connection, seconds at most.
_DISCARDED = 64 * 1024
_DISCARDING = 1.0
_STEP = 1 << 20
#: Compressed data may consist of several parts; each costs a copy of the rest.
_MOST_MEMBERS = 16


class TooLong(RegistryError):
    """A body is longer than it may be. ``start`` is what was read, decoded or not."""

    def __init__(self, limit: int, start: bytes) -> None:
        super().__init__(f"the answer is longer than {limit} bytes")
        self.start = start


async def read_body(
    response: httpx.Response, limit: int, stall: float = math.inf, within: float = math.inf
) -> bytes:
    """The body, decoded where it came with gzip; raises TooLong for more than ``limit`` bytes.

    ``stall``: seconds without a byte after which it is given up with TransportError, ``within``:
    seconds for all of it. Raises RegistryError for another encoding.
    """
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise RegistryError(f"unsupported content encoding {quoted(encoding)}")
    body = await _read_raw(response, limit, stall, within)
    return await gunzip(body, limit) if encoding.endswith("gzip") and body else body


async def read_start(
    response: httpx.Response, limit: int, stall: float = math.inf, within: float = math.inf
) -> bytes:
    """As `read_body`, but what is longer is cut: for the texts of errors."""
    try:
        return await read_body(response, limit, stall, within)
    except TooLong as error:
        return error.start


async def discard(response: httpx.Response) -> None:
    """Close an answer that nobody reads, with a short rest read so that its connection stays."""
    try:
        with trio.move_on_after(_DISCARDING):
            await _read_raw(response, _DISCARDED)
    except (TooLong, TransportError):
        # Closing ends the connection; that is all that was to be had.
        pass
    finally:
        with trio.CancelScope(shield=True):
            await response.aclose()


def raw_pieces(
    response: httpx.Response,
) -> AbstractAsyncContextManager[AsyncGenerator[bytes, None]]:
    """The body as it comes; ``async with`` ends the reading in order wherever it is left."""
    return aclosing(cast("AsyncGenerator[bytes, None]", response.aiter_raw()))


async def gunzip(data: bytes, limit: int) -> bytes:
    """Decompress at most ``limit`` bytes. Raises TooLong, BodyCut, RegistryError."""
    decoded = bytearray()
    for _ in range(_MOST_MEMBERS):
        stream = zlib.decompressobj(31)
        while not stream.eof:
            before = len(decoded)
            try:
                decoded += stream.decompress(data, min(_STEP, limit + 1 - before))
            except zlib.error as error:
                raise RegistryError(f"gzip: {error}") from None
            if len(decoded) > limit:
                raise TooLong(limit, bytes(decoded[:limit]))
            data = stream.unconsumed_tail
            if not data and len(decoded) == before and not stream.eof:
                raise BodyCut
            await trio.lowlevel.checkpoint()
        data = stream.unused_data
        if not data:
            return bytes(decoded)
    raise RegistryError("gzip: too many parts")


async def _read_raw(
    response: httpx.Response, limit: int, stall: float = math.inf, within: float = math.inf
) -> bytes:
    body = bytearray()
    end = trio.current_time() + within
    async with raw_pieces(response) as pieces:
        while True:
            with trio.move_on_at(min(trio.current_time() + stall, end)) as waiting:
                piece = await anext(pieces, None)
            if waiting.cancelled_caught:
                late = trio.current_time() >= end
                raise TransportError(
                    "the answer took too long" if late else "no data arrived for too long"
                )
            if piece is None:
                return bytes(body)
            body += piece
            if len(body) > limit:
                raise TooLong(limit, bytes(body[:limit]))
