"""Servers that speak HTTP in order to harm, over real sockets: nothing that they send may hold up
the loop, take memory, leave a connection behind, or pass for another answer."""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
import trio

from ollamad.registry.addresses import ANY, AddressRefused, AddressScope
from ollamad.registry.bodies import read_body
from ollamad.registry.errors import ConnectFailed, TransportError
from ollamad.registry.http import Http
from ollamad.registry.streams import connect

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
FINAL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Hostile:
    """Each request gets the next script: bytes to send, one piece after another."""

    def __init__(self) -> None:
        self.scripts: list[Callable[[], Iterator[bytes]]] = []
        self.connections = 0
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"

    def will(self, *pieces: bytes) -> None:
        self.scripts.append(lambda: iter(pieces))

    def endless(self, piece: bytes) -> None:
        def forever() -> Iterator[bytes]:
            while True:
                yield piece

        self.scripts.append(forever)

    def run(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer:
            try:
                while data := peer.recv(65536):
                    self.requests.append(data)
                    for piece in self.scripts.pop(0)():
                        peer.sendall(piece)
            except OSError:
                pass

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    server = Hostile()
    thread = threading.Thread(target=server.run)
    thread.start()
    yield server
    server.close()
    thread.join(10)


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with Http.from_environ({}) as http:
        yield http


async def asked(http: Http, url: str, method: str = "GET") -> bytes:
    response = await http.send(method, url)
    try:
        return await read_body(response, 1 << 24)
    finally:
        await response.aclose()


@contextmanager
def turns() -> Iterator[list[int]]:
    """How often others got their turn meanwhile: a loop that is held up gives none."""
    count = [0]

    class Turns(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            count[0] += 1

    instrument = Turns()
    trio.lowlevel.add_instrument(instrument)
    try:
        yield count
    finally:
        trio.lowlevel.remove_instrument(instrument)


async def test_a_body_of_single_bytes_lets_others_have_their_turn(
    http: Http, hostile: Hostile
) -> None:
    """A read brings thousands of such chunks, and none of them waits for anything."""
    hostile.will(CHUNKED + b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n")
    with turns() as count:
        assert await asked(http, hostile.url) == b"x" * 5000
    assert count[0] > 4000


@pytest.mark.parametrize(
    "interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]
)
async def test_interim_answers_without_end(http: Http, hostile: Hostile, interim: bytes) -> None:
    hostile.endless(interim * 100)
    with trio.fail_after(30), turns() as count, pytest.raises(TransportError) as caught:
        await asked(http, hostile.url)
    assert caught.value.cause == "malformed HTTP response: its head has no end"
    # What comes meanwhile is read in small portions.
    assert count[0] >= 16
    hostile.will(interim * 3 + FINAL)
    assert await asked(http, hostile.url) == b"ok"


async def test_interim_answers_do_not_end_an_upload(http: Http, hostile: Hostile) -> None:
    """A proxy may send 102 while it looks at a body; the rest of it is still wanted."""
    got = 0

    def serve() -> None:
        nonlocal got
        listener = socket.create_server(("127.0.0.1", 0))
        ports.append(listener.getsockname()[1])
        ready.set()
        with listener:
            peer, _ = listener.accept()
        with peer:
            got += len(peer.recv(100_000))
            for _ in range(3):
                peer.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
                time.sleep(0.02)
                got += len(peer.recv(100_000))
            while got < total:
                got += len(peer.recv(1 << 20))
            peer.sendall(FINAL)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(32):
            yield bytes(1 << 18)

    total = 32 << 18
    ports: list[int] = []
    ready = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    ready.wait(10)
    with trio.fail_after(30):
        response = await http.send(
            "PATCH", f"http://127.0.0.1:{ports[0]}/", {"Content-Length": str(total)}, pieces()
        )
        assert await read_body(response, 100) == b"ok"
        await response.aclose()
    thread.join(10)
    assert got >= total


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n" + b"a:b\r\n" * 100_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nhello",
        b"HTTP/1.1 000 X\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/2 200\r\n\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"-1\r\nx",
        CHUNKED + b"2\r\nokNO\r\n0\r\n\r\n",
        CHUNKED + b"0\r\n" + b"a:b\r\n" * 100_000,
    ],
    ids=lambda answer: repr(answer[-40:]),
)
async def test_malformed_answers_end_their_connection(
    http: Http, hostile: Hostile, answer: bytes
) -> None:
    hostile.will(answer)
    hostile.will(FINAL)
    with trio.fail_after(30), pytest.raises(TransportError, match="malformed HTTP response"):
        await asked(http, hostile.url)
    assert await asked(http, hostile.url) == b"ok"
    assert hostile.connections == 2


@pytest.mark.parametrize(
    ("method", "first"),
    [
        ("GET", FINAL + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
        ("HEAD", FINAL),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
async def test_what_nobody_asked_for_is_no_answer_to_the_next_request(
    http: Http, hostile: Hostile, method: str, first: bytes
) -> None:
    hostile.will(first)
    hostile.will(FINAL)
    await asked(http, hostile.url, method)
    assert await asked(http, hostile.url) == b"ok"
    assert hostile.connections == 2


async def test_a_header_that_cannot_be_sent_opens_no_connection(
    http: Http, hostile: Hostile
) -> None:
    """A registry may name headers for an upload."""
    with pytest.raises(TransportError, match=r'^Put "http://.*": invalid header in the request$'):
        await http.send("PUT", hostile.url, {"X-Amz-Meta": "\u20ac"})
    hostile.will(FINAL)
    assert await asked(http, hostile.url) == b"ok"
    assert hostile.connections == len(hostile.requests) == 1
    for value in ("a\r\nX: y", "a\x00"):
        hostile.will(FINAL)
        with pytest.raises(TransportError, match="invalid header in the request"):
            await http.send("PUT", hostile.url, {"X-Amz-Meta": value})
    assert len(hostile.requests) == 1


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str] | OSError]:
    """What names stand for in this test: addresses in order, or an error."""
    known: dict[str, list[str] | OSError] = {}

    async def getaddrinfo(host: str, port: int, **_: object) -> list[Any]:
        await trio.lowlevel.checkpoint()
        found = known[host]
        if isinstance(found, OSError):
            raise found
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (each, port, 0, 0))
            if ":" in each
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in found
        ]

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    return known


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.2", "127.0.0.1"], ["::1", "127.0.0.1"], ["127.0.0.2", "::1", "127.0.0.1"]],
)
async def test_of_several_addresses_one_that_answers_is_enough(
    http: Http,
    hostile: Hostile,
    resolver: dict[str, list[str] | OSError],
    addresses: list[str],
) -> None:
    resolver["r.test"] = addresses
    hostile.will(FINAL)
    assert await asked(http, hostile.url.replace("127.0.0.1", "r.test")) == b"ok"


async def test_of_public_and_internal_addresses_only_the_public_ones_are_tried(
    resolver: dict[str, list[str] | OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with both is the usual way past a guard that looks at one of them."""
    tried: list[str] = []

    class Socket:
        async def connect(self, address: tuple[Any, ...]) -> None:
            tried.append(address[0])
            await trio.lowlevel.checkpoint()
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")

        def close(self) -> None:
            pass

    monkeypatch.setattr(trio.socket, "socket", lambda family, kind: Socket())
    resolver["r.test"] = ["127.0.0.1", "8.8.8.8", "10.0.0.1", "2606:4700::1111", "fd00::1", "::1"]
    with pytest.raises(ConnectFailed):
        await connect("r.test", 443, AddressScope.PUBLIC)
    assert tried == ["8.8.8.8", "2606:4700::1111"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "no such host"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "temporary failure in name resolution"),
        (socket.gaierror(socket.EAI_FAIL, "Broken Resolver"), "broken resolver"),
    ],
)
async def test_a_name_that_is_nowhere(
    http: Http, resolver: dict[str, list[str] | OSError], error: OSError, text: str
) -> None:
    resolver["r.test"] = error
    with pytest.raises(ConnectFailed) as caught:
        await http.send("GET", "http://r.test/x")
    assert caught.value.message == f'Get "http://r.test/x": dial tcp: lookup r.test: {text}'


@pytest.mark.parametrize(
    "host",
    ["127.1", "0x7f.1", "0x7f000001", "2130706433", "0177.0.0.1", "0", "localhost", "127.0.0.1."],
)
async def test_other_spellings_of_an_internal_address_are_no_way_in(
    http: Http, hostile: Hostile, host: str
) -> None:
    """What the resolver makes of them is judged, not what they look like."""
    url = hostile.url.replace("127.0.0.1", host)
    hostile.will(FINAL)
    with pytest.raises((AddressRefused, ConnectFailed)):
        await http.send("GET", url, internal=AddressScope.LINK_LOCAL)
    # The refusal is all that keeps it out, where the resolver knows the spelling.
    if host not in ("127.0.0.1.",):
        assert await asked(http, url) == b"ok"


async def test_a_connection_made_in_the_moment_of_cancelling_is_closed(
    hostile: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    with trio.socket.socket() as sample:
        kind: Any = type(sample)

    class Connected(kind):  # type: ignore[misc]
        async def connect(self, address: Any) -> None:
            await super().connect(address)
            made.append(self)
            scope.cancel()

    monkeypatch.setattr(
        trio.socket,
        "socket",
        lambda family, kind: Connected(socket.socket(family, kind)),
    )
    port = int(hostile.url.split(":")[2].strip("/"))
    with trio.CancelScope() as scope:
        await connect("127.0.0.1", port, ANY)
    assert scope.cancelled_caught
    assert [each.fileno() for each in made] == [-1]


async def test_leaving_at_any_moment_leaves_no_connection(http: Http, hostile: Hostile) -> None:
    """Cancelled while connecting, waiting, and reading: no socket and no task stays."""
    before = trio.lowlevel.current_statistics().tasks_living
    hostile.scripts += [lambda: iter([CHUNKED, *[b"1\r\nx\r\n"] * 20_000])] * 40
    with trio.fail_after(30):
        await trio.to_thread.run_sync(lambda: None)
        await http._connected()
    port = int(hostile.url.split(":")[2].strip("/"))
    for step in range(40):
        with trio.move_on_after(step / 4000):
            await asked(http, hostile.url)
        assert trio.lowlevel.current_statistics().tasks_living <= before + 1  # a name looked up
    own = psutil.Process().net_connections("tcp4")
    assert [each for each in own if each.raddr and each.raddr.port == port] == []


async def test_nothing_that_a_registry_says_is_in_the_most_talkative_log(
    http: Http, hostile: Hostile, capsys: pytest.CaptureFixture[str]
) -> None:
    from ollamad import log

    hostile.will(
        b"HTTP/1.1 307 X\r\nLocation: https://cdn/x?sig=secret\r\nSet-Cookie: secret\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        log.configure(-8)
        await asked(http, f"{hostile.url}?sig=secret", "GET")
    finally:
        root.handlers[:], level = before[0], before[1]
        root.setLevel(level)
        logging.getLogger("ollamad").setLevel(logging.NOTSET)
        logging.getLogger("httpcore").setLevel(logging.NOTSET)
    assert "secret" not in capsys.readouterr().err
