"""One blob fetched from a registry: what ``download`` decides, done.

Source: registry-and-store 3.5 to 3.7. Bytes go from the network to the data file in worker threads,
are hashed there while others still arrive, and become a blob only when their digest is right.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial as bound
from typing import TypeVar, TypeVarTuple

import trio

from ollamad.errors import OllamadError
from ollamad.registry.client import Session
from ollamad.registry.download import (
    DEFAULT_TIMING,
    Ask,
    Broken,
    Download,
    Interrupted,
    Timing,
    unfit,
)
from ollamad.registry.errors import AccessDenied, Refused, RegistryError, TransportError
from ollamad.registry.parts import Part, accepted, cut, encode_part, parse_part
from ollamad.registry.room import check_room
from ollamad.registry.sharing import Transfer
from ollamad.store.errors import os_error_text
from ollamad.store.partials import Partial
from ollamad.store.store import Store

logger = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: No blob is larger, in bytes. What claims to be is a mistake or an attack.
LARGEST_BLOB = 2**50

#: Bytes of one connection that are gathered before they are written.
_GATHERED = 512 * 1024
#: Bytes that are read at once to be hashed; worth a thread; and hashed between two looks at whether
#: that is still wanted.
_READ = 512 * 1024
_WORTH_HASHING = 4 * 1024 * 1024
_HASHED_AT_ONCE = 16 * 1024 * 1024


class DigestMismatch(OllamadError):
    """What arrived is not what the manifest names; it has been removed."""

    def __init__(self, wanted: str, actual: str) -> None:
        super().__init__(
            f"digest mismatch, file must be downloaded again: want {wanted}, got {actual}"
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """A blob as a manifest names it; ``size`` in bytes is not positive when it is not known."""

    digest: str
    size: int

    def is_stored(self, store: Store) -> bool:
        """Whether it can be taken as it is; one of another size is damaged. Blocks."""
        size = store.blob_size(self.digest)
        return size is not None and (self.size <= 0 or size == self.size)


async def fetch_blob(
    session: Session,
    store: Store,
    wanted: Wanted,
    transfer: Transfer,
    *,
    timing: Timing = DEFAULT_TIMING,
) -> None:
    """Store the blob, going on where an earlier attempt stopped. ``transfer`` shows its progress.

    If another process fetches it, that is waited for. Raises OllamadError; cancelled or failed, it
    leaves what has arrived for the next attempt.
    """
    files = store.partial(wanted.digest)
    try:
        if not await _own(store, wanted, files, transfer, timing):
            return
        await _Fetch(session, store, wanted, files, transfer, timing).run()
    except OSError as error:
        raise OllamadError(os_error_text("open", error)) from error
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(files.release)


async def _own(
    store: Store, wanted: Wanted, files: Partial, transfer: Transfer, timing: Timing
) -> bool:
    """Wait until the blob's files are ours; False if it is stored by then."""
    while True:
        acquired = await trio.to_thread.run_sync(files.acquire)
        # In this order: whoever had the files may have stored the blob just before.
        if await trio.to_thread.run_sync(wanted.is_stored, store):
            if acquired:
                # Its notes may not be gone yet; beside them our empty file would stay.
                await trio.to_thread.run_sync(files.remove_idle_notes)
            return False
        if acquired:
            return True
        notes = await trio.to_thread.run_sync(files.notes)
        parts = [part for part in map(parse_part, notes) if part is not None]
        transfer.total = sum(part.size for part in parts)
        transfer.completed = sum(part.completed for part in parts)
        await trio.sleep(timing.other_process)


@dataclass(slots=True)
class _Sink:
    """What one attempt has received and not yet written; ``offset`` is where that goes."""

    number: int
    offset: int
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    lock: trio.Lock = field(default_factory=trio.Lock)
    chunks: list[bytes] = field(default_factory=list)
    size: int = 0
    interrupted: Interrupted | None = None


class _Fetch:
    """One blob under way. The files are ours."""

    def __init__(
        self,
        session: Session,
        store: Store,
        wanted: Wanted,
        files: Partial,
        transfer: Transfer,
        timing: Timing,
    ) -> None:
        self._session = session
        self._store = store
        self._wanted = wanted
        self._files = files
        self._transfer = transfer
        self._timing = timing
        self._url = session.url(f"blobs/{wanted.digest}")
        self._direct = self._url
        self._plan = Download([], 0)
        self._sinks: dict[int, _Sink] = {}
        #: Bytes that were written may be lost: nothing more is noted.
        self._doubtful = False
        #: Something has changed that the supervisor, or the hashing, waits for.
        self._changed = trio.Event()
        self._arrived = trio.Event()
        self._hash = hashlib.sha256()
        self._hashed = 0
        self._buffer = memoryview(bytearray(_READ))
        self._hashing_ended = trio.Event()

    async def run(self) -> None:
        parts = await self._blocking(self._resumed)
        if parts is None:
            total = await self._ask_size()
            await self._check_room(total)
            parts = cut(total)
            await self._blocking(self._lay_out, parts, total)
        self._plan = Download(parts, trio.current_time(), self._timing)
        self._show()
        # Resumed with everything there, all that is missing is the verification.
        if not parts or not self._plan.is_complete:
            await self._renew()
        whole = False
        try:
            error = await self._transferred()
            whole = error is None
        finally:
            # Also when the last byte has come: who leaves before it is hashed comes back for that.
            if not whole:
                with trio.CancelScope(shield=True):
                    await self._checkpoint()
        if error is not None:
            raise error
        with trio.CancelScope(shield=True):
            await self._settle()

    # --- before ---------------------------------------------------------------------------------

    def _resumed(self) -> list[Part] | None:
        """The parts of an earlier attempt; None when there is nothing that can be trusted."""
        notes, size = self._files.notes(), self._files.size()
        parts = accepted(notes, data_size=size, stated=self._wanted.size)
        if parts and parts[-1].end <= LARGEST_BLOB:
            self._files.resize(parts[-1].end)
            return parts
        if notes:
            logger.warning("starting over: the partial download is damaged", extra=self._fields())
        self._files.clear()
        return None

    async def _ask_size(self) -> int:
        """The blob's size by the registry, or by the manifest if the registry does not tell."""
        stated = self._wanted.size
        answer = await self._session.request(
            "HEAD", self._url, headers=(("Accept-Encoding", "identity"),)
        )
        length = answer.headers.get("content-length", "").strip()
        total = int(length) if length.isascii() and length.isdigit() else max(stated, 0)
        if total > (stated if stated > 0 else LARGEST_BLOB):
            raise RegistryError(
                f"the registry has {total} bytes of {self._wanted.digest}, the manifest allows "
                f"{stated if stated > 0 else LARGEST_BLOB}"
            )
        return total

    async def _check_room(self, total: int) -> None:
        """Again, because the manifest need not have told."""
        free = await self._blocking(self._store.free_bytes)
        check_room([total], free, self._files.path.parent)

    def _lay_out(self, parts: Sequence[Part], total: int) -> None:
        self._files.resize(total)
        for part in parts:
            self._files.note(part.number, encode_part(part))

    async def _renew(self) -> None:
        """Find where the parts are to be asked for (3.5.5)."""
        timing = self._timing
        with trio.move_on_after(timing.direct_url):
            tries = 0
            while True:
                try:
                    self._direct = await self._session.direct_url(self._url)
                    return
                except AccessDenied:
                    raise  # each try would be another token
                except (RegistryError, TransportError) as error:
                    if isinstance(error, RegistryError) and error.code < 400:
                        raise
                    logger.warning("no direct URL", extra=self._fields(error=error.message))
                tries += 1
                step = min(tries**2 * timing.step, timing.longest_step)
                await trio.sleep(step * random.uniform(0.5, 1.5))
        raise OllamadError("context deadline exceeded")

    # --- meanwhile ------------------------------------------------------------------------------

    async def _transferred(self) -> OllamadError | None:
        """All parts fetched and hashed, or why not."""
        failure: OllamadError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_hashing)
            nursery.start_soon(self._keep_notes)
            try:
                await self._supervise(nursery)
                if self._plan.error is None:
                    await self._hashing_ended.wait()
            except OllamadError as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is None and self._plan.error is not None:
            failure = OllamadError(self._plan.error)
        return failure

    async def _supervise(self, nursery: trio.Nursery) -> None:
        """Begin and end attempts until all is there or nothing helps."""
        plan = self._plan
        look_at = trio.current_time() + self._timing.tick
        while not plan.is_complete and plan.error is None:
            if plan.needs_url:
                await self._renew()
                plan.renewed()
            now = trio.current_time()
            for ask in plan.start(now):
                sink = self._sinks[ask.number] = _Sink(ask.number, ask.first)
                nursery.start_soon(self._attempt, ask, sink)
            if now >= look_at:
                self._interrupt(plan.look(now))
                look_at = now + self._timing.tick
            if plan.error is None:
                with trio.move_on_at(min(look_at, plan.wake_at(now))):
                    await self._changed.wait()
                self._changed = trio.Event()

    def _interrupt(self, ends: dict[int, Interrupted]) -> None:
        for number, end in ends.items():
            logger.warning(
                "%s %s; retrying. If this persists, press ctrl-c to exit, then 'ollama pull' "
                "to find a faster connection.",
                self._wanted.digest[7:19],
                end.text,
            )
            self._sinks[number].interrupted = end
            self._sinks[number].scope.cancel()

    async def _attempt(self, ask: Ask, sink: _Sink) -> None:
        """One request for the rest of a part. What it brings is kept however it ends."""
        end: Broken | Interrupted = Interrupted("cancelled")
        try:
            with sink.scope:
                end = await self._receive(ask, sink)
        finally:
            with trio.CancelScope(shield=True):
                await self._write(sink)
            del self._sinks[ask.number]
            end = sink.interrupted or end
            self._plan.ended(ask.number, end, trio.current_time())
            self._changed.set()
        if isinstance(end, Broken) and not self._plan.parts[ask.number].is_complete:
            logger.warning(
                "a part of a blob did not arrive whole",
                extra=self._fields(part=ask.number, range=ask.range, error=end.text),
            )

    async def _receive(self, ask: Ask, sink: _Sink) -> Broken:
        """Take what the registry sends; why that was not all is in the result."""
        headers = (("Range", ask.range), ("Accept-Encoding", "identity"))
        left = ask.size
        try:
            async with self._session.open(
                "GET", self._direct, headers=headers, follow=True
            ) as response:
                problem = unfit(response.status_code, response.headers, ask, self._plan.total)
                if problem is not None:
                    return problem
                ends_itself = "content-length" in response.headers
                async for data in response.aiter_raw():
                    chunk = data if len(data) <= left else data[:left]
                    left -= len(chunk)
                    sink.chunks.append(chunk)
                    sink.size += len(chunk)
                    self._plan.received(ask.number, len(chunk), trio.current_time())
                    if sink.size >= _GATHERED:
                        await self._write(sink)
                    if not left and not ends_itself:
                        break
        except Refused as error:
            self._plan.fail(error.message)
            return Broken(error.message)
        except (RegistryError, TransportError) as error:
            code = error.code if isinstance(error, RegistryError) else 0
            return Broken(error.message, code)
        return Broken("unexpected EOF")

    async def _write(self, sink: _Sink) -> None:
        """Bring to the file what has been gathered; a disk that takes no more ends the fetch."""
        with trio.CancelScope(shield=True):
            async with sink.lock:
                if not sink.chunks:
                    return
                chunks, sink.chunks, sink.size = sink.chunks, [], 0
                self._plan.writing(sink.number)
                try:
                    count = await trio.to_thread.run_sync(self._files.write, chunks, sink.offset)
                except OSError as error:
                    self._fail(error)
                    return
                sink.offset += count
                self._plan.written(sink.number, count, trio.current_time())
        self._show()
        if self._plan.is_complete or self._plan.prefix() - self._hashed >= _WORTH_HASHING:
            self._arrived.set()

    def _fail(self, error: OSError, operation: str = "write") -> None:
        named = OSError(error.errno, error.strerror, str(self._files.path))
        self._plan.fail(os_error_text(operation, named))
        self._changed.set()

    def _show(self) -> None:
        self._transfer.total = self._plan.total
        self._transfer.completed = self._plan.completed

    async def _keep_notes(self) -> None:
        """Note every second what is there, so that a crash costs no more than that."""
        touched = trio.current_time()
        while True:
            await trio.sleep(self._timing.checkpoint)
            for sink in list(self._sinks.values()):
                await self._write(sink)
            await self._checkpoint()
            if trio.current_time() - touched >= self._timing.touch:
                touched = trio.current_time()
                try:
                    await trio.to_thread.run_sync(self._files.touch)
                except OSError as error:
                    self._fail(error, "touch")

    async def _checkpoint(self) -> None:
        parts = self._plan.unnoted()
        if not parts or self._doubtful:
            return
        try:
            await trio.to_thread.run_sync(self._note, parts)
        except OSError as error:
            # The system tells once that it lost bytes: the next sync would succeed without them.
            self._doubtful = True
            self._fail(error)
        else:
            self._plan.noted(parts)

    def _note(self, parts: Sequence[Part]) -> None:
        self._files.sync()
        for part in parts:
            self._files.note(part.number, encode_part(part))

    # --- verification ---------------------------------------------------------------------------

    async def _keep_hashing(self) -> None:
        """Hash the bytes from the start on as far as they are there, from the page cache."""
        while self._hashed < self._plan.total:
            ready = self._plan.prefix()
            if self._hashed < ready:
                end = min(ready, self._hashed + _HASHED_AT_ONCE)
                try:
                    await trio.to_thread.run_sync(self._hash_until, end)
                except OSError as error:
                    self._fail(error, "read")
                    break
            else:
                await self._arrived.wait()
                self._arrived = trio.Event()
        self._hashing_ended.set()

    def _hash_until(self, end: int) -> None:
        while self._hashed < end:
            view = self._buffer[: end - self._hashed]
            count = self._files.read_into(view, self._hashed)
            if not count:
                raise OSError(errno.EIO, "the file has been truncated")
            self._hash.update(view[:count])
            self._hashed += count

    async def _settle(self) -> None:
        """Make it a blob if it is what was asked for, remove it if not."""
        actual = f"sha256:{self._hash.hexdigest()}"
        if actual != self._wanted.digest:
            await self._blocking(self._files.discard)
            raise DigestMismatch(self._wanted.digest, actual)
        await self._blocking(self._files.promote)

    # --- both -----------------------------------------------------------------------------------

    async def _blocking(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """``function`` in a worker thread; the system's errors come as OllamadError (500)."""
        try:
            return await trio.to_thread.run_sync(bound(function, *arguments))
        except OSError as error:
            if error.filename is None:
                error = OSError(error.errno, error.strerror, str(self._files.path))
            raise OllamadError(os_error_text("write", error)) from error

    def _fields(self, **more: object) -> dict[str, object]:
        return {"digest": self._wanted.digest, **more}
