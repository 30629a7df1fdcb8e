"""Chat and generate of a stub: a stored model whose weights are on another server.

Source: http-api.md 17.3. What the stub stores (system message, template, options, messages) is
added to the request; the answer comes back event by event under the stub's name.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec
import trio

from ollamad.errors import OllamadError, Unauthorized
from ollamad.inference.remote_events import Lines, Translation, refusal
from ollamad.inference.services import Services
from ollamad.models.catalog import KnownModel
from ollamad.prompting.messages import chat_conversation, forgets_reasoning
from ollamad.registry.bodies import raw_pieces, read_start
from ollamad.registry.cloud import NO_MODEL, Cloud
from ollamad.registry.cloud_bodies import cloud_body
from ollamad.registry.errors import LONGEST_ERROR_BODY
from ollamad.registry.keys import KeyUnavailable
from ollamad.registry.remotes import RemoteHost, remote_host
from ollamad.registry.signing import api_message
from ollamad.wire import ChatRequest, ChatResponse, GenerateRequest, GenerateResponse

if TYPE_CHECKING:
    import httpx


class RemoteAnswer:
    """``events``: whole lines, those that arrived together in one piece; it raises OllamadError.

    Nothing is sent before the first one is asked for.
    """

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        self.events = events


async def remote_chat(services: Services, request: ChatRequest, model: KnownModel) -> RemoteAnswer:
    """Raises Forbidden when the cloud is off, BadRequest for a host that may not be asked."""
    host = _host(services, model)
    messages = chat_conversation(
        request.messages or [],
        stored=model.messages,
        system=model.system,
        forget_reasoning=forgets_reasoning(model.family, model.name.model),
    )
    asked = msgspec.structs.replace(request, messages=messages, options=_options(request, model))
    return _answer(services.cloud, host, "/api/chat", request, asked, model)


async def remote_generate(
    services: Services, request: GenerateRequest, model: KnownModel
) -> RemoteAnswer:
    """As `remote_chat`."""
    host = _host(services, model)
    asked = msgspec.structs.replace(
        request,
        system=request.system or model.system,
        template=request.template or model.template_text,
        options=_options(request, model),
    )
    return _answer(services.cloud, host, "/api/generate", request, asked, model)


def _host(services: Services, model: KnownModel) -> RemoteHost:
    services.cloud.check(NO_MODEL)
    return remote_host(model.stored.config.remote_host, services.settings.remotes)


def _options(request: ChatRequest | GenerateRequest, model: KnownModel) -> dict[str, object]:
    return {**model.stored.params, **(request.options or {})}


def _answer(
    cloud: Cloud,
    host: RemoteHost,
    path: str,
    request: ChatRequest | GenerateRequest,
    asked: ChatRequest | GenerateRequest,
    model: KnownModel,
) -> RemoteAnswer:
    config = model.stored.config
    translation = Translation(
        ChatResponse if isinstance(request, ChatRequest) else GenerateResponse,
        model=request.model,
        remote_model=config.remote_model,
        remote_host=config.remote_host,
    )
    return RemoteAnswer(_events(cloud, host, path, asked, config.remote_model, translation))


async def _events(
    cloud: Cloud,
    host: RemoteHost,
    path: str,
    asked: ChatRequest | GenerateRequest,
    remote_model: str,
    translation: Translation,
) -> AsyncGenerator[bytes, None]:
    # Pictures may make it long.
    body = await trio.to_thread.run_sync(cloud_body, asked, remote_model)
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/x-ndjson",
        "Accept-Encoding": "identity",
    }
    url = f"{host.url}{path}"
    if host.signed:
        ts = cloud.identity.timestamp
        url += f"?ts={ts}"
        headers["Authorization"] = await _authorization(cloud, api_message("POST", path, ts))
    response = await cloud.http.send("POST", url, headers, body)
    try:
        status = response.status_code
        if status == 401:
            raise Unauthorized(await cloud.identity.signin_url())
        if status >= 400:
            raise refusal(status, await read_start(response, LONGEST_ERROR_BODY))
        if status != 200:
            # A redirect would take the conversation to a host that nobody has allowed.
            raise OllamadError(f"{host.hostname} answers {status}, which is no answer", status=502)
        empty = True
        async with aclosing(_lines(response)) as batches:
            async for lines in batches:
                events, error = translation.events(lines)
                if events:
                    yield events
                if error is not None:
                    raise error
                empty = False
        if empty:
            raise OllamadError(f"{host.hostname} sent an empty answer")
    finally:
        with trio.CancelScope(shield=True):
            await response.aclose()


async def _lines(response: httpx.Response) -> AsyncGenerator[list[bytes], None]:
    """The lines of a body, those that arrived together in one list, none of them blank."""
    lines = Lines()
    async with raw_pieces(response) as pieces:
        async for piece in pieces:
            if found := lines.feed(piece):
                yield found
    if found := lines.end():
        yield found


async def _authorization(cloud: Cloud, message: bytes) -> str:
    try:
        key = await cloud.identity.key()
    except KeyUnavailable:
        raise Unauthorized(await cloud.identity.signin_url()) from None
    return key.authorization(message)
