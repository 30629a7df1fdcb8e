"""A pull: the manifest, the blobs that are missing, then the model (registry-and-store 3.3).

What registries say is not believed: counts and sizes are bounded, digests are checked before any of
them becomes a path, and the model appears when all its blobs are there and verified.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

from ollamad.errors import OllamadError
from ollamad.registry.client import LARGEST_MANIFEST, Session
from ollamad.registry.download import Timing
from ollamad.registry.errors import RegistryError
from ollamad.registry.fetch import LARGEST_BLOB, DigestMismatch, Wanted, fetch_blob
from ollamad.registry.room import check_room
from ollamad.registry.sharing import Shared, Transfer
from ollamad.store.digests import is_digest
from ollamad.store.errors import ManifestError
from ollamad.store.manifest import MEDIA_MANIFEST, MEDIA_TENSOR, Manifest, parse_manifest
from ollamad.store.name_locks import NameLocks
from ollamad.store.names import Name
from ollamad.store.partials import unfinished
from ollamad.store.store import Store
from ollamad.store.threads import in_thread
from ollamad.wire import Progress

logger = logging.getLogger(__name__)

#: Layers of one model. Real ones have a dozen, those of tensor layers some thousands.
MOST_LAYERS = 20_000

#: How often blobs are fetched that vanish before the model is complete.
_ROUNDS = 3


async def pull_events(
    store: Store,
    session: Session,
    *,
    downloads: Shared[str],
    locks: NameLocks,
    timing: Timing,
) -> AsyncGenerator[Progress, None]:
    """Pull the model of ``session`` into ``store``; last event ``success``.

    Its name is resolved and valid. ``downloads`` and ``locks`` are those of the whole process.
    Raises OllamadError (500) with the texts of 8.3. Cancelled or failed at any point, it leaves the
    model as it was, and what has arrived for the next pull. Whoever may stop early closes the
    generator (``aclosing``).
    """
    session.check_scheme()
    yield Progress(status="pulling manifest")
    raw, manifest = await _manifest(session)
    if manifest.layers_of(MEDIA_TENSOR):
        raise OllamadError("this model requires MLX support, but the MLX runtime is not available")
    blobs = wanted_blobs(manifest, session.name)
    pull = _Pull(store, session, downloads, timing, blobs)
    async with _held(store, blobs):
        try:
            async with aclosing(pull.fetch()) as events:
                async for event in events:
                    yield event
        except OllamadError as error:
            # A wrong blob was found while it arrived; the order of events is the contract's.
            if isinstance(error.__cause__, DigestMismatch):
                yield Progress(status="verifying sha256 digest")
            raise
        yield Progress(status="verifying sha256 digest")
        yield Progress(status="writing manifest")
        async with locks.hold(session.name):
            superseded = await in_thread(_write, store, session.name, raw, manifest)
    if superseded:
        yield Progress(status="removing unused layers")
        try:
            await in_thread(store.remove_unreferenced, superseded)
        except OllamadError as error:
            yield Progress(status=f"couldn't remove unused layers: {error.message}")
    yield Progress(status="success")


async def _manifest(session: Session) -> tuple[bytes, Manifest]:
    """The manifest's bytes as they are to be stored, and what they say."""
    url = session.url(f"manifests/{session.name.tag}")
    try:
        answer = await session.request(
            "GET", url, headers=[("Accept", MEDIA_MANIFEST)], limit=LARGEST_MANIFEST
        )
        # A large one takes a while.
        return answer.body, await trio.to_thread.run_sync(parse_manifest, answer.body)
    except OllamadError as error:
        raise OllamadError(f"pull model manifest: {error.message}") from error


def wanted_blobs(manifest: Manifest, name: Name) -> list[Wanted]:
    """What the model consists of, in order: the layers, then the config if it has a digest.

    Raises ManifestError for digests and sizes that no blob has, RegistryError for too many.
    """
    layers = [*manifest.layers]
    if manifest.config.digest:
        layers.append(manifest.config)
    if len(layers) > MOST_LAYERS:
        raise RegistryError(
            f"the manifest has {len(layers)} layers; at most {MOST_LAYERS} are taken"
        )
    for layer in layers:
        if not layer.digest:
            raise ManifestError(f"{name.repository}: digest is empty")
        if not is_digest(layer.digest):
            raise ManifestError("invalid digest format")
        if not 0 <= layer.size <= LARGEST_BLOB:
            raise RegistryError(f"the manifest says that {layer.digest} has {layer.size} bytes")
    return [Wanted(layer.digest, layer.size) for layer in layers]


@asynccontextmanager
async def _held(store: Store, blobs: Sequence[Wanted]) -> AsyncIterator[None]:
    """From here on nobody removes these blobs, those that are still to come included."""
    digests = [blob.digest for blob in blobs]
    holder = await trio.to_thread.run_sync(store.in_use, digests)
    try:
        yield
    finally:
        # In a thread because it may remove what a deletion had to leave to us.
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(holder.close)


def _write(store: Store, name: Name, raw: bytes, manifest: Manifest) -> list[str]:
    """Make it the model; the digests that only the model in whose place it comes may have used.

    The caller holds the name, in whatever case.
    """
    # Meanwhile the model may have come in another spelling: there must not be two of them.
    name = store.resolve(name)
    old: list[str] = []
    try:
        old = list(store.read_manifest(name).manifest.references())
    except FileNotFoundError:
        pass
    except (OSError, ManifestError) as error:
        logger.warning("replaced manifest is unreadable model=%s error=%s", name, error)
    store.write_manifest(name, raw)
    kept = set(manifest.references())
    return [digest for digest in old if digest not in kept] if store.prune else []


@dataclass(slots=True)
class _Pull:
    """The blobs of one model on their way. They are held ``in_use``."""

    store: Store
    session: Session
    downloads: Shared[str]
    timing: Timing
    blobs: Sequence[Wanted]
    touched: float = 0.0

    async def fetch(self) -> AsyncGenerator[Progress, None]:
        """See that all are stored."""
        await in_thread(self._prepare)
        self.touched = trio.current_time()
        missing = self.blobs
        for _ in range(_ROUNDS):
            for blob in missing:
                async with aclosing(self._fetch_one(blob)) as events:
                    async for event in events:
                        yield event
            # Another program, a user's ``rm``: what cannot be kept is at least noticed.
            missing = await in_thread(self._vanished)
            if not missing:
                return
        raise OllamadError("blobs of the model are removed while it is pulled")

    def _prepare(self) -> None:
        """See what is there, what a crash left of that, and whether the rest will fit."""
        free = self.store.free_bytes()
        directory = self.store.root / "blobs"
        begun = unfinished(directory)
        missing: dict[str, int] = {}
        for blob in self.blobs:
            files = self.store.partial(blob.digest)
            if not blob.is_stored(self.store):
                missing[blob.digest] = max(0, blob.size - files.allocated())
            elif files.target.name in begun:
                files.remove_leftovers()
        check_room(missing.values(), free, directory)

    def _vanished(self) -> list[Wanted]:
        return [blob for blob in self.blobs if not self.store.has_blob(blob.digest)]

    async def _fetch_one(self, blob: Wanted) -> AsyncGenerator[Progress, None]:
        size = await in_thread(self._stored, blob)
        if size is None:
            work = partial(self._work, blob)
            async with self.downloads.join(blob.digest, work) as transfer:
                while not await self._ended(transfer):
                    yield _pulling(blob, transfer.total or blob.size, transfer.completed)
            size = await in_thread(self.store.blob_size, blob.digest) or 0
        yield _pulling(blob, size, size)

    def _stored(self, blob: Wanted) -> int | None:
        """The size of a blob that need not be fetched; it is kept from pruning for an hour."""
        if not blob.is_stored(self.store):
            return None
        self._keep_young(blob)
        return self.store.blob_size(blob.digest)

    async def _work(self, blob: Wanted, transfer: Transfer) -> None:
        await fetch_blob(self.session, self.store, blob, transfer, timing=self.timing)

    async def _ended(self, transfer: Transfer) -> bool:
        """Whether it has succeeded by the next event's time. Raises the OllamadError of its end."""
        if trio.current_time() - self.touched >= self.timing.touch:
            self.touched = trio.current_time()
            await in_thread(self._touch)
        with trio.move_on_after(self.timing.progress):
            await transfer.wait()
            return True
        return False

    def _touch(self) -> None:
        """What is there already is still needed."""
        for blob in self.blobs:
            self._keep_young(blob)

    def _keep_young(self, blob: Wanted) -> None:
        try:
            self.store.touch_blob(blob.digest)
        except OSError as error:
            # Another user's file, or one on a read-only disk, may be used without being changed; no
            # daemon prunes it for being old while this one counts on it.
            if error.errno not in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS):
                path = str(self.store.blob_path(blob.digest))  # the error does not name it
                raise OSError(error.errno, error.strerror, path) from error


def _pulling(blob: Wanted, total: int, completed: int) -> Progress:
    return Progress(
        status=f"pulling {blob.digest[7:19]}",
        digest=blob.digest,
        total=total,
        completed=completed,
    )
