"""Records of requests: a line in the log for each, and, when asked for, files that replay them.

``runners-and-scheduling.md`` 5.4 (access log) and 5.7. Both are ASGI middleware around the API;
neither stands in the way of a stream's pieces.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import shlex
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

from ollamad.units import format_duration

logger = logging.getLogger(__name__)

#: The routes whose bodies are stored (5.7).
INFERENCE_ROUTES = frozenset(
    (
        "/api/generate",
        "/api/chat",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
    )
)
_FILE_MODE = 0o600
#: Of a path in the log; those of the API are shorter.
_PATH_LENGTH = 200

App = Callable[[Any, Any, Any], Awaitable[None]]


class AccessLog:
    """Logs every request when it is over: never its query or body, which may be private.

    Requests that only look, and succeed, are for those who debug: programs poll with them.
    ``extension`` is where the server leaves, in the scope, the object whose ``response`` is the
    message that began the answer.
    """

    def __init__(self, app: App, extension: str) -> None:
        self._app = app
        self._extension = extension

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not logger.isEnabledFor(logging.INFO):
            await self._app(scope, receive, send)
            return
        path = scope["path"]  # redirects and routing may change it
        started = time.perf_counter_ns()
        try:
            await self._app(scope, receive, send)
        finally:
            self._log(scope, path, time.perf_counter_ns() - started)

    def _log(self, scope: Any, path: str, nanoseconds: int) -> None:
        response = getattr(scope["extensions"].get(self._extension), "response", None)
        # 499, as in the logs of proxies: the client left before there was an answer.
        status = response["status"] if response else 499
        looked = scope["method"] in ("GET", "HEAD") and status < 400
        client = scope.get("client")
        logger.log(
            logging.DEBUG if looked else logging.INFO,
            "request",
            extra={
                "status": status,
                "duration": format_duration(nanoseconds // 1000 * 1000),
                "client": client[0] if client else "",
                "method": scope["method"],
                "path": path if len(path) <= _PATH_LENGTH else f"{path[:_PATH_LENGTH]}…",
            },
        )


class RequestLog:
    """Stores the body of every inference request in ``directory``, with a script that replays it.

    ``url`` is the daemon's own, for the scripts.
    """

    def __init__(self, app: App, directory: Path, url: str) -> None:
        self._app = app
        self._directory = directory
        self._url = url
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if (
            scope["type"] != "http"
            or scope["method"] != "POST"
            or scope["path"] not in INFERENCE_ROUTES
        ):
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        body: list[bytes] = []

        async def listen() -> Any:
            message = await receive()
            if message["type"] == "http.request":
                body.append(message.get("body", b""))
            return message

        try:
            await self._app(scope, listen, send)
        finally:
            # Requests that were cancelled are the ones to look into.
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._store, path, b"".join(body))

    def _store(self, route: str, body: bytes) -> None:
        stem = file_stem(time.time_ns(), next(self._numbers), route)
        body_path = self._directory / f"{stem}_body.json"
        script_path = self._directory / f"{stem}_request.sh"
        try:
            _write(body_path, body)
            _write(script_path, replay_script(self._url + route, body_path).encode())
        except OSError as error:
            logger.warning("storing a request failed", extra={"error": str(error)})
            return
        logger.info("logged to %s, replay using curl with `sh %s`", body_path, script_path)


def start_request_log(app: App, url: str) -> RequestLog:
    """A `RequestLog` with a new private directory, which the log names. Raises OSError."""
    directory = Path(tempfile.mkdtemp(prefix="ollama-request-logs-"))
    logger.info(
        "request debug logging enabled; inference request logs will be stored in %s and include "
        "request bodies and replay curl commands",
        directory,
    )
    return RequestLog(app, directory, url)


def file_stem(unix_ns: int, number: int, route: str) -> str:
    """``20260501T153645.053000000Z-000001_api_chat``: sorts by time, and is safe as a file name."""
    second, rest = divmod(unix_ns, 1_000_000_000)
    moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime(second))
    name = re.sub(r"[^A-Za-z0-9]", "_", route.strip("/"))
    return f"{moment}.{rest:09d}Z-{number:06d}_{name}"


def replay_script(url: str, body_path: Path) -> str:
    """A shell script that sends the body again; its argument may name another server."""
    scheme, _, rest = url.partition("://")
    address, _, path = rest.partition("/")
    return (
        "#!/bin/sh\n"
        f"url=${{1:-{scheme}://{address}}}\n"
        f'exec curl --no-buffer --header "Content-Type: application/json" '
        f'--data-binary @{shlex.quote(str(body_path))} "$url/{path}"\n'
    )


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
