"""Requests for models of the cloud: passed on as they are, signed, and answered as it answers.

Source: http-api.md 17.1, compat-apis.md 2.3, and 16 for the web and the recommendations. The local
store is not asked; the body of an answer is never decoded, and nothing of it is read ahead.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from types import TracebackType

import trio
from quart.wrappers.response import ResponseBody

from ollamad.api.context import Context
from ollamad.api.encoding import NDJSON
from ollamad.api.responses import (
    AnswerCut,
    Response,
    encoded_response,
    error_line,
    json_response,
    raw_response,
)
from ollamad.errors import BadRequest
from ollamad.registry.cloud import (
    NO_DETAILS,
    NO_MODEL,
    NO_WEB_FETCH,
    NO_WEB_SEARCH,
    Upstream,
)
from ollamad.registry.cloud_bodies import CloudRequest, cloud_body
from ollamad.registry.details import LONGEST
from ollamad.registry.errors import TransportError
from ollamad.wire import RecommendationsResponse, ShowRequest

log = logging.getLogger(__name__)

#: Answers to these have no body, whatever is sent after the head.
_BODILESS = (204, 304)


async def forward(
    context: Context, path: str, body: bytes, *, operation: str = NO_MODEL, method: str = ""
) -> Response:
    """Pass a request on to ``path`` of the cloud with ``body`` in place of its own.

    ``path`` is as it stands in a URL; the client's query goes with it, and its headers as far as
    they are meant for the cloud. ``operation``: what a disabled cloud cannot do. ``method``: the
    client's unless given. The answer has the cloud's status, headers and body, each piece sent as
    it comes; the cloud's connection is closed with the client's. Raises Forbidden when the cloud is
    off, Unauthorized without a key, OllamadError (502) when the cloud cannot be reached.
    """
    context.services.cloud.check(operation)
    upstream = await _upstream(context, path, body, method)
    return _relayed(upstream)


async def forward_request(
    context: Context, request: CloudRequest, model: str, *, operation: str = NO_MODEL
) -> Response:
    """Pass a decoded request on to the same path, for the model that the cloud calls ``model``."""
    context.services.cloud.check(operation)
    # Pictures may make it long.
    body = await trio.to_thread.run_sync(cloud_body, request, model)
    return await forward(context, context.scope["path"], body, operation=operation)


async def forward_show(context: Context, request: ShowRequest, model: str) -> Response:
    """As `forward_request`, but what is known is answered at once (17.1.6)."""
    services = context.services
    services.cloud.check(NO_DETAILS)
    plain = not (request.system or request.options or request.verbose)
    known = services.cloud_details.get(model) if plain else None
    if known is not None:
        return encoded_response(known)
    upstream = await _upstream(context, "/api/show", cloud_body(request, model), "")
    if not plain or upstream.status != 200 or upstream.header("content-encoding"):
        return _relayed(upstream)
    return _relayed(upstream, lambda body: services.cloud_details.put(model, body))


async def post_web_search(context: Context) -> Response:
    return await _web(context, "/api/web_search", NO_WEB_SEARCH)


async def post_web_fetch(context: Context) -> Response:
    return await _web(context, "/api/web_fetch", NO_WEB_FETCH)


async def _web(context: Context, path: str, operation: str) -> Response:
    body = await context.body()
    if not body.strip():
        raise BadRequest("missing request body")
    return await forward(context, path, body, operation=operation)


async def get_recommendations(context: Context) -> Response:
    models = context.services.recommendations.read()
    return json_response(RecommendationsResponse(recommendations=list(models)))


async def _upstream(context: Context, path: str, body: bytes, method: str) -> Upstream:
    scope = context.scope
    return await context.services.cloud.forward(
        method or scope["method"],
        path,
        scope["query_string"].decode("latin-1"),
        scope["headers"],
        body,
    )


class _Relay(ResponseBody):
    """The body of an answer on its way. Left early, it closes the connection to the cloud."""

    def __init__(self, upstream: Upstream, keep: Callable[[bytes], None] | None) -> None:
        self._upstream = upstream
        self._pieces = _pieces(upstream, keep)

    async def __aenter__(self) -> AsyncGenerator[bytes, None]:
        return self._pieces

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self._pieces.aclose()
        await self._upstream.aclose()


def _relayed(upstream: Upstream, keep: Callable[[bytes], None] | None = None) -> Response:
    response = raw_response(upstream.status, upstream.headers)
    response.response = _Relay(upstream, keep)
    return response


async def _pieces(
    upstream: Upstream, keep: Callable[[bytes], None] | None
) -> AsyncGenerator[bytes, None]:
    """The body as it comes; ``keep`` gets all of one that is whole and not too long."""
    if upstream.status in _BODILESS:
        return
    kept = bytearray()
    is_lines = upstream.header("content-type").partition(";")[0].strip().lower() == NDJSON
    ended_line = True
    try:
        async with aclosing(upstream.chunks()) as chunks:
            async for chunk in chunks:
                if keep is not None and len(kept) <= LONGEST:
                    kept += chunk
                ended_line = chunk.endswith(b"\n")
                yield chunk
    except TransportError as error:
        log.warning("an answer of the cloud broke off", extra={"error": error.message})
        if is_lines and ended_line:
            yield error_line(error)
            return
        # There is no way to say so inside this body: the client sees that its end is missing.
        raise AnswerCut from error
    if keep is not None and len(kept) <= LONGEST:
        keep(bytes(kept))
