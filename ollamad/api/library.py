"""Stored and loaded models on the wire: tags, ps, show, copy, delete, blobs, create,
pull, push (http-api.md 12 to 15)."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
import trio

from ollamad.api.cloud import forward_show
from ollamad.api.context import Context
from ollamad.api.encoding import PLAIN_JSON, encode, encode_lines
from ollamad.api.responses import (
    Response,
    empty_response,
    encoded_response,
    error_response,
    json_response,
    stream_response,
)
from ollamad.create.apply import create_events
from ollamad.create.checks import check_request
from ollamad.errors import BadRequest, NotFound, OllamadError, model_not_found, quoted
from ollamad.hardware.report import device_status, note_status
from ollamad.models import manage
from ollamad.models.catalog import KnownModel
from ollamad.models.listing import details, list_models
from ollamad.models.show import show
from ollamad.registry.cloud import NO_DETAILS
from ollamad.scheduler.lease import LoadedModel
from ollamad.store.digests import check_digest
from ollamad.store.names import Name, parse_reference
from ollamad.timestamps import local_time
from ollamad.wire import (
    FOREVER,
    CloudStatus,
    CopyRequest,
    CreateRequest,
    DeleteRequest,
    ListResponse,
    ProcessResponse,
    Progress,
    PullRequest,
    PushRequest,
    QueueStatus,
    RunningModel,
    ShowRequest,
    StatusResponse,
)

#: Seconds that a status waits for the first look for GPUs, and for fresh figures.
_STATUS_PATIENCE = 5.0
#: Editors that want to see the name they asked for as the model's base name (12.3).
_COPILOT = "GitHubCopilotChat/"


async def get_tags(context: Context) -> Response:
    models = await trio.to_thread.run_sync(list_models, context.services.models)
    return json_response(ListResponse(models=models))


async def get_ps(context: Context) -> Response:
    now = time.time_ns()
    loaded = context.services.scheduler.loaded()
    return json_response(ProcessResponse(models=[_running(model, now) for model in loaded]))


def _running(loaded: LoadedModel, now: int) -> RunningModel:
    return RunningModel(
        name=loaded.name,
        model=loaded.name,
        size=loaded.size,
        digest=loaded.digest,
        details=msgspec.structs.replace(details(loaded.info), parent_model=""),
        expires_at=local_time(now + min(loaded.expires_in, FOREVER)),
        size_vram=loaded.size_vram,
        context_length=loaded.num_ctx,
        devices=loaded.devices,
        reason=loaded.reason,
    )


async def get_status(context: Context) -> Response:
    settings, scheduler = context.services.settings, context.services.scheduler
    hardware = await context.services.hardware(_STATUS_PATIENCE)
    return json_response(
        StatusResponse(
            cloud=CloudStatus(disabled=settings.cloud_disabled, source=settings.cloud_source),
            queue=QueueStatus(waiting=scheduler.waiting, running=scheduler.running),
            discovered=context.services.machine.is_known,
            devices=[device_status(device) for device in hardware.devices],
            notes=[note_status(note) for note in hardware.notes],
        )
    )


async def post_show(context: Context) -> Response:
    request = await context.decode(ShowRequest)
    requested = request.model or request.name
    services = context.services
    cloud_model = services.models.cloud_model(requested)
    if cloud_model is not None:
        return await forward_show(context, request, cloud_model)
    name, reference = services.models.name_of(requested)
    model = await services.models.read(name)
    if model is None:
        raise model_not_found(name.short)
    if model.is_remote:
        if reference.source == "local":
            raise model_not_found(requested)
        services.cloud.check(NO_DETAILS)
    basename = requested if context.header("user-agent").startswith(_COPILOT) else None
    return encoded_response(await trio.to_thread.run_sync(_shown, model, request, basename))


def _shown(model: KnownModel, request: ShowRequest, basename: str | None) -> bytes:
    """In a thread also because a verbose answer holds whole vocabularies."""
    answer = show(model, request)
    if basename is not None:
        answer.model_info["general.basename"] = basename
    return encode(answer)


async def post_copy(context: Context) -> Response:
    request = await context.decode(CopyRequest)
    store = context.services.models.store
    await trio.to_thread.run_sync(manage.copy, store, request.source, request.destination)
    return empty_response()


async def delete_model(context: Context) -> Response:
    request = await context.decode(DeleteRequest)
    store = context.services.models.store
    gone = await trio.to_thread.run_sync(manage.delete, store, request.model or request.name)
    if gone is not None:
        context.services.scheduler.expire(gone)
    return empty_response()


async def head_blob(context: Context) -> Response:
    digest = context.parameters["digest"]
    check_digest(digest)
    if not await trio.to_thread.run_sync(context.services.models.store.has_blob, digest):
        raise NotFound(f"blob {quoted(digest)} not found")
    return empty_response()


async def post_blob(context: Context) -> Response:
    """Stream the body to disk while hashing it; nothing of it is kept in memory (13.4)."""
    digest = context.parameters["digest"]
    check_digest(digest)
    store = context.services.models.store
    if await trio.to_thread.run_sync(store.has_blob, digest):
        return empty_response()
    with await trio.to_thread.run_sync(store.new_blob) as blob:
        async for chunk in context.chunks():
            await trio.to_thread.run_sync(blob.write, chunk)
        result = await trio.to_thread.run_sync(blob.commit)
    if result.digest != digest:
        raise BadRequest(f"digest mismatch, expected {quoted(digest)}, got {quoted(result.digest)}")
    return empty_response(201)


async def post_create(context: Context) -> Response:
    request = await context.decode(CreateRequest)
    services = context.services
    check_request(request)  # what is wrong at first sight is an ordinary error (14.2)
    events = create_events(
        services.models.store, request, locks=services.name_locks, pull=services.registry.pull
    )
    return await _progress(events, request.stream)


async def post_pull(context: Context) -> Response:
    request = await context.decode(PullRequest)
    name = _name_to_pull(request.model or request.name)
    events = context.services.registry.pull(name, insecure=request.insecure)
    return await _progress(events, request.stream)


def _name_to_pull(requested: str) -> Name:
    """Raises BadRequest (http-api.md 4)."""
    if not requested.strip():
        raise BadRequest("invalid model name")
    name = Name.parse(parse_reference(requested).stored_text)
    if not name.is_valid:
        raise BadRequest("invalid model name")
    return name


async def post_push(context: Context) -> Response:
    request = await context.decode(PushRequest)
    requested = request.model or request.name
    if not requested:
        raise BadRequest("model is required")
    events = context.services.registry.push(Name.parse(requested), insecure=request.insecure)
    return await _progress(events, request.stream)


async def _progress(events: AsyncGenerator[Progress, None], stream: bool | None) -> Response:
    """Events as a stream, or the last one alone for ``stream: false`` (7.7)."""
    if stream is not False:
        return await stream_response(_lines(events))
    last: Progress | None = None
    try:
        async with aclosing(events):
            async for event in events:
                last = event
    except OllamadError as error:
        return error_response(error, content_type=PLAIN_JSON)
    return json_response(last, content_type=PLAIN_JSON)


async def _lines(events: AsyncGenerator[Progress, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        async for event in events:
            yield encode_lines([event])
