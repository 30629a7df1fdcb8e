"""Asks one runner: HTTP/1.1 over a fresh connection for every request, never through a proxy.

Cancelling a request closes its connection, and that is how llama-server frees the slot. Spec:
runners-and-scheduling 2.5, 2.8, 3.8.
"""

from __future__ import annotations

import errno
import os
import socket as stdlib_socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from ollamad.errors import RunnerError, RunnerUnfit
from ollamad.runners import health, protocol
from ollamad.runners.address import Address, UnixAddress
from ollamad.runners.framing import (
    Body,
    EventLines,
    FramingError,
    LineTooLong,
    Truncated,
    parse_head,
)
from ollamad.runners.log import is_out_of_memory

_READ_BYTES = 65536

#: A poll of ``/health`` that takes longer counts as silence: while loading (2.8), and before a
#: request (4.4).
_HEALTH_LIMIT_S = 0.2
_CHECK_LIMIT_S = 10.0

#: A runner at work is asked for its health when it has said nothing for so long, and given up after
#: so many polls in a row without an answer.
_VIGIL_S = 5.0
_SILENCES = 2

#: How long a connection may wait for its request: well below what llama-server waits for one.
_SPARE_S = 1.0

#: Failures to connect that say nothing about the runner.
_OUR_FAULT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

STOPPED = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an "
    "internal error, check ollama server logs for details"
)
BROKEN = "an error was encountered while running the model: "


async def _no_words() -> str:
    return ""


class Response:
    """One answer of a runner: its status, then its body, as events or as a whole.

    Everything that reads the body raises ``RunnerError`` when the stream breaks.
    """

    def __init__(
        self,
        sock: stdlib_socket.socket,
        status: int,
        body: Body,
        first: bytes,
        client: RunnerClient,
    ) -> None:
        self.status = status
        self._client = client
        self._socket = sock
        self._body = body
        self._first = first

    @property
    def complete(self) -> bool:
        """Whether the body was read to its end."""
        return self._body.done

    def batches(self, what: str = "response") -> Batches:
        """Iterates over lists of the events' JSON texts, each list what one read brought.

        Ends when the body is complete. ``what`` is for error texts: ``response`` or
        ``chat response``.
        """
        return Batches(self, what)

    async def read(self) -> bytes:
        """The whole body."""
        pieces = []
        while piece := await self.read_some():
            pieces.append(piece)
        return b"".join(pieces)

    async def read_some(self) -> bytes:
        """The next bytes of the body, ``b""`` at its end."""
        body, sock = self._body, self._socket
        try:
            if self._first:
                payload = body.feed(self._first)
                self._first = b""
                if payload:
                    return payload
            while not body.done:
                # Waiting first, instead of trying to read, saves a system call for each token and
                # lets tokens of a fast stream come together.
                await trio.lowlevel.wait_readable(sock)
                try:
                    data = sock.recv(_READ_BYTES)
                except BlockingIOError:
                    continue
                self._client.heard = True
                if not data:
                    body.feed_eof()
                    return b""
                payload = body.feed(data)
                if payload:
                    return payload
        except (OSError, FramingError) as error:
            raise await self._client._broken(error) from error
        return b""


class Batches:
    """See ``Response.batches``. A class, because an async generator costs more for each token."""

    __slots__ = ("_ended", "_lines", "_response", "_what")

    def __init__(self, response: Response, what: str) -> None:
        self._response = response
        self._what = what
        self._lines = EventLines()
        self._ended = False

    def __aiter__(self) -> Batches:
        return self

    async def __anext__(self) -> list[bytes]:
        while not self._ended:
            payload = await self._response.read_some()
            try:
                if payload:
                    batch = self._lines.feed(payload)
                else:
                    self._ended = True
                    batch = self._lines.finish()
            except LineTooLong:
                raise RunnerError(
                    f"llama-server {self._what} stream event exceeded 8 MB limit"
                ) from None
            if batch:
                return batch
        raise StopAsyncIteration


class RunnerClient:
    """Speaks with the runner at ``address``.

    ``logged``: the runner's last error (``""`` for none) in what it has printed until now.
    ``last_words``: called when a connection breaks; it may wait for the process to end, and
    returns the runner's last error (``""`` for none).
    """

    def __init__(
        self,
        address: Address,
        api_key: str,
        *,
        logged: Callable[[], Awaitable[str]] = _no_words,
        last_words: Callable[[], Awaitable[str]] = _no_words,
    ) -> None:
        self.address = address
        #: When a request was last answered to its end, on trio's clock.
        self.answered_at = float("-inf")
        #: Set while requests are under way.
        self.working = trio.Event()
        #: Whether a byte of an answer came since somebody set this to False.
        self.heard = False
        self._open = 0
        self._spare: stdlib_socket.socket | None = None
        self._spare_at = 0.0
        self._logged = logged
        self._last_words = last_words
        self._headers = ["Host: localhost", "Connection: close"]
        if api_key:
            self._headers.append(f"Authorization: Bearer {api_key}")

    @asynccontextmanager
    async def stream(
        self, path: str, body: bytes, *, check: bool = True
    ) -> AsyncIterator[Response]:
        """Posts ``body`` (JSON) and gives the response; leaving closes the connection.

        Raises ``RunnerError``: the runner is gone, the stream breaks, or, unless ``check`` is
        false, it answers with a status of 400 or more (3.8 items 4 and 6).
        """
        sock = await self._connect_or_explain()
        self._begin()
        try:
            try:
                response = await self._exchange(sock, "POST", path, body)
            except (OSError, FramingError):
                raise await self._stopped() from None
            if check and response.status >= 400:
                raise await self._refused(response.status, await response.read())
            yield response
            if response.complete:
                self.answered_at = trio.current_time()
        finally:
            self._end()
            sock.close()

    async def request_json(
        self, path: str, body: bytes | None = None, *, check: bool = False
    ) -> tuple[int, bytes]:
        """Status and whole body of a POST with ``body``, or of a GET when it is None.

        Raises ``RunnerError`` as ``stream`` does.
        """
        if body is not None:
            async with self.stream(path, body, check=check) as response:
                return response.status, await response.read()
        sock = await self._connect_or_explain()
        self._begin()
        try:
            response = await self._exchange(sock, "GET", path, None)
            content = await response.read()
        except (OSError, FramingError):
            raise await self._stopped() from None
        finally:
            self._end()
            sock.close()
        if check and response.status >= 400:
            raise await self._refused(response.status, content)
        return response.status, content

    async def health(self, limit: float = _HEALTH_LIMIT_S) -> health.Health:
        """One poll of ``/health``, of ``limit`` seconds; never raises for what the runner does."""
        with trio.move_on_after(limit):
            try:
                sock = await self._connect()
            except (ConnectionRefusedError, FileNotFoundError):
                return health.REFUSED
            except OSError as error:
                return health.transport_failure(error)
            try:
                response = await self._exchange(sock, "GET", "/health", None)
                return health.interpret(await response.read())
            except (OSError, FramingError, RunnerError) as error:
                return health.transport_failure(error)
            finally:
                sock.close()
        return health.SILENT

    async def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        """Token numbers of ``text``. Raises ``RunnerError`` (3.12)."""
        body = protocol.tokenize_request(text, add_special=add_special)
        return protocol.tokenize_result(*await self.request_json("/tokenize", body))

    async def detokenize(self, tokens: list[int]) -> str:
        """Raises ``RunnerError`` (3.12)."""
        body = protocol.detokenize_request(tokens)
        return protocol.detokenize_result(*await self.request_json("/detokenize", body))

    async def apply_template(self, chat_body: bytes) -> str:
        """The prompt that the GGUF's own chat template makes of a chat body. Raises
        ``RunnerError`` (3.12)."""
        return protocol.template_result(*await self.request_json("/apply-template", chat_body))

    async def count_input_tokens(self, chat_body: bytes) -> int:
        """Tokens of a chat body once rendered, media included. Raises ``RunnerError`` (3.5)."""
        path = "/v1/chat/completions/input_tokens"
        return protocol.input_tokens_result(*await self.request_json(path, chat_body))

    async def embed(
        self, inputs: list[str] | list[list[int]], *, raw: bool = False
    ) -> protocol.Embeddings:
        """Vectors of many inputs in one request. Raises ``RunnerError`` (3.13)."""
        body = protocol.embeddings_request(inputs, raw=raw)
        return protocol.embeddings_result(*await self.request_json("/v1/embeddings", body))

    async def props(self) -> protocol.Props:
        """Raises ``RunnerError``."""
        return protocol.props_result(*await self.request_json("/props"))

    async def check_ready(self) -> None:
        """The gate before a request (2.8, 4.4): returns when the runner is ready for one.

        Raises ``RunnerUnfit`` for a runner that is gone, sick or silent, ``RunnerError`` for one
        that lives but is not ready.
        """
        for attempt in range(11):
            if attempt:
                await trio.sleep(0.005)
            now = await self.health(_CHECK_LIMIT_S)
            if now.state is health.State.READY:
                return
            if now.state is health.State.ERROR:
                raise RunnerUnfit(now.text)
            if now.state is health.State.NOT_RESPONDING:
                raise RunnerUnfit(f"unexpected server status: {now.state.value}")
        if now.state is health.State.BUSY:
            raise RunnerError("no slots available after 10 retries")
        raise RunnerError(f"unexpected server status: {now.state.value}")

    async def check_listening(self) -> None:
        """A short form of ``check_ready``, for a runner that has just shown that it is fit: it is
        still there. The connection that shows it is the next request's.

        Raises ``RunnerUnfit`` when nobody listens, ``RunnerError`` when we cannot connect.
        """
        self.close()
        try:
            self._spare = await self._connect()
        except OSError as error:
            if error.errno in _OUR_FAULT:
                raise RunnerError(f"cannot connect to the runner: {error.strerror}") from error
            raise RunnerUnfit("nobody listens any more") from error
        self._spare_at = trio.current_time()

    def close(self) -> None:
        """Close the connection that waits for a request, if there is one."""
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def _begin(self) -> None:
        self._open += 1
        self.working.set()

    def _end(self) -> None:
        self._open -= 1
        if not self._open:
            self.working = trio.Event()

    async def until_silent(self) -> None:
        """Return when the runner neither answers a request that it has nor ``/health``, for long.

        A process that is stopped, or stuck in the kernel, keeps its connections open; whoever
        waits for it would wait for ever.
        """
        missed = 0
        while missed < _SILENCES:
            await self.working.wait()
            self.heard = False
            await trio.sleep(_VIGIL_S)
            if self.heard or not self._open:
                missed = 0
                continue
            now = await self.health(_CHECK_LIMIT_S)
            silent = now is health.SILENT and not self.heard and self._open
            missed = missed + 1 if silent else 0

    async def _connect_or_explain(self) -> stdlib_socket.socket:
        spare, self._spare = self._spare, None
        if spare is not None:
            if trio.current_time() - self._spare_at < _SPARE_S:
                return spare
            spare.close()
        try:
            return await self._connect()
        except OSError as error:
            if error.errno in _OUR_FAULT:
                raise RunnerError(f"cannot connect to the runner: {error.strerror}") from error
            raise await self._stopped() from None

    async def _connect(self) -> stdlib_socket.socket:
        if isinstance(self.address, UnixAddress):
            sock = stdlib_socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_STREAM)
            target: str | tuple[str, int] = self.address.path
        else:
            sock = stdlib_socket.socket(stdlib_socket.AF_INET, stdlib_socket.SOCK_STREAM)
            sock.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
            target = (self.address.host, self.address.port)
        sock.setblocking(False)
        try:
            while (code := sock.connect_ex(target)) != 0:
                if code == errno.EAGAIN and isinstance(self.address, UnixAddress):
                    # The runner's queue of connections is full for a moment.
                    await trio.sleep(0.001)
                    continue
                if code != errno.EINPROGRESS:
                    raise OSError(code, os.strerror(code))
                await trio.lowlevel.wait_writable(sock)
                failed = sock.getsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_ERROR)
                if failed:
                    raise OSError(failed, os.strerror(failed))
                break
        except BaseException:
            sock.close()
            raise
        return sock

    async def _exchange(
        self, sock: stdlib_socket.socket, method: str, path: str, body: bytes | None
    ) -> Response:
        """Sends the request and reads the head of the response."""
        lines = [f"{method} {path} HTTP/1.1", *self._headers]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        await _send_all(sock, "\r\n".join([*lines, "", ""]).encode("ascii") + (body or b""))
        received = b""
        while (head := parse_head(received)) is None:
            data = await _receive(sock)
            if not data:
                raise Truncated("unexpected EOF")
            received += data
        return Response(sock, head.status, head.body, head.first, self)

    async def _refused(self, status: int, body: bytes) -> RunnerError:
        text = body.decode("utf-8", "replace").strip()
        last = await self._logged()  # it logs its reason before it answers
        out_of_memory = is_out_of_memory(text)
        if is_out_of_memory(last):
            out_of_memory = True
            if last.lower() not in text.lower():
                text = f"{text}\n{last}"
        return RunnerError(text, status=status, out_of_memory=out_of_memory)

    async def _stopped(self) -> RunnerError:
        last = await self._last_words()
        text = f"{STOPPED}: {last}" if last else STOPPED
        return RunnerError(text, out_of_memory=is_out_of_memory(last))

    async def _broken(self, error: Exception) -> RunnerError:
        last = await self._last_words()
        # A connection that is reset and one that ends early are the same accident.
        text = last or ("unexpected EOF" if isinstance(error, ConnectionError) else str(error))
        return RunnerError(BROKEN + text, out_of_memory=is_out_of_memory(last))


async def _receive(sock: stdlib_socket.socket) -> bytes:
    while True:
        await trio.lowlevel.wait_readable(sock)
        try:
            return sock.recv(_READ_BYTES)
        except BlockingIOError:
            continue


async def _send_all(sock: stdlib_socket.socket, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[sock.send(view) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
