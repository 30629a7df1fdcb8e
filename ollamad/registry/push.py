"""A push: the model's blobs one after the other, then its manifest (registry-and-store 4)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

from ollamad.errors import BadRequest, OllamadError
from ollamad.registry.client import Session
from ollamad.registry.send import has_blob, send_blob
from ollamad.registry.sharing import Shared, Transfer
from ollamad.registry.tensor_push import TensorPush
from ollamad.registry.upload import TIMING, UploadTiming
from ollamad.registry.upload_forms import manifest_body, progress, pushed_blobs
from ollamad.store.blobs import InUse
from ollamad.store.errors import os_error_text
from ollamad.store.manifest import MEDIA_MANIFEST, MEDIA_TENSOR, Layer, StoredManifest
from ollamad.store.names import Name
from ollamad.store.store import Store
from ollamad.wire import Progress

#: What progress about a model made of tensor layers calls itself (4.7).
MODEL_DIGEST = "sha256:model"


@dataclass(frozen=True, slots=True)
class UploadKey:
    """What two pushes must have in common to share an upload (4.6)."""

    base_url: str
    repository: str
    digest: str


async def push_events(
    store: Store,
    session: Session,
    name: Name,
    *,
    uploads: Shared[UploadKey],
    timing: UploadTiming = TIMING,
    streams: int = 4,
) -> AsyncGenerator[Progress, None]:
    """Push the stored model ``name`` to the repository of ``session``; last event ``success``.

    ``name`` is resolved, and need not be valid; ``streams``: bodies that a model of tensor layers
    sends at once. Raises OllamadError (500) with the texts of 8.3. Whoever may stop early closes
    the generator (``aclosing``).
    """
    yield Progress(status="retrieving manifest")
    session.check_scheme()
    try:
        stored = await trio.to_thread.run_sync(_read, store, name)
    except OllamadError:
        yield Progress(status="couldn't retrieve manifest")
        raise
    blobs = pushed_blobs(stored.manifest, name)
    async with _held(store, blobs):
        if stored.manifest.layers_of(MEDIA_TENSOR):
            events = _push_tensor_model(store, session, name, stored, uploads, timing, streams)
        else:
            events = _push_model(store, session, name, stored, uploads, timing)
        async with aclosing(events):
            async for event in events:
                yield event
    yield Progress(status="success")


def _read(store: Store, name: Name) -> StoredManifest:
    if not name.is_valid:
        raise OllamadError(f"unqualified name: {name.full}")
    try:
        return store.read_manifest(name)
    except OSError as error:
        raise OllamadError(os_error_text("open", error)) from error


@asynccontextmanager
async def _held(store: Store, blobs: Sequence[Layer]) -> AsyncIterator[None]:
    """Nobody removes these blobs meanwhile."""
    digests = [blob.digest for blob in blobs]
    holder: InUse = await trio.to_thread.run_sync(store.in_use, digests)
    try:
        yield
    finally:
        # In a thread because it may remove what a deletion had to leave to us.
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(holder.close)


async def _push_model(
    store: Store,
    session: Session,
    name: Name,
    stored: StoredManifest,
    uploads: Shared[UploadKey],
    timing: UploadTiming,
) -> AsyncGenerator[Progress, None]:
    blobs = pushed_blobs(stored.manifest, name)
    missing = await trio.to_thread.run_sync(missing_blobs, store, blobs)
    for digest, problem in missing.items():
        # Before gigabytes are sent for nothing; a registry may well have what we have not.
        if not await has_blob(session, digest):
            raise problem
    for blob in blobs:
        digest = blob.digest
        if digest in missing or await has_blob(session, digest):
            yield progress(digest, blob.size, blob.size)
            continue
        key = UploadKey(session.base, name.repository, digest)
        work = partial(_upload, store, session, blob, timing)
        async with uploads.join(key, work) as upload:
            while not await _ended(upload, timing.progress):
                yield progress(digest, upload.total, upload.completed)
            yield progress(digest, upload.total, upload.completed)
    yield Progress(status="pushing manifest")
    await session.request(
        "PUT",
        session.url(f"manifests/{name.tag}"),
        headers=[("Content-Type", MEDIA_MANIFEST)],
        content=manifest_body(stored),
    )


async def _upload(
    store: Store, session: Session, blob: Layer, timing: UploadTiming, transfer: Transfer
) -> None:
    path = store.blob_path(blob.digest)
    await send_blob(session, blob, path, timing=timing, transfer=transfer)


async def _ended(transfer: Transfer, seconds: float) -> bool:
    """Whether it has ended within the time. Raises the OllamadError that ended it."""
    with trio.move_on_after(seconds):
        await transfer.wait()
        return True
    return False


def missing_blobs(store: Store, blobs: Sequence[Layer]) -> dict[str, OllamadError]:
    """The digests without a file, and what to say of each. Blocks."""
    missing = {}
    for blob in blobs:
        try:
            store.blob_path(blob.digest).stat()
        except OSError as error:
            missing[blob.digest] = OllamadError(os_error_text("stat", error))
        except BadRequest as error:
            raise OllamadError(error.message) from error
    return missing


async def _push_tensor_model(
    store: Store,
    session: Session,
    name: Name,
    stored: StoredManifest,
    uploads: Shared[UploadKey],
    timing: UploadTiming,
    streams: int,
) -> AsyncGenerator[Progress, None]:
    blobs = list({blob.digest: blob for blob in pushed_blobs(stored.manifest, name)}.values())
    missing = await trio.to_thread.run_sync(missing_blobs, store, blobs)
    push = TensorPush(store, session, timing=timing, streams=streams)
    absent = await push.absent(blobs)
    for blob in absent:
        if blob.digest in missing:
            raise missing[blob.digest]
    total = sum(blob.size for blob in blobs)
    present = total - sum(blob.size for blob in absent)
    yield _model_progress(total, present)
    if absent:
        key = UploadKey(session.base, name.repository, f"model {stored.digest}")
        async with uploads.join(key, partial(push.send, absent, total, present)) as upload:
            while not await _ended(upload, timing.progress):
                yield _model_progress(upload.total, upload.completed)
            yield _model_progress(upload.total, upload.completed)
    await push.put_manifest(name, stored.raw)


def _model_progress(total: int, completed: int) -> Progress:
    return Progress(status="pushing model", digest=MODEL_DIGEST, total=total, completed=completed)
