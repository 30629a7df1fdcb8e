"""Answers: one JSON object, text, nothing, or a stream that starts when its first item is there.

Source: http-api.md 3.2.7, 6 and 7.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterable
from types import TracebackType
from typing import Any

from quart.wrappers import Response
from quart.wrappers.response import ResponseBody

from ollamad.api.encoding import JSON, NDJSON, PLAIN_JSON, encode, error_object
from ollamad.errors import OllamadError, RunnerKeepsDying, ServerBusy
from ollamad.scheduler.lease import Waited

log = logging.getLogger(__name__)

__all__ = [
    "AnswerCut",
    "Response",
    "StreamBody",
    "empty_response",
    "encoded_response",
    "error_response",
    "json_response",
    "raw_response",
    "stream_response",
    "text_response",
    "timed",
]

#: Encodes an error as the last item of a running stream.
ErrorItem = Callable[[OllamadError], bytes]


def json_response(value: Any, status: int = 200, *, content_type: str = JSON) -> Response:
    """``value`` is a Struct or anything else that `encode` takes."""
    return _response(encode(value), status, content_type)


def encoded_response(body: bytes, *, content_type: str = JSON) -> Response:
    """``body`` is what `encode` made, in a thread because it is long."""
    return _response(body, 200, content_type)


def text_response(text: str, status: int = 200) -> Response:
    return _response(text.encode(), status, "text/plain; charset=utf-8")


def empty_response(status: int = 200) -> Response:
    """No body and no content type."""
    response = _response(b"", status, "")
    del response.headers["Content-Type"]
    return response


def error_response(error: OllamadError, *, content_type: str = JSON) -> Response:
    """``{"error": …}`` with the error's status (6.1)."""
    response = _response(encode(error.members), error.status, content_type)
    if isinstance(error, ServerBusy | RunnerKeepsDying):
        response.headers["Retry-After"] = str(error.retry_after)
    elif error.status in (429, 503):
        response.headers["Retry-After"] = "1"
    return response


def error_line(error: OllamadError) -> bytes:
    """What ends an NDJSON stream that has begun (7.4)."""
    return error_object(error.message) + b"\n"


class AnswerCut(Exception):
    """The body of an answer cannot go on, and its form has no place for an error.

    Raised by the body; the connection is closed without the end of the answer.
    """


def raw_response(status: int, headers: Iterable[tuple[str, str]]) -> Response:
    """An answer with exactly these headers; its body is put in by the caller."""
    response = _response(b"", status, "")
    response.headers.clear()
    response.headers.extend(headers)
    response.timeout = None
    return response


async def stream_response(
    items: AsyncGenerator[bytes, None],
    *,
    content_type: str = NDJSON,
    early_type: str = PLAIN_JSON,
    error_item: ErrorItem = error_line,
) -> Response:
    """A stream of ``items``, each sent with one write as soon as it is there.

    Waits for the first item: an OllamadError until then becomes a plain answer with its status
    (7.3) and the content type ``early_type``, later ones become the last item. ``items`` is closed
    when the client goes away. It runs in one task from its first item to its last, so it may hold
    nurseries and cancel scopes open.
    """
    try:
        first = await anext(items, None)
    except OllamadError as error:
        await items.aclose()
        return error_response(error, content_type=early_type)
    response = _response(b"", 200, content_type)
    del response.headers["Content-Length"]
    response.response = StreamBody(first, items, error_item)
    response.timeout = None
    return response


def timed(response: Response, waited: Waited) -> Response:
    """``response``, with a header that says how long its request has waited for its runner."""
    if waited.is_over:
        queue, load = waited.queued_ns / 1e6, waited.loaded_ns / 1e6
        response.headers["Server-Timing"] = f"queue;dur={queue:.3f}, load;dur={load:.3f}"
    return response


class StreamBody(ResponseBody):
    """The body of `stream_response`, read by the server."""

    def __init__(
        self, first: bytes | None, items: AsyncGenerator[bytes, None], error_item: ErrorItem
    ) -> None:
        self._first = first
        self._items = items
        self._next = items.__anext__
        self.error_item = error_item
        self._ended = first is None

    async def __aenter__(self) -> StreamBody:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self._items.aclose()

    def __aiter__(self) -> StreamBody:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        if self._first is not None:
            first, self._first = self._first, None
            return first
        try:
            return await self._next()
        except OllamadError as error:
            self._ended = True
            return self.error_item(error)
        except StopAsyncIteration:
            raise
        except Exception as error:
            # The status has been sent: all that is left is to say so, here and in the log.
            log.exception("a stream ended with an unexpected error")
            self._ended = True
            return self.error_item(OllamadError(f"internal error: {type(error).__name__}"))


def _response(body: bytes, status: int, content_type: str) -> Response:
    return Response(body, status, content_type=content_type)
