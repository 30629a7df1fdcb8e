"""The table of endpoints (http-api.md 5)."""

from __future__ import annotations

from ollamad.api import account, cloud, library, native, upkeep
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
    Route("GET", "/api/status", library.get_status),
    Route("GET", "/api/tags", library.get_tags),
    Route("HEAD", "/api/tags", library.get_tags),
    Route("GET", "/api/ps", library.get_ps),
    Route("POST", "/api/show", library.post_show),
    Route("POST", "/api/generate", native.post_generate),
    Route("POST", "/api/chat", native.post_chat),
    Route("POST", "/api/embed", native.post_embed),
    Route("POST", "/api/embeddings", native.post_embeddings),
    Route("POST", "/api/create", library.post_create),
    Route("POST", "/api/pull", library.post_pull),
    Route("POST", "/api/push", library.post_push),
    Route("POST", "/api/copy", library.post_copy),
    Route("DELETE", "/api/delete", library.delete_model),
    Route("POST", "/api/prune", upkeep.post_prune),
    Route("GET", "/api/disk", upkeep.get_disk),
    Route("HEAD", "/api/blobs/:digest", library.head_blob),
    Route("POST", "/api/blobs/:digest", library.post_blob),
    Route("POST", "/api/me", account.post_me),
    Route("POST", "/api/signout", account.sign_out),
    Route("DELETE", "/api/user/keys/:key", account.sign_out),
    Route("POST", "/api/experimental/web_search", cloud.post_web_search),
    Route("POST", "/api/experimental/web_fetch", cloud.post_web_fetch),
    Route("GET", "/api/experimental/model-recommendations", cloud.get_recommendations),
)
