"""Requests to registries over real sockets: TLS, proxies, addresses (registry-and-store 3.2, 6)."""

from __future__ import annotations

import gzip
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trio
from support.gateway import in_thread
from support.proxy import ForwardProxy, SocksProxy
from support.scripted_http import signing_key
from support.tls import Authority, TlsFront, free_port

from ollamad.registry.addresses import AddressRefused, AddressScope
from ollamad.registry.bodies import TooLong, read_body
from ollamad.registry.client import Session
from ollamad.registry.errors import BodyCut, ConnectFailed, Refused, RegistryError, TransportError
from ollamad.registry.http import SCOPE, Http
from ollamad.store.names import Name


class Handler(BaseHTTPRequestHandler):
    """Answers by path from ``server.answers``, and notes what came."""

    protocol_version = "HTTP/1.1"
    server: Server

    def _handle(self) -> None:
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        status, headers, body = self.server.answers.get(self.path, (200, {}, b"hello"))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _handle

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []

    def handle_error(self, *_: object) -> None:
        pass  # a client left: that is what some tests do


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


async def text(http: Http, url: str, **arguments: object) -> bytes:
    response = await http.send("GET", url, **arguments)  # type: ignore[arg-type]
    try:
        return await read_body(response, 1 << 20)
    finally:
        await response.aclose()


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with Http.from_environ({}) as http:
        yield http


def session(http: Http, host: str, *, insecure: bool = False) -> Session:
    name = Name.parse(f"{host}/ns/m")
    return Session(http, name, insecure=insecure, load_key=signing_key)


# Plain connections.


async def test_a_pre_signed_url_is_sent_byte_for_byte(http: Http, server: Server) -> None:
    target = "/a//b/../c%2f%2F?sig=%2f+&b=1&a=2&x=^|{}"
    assert await text(http, f"http://127.0.0.1:{server.server_port}{target}") == b"hello"
    assert server.seen[0][1] == target


async def test_requests_say_who_asks_and_nothing_else(http: Http, server: Server) -> None:
    await text(http, f"http://localhost:{server.server_port}/")
    _, _, headers = server.seen[0]
    assert headers.pop("User-Agent").startswith("ollama/0.")
    assert headers == {"Host": f"localhost:{server.server_port}"}


async def test_connections_are_used_again(http: Http, server: Server) -> None:
    sockets: set[object] = set()
    get_request = server.get_request
    server.get_request = lambda: (sockets.add(len(sockets)), get_request())[1]  # type: ignore
    for _ in range(3):
        await text(http, f"http://127.0.0.1:{server.server_port}/")
    assert len(sockets) == 1


async def test_a_connection_to_this_machine_is_not_lent_to_a_request_that_may_not_go_there(
    http: Http, server: Server
) -> None:
    url = f"http://localhost:{server.server_port}/"
    await text(http, url)
    with pytest.raises(AddressRefused):
        await http.send("GET", url, internal=AddressScope.PUBLIC)
    assert len(server.seen) == 1


async def test_cookies_are_not_kept(http: Http, server: Server) -> None:
    server.answers["/"] = (200, {"Set-Cookie": "a=b; Path=/"}, b"")
    for _ in range(2):
        await text(http, f"http://127.0.0.1:{server.server_port}/")
    assert "Cookie" not in server.seen[1][2]


async def test_a_body_in_pieces(http: Http) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * 100_000

    got: list[bytes] = []

    def serve(peer: socket.socket) -> None:
        head, body = read_request(peer)
        got.extend((head, body))
        peer.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    with listening(serve) as port:
        response = await http.send(
            "PATCH", f"http://127.0.0.1:{port}/u", {"Content-Length": "400000"}, pieces()
        )
        assert response.status_code == 201
        await response.aclose()
    assert b"Transfer-Encoding" not in got[0]
    assert got[1] == b"x" * 400_000


@contextmanager
def listening(serve: Callable[[socket.socket], None], times: int = 1) -> Iterator[int]:
    """One connection after another, each served by ``serve``."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            for _ in range(times):
                peer, _ = listener.accept()
                with peer:
                    serve(peer)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)
        assert not thread.is_alive()


def read_request(peer: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += peer.recv(65536)
    head, body = data.split(b"\r\n\r\n", 1)
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    while len(body) < length:
        body += peer.recv(65536)
    return head, body


@pytest.mark.parametrize("tls", [False, True])
async def test_an_answer_before_the_end_of_an_upload_ends_it(
    tls: bool, authority: Authority, tmp_path: Path
) -> None:
    """A registry answers a PATCH with 307 and reads no further; its connection stays open."""
    release = threading.Event()

    def serve(peer: socket.socket) -> None:
        if tls:
            peer = authority.context("127.0.0.1").wrap_socket(peer, server_side=True)
        peer.recv(1000)
        peer.sendall(
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"
        )
        release.wait(10)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 18)

    environ = {"SSL_CERT_FILE": str(authority.write(tmp_path))}
    with listening(serve) as port:
        async with Http.from_environ(environ) as http:
            url = f"http{'s' if tls else ''}://127.0.0.1:{port}/upload"
            with trio.fail_after(10):
                response = await http.send(
                    "PATCH", url, {"Content-Length": str(1 << 40)}, endless()
                )
                assert response.status_code == 307
                await response.aclose()
        release.set()


@pytest.mark.parametrize("tls", [False, True])
async def test_an_upload_whose_connection_breaks_is_an_error_like_others(
    tls: bool, authority: Authority, tmp_path: Path
) -> None:
    def serve(peer: socket.socket) -> None:
        if tls:
            peer = authority.context("127.0.0.1").wrap_socket(peer, server_side=True)
        peer.recv(1000)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 18)

    environ = {"SSL_CERT_FILE": str(authority.write(tmp_path))}
    with listening(serve) as port:
        async with Http.from_environ(environ) as http:
            url = f"http{'s' if tls else ''}://127.0.0.1:{port}/upload"
            with trio.fail_after(10), pytest.raises(TransportError) as caught:
                await http.send("PATCH", url, {"Content-Length": str(1 << 40)}, endless())
    assert caught.value.message.startswith(f'Patch "{url}": ')
    assert not isinstance(caught.value, ConnectFailed)


async def test_a_kept_connection_that_was_closed_meanwhile_is_not_the_users_problem(
    http: Http,
) -> None:
    count = 0

    def serve(peer: socket.socket) -> None:
        nonlocal count
        count += 1
        read_request(peer)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        if count == 1:
            # The next request arrives and is dropped, as at the end of a keep-alive time.
            read_request(peer)

    with listening(serve, times=2) as port:
        for _ in range(2):
            assert await text(http, f"http://127.0.0.1:{port}/") == b"ok"
    assert count == 2


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", "EOF"),
        (b"HTTP/1.1 200 OK\r\nConte", "EOF"),
        (b"nonsense\r\n\r\n", "malformed HTTP response"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000, "malformed HTTP response"),
    ],
    ids=["nothing", "half a head", "another protocol", "an endless head"],
)
async def test_answers_that_are_none(http: Http, answer: bytes, expected: str) -> None:
    def serve(peer: socket.socket) -> None:
        read_request(peer)
        peer.sendall(answer)

    with listening(serve) as port, pytest.raises(TransportError) as caught:
        await http.send("GET", f"http://127.0.0.1:{port}/a?sig=secret")
    assert caught.value.message.startswith(f'Get "http://127.0.0.1:{port}/a?sig=…": {expected}')
    assert len(caught.value.message) < 400


async def test_a_body_that_is_closed_too_early_is_told_from_one_that_breaks(http: Http) -> None:
    def serve(peer: socket.socket) -> None:
        head, _ = read_request(peer)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 250\r\n\r\n" + b"x" * 60)
        if b"/reset" in head:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with listening(serve, times=2) as port:
        with pytest.raises(BodyCut, match="unexpected EOF"):
            await text(http, f"http://127.0.0.1:{port}/closed")
        with pytest.raises(TransportError, match="connection reset by peer") as caught:
            await text(http, f"http://127.0.0.1:{port}/reset")
        assert not isinstance(caught.value, BodyCut)


async def test_nobody_listens(http: Http) -> None:
    port = free_port()
    with pytest.raises(ConnectFailed) as caught:
        await http.send("HEAD", f"http://127.0.0.1:{port}/v2/")
    url = f"http://127.0.0.1:{port}/v2/"
    assert caught.value.message == (
        f'Head "{url}": dial tcp 127.0.0.1:{port}: connect: connection refused'
    )


async def test_a_connection_that_does_not_come_about_is_given_up_after_30_seconds(
    http: Http, autojump_clock: trio.testing.MockClock
) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        port = sock.getsockname()[1]
        fillers = [socket.socket() for _ in range(8)]
        try:
            for each in fillers:
                each.setblocking(False)
                each.connect_ex(("127.0.0.1", port))
            begin = trio.current_time()
            with pytest.raises(ConnectFailed, match="i/o timeout"):
                await http.send("GET", f"http://127.0.0.1:{port}/")
            assert trio.current_time() - begin == pytest.approx(30)
        finally:
            for each in fillers:
                each.close()


async def test_cancelling_closes_the_connection(http: Http) -> None:
    closed = threading.Event()

    def serve(peer: socket.socket) -> None:
        read_request(peer)
        if not peer.recv(1):
            closed.set()

    with listening(serve) as port:
        with trio.move_on_after(0.1):
            await http.send("GET", f"http://127.0.0.1:{port}/")
        assert await trio.to_thread.run_sync(closed.wait, 5)


# TLS.


async def test_a_certificate_authority_named_by_ssl_cert_file_is_trusted(
    server: Server, authority: Authority, tmp_path: Path
) -> None:
    environ = {"SSL_CERT_FILE": str(authority.write(tmp_path))}
    front = TlsFront(server.server_port, authority.context("localhost", "127.0.0.1"))
    with in_thread(front):
        async with Http.from_environ(environ) as http:
            for host in ("localhost", "127.0.0.1"):
                assert await text(http, f"https://{host}:{front.port}/") == b"hello"


async def test_a_certificate_authority_in_ssl_cert_dir_is_trusted_whatever_its_files_name(
    server: Server, authority: Authority, tmp_path: Path
) -> None:
    authority.write(tmp_path, "Our Company Root.crt")
    (tmp_path / "README").write_text("not a certificate")
    environ = {"SSL_CERT_DIR": f"/nonexistent:{tmp_path}"}
    front = TlsFront(server.server_port, authority.context("localhost"))
    with in_thread(front):
        async with Http.from_environ(environ) as http:
            assert await text(http, f"https://localhost:{front.port}/") == b"hello"


async def test_an_unknown_certificate_authority_is_refused_with_what_to_do(
    http: Http, server: Server, authority: Authority
) -> None:
    front = TlsFront(server.server_port, authority.context("localhost"))
    with in_thread(front), pytest.raises(ConnectFailed) as caught:
        await http.send("GET", f"https://localhost:{front.port}/")
    text = caught.value.message
    assert text.startswith(f'Get "https://localhost:{front.port}/": tls: failed to verify')
    assert "system's store" in text
    assert "SSL_CERT_FILE" in text
    assert server.seen == []


@pytest.mark.parametrize("days", [7, -1])
async def test_a_certificate_for_another_name_or_of_yesterday_is_refused(
    days: int, server: Server, authority: Authority, tmp_path: Path
) -> None:
    environ = {"SSL_CERT_FILE": str(authority.write(tmp_path))}
    name = "other.test" if days > 0 else "localhost"
    front = TlsFront(server.server_port, authority.context(name, days=days))
    with in_thread(front):
        async with Http.from_environ(environ) as http:
            with pytest.raises(ConnectFailed) as caught:
                await http.send("GET", f"https://localhost:{front.port}/")
    assert ("'localhost'" if days > 0 else "expired") in caught.value.message
    assert "SSL_CERT_FILE" not in caught.value.message


async def test_a_file_of_certificates_that_is_none_is_told_and_the_system_is_used(
    server: Server, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    front = TlsFront(server.server_port, authority.context("localhost"))
    with in_thread(front):
        async with Http.from_environ({"SSL_CERT_FILE": str(tmp_path / "empty.pem")}) as http:
            with pytest.raises(ConnectFailed, match="verify"):
                await http.send("GET", f"https://localhost:{front.port}/")
    assert "cannot use SSL_CERT_FILE" in caplog.text


async def test_plain_http_where_tls_is_expected(http: Http, server: Server) -> None:
    with pytest.raises(ConnectFailed, match="server gave HTTP response to HTTPS client"):
        await http.send("GET", f"https://127.0.0.1:{server.server_port}/")


async def test_a_tls_handshake_that_stalls_is_given_up(
    http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ollamad.registry import streams

    monkeypatch.setattr(streams, "TLS_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(ConnectFailed, match="TLS handshake timeout"):
            await http.send("GET", url)


# Proxies.


async def test_https_goes_through_connect_and_no_proxy_goes_past_it(
    server: Server, authority: Authority, tmp_path: Path
) -> None:
    trust = {"SSL_CERT_FILE": str(authority.write(tmp_path))}
    proxy = ForwardProxy({}, {"registry.test:443": server.server_port}, authority)
    with in_thread(proxy):
        async with Http.from_environ({**proxy.environ, **trust}) as http:
            assert await text(http, "https://registry.test/v2/") == b"hello"
            assert await text(http, f"http://localhost:{server.server_port}/") == b"hello"
        environ = {**proxy.environ, **trust, "NO_PROXY": "registry.test"}
        async with Http.from_environ(environ) as http:
            with pytest.raises(ConnectFailed, match=r"lookup registry\.test"):
                await http.send("GET", "https://registry.test/v2/")
    assert [(p.method, p.target) for p in proxy.passed] == [("CONNECT", "registry.test:443")]
    assert "proxy-authorization" not in proxy.passed[0].headers
    assert server.seen[0][2]["Host"] == "registry.test"


async def test_plain_http_is_sent_whole_to_the_proxy(server: Server) -> None:
    proxy = ForwardProxy({"registry.test:80": server.server_port}, user="me:pass")
    with in_thread(proxy):
        async with Http.from_environ(proxy.environ) as http:
            assert await text(http, "http://registry.test/a%2fb?c=%2f") == b"hello"
    assert proxy.passed[0].target == "http://registry.test/a%2fb?c=%2f"
    assert server.seen[0][1] == "/a%2fb?c=%2f"
    assert "Proxy-Authorization" not in server.seen[0][2]


@pytest.mark.parametrize("kind", [ForwardProxy, SocksProxy])
async def test_a_proxy_that_wants_credentials(
    kind: type[ForwardProxy | SocksProxy], server: Server, authority: Authority, tmp_path: Path
) -> None:
    trust = {"SSL_CERT_FILE": str(authority.write(tmp_path))}
    proxy = kind({}, {"r.test:443": server.server_port}, authority, user="me:p@ss")
    with in_thread(proxy):
        at = f"127.0.0.1:{proxy.port}"
        scheme = "http" if kind is ForwardProxy else "socks5h"
        right = {"https_proxy": f"{scheme}://me:p%40ss@{at}", **trust}
        async with Http.from_environ(right) as http:
            assert await text(http, "https://r.test/") == b"hello"
        required = "407 Proxy Authentication Required"
        refusal = {
            f"http://me:secret@{at}": required,
            f"http://{at}": required,
            f"socks5h://me:secret@{at}": "user or password is wrong",
            f"socks5h://{at}": "it wants another way to sign in",
        }
        for wrong in (f"{scheme}://me:secret@{at}", f"{scheme}://{at}"):
            async with Http.from_environ({"https_proxy": wrong, **trust}) as http:
                with pytest.raises(ConnectFailed) as caught:
                    await http.send("GET", "https://r.test/")
                said = caught.value.message.partition(f"proxy {at}: ")[2]
                assert said == refusal[wrong]


async def test_a_proxy_that_is_reached_by_tls(
    server: Server, authority: Authority, tmp_path: Path
) -> None:
    trust = {"SSL_CERT_FILE": str(authority.write(tmp_path))}
    proxy = ForwardProxy({}, {"r.test:443": server.server_port}, authority)
    with in_thread(proxy):
        front = TlsFront(proxy.port, authority.context("127.0.0.1"))
        with in_thread(front):
            environ = {"HTTPS_PROXY": f"https://127.0.0.1:{front.port}", **trust}
            async with Http.from_environ(environ) as http:
                assert await text(http, "https://r.test/") == b"hello"


async def test_a_proxy_without_a_way_to_the_server(server: Server) -> None:
    proxy = ForwardProxy({})
    with in_thread(proxy):
        async with Http.from_environ(proxy.environ) as http:
            with pytest.raises(ConnectFailed, match=r"proxy 127\.0\.0\.1:\d+: 502 Bad Gateway"):
                await http.send("GET", "https://r.test/")


async def test_behind_a_proxy_a_literal_internal_address_is_refused(server: Server) -> None:
    proxy = ForwardProxy({"r.test:80": server.server_port})
    with in_thread(proxy):
        async with Http.from_environ(proxy.environ) as http:
            for host in ("10.0.0.1", "[fd00::1]", "0x0a000001", "169.254.169.254"):
                with pytest.raises(AddressRefused):
                    await http.send("GET", f"http://{host}/", internal=AddressScope.PUBLIC)
    assert proxy.passed == []


# What the reports of users and of security researchers were about.


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names for this test's resolver: each resolution takes the next address, the last stays."""
    known: dict[str, list[str]] = {}
    original = trio.socket.getaddrinfo

    async def getaddrinfo(host: str, port: int, **arguments: object) -> object:
        if host not in known:
            return await original(host, port, **arguments)  # type: ignore[arg-type]
        await trio.lowlevel.checkpoint()
        addresses = known[host]
        address = addresses.pop(0) if len(addresses) > 1 else addresses[0]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        tail = (0, 0) if ":" in address else ()
        return [(family, socket.SOCK_STREAM, 6, "", (address, port, *tail))]

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    return known


@pytest.fixture
def public_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.2 counts as a public address, so that a public registry can be played."""
    from ollamad.registry import addresses, streams

    def scope_of(text: str) -> AddressScope:
        return AddressScope.PUBLIC if text == "127.0.0.2" else addresses_scope_of(text)

    addresses_scope_of = addresses.scope_of
    monkeypatch.setattr(addresses, "scope_of", scope_of)
    monkeypatch.setattr(streams, "scope_of", scope_of)


@pytest.mark.usefixtures("public_loopback")
async def test_dns_rebinding_does_not_steer_a_request_to_an_internal_address(
    names: dict[str, list[str]], authority: Authority, tmp_path: Path, server: Server
) -> None:
    """The registry's own name is public first, and this machine when it is asked again."""
    names["evil.test"] = ["127.0.0.2", "127.0.0.1"]
    environ = {"SSL_CERT_FILE": str(authority.write(tmp_path))}
    front = TlsFront(server.server_port, authority.context("evil.test"))
    async with open_on("127.0.0.2", front), Http.from_environ(environ) as http:
        evil = session(http, f"evil.test:{front.port}")
        path = "/v2/ns/m/manifests/latest"
        server.answers[path] = (200, {"Connection": "close"}, b"{}")
        await evil.request("GET", evil.url("manifests/latest"))
        assert evil.scope is AddressScope.PUBLIC
        with pytest.raises(Refused) as caught:
            await evil.request("GET", evil.url("blobs/x"))
    assert caught.value.message.startswith(
        f'refused: registry "evil.test:{front.port}" leads to the internal address 127.0.0.1 of '
        '"evil.test"'
    )
    assert [path for _, path, _ in server.seen] == [path]


@pytest.mark.usefixtures("public_loopback")
async def test_the_address_that_was_judged_is_the_one_connected_to(
    names: dict[str, list[str]], server: Server
) -> None:
    """Between the look and the connection there is no second resolution that could differ."""
    names["evil.test"] = ["127.0.0.2", "127.0.0.1"]
    async with Http.from_environ({}) as http:
        with pytest.raises(ConnectFailed, match=r"dial tcp 127\.0\.0\.2:"):
            await http.send(
                "GET",
                f"http://evil.test:{server.server_port}/",
                internal=AddressScope.PUBLIC,
            )
    assert names["evil.test"] == ["127.0.0.1"]
    assert server.seen == []


class open_on:
    """A TLS front on another loopback address, in this loop."""

    def __init__(self, address: str, front: TlsFront) -> None:
        self._address = address
        self._front = front
        self._manager = trio.open_nursery()

    async def __aenter__(self) -> None:
        self._nursery = await self._manager.__aenter__()
        listeners = await trio.open_tcp_listeners(0, host=self._address)
        self._front.port = listeners[0].socket.getsockname()[1]
        client = self._front._client
        self._nursery.start_soon(trio.serve_listeners, client, listeners)

    async def __aexit__(self, *error: object) -> None:
        self._nursery.cancel_scope.cancel()
        await self._manager.__aexit__(*error)  # type: ignore[arg-type]


@pytest.mark.usefixtures("public_loopback")
@pytest.mark.parametrize("insecure", [False, True])
async def test_a_public_registrys_redirect_does_not_steer_to_an_internal_address(
    insecure: bool, names: dict[str, list[str]], authority: Authority, tmp_path: Path
) -> None:
    names["evil.test"] = ["127.0.0.2"]
    environ = {"SSL_CERT_FILE": str(authority.write(tmp_path))}
    with Server() as outside, Server() as inside:
        for each in (outside, inside):
            threading.Thread(target=each.serve_forever, args=(0.01,), daemon=True).start()
        scheme = "http" if insecure else "https"
        front = TlsFront(outside.server_port, authority.context("evil.test"))
        inner = TlsFront(inside.server_port, authority.context("127.0.0.1"))
        with in_thread(inner):
            async with open_on("127.0.0.2", front), Http.from_environ(environ) as http:
                host = f"evil.test:{front.port}"
                names["evil.test"] = ["127.0.0.1" if insecure else "127.0.0.2"]
                if insecure:
                    host = f"evil.test:{outside.server_port}"
                evil = session(http, host, insecure=insecure)
                port = inside.server_port if insecure else inner.port
                outside.answers["/v2/ns/m/manifests/latest"] = (
                    302,
                    {"Location": f"{scheme}://127.0.0.1:{port}/admin"},
                    b"",
                )
                if insecure:
                    answer = await evil.request("GET", evil.url("manifests/latest"))
                    assert answer.body == b"hello"
                else:
                    with pytest.raises(Refused, match=r"internal address 127\.0\.0\.1"):
                        await evil.request("GET", evil.url("manifests/latest"))
                    assert inside.seen == []
        outside.shutdown()
        inside.shutdown()


async def test_a_gzip_bomb_ends_at_the_limit(http: Http, server: Server) -> None:
    bomb = gzip.compress(bytes(64 << 20))
    assert len(bomb) < 100_000
    path = "/v2/ns/m/manifests/latest"
    server.answers[path] = (200, {"Content-Encoding": "gzip"}, bomb)
    local = session(http, f"127.0.0.1:{server.server_port}", insecure=True)
    with pytest.raises(TooLong, match="longer than 16777216 bytes"):
        await local.request("GET", local.url("manifests/latest"))


async def test_an_error_page_that_never_ends_is_cut(http: Http, server: Server) -> None:
    server.answers["/v2/ns/m/manifests/latest"] = (500, {}, b"x" * 1_000_000)
    local = session(http, f"127.0.0.1:{server.server_port}", insecure=True)
    with pytest.raises(RegistryError) as caught:
        await local.request("GET", local.url("manifests/latest"))
    assert caught.value.message == "500: " + "x" * 65536


async def test_who_answered_is_told(http: Http, server: Server) -> None:
    response = await http.send("GET", f"http://localhost:{server.server_port}/")
    assert response.extensions[SCOPE] is AddressScope.LOOPBACK
    await response.aclose()


async def test_sweeping_closes_what_the_other_side_has_closed(http: Http) -> None:
    def serve(peer: socket.socket) -> None:
        read_request(peer)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with listening(serve) as port:
        await text(http, f"http://127.0.0.1:{port}/")
    transport = http._transport
    assert transport is not None
    assert len(transport._kept) == 1  # type: ignore[attr-defined]
    await transport.sweep()
    assert transport._kept == []  # type: ignore[attr-defined]
