"""HTTP as servers really speak it: cut off, early, one answer a connection, through a proxy."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ollamad.cli.client import LONGEST_LINE, Client, lines
from ollamad.cli.errors import ConnectionFailed, ServerError
from ollamad.cli.proxy import is_loopback, proxy_for
from ollamad.host import parse_host
from ollamad.wire import GenerateResponse, VersionResponse

Serve = Callable[[socket.socket], None]
_PATIENCE = 10
VERSION = b'{"version":"1"}'


def _answer(body: bytes, *headers: bytes) -> bytes:
    fields = b"".join(b"%s\r\n" % header for header in headers)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), fields, body)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _read_head(peer: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        received = peer.recv(1)
        if not received:
            break
        head += received
    return head


@contextmanager
def listening(*connections: Serve) -> Iterator[Client]:
    """A client of a server that treats its first connections with one function each."""
    listener = socket.create_server(("127.0.0.1", 0))
    # A test that fails must not hang.
    listener.settimeout(_PATIENCE)

    def accept() -> None:
        for serve in connections:
            peer, _ = listener.accept()
            peer.settimeout(_PATIENCE)
            with peer:
                serve(peer)

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        with Client(parse_host(f"127.0.0.1:{listener.getsockname()[1]}"), {}) as client:
            yield client
    finally:
        thread.join()
        listener.close()


def test_one_connection_serves_several_requests() -> None:
    def serve(peer: socket.socket) -> None:
        for _ in range(2):
            _read_head(peer)
            peer.sendall(_answer(VERSION))

    with listening(serve) as client:
        assert client.get(VersionResponse, "/api/version").version == "1"
        assert client.get(VersionResponse, "/api/version").version == "1"


@pytest.mark.parametrize("headers", [(b"Connection: close",), ()])
def test_a_connection_that_the_server_closes_is_replaced(headers: tuple[bytes, ...]) -> None:
    closed = threading.Event()

    def serve(peer: socket.socket) -> None:
        _read_head(peer)
        peer.sendall(_answer(VERSION, *headers))
        peer.shutdown(socket.SHUT_RDWR)
        closed.set()

    with listening(serve, serve) as client:
        client.get(VersionResponse, "/api/version")
        closed.wait(_PATIENCE)
        client.get(VersionResponse, "/api/version")


def test_requests_are_what_servers_expect() -> None:
    heads: list[bytes] = []

    def serve(peer: socket.socket) -> None:
        heads.append(_read_head(peer))
        peer.sendall(_answer(VERSION))
        heads.append(_read_head(peer))
        peer.sendall(_answer(b"{}"))

    with listening(serve) as client:
        client.get(VersionResponse, "/api/version")
        client.call("POST", "/api/me")
        port = client.host.port
    get, post = (head.decode().split("\r\n") for head in heads)
    assert get[0] == "GET /api/version HTTP/1.1"
    assert f"Host: 127.0.0.1:{port}" in get
    assert "Accept: application/json" in get
    assert any(line.startswith("User-Agent: ollama/0.") and "Python/" in line for line in get)
    assert not any(line.startswith("Content-Length") for line in get)
    assert "Content-Length: 0" in post


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
)
def test_an_answer_that_is_cut_off_is_an_error(sent: bytes) -> None:
    def serve(peer: socket.socket) -> None:
        _read_head(peer)
        peer.sendall(sent)

    with listening(serve) as client, pytest.raises(ConnectionFailed, match="unexpected EOF"):
        client.get(VersionResponse, "/api/version")


def test_what_is_not_http_is_an_error() -> None:
    def serve(peer: socket.socket) -> None:
        _read_head(peer)
        peer.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")

    with listening(serve) as client, pytest.raises(ConnectionFailed, match="malformed HTTP"):
        client.get(VersionResponse, "/api/version")


def test_events_are_handed_out_as_they_arrive() -> None:
    seen = threading.Event()

    def serve(peer: socket.socket) -> None:
        _read_head(peer)
        peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        peer.sendall(_chunk(b'{"response":"a"}\n'))
        seen.wait(_PATIENCE)
        # Half a line, its end, and a line without an end.
        peer.sendall(_chunk(b'{"re') + _chunk(b'sponse":"b"}\n{"response":"c"}') + _chunk(b""))

    with listening(serve) as client, client.stream(GenerateResponse, "/api/generate", {}) as events:
        texts = [next(events).response]
        seen.set()
        texts += [event.response for event in events]
    assert texts == ["a", "b", "c"]


def test_leaving_a_stream_early_ends_the_connection() -> None:
    rest: list[bytes] = []

    def serve(peer: socket.socket) -> None:
        _read_head(peer)
        peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n")
        peer.recv(2)  # the body of the request
        rest.append(peer.recv(1))

    with listening(serve) as client, client.stream(GenerateResponse, "/api/generate", {}) as events:
        next(events)
    assert rest == [b""]


def test_an_upload_ends_when_the_server_answers_early(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    with path.open("wb") as file:
        file.truncate(64 << 20)  # more than any socket buffers
    answered = threading.Event()

    def serve(peer: socket.socket) -> None:
        head = _read_head(peer)
        assert b"Content-Length: 67108864\r\n" in head
        peer.sendall(_answer(b""))
        answered.wait(_PATIENCE)

    with listening(serve) as client:
        client.upload(path, "sha256:0", lambda _: None)
        answered.set()


def test_an_upload_reports_and_sends_all(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(bytes(range(256)) * 4096)
    received = bytearray()

    def serve(peer: socket.socket) -> None:
        _read_head(peer)
        while len(received) < 1 << 20:
            received.extend(peer.recv(1 << 16))
        peer.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    reported: list[int] = []
    with listening(serve) as client:
        client.upload(path, "sha256:0", reported.append)
    assert bytes(received) == path.read_bytes()
    assert reported == sorted(reported)
    assert reported[-1] == 1 << 20


def test_an_upload_that_is_refused_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"x")

    def serve(peer: socket.socket) -> None:
        _read_head(peer)
        peer.recv(1)
        body = b'{"error":"digest mismatch"}'
        peer.sendall(b"HTTP/1.1 400 \r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with listening(serve) as client, pytest.raises(ServerError, match=r"^digest mismatch$"):
        client.upload(path, "sha256:0", lambda _: None)


def test_another_thread_can_end_a_request() -> None:
    asked = threading.Event()
    over = threading.Event()

    def serve(peer: socket.socket) -> None:
        _read_head(peer)
        asked.set()
        over.wait(_PATIENCE)

    with listening(serve) as client:

        def abort() -> None:
            asked.wait(_PATIENCE)
            client.abort()

        thread = threading.Thread(target=abort)
        thread.start()
        with pytest.raises(ConnectionFailed):
            client.get(VersionResponse, "/api/version")
        thread.join()
        over.set()


def test_lines_have_a_limit() -> None:
    assert list(lines([b"a\nb", b"c\r\n", b"\n", b"d"])) == [b"a", b"bc", b"d"]
    assert [len(line) for line in lines([b"x" * LONGEST_LINE + b"\n"])] == [LONGEST_LINE]
    with pytest.raises(ServerError, match="too long"):
        list(lines([b"x" * LONGEST_LINE, b"x\n"]))
    endless = iter(lambda: b"x" * 1_000_000, b"")
    with pytest.raises(ServerError, match="too long"):
        list(lines(endless))


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with Client(parse_host(f"127.0.0.1:{port}"), {}) as client:
        with pytest.raises(ConnectionFailed) as raised:
            client.get(VersionResponse, "/api/version")
        assert raised.value.refused
        with pytest.raises(ConnectionFailed, match="could not connect to ollama server, run 'oll"):
            client.heartbeat()


def test_a_path_in_the_host_comes_before_every_path() -> None:
    heads: list[bytes] = []

    def serve(peer: socket.socket) -> None:
        heads.append(_read_head(peer))
        peer.sendall(_answer(VERSION))

    with listening(serve) as client:
        host = client.host._replace(path="/ollama/")
        with Client(host, {}) as other:
            other.get(VersionResponse, "/api/version")
    assert heads[0].startswith(b"GET /ollama/api/version HTTP/1.1\r\n")


def test_a_proxy_gets_the_whole_url(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes] = []

    def serve(peer: socket.socket) -> None:
        heads.append(_read_head(peer))
        peer.sendall(_answer(VERSION))

    with listening(serve) as client:
        environ = {"HTTP_PROXY": f"http://user:p%40ss@127.0.0.1:{client.host.port}"}
        with Client(parse_host("http://example.invalid:1234"), environ) as proxied:
            assert proxied.get(VersionResponse, "/api/version").version == "1"
    head = heads[0].decode()
    assert head.startswith("GET http://example.invalid:1234/api/version HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic dXNlcjpwQHNz\r\n" in head
    assert "Host: example.invalid:1234\r\n" in head


def test_tls_goes_through_a_tunnel_that_the_proxy_may_refuse() -> None:
    heads: list[bytes] = []

    def serve(peer: socket.socket) -> None:
        heads.append(_read_head(peer))
        peer.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with listening(serve) as client:
        environ = {"https_proxy": f"127.0.0.1:{client.host.port}"}
        with (
            Client(parse_host("https://example.invalid"), environ) as proxied,
            pytest.raises(ConnectionFailed, match=r"proxy 127\.0\.0\.1: 403 Forbidden"),
        ):
            proxied.get(VersionResponse, "/api/version")
    assert heads[0].startswith(b"CONNECT example.invalid:443 HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("host", "environ", "proxied"),
    [
        ("example.com", {"HTTP_PROXY": "http://p:1"}, True),
        ("example.com", {"http_proxy": "p:1"}, True),
        ("example.com", {"HTTPS_PROXY": "http://p:1"}, False),
        ("localhost", {"HTTP_PROXY": "http://p:1"}, False),
        ("127.0.0.2", {"HTTP_PROXY": "http://p:1"}, False),
        ("::1", {"HTTP_PROXY": "http://p:1"}, False),
        ("example.com", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "a,example.com"}, False),
        ("sub.example.com", {"HTTP_PROXY": "http://p:1", "NO_PROXY": ".example.com"}, False),
        ("sub.example.com", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "*.example.com"}, False),
        ("notexample.com", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "example.com"}, True),
        ("example.com", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "example.com:81"}, True),
        ("example.com", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "example.com:80"}, False),
        ("10.1.2.3", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, False),
        ("example.com", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "*"}, False),
    ],
)
def test_which_hosts_have_a_proxy(host: str, environ: dict[str, str], proxied: bool) -> None:
    assert (proxy_for("http", host, 80, environ) is not None) == proxied


@pytest.mark.parametrize("proxy", ["socks5://p:1", "https://p:1", "http://p:99999", "http://"])
def test_a_proxy_that_cannot_be_used_is_an_error(proxy: str) -> None:
    with pytest.raises(ConnectionFailed, match="proxy"):
        proxy_for("http", "example.com", 80, {"HTTP_PROXY": proxy})


def test_loopback_has_many_names() -> None:
    assert all(map(is_loopback, ("localhost", "LOCALHOST.", "127.8.8.8", "::1", "0.0.0.0")))
    assert not any(map(is_loopback, ("example.com", "10.0.0.1", "localhost.example.com")))
