"""The table of endpoints (http-api.md 5)."""

from __future__ import annotations

from ollamad.api.context import Context
from ollamad.api.responses import Response, json_response, text_response
from ollamad.api.routing import Route
from ollamad.version import API_VERSION
from ollamad.wire import VersionResponse


async def running(_context: Context) -> Response:
    return text_response("Ollama is running")


async def version(_context: Context) -> Response:
    return json_response(VersionResponse(version=API_VERSION))


ROUTES: tuple[Route, ...] = (
    Route("GET", "/", running),
    Route("HEAD", "/", running),
    Route("GET", "/api/version", version),
    Route("HEAD", "/api/version", version),
)
