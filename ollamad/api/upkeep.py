"""Care for the model directory: what is in it, and removing what nothing needs. Ours."""

from __future__ import annotations

import shutil
import time
from functools import partial

import trio

from ollamad.api.context import Context
from ollamad.api.encoding import encode
from ollamad.api.responses import Response, encoded_response
from ollamad.errors import BadRequest, OllamadError
from ollamad.store.errors import os_error_text
from ollamad.store.maintenance import Outcome
from ollamad.store.store import Store
from ollamad.store.usage import GRACE_NS, KINDS, Amount, Kind
from ollamad.timestamps import local_time
from ollamad.units import parse_duration
from ollamad.wire import (
    DiskAmount,
    DiskModel,
    DiskResponse,
    KeptEntry,
    PrunedEntry,
    PruneRequest,
    PruneResponse,
)


async def post_prune(context: Context) -> Response:
    request = await context.decode(PruneRequest)
    age = least_age(request.older_than)
    prune = partial(_pruned, context.services.models.store, request, age)
    return encoded_response(await trio.to_thread.run_sync(prune))


async def get_disk(context: Context) -> Response:
    store = context.services.models.store
    return encoded_response(await trio.to_thread.run_sync(_disk, store))


def least_age(text: str) -> int:
    """Nanoseconds; an hour unless given. Raises BadRequest."""
    if not text:
        return GRACE_NS
    try:
        age = parse_duration(text)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    if age < 0:
        raise BadRequest("older_than must not be negative")
    return age


def kinds_of(request: PruneRequest) -> tuple[Kind, ...]:
    wanted: tuple[Kind, ...] = ()
    if request.partials:
        wanted += ("partial",)
    if request.blobs:
        wanted += ("blob",)
    return wanted or KINDS


def _pruned(store: Store, request: PruneRequest, age: int) -> bytes:
    try:
        outcome = store.prune_now(
            time.time_ns(), kinds=kinds_of(request), least_age_ns=age, dry_run=request.dry_run
        )
    except OSError as error:
        raise OllamadError(os_error_text("open", error)) from error
    return encode(_answer(outcome))


def _answer(outcome: Outcome) -> PruneResponse:
    return PruneResponse(
        entries=[
            PrunedEntry(
                name=_shown(item.name),
                kind=item.kind,
                size=item.size,
                length=item.length,
                modified_at=local_time(item.modified_ns),
            )
            for item in outcome.removed
        ],
        freed=sum(item.size for item in outcome.removed),
        kept=[
            KeptEntry(name=_shown(kept.name), reason=_shown(kept.reason)) for kept in outcome.kept
        ],
    )


def _disk(store: Store) -> bytes:
    try:
        usage, unreadable = store.usage()
        device = shutil.disk_usage(store.root)
    except OSError as error:
        raise OllamadError(os_error_text("open", error)) from error
    return encode(
        DiskResponse(
            directory=_shown(str(store.root)),
            total=device.total,
            free=device.free,
            models=[
                DiskModel(
                    name=model.name,
                    digest=model.digest,
                    size=model.size,
                    unique=model.unique,
                    shared=model.shared,
                )
                for model in usage.models
            ],
            blobs=_amount(usage.blobs),
            unreferenced=_amount(usage.unreferenced),
            partials=_amount(usage.partials),
            temporary=_amount(usage.temporary),
            derived=_amount(usage.derived),
            unreadable=[_shown(text) for text in unreadable],
        )
    )


def _shown(path: str) -> str:
    """File names may hold bytes that are no text."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _amount(amount: Amount) -> DiskAmount:
    return DiskAmount(number=amount.number, size=amount.size, length=amount.length)
