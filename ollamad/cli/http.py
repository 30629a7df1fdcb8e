"""HTTP/1.1 over blocking sockets: h11 decides, this module reads and writes.

http.client would do, but costs more start-up time than all the rest of ``ollama list``, and cannot
take the answer to an upload before the upload is over.
"""

from __future__ import annotations

import errno
import select
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import h11

from ollamad.cli.errors import ConnectionFailed
from ollamad.host import Host, connectable, join_host_port

if TYPE_CHECKING:
    from ollamad.cli.proxy import Proxy

_RECEIVE = 1 << 16
_EOF = "unexpected EOF"
#: Not in Windows' socket module; there an upload is not interrupted by an early answer.
_DONT_WAIT = getattr(socket, "MSG_DONTWAIT", None)


class Response:
    """The answer to one request. Close it, or read ``chunks`` to the end."""

    def __init__(self, connection: _Connection, head: h11.Response) -> None:
        self.status: int = head.status_code
        self.reason: str = bytes(head.reason).decode("latin-1").strip()
        self._connection = connection

    def chunks(self) -> Iterator[bytes]:
        """The body in the pieces in which it arrives. Raises ConnectionFailed when it is cut."""
        while True:
            event = self._connection.next_event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return

    def read(self) -> bytes:
        return b"".join(self.chunks())

    def close(self) -> None:
        """Give up what has not been read; the server sees the connection end."""
        if not self._connection.is_reusable:
            self._connection.close()


class Transport:
    """Requests to one server, one after another, over one connection while both sides keep it."""

    def __init__(self, host: Host, environ: Mapping[str, str]) -> None:
        self._host = connectable(host)
        self._environ = environ
        self._connection: _Connection | None = None

    def request(
        self,
        method: str,
        path: str,
        headers: Iterable[tuple[str, str]],
        body: bytes | Iterable[bytes] = b"",
        length: int | None = None,
        timeout: float | None = None,
    ) -> Response:
        """Send a request and wait for the head of its answer.

        ``path`` starts with ``/`` and is below the path of the host. ``length`` is the size of a
        ``body`` given in pieces. ``timeout`` is in seconds, for each wait. Raises ConnectionFailed.
        """
        connection = self._connect()
        connection.set_timeout(timeout)
        sized = len(body) if isinstance(body, bytes) else length
        fields = [("Host", self._host.address), *headers]
        if sized or method not in ("GET", "HEAD"):
            fields.append(("Content-Length", str(sized)))
        target = f"{self._host.path.rstrip('/')}{path}"
        try:
            connection.send_head(method, target, fields)
            return connection.exchange((body,) if isinstance(body, bytes) else body)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def abort(self) -> None:
        """From another thread: whatever is going on here fails now."""
        if self._connection is not None:
            self._connection.abort()

    def _connect(self) -> _Connection:
        if self._connection is not None and self._connection.renew():
            return self._connection
        self.close()
        self._connection = _open(self._host, self._environ)
        return self._connection


def _open(host: Host, environ: Mapping[str, str]) -> _Connection:
    name = host.host or "localhost"
    proxy = None
    if any(key.upper() in ("HTTP_PROXY", "HTTPS_PROXY") for key in environ):
        from ollamad.cli.proxy import proxy_for  # noqa: PLC0415 - rarely needed

        proxy = proxy_for(host.scheme, name, host.port, environ)
    target = (proxy.host, proxy.port) if proxy is not None else (name, host.port)
    sock = _dial(*target)
    try:
        return _Connection(*_secured(sock, host, name, proxy))
    except BaseException:
        sock.close()
        raise


def _secured(
    sock: socket.socket, host: Host, name: str, proxy: Proxy | None
) -> tuple[socket.socket, bool, str, tuple[tuple[str, str], ...]]:
    """``sock`` with TLS where the scheme asks for it; what requests through a proxy need, too."""
    if host.scheme != "https":
        if proxy is None:
            return sock, False, "", ()
        return sock, False, f"http://{join_host_port(name, host.port)}", proxy.headers
    if proxy is not None:
        _tunnel(sock, name, host.port, proxy)
    import ssl  # noqa: PLC0415 - a server of one's own seldom has TLS

    try:
        return ssl.create_default_context().wrap_socket(sock, server_hostname=name), True, "", ()
    except OSError as error:
        raise _failure(error, name, host.port) from error


def _tunnel(sock: socket.socket, name: str, port: int, proxy: Proxy) -> None:
    target = join_host_port(name, port)
    connection = _Connection(sock)
    connection.send_head("CONNECT", target, [("Host", target), *proxy.headers])
    response = connection.exchange(())
    if not 200 <= response.status < 300:
        raise ConnectionFailed(f"proxy {proxy.host}: {response.status} {response.reason}".rstrip())


def _dial(name: str, port: int) -> socket.socket:
    # A host of type str would be encoded with IDNA rules, whose import takes long.
    encoded = name.encode("ascii") if name.isascii() else name.encode("idna")
    try:
        found = socket.getaddrinfo(encoded, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConnectionFailed(f"dial tcp: lookup {name}: {_reason(error)}") from error
    failure: OSError = OSError(errno.EADDRNOTAVAIL, "no address")
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise _failure(failure, name, port) from failure


def _failure(error: OSError, name: str, port: int) -> ConnectionFailed:
    return ConnectionFailed(
        f"dial tcp {join_host_port(name, port)}: {_reason(error)}",
        refused=isinstance(error, ConnectionRefusedError),
    )


def _reason(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else None
    return (reason or str(error)).lower()


class _Connection:
    """One socket and the protocol's state on it."""

    def __init__(
        self,
        sock: socket.socket,
        tls: bool = False,
        proxied: str = "",
        proxy_headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self._sock = sock
        self._tls = tls
        # Through a proxy without a tunnel the target is the whole URL.
        self._proxied = proxied
        self._proxy_headers = proxy_headers
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 16)
        self._head = b""
        # Closed here, or the server did not want all of a request.
        self._finished = False

    @property
    def is_reusable(self) -> bool:
        both_done = self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE
        return both_done and not self._finished

    def renew(self) -> bool:
        """Make ready for the next request; False when another connection has to be made."""
        if not self.is_reusable:
            return False
        # Whatever arrives between two answers is the server closing.
        if _readable(self._sock):
            return False
        self._h11.start_next_cycle()
        return True

    def close(self) -> None:
        self._finished = True
        self._sock.close()

    def set_timeout(self, seconds: float | None) -> None:
        """How long this side waits for the other from now on."""
        self._sock.settimeout(seconds)

    def abort(self) -> None:
        self._finished = True
        # Unlike a close, this wakes a thread that waits for the socket.
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def send_head(self, method: str, target: str, headers: Iterable[tuple[str, str]]) -> None:
        try:
            data = self._h11.send(
                h11.Request(
                    method=method,
                    target=self._proxied + target,
                    headers=[*headers, *self._proxy_headers],
                )
            )
        except (h11.LocalProtocolError, UnicodeError) as error:
            raise ConnectionFailed(f"cannot send the request: {error}") from error
        self._head = data or b""

    def exchange(self, body: Iterable[bytes]) -> Response:
        """Send head and body, and read the answer's head, which may come before the body's end."""
        pending = self._head
        for piece in body:
            data = self._h11.send(h11.Data(piece)) if piece else None
            # The head and a body in one piece leave in one packet.
            if not self._send_unless_answered(pending + (data or b"")):
                break
            pending = b""
        else:
            self._send_unless_answered(pending + (self._h11.send(h11.EndOfMessage()) or b""))
        while not isinstance(event := self.next_event(), h11.Response):
            pass
        return Response(self, event)

    def _send_unless_answered(self, data: bytes) -> bool:
        """False when the server answers, or is gone, and wants no more of the request."""
        try:
            if self._tls or _DONT_WAIT is None:
                self._sock.sendall(data)
                return True
            view = memoryview(data)
            while view:
                try:
                    view = view[self._sock.send(view, _DONT_WAIT) :]
                except BlockingIOError:
                    readable, _, _ = select.select([self._sock], [self._sock], [])
                    if readable:
                        self._finished = True
                        return False
        except (BrokenPipeError, ConnectionResetError):
            self._finished = True
            return False
        except OSError as error:
            raise ConnectionFailed(f"write: {_reason(error)}") from error
        return True

    def next_event(self) -> h11.Event:
        """The next event of the answer. Raises ConnectionFailed when it ends too early."""
        try:
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                self._h11.receive_data(self._sock.recv(_RECEIVE))
        except h11.RemoteProtocolError as error:
            cut = self._h11.trailing_data[1] or "peer closed" in str(error)
            raise ConnectionFailed(_EOF if cut else f"malformed HTTP response: {error}") from error
        except TimeoutError as error:
            raise ConnectionFailed(
                f"the server gave no answer within {self._sock.gettimeout():g} seconds"
            ) from error
        except OSError as error:
            raise ConnectionFailed(f"read: {_reason(error)}") from error
        if isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise ConnectionFailed(_EOF)
        assert not isinstance(event, type)
        return event


def _readable(sock: socket.socket) -> bool:
    if sys.platform == "win32" or not hasattr(select, "poll"):
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
