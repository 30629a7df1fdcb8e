"""Connections: names resolved, addresses judged, TLS made; and streams as httpcore wants them.

A connection goes to exactly the address that was judged: nothing is resolved a second time.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
from collections.abc import Sequence
from typing import Any

import httpcore
import trio

from ollamad.host import join_host_port
from ollamad.registry.addresses import AddressScope, allowed, scope_of
from ollamad.registry.errors import ConnectFailed, TransportError
from ollamad.registry.tls import reason

TLS_TIMEOUT = 10.0
#: Bytes that one read may bring: with less, big transfers cost more turns of the loop.
_RECEIVE = 1 << 18
#: Until an answer has begun, reads are short and few: a head is no longer than httpcore allows, and
#: whoever sends interim answers without end neither holds up the loop nor is listened to for ever.
_HEAD_RECEIVE = 1 << 14
_LONGEST_HEAD = 1 << 18
#: A shorter write fits into the socket's buffer: no answer can overtake it.
_LONG_WRITE = 1 << 14
#: Seconds after which the next address is tried beside the one before.
_STAGGER = 0.25
_MOST_ADDRESSES = 16
#: Interim answers in the middle of a body, after which the next one counts as the answer.
_MOST_INTERIM = 16


class Link(trio.abc.Stream):
    """A TCP connection whose pending sends can be given up without breaking what is above it."""

    def __init__(self, stream: trio.SocketStream, scope: AddressScope) -> None:
        self.scope = scope
        self.socket = stream.socket
        self._stream = stream
        self._sending = trio.CancelScope()
        self._given_up = False

    def give_up_sending(self) -> None:
        """From now on sends do nothing: the other side does not want them."""
        self._given_up = True
        self._sending.cancel()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._given_up:
            await trio.lowlevel.checkpoint()
            return
        with trio.CancelScope() as self._sending:
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes or _RECEIVE)

    async def aclose(self) -> None:
        await self._stream.aclose()


class Stream(httpcore.AsyncNetworkStream):
    """A connection, with TLS or without, for httpcore's HTTP/1.1.

    A server may answer before it has all of a body, and read no further: then the write ends as
    if the connection were broken, and the answer can be read.
    """

    def __init__(self, link: Link, tls: trio.SSLStream[trio.abc.Stream] | None = None) -> None:
        self.link = link
        self.stream: trio.abc.Stream = tls or link
        #: The other side has closed in order.
        self.ended = False
        self._early: list[bytes | bytearray] = []
        #: Bytes that may still come before the head of the answer is complete; None: it is.
        self._head_left: int | None = None

    def expect_head(self) -> None:
        """An answer is to come; `head_complete` ends what this begins."""
        self._head_left = _LONGEST_HEAD

    def head_complete(self) -> None:
        self._head_left = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Raises TransportError; empty at the end."""
        if self._head_left is not None and self._head_left <= 0:
            raise TransportError("malformed HTTP response: its head has no end")
        if self._early:
            data = self._early.pop(0)
        else:
            most = _RECEIVE if self._head_left is None else _HEAD_RECEIVE
            try:
                data = await self.stream.receive_some(most)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise TransportError(f"read: {_broken(error)}") from error
        if self._head_left is not None:
            self._head_left -= len(data)
        self.ended = not data
        return bytes(data)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Raises httpcore.WriteError, after which there may still be an answer."""
        if not buffer:
            return
        try:
            if len(buffer) < _LONG_WRITE:
                await self.stream.send_all(buffer)
            elif not await self._send_unless_answered(buffer):
                raise httpcore.WriteError("answered before all was sent")
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.WriteError(_broken(error)) from error

    async def _send_unless_answered(self, buffer: bytes) -> bool:
        answered = False

        async def watch() -> None:
            nonlocal answered
            try:
                while True:
                    data = await self.stream.receive_some(_HEAD_RECEIVE)
                    self._early.append(data)
                    if not _is_interim(data) or len(self._early) > _MOST_INTERIM:
                        break
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                # The read that follows tells what happened.
                pass
            answered = True
            self.link.give_up_sending()

        broken: trio.BrokenResourceError | trio.ClosedResourceError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            try:
                await self.stream.send_all(buffer)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                broken = error  # not through the nursery, which would wrap it
            nursery.cancel_scope.cancel()
        if broken is not None:
            raise broken
        return not answered

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self.link)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> Stream:
        """The same connection with TLS around what it is now; closed when that fails.

        Raises ConnectFailed.
        """
        layer = trio.SSLStream(
            self.stream, ssl_context, server_hostname=server_hostname, https_compatible=True
        )
        try:
            with trio.fail_after(TLS_TIMEOUT):
                await layer.do_handshake()
        except trio.TooSlowError:
            await self.aclose()
            raise ConnectFailed("net/http: TLS handshake timeout") from None
        except trio.BrokenResourceError as error:
            await self.aclose()
            raise ConnectFailed(_broken(error)) from error
        except BaseException:
            await self.aclose()
            raise
        return Stream(self.link, layer)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return readable(self.link.socket.fileno())
        return None


def _is_interim(data: bytes | bytearray) -> bool:
    """Whether this is all of a 1xx answer, after which the body is still wanted."""
    return (
        data.startswith((b"HTTP/1.1 10", b"HTTP/1.0 10"))
        and data.endswith(b"\r\n\r\n")
        and data.count(b"HTTP/1.") == 1
    )


async def connect(host: str, port: int, internal: AddressScope) -> Stream:
    """A connection to the first address that answers. Raises ConnectFailed, AddressRefused."""
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConnectFailed(f"dial tcp: lookup {host}: {_lookup_reason(error)}") from error
    addresses = {str(sockaddr[0]): (family, sockaddr) for family, _, _, _, sockaddr in found}
    chosen = allowed(host, list(addresses), internal)[:_MOST_ADDRESSES]
    return await _first([(*addresses[each], scope_of(each)) for each in _alternating(chosen)])


async def _first(targets: Sequence[tuple[int, Any, AddressScope]]) -> Stream:
    winners: list[Stream] = []
    failure = ConnectFailed("dial tcp: no address")

    async def attempt(family: int, address: Any, scope: AddressScope, failed: trio.Event) -> None:
        nonlocal failure
        sock = None
        try:
            sock = trio.socket.socket(family, socket.SOCK_STREAM)
            await sock.connect(address)
        except OSError as error:
            if sock is not None:
                sock.close()
            where = join_host_port(str(address[0]), address[1])
            failure = ConnectFailed(f"dial tcp {where}: connect: {_system_reason(error)}")
            failed.set()
            return
        except BaseException:
            if sock is not None:
                sock.close()
            raise
        winners.append(Stream(Link(trio.SocketStream(sock), scope)))
        nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for target in targets:
                failed = trio.Event()
                nursery.start_soon(attempt, *target, failed)
                with trio.move_on_after(_STAGGER):
                    await failed.wait()
    except BaseException:
        # Cancelled in the moment in which a connection came about.
        for each in winners:
            each.link.socket.close()
        raise
    for late in winners[1:]:
        late.link.socket.close()
    if not winners:
        raise failure
    return winners[0]


def _alternating(addresses: Sequence[str]) -> list[str]:
    """In the resolver's order, but the second is of the other family if there is one."""
    ordered = list(addresses)
    for index, each in enumerate(ordered):
        if (":" in each) != (":" in ordered[0]):
            ordered.insert(1, ordered.pop(index))
            break
    return ordered


def readable(descriptor: int) -> bool:
    """Whether a read would not block: between answers that is the other side closing."""
    if descriptor < 0:
        return True
    if not hasattr(select, "poll"):
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _broken(error: BaseException) -> str:
    """The reason below trio's errors, as the system or OpenSSL tells it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError):
            return "EOF"
        if isinstance(cause, ssl.SSLError):
            return reason(cause)
        if isinstance(cause, OSError):
            return _system_reason(cause)
        cause = cause.__cause__
    return "use of closed network connection"


def _system_reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)


def _lookup_reason(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            return "no such host"
        if error.errno == socket.EAI_AGAIN:
            return "temporary failure in name resolution"
    return (getattr(error, "strerror", None) or str(error)).lower()
