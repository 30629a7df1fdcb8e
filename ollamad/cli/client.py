"""The daemon's API as the command line calls it: requests, answers, errors (``cli.md`` 1.2-1.4)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ollamad import version
from ollamad.cli.answers import decode
from ollamad.cli.auth import Signer, is_signed
from ollamad.cli.errors import (
    NOT_RUNNING,
    SEE_LOGS,
    ConnectionFailed,
    ServerError,
    Unauthorized,
)
from ollamad.cli.http import Response, Transport
from ollamad.errors import UsageError
from ollamad.host import Host, from_environ
from ollamad.version import __version__

if TYPE_CHECKING:
    from pathlib import Path  # costs more time than any other import here is worth

T = TypeVar("T", bound=msgspec.Struct)
Headers = tuple[tuple[str, str], ...]

#: The longest line of a stream that is accepted, in bytes.
LONGEST_LINE = 8_000_000
_UPLOAD_BLOCK = 1 << 18


def user_agent() -> str:
    """As every request of this machine's has it, with the name of this program."""
    return f"{version.user_agent()} ollamad/{__version__}"


class Client:
    """One server. Not for several threads at once: each takes its own with `another`."""

    def __init__(self, host: Host, environ: Mapping[str, str]) -> None:
        self.host = host
        self.environ = environ
        self._transport = Transport(host, environ)
        self._signer = Signer(environ) if is_signed(host, environ) else None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Client:
        return cls(from_environ(environ), environ)

    def another(self) -> Client:
        """A client of the same server with a connection of its own."""
        return Client(self.host, self.environ)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def abort(self) -> None:
        """From another thread: whatever is going on here fails now."""
        self._transport.abort()

    def heartbeat(self) -> None:
        """Ask whether a server is there. Raises ConnectionFailed with the text of 1.4."""
        try:
            self.call("HEAD", "/")
        except ConnectionFailed as error:
            if error.refused:
                raise ConnectionFailed(NOT_RUNNING, refused=True) from error
            raise

    def call(
        self, method: str, path: str, body: Any = None, *, timeout: float | None = None
    ) -> bytes:
        """One request, one answer. ``body`` is a Struct or plain data.

        Raises ServerError with the server's text for a status of 400 and above, Unauthorized for
        401, ConnectionFailed when there is no answer, or none for ``timeout`` seconds.
        """
        response = self._request(method, path, _encoded(body), "application/json", timeout)
        content = response.read()
        if response.status >= 400:
            raise _error_of_call(response.status, content)
        return content

    def get(self, kind: type[T], path: str) -> T:
        return decode(kind, self.call("GET", path))

    def post(self, kind: type[T], path: str, body: Any) -> T:
        return decode(kind, self.call("POST", path, body))

    @contextmanager
    def stream(self, kind: type[T], path: str, body: Any) -> Iterator[Iterator[T]]:
        """The events of a streamed answer; leaving the block early ends the request.

        Raises as `call`; the status stands before the server's text (1.2). An error object in the
        stream raises ServerError with its text.
        """
        response = self._request("POST", path, _encoded(body), "application/x-ndjson")
        try:
            yield _events(kind, response)
        finally:
            response.close()

    def drain(self, kind: type[T], path: str, body: Any) -> None:
        """Do what a streaming endpoint does, and ignore its events but errors."""
        with self.stream(kind, path, body) as events:
            for _ in events:
                pass

    def upload(self, path: Path, digest: str, report: Callable[[int], None]) -> None:
        """Send the file as the blob ``digest``; ``report`` gets the bytes sent so far.

        The server may answer before it has everything, when it has the blob already.
        """
        # One handle for size and content: the file may be replaced meanwhile.
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            target, headers = self._signed(
                "POST",
                f"/api/blobs/{digest}",
                _headers("application/json", "application/octet-stream"),
            )
            content_of_file = _reported(file.read, size, report)
            response = self._transport.request("POST", target, headers, content_of_file, size)
            content = response.read()
        response.close()
        if response.status >= 400:
            raise _error_of_call(response.status, content)
        report(size)

    def _request(
        self, method: str, path: str, body: bytes, accept: str, timeout: float | None = None
    ) -> Response:
        target, headers = self._signed(method, path, _headers(accept, "application/json"))
        return self._transport.request(method, target, headers, body, timeout=timeout)

    def _signed(self, method: str, path: str, headers: Headers) -> tuple[str, Headers]:
        """``path`` and ``headers`` as they are sent: with a signature where one is wanted."""
        if self._signer is None:
            return path, headers
        path, authorization = self._signer.sign(method, path)
        return path, (*headers, ("Authorization", authorization))


def _headers(accept: str, content_type: str) -> Headers:
    return (("User-Agent", user_agent()), ("Accept", accept), ("Content-Type", content_type))


def _reported(
    read: Callable[[int], bytes | None], size: int, report: Callable[[int], None]
) -> Iterator[bytes]:
    """The first ``size`` bytes of a file in blocks. A file that shrinks is an error at once."""
    sent = 0
    while sent < size:
        block = read(min(_UPLOAD_BLOCK, size - sent))
        if not block:
            raise UsageError("a file became shorter while it was read")
        yield block
        sent += len(block)
        report(sent)


def _encoded(body: Any) -> bytes:
    if body is None:
        return b""
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError as error:
        raise UsageError("an argument is not valid UTF-8") from error


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines of a body that arrives in pieces, without line ends; empty ones are left out.

    Raises ServerError for a line longer than `LONGEST_LINE`.
    """
    rest = bytearray()
    for chunk in chunks:
        *complete, last = chunk.split(b"\n")
        for piece in complete:
            rest += piece
            if stripped := _stripped(rest):
                yield stripped
            rest.clear()
        rest += last
        if len(rest) > LONGEST_LINE:
            break
    if stripped := _stripped(rest):
        yield stripped


def _stripped(line: bytearray) -> bytes:
    if len(line) > LONGEST_LINE:
        raise ServerError("a line of the server's answer is too long")
    return bytes(line.strip())


def _events(kind: type[T], response: Response) -> Iterator[T]:
    for line in lines(response.chunks()):
        # A cheap look first: almost no line has an error.
        if response.status >= 400 or b'"error"' in line or not line.startswith(b"{"):
            _check_line(response, line)
        yield decode(kind, line)
    if response.status >= 400:
        raise _error_of_stream(response, "")


def _check_line(response: Response, line: bytes) -> None:
    """Raise what a line says that is not an event."""
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = line.decode("utf-8", "replace")
        if response.status >= 400:
            raise _error_of_stream(response, text) from None
        raise ServerError(text) from None
    message = value.get("error") if isinstance(value, dict) else None
    text = message if isinstance(message, str) else ""
    url = _signin_url(value)
    if response.status >= 400:
        raise _error_of_stream(response, text, url)
    if text:
        raise ServerError(text)


def _error_of_call(status: int, content: bytes) -> ServerError:
    value: Any = None
    try:
        value = msgspec.json.decode(content)
        message = value.get("error") if isinstance(value, dict) else None
        text = message if isinstance(message, str) else ""
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = content.decode("utf-8", "replace").strip()
    if status == 401:
        return Unauthorized(SEE_LOGS, _signin_url(value))
    return ServerError(text or SEE_LOGS, status=status)


def _error_of_stream(response: Response, text: str, signin_url: str = "") -> ServerError:
    status = f"{response.status} {response.reason or _phrase(response.status)}".rstrip()
    if response.status == 401:
        return Unauthorized(status, signin_url)
    return ServerError(f"{status}: {text}" if text else status, status=response.status)


def _signin_url(value: Any) -> str:
    url = value.get("signin_url") if isinstance(value, dict) else None
    return url if isinstance(url, str) else ""


def _phrase(status: int) -> str:
    # HTTP/2 to HTTP/1.1 gateways and some servers send no phrase.
    from http import HTTPStatus  # noqa: PLC0415 - for errors only

    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
