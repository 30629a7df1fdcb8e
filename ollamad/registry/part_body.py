"""The bytes of one part as a request's body: read ahead and hashed in worker threads.

registry-and-store 4.4. Memory: ``_READ`` bytes for each of the few blocks between disk and socket.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import trio

from ollamad.errors import OllamadError
from ollamad.registry.parts import Part
from ollamad.store.errors import os_error_text

_READ = 512 * 1024
_AHEAD = 1
#: What is handed to the socket at once. Whether a connection stalls is seen in such steps, so it is
#: small enough for a slow line to take one within the time allowed.
_SEND = 256 * 1024


class DiskError(OllamadError):
    """The blob cannot be read."""


class BlobFile:
    """A blob opened for reading; several parts are read from it at once. ``size`` in bytes."""

    def __init__(self, path: Path) -> None:
        """Blocks. Raises DiskError ``stat <path>: no such file or directory`` and the like."""
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.size = os.fstat(self._descriptor).st_size
        except OSError as error:
            raise DiskError(os_error_text("stat", error)) from error

    def read(self, offset: int, count: int) -> bytes:
        """Exactly ``count`` bytes. Blocks. Raises DiskError."""
        data = b""
        while len(data) < count:
            try:
                more = os.pread(self._descriptor, count - len(data), offset + len(data))
            except OSError as error:
                error.filename = str(self.path)
                raise DiskError(os_error_text("read", error)) from error
            if not more:
                raise DiskError(f"read {self.path}: unexpected EOF")
            data += more
        return data

    def close(self) -> None:
        """Blocks, a little."""
        os.close(self._descriptor)


class PartBody:
    """One part for one request: an asynchronous iterator, used once, inside of ``async with``.

    A class and not a generator: those who read request bodies do not close them when cancelled.
    ``on_step`` is called with the count of bytes just taken (0 when more are offered or there are
    no more), and with None before the disk is waited for. ``error``: what went wrong on the disk;
    ``began``: whether anything was handed over.
    """

    def __init__(
        self,
        file: BlobFile,
        part: Part,
        on_step: Callable[[int | None], None],
        limiter: trio.CapacityLimiter | None = None,
    ) -> None:
        self.error: DiskError | None = None
        self.began = False
        self.size = part.size

        self._file = file
        self._part = part
        self._on_step = on_step
        self._limiter = limiter
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._block = memoryview(b"")
        self._handed = 0
        self._offered = 0
        sender, receiver = trio.open_memory_channel[bytes](_AHEAD)
        self._sender = sender
        self._receiver = receiver

    @property
    def is_sent(self) -> bool:
        return self._handed == self.size

    @property
    def md5(self) -> bytes | None:
        """The binary MD5 of the part, once all of it was handed over."""
        return self._md5.digest() if self.is_sent else None

    async def fill(self) -> None:
        """Read the part: a task beside the one that sends, to be cancelled when that has ended."""
        async with self._sender:
            offset = self._part.offset
            while offset < self._part.end:
                count = min(_READ, self._part.end - offset)
                try:
                    block = await trio.to_thread.run_sync(
                        self._read, offset, count, limiter=self._limiter
                    )
                except DiskError as error:
                    self.error = error
                    return
                offset += count
                try:
                    await self._sender.send(block)
                except trio.BrokenResourceError:
                    return

    def _read(self, offset: int, count: int) -> bytes:
        block = self._file.read(offset, count)
        self._md5.update(block)
        return block

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._offered:
            # Whoever asks for more has got rid of what there was.
            self._on_step(self._offered)
            self._handed += self._offered
            self._offered = 0
        if not self._block:
            self._on_step(None)
            try:
                self._block = memoryview(await self._receiver.receive())
            except trio.EndOfChannel:
                if self.error is not None:
                    raise self.error from None
                self._on_step(0)
                raise StopAsyncIteration from None
        chunk = self._block[:_SEND]
        self._block = self._block[_SEND:]
        self._offered = len(chunk)
        self.began = True
        self._on_step(0)
        return bytes(chunk)
