"""Through a proxy to a server: CONNECT, and SOCKS 5 (registry-and-store 6).

Texts of errors name the proxy's host and port, never its user or password.
"""

from __future__ import annotations

import base64
import ipaddress

import h11

from ollamad.host import join_host_port
from ollamad.proxies import Proxy
from ollamad.registry.errors import ConnectFailed, TransportError
from ollamad.registry.streams import Stream

_SOCKS_REPLIES = {
    1: "general failure",
    2: "not allowed",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "command not supported",
    8: "address type not supported",
}


def credentials(proxy: Proxy) -> list[tuple[str, str]]:
    """The headers that an HTTP proxy wants besides."""
    if proxy.username is None:
        return []
    user = f"{proxy.username}:{proxy.password or ''}".encode()
    return [("Proxy-Authorization", f"Basic {base64.b64encode(user).decode()}")]


async def connect_tunnel(stream: Stream, proxy: Proxy, host: str, port: int) -> None:
    """Have an HTTP proxy connect to ``host:port``. Raises ConnectFailed."""
    target = join_host_port(host, port)
    state = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 16)
    headers = [("Host", target), *credentials(proxy)]
    try:
        await stream.write(
            state.send(h11.Request(method="CONNECT", target=target, headers=headers)) or b""
        )
        while not isinstance(event := state.next_event(), h11.Response):
            if event is h11.NEED_DATA:
                state.receive_data(await stream.read(1 << 16))
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectFailed(f"{_named(proxy)}: EOF")
    except h11.ProtocolError:
        raise ConnectFailed(f"{_named(proxy)}: malformed HTTP response") from None
    if not 200 <= event.status_code < 300:
        phrase = bytes(event.reason[:100]).decode("latin-1")
        raise ConnectFailed(f"{_named(proxy)}: {event.status_code} {phrase}".rstrip())
    if state.trailing_data[0]:
        raise ConnectFailed(f"{_named(proxy)}: data before the tunnel was used")


async def connect_socks(stream: Stream, proxy: Proxy, host: str, port: int) -> None:
    """Have a SOCKS 5 proxy connect to ``host:port``, which it resolves. Raises ConnectFailed."""
    exchange = _Exchange(stream, proxy)
    method = 0 if proxy.username is None else 2
    await exchange.send(bytes((5, 1, method)))
    version, chosen = await exchange.receive(2)
    if version != 5 or chosen != method:
        raise ConnectFailed(f"{_named(proxy)}: it wants another way to sign in")
    if proxy.username is not None:
        user, password = proxy.username.encode()[:255], (proxy.password or "").encode()[:255]
        await exchange.send(b"\x01" + _sized(user) + _sized(password))
        if (await exchange.receive(2))[1] != 0:
            raise ConnectFailed(f"{_named(proxy)}: user or password is wrong")
    await exchange.send(b"\x05\x01\x00" + _address(host) + port.to_bytes(2, "big"))
    version, reply, _, kind = await exchange.receive(4)
    if version != 5 or reply != 0:
        raise ConnectFailed(f"{_named(proxy)}: {_SOCKS_REPLIES.get(reply, 'malformed answer')}")
    length = {1: 4, 4: 16}.get(kind) or (await exchange.receive(1))[0]
    await exchange.receive(length + 2)


class _Exchange:
    """Reads of an exact length; a SOCKS proxy sends nothing that was not asked for."""

    def __init__(self, stream: Stream, proxy: Proxy) -> None:
        self._stream = stream
        self._proxy = proxy
        self._rest = b""

    async def send(self, data: bytes) -> None:
        await self._stream.write(data)

    async def receive(self, length: int) -> bytes:
        while len(self._rest) < length:
            data = await self._stream.read(length)
            if not data:
                raise ConnectFailed(f"{_named(self._proxy)}: EOF")
            self._rest += data
        data, self._rest = self._rest[:length], self._rest[length:]
        return data


def _address(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode()
        if len(name) > 255:
            raise TransportError("the host's name is too long for the proxy") from None
        return b"\x03" + _sized(name)
    return (b"\x01" if address.version == 4 else b"\x04") + address.packed


def _sized(data: bytes) -> bytes:
    return bytes((len(data),)) + data


def _named(proxy: Proxy) -> str:
    return f"proxy {join_host_port(proxy.host, proxy.port)}"
