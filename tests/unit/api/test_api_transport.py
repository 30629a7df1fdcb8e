"""Transport, router, CORS and host cases over raw sockets (http-api.md 1, 2, 7, C1, C2, C11)."""

import json
from typing import Any

import pytest
import trio

from ollamad.api.context import Context
from ollamad.api.responses import json_response, stream_response
from ollamad.api.routing import Route
from ollamad.environment import BUILT_IN_ORIGINS
from ollamad.errors import BadRequest, OllamadError, ServerBusy
from ollamad.wire import ChatRequest
from tests.unit.api.served import Served, application, chunks, read_answer, served, until_closed


def request(line: str, *headers: str, host: str | None = "localhost:1", body: bytes = b"") -> bytes:
    lines = [f"{line} HTTP/1.1"]
    if host is not None:
        lines.append(f"Host: {host}")
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body


# --- router ---------------------------------------------------------------------------------------

_NOT_FOUND = (404, "text/plain", b"404 page not found")
_NOT_ALLOWED = (405, "text/plain", b"405 method not allowed")


@pytest.mark.parametrize(
    ("line", "status", "headers", "body"),
    [
        ("GET /", 200, {"content-type": "text/plain; charset=utf-8"}, b"ok"),
        ("HEAD /", 200, {"content-length": "2"}, b""),
        ("HEAD /api/version", 200, {}, b""),
        ("GET /api/show", 405, {"content-type": "text/plain", "allow": "POST"}, _NOT_ALLOWED[2]),
        ("PUT /api/tags", 405, {"allow": "HEAD, GET"}, _NOT_ALLOWED[2]),
        ("HEAD /api/ps", 405, {"allow": "GET"}, b""),
        ("GET /api/blobs/sha256:1", 405, {"allow": "HEAD, POST"}, _NOT_ALLOWED[2]),
        ("FOO /api/version", 405, {"allow": "HEAD, GET"}, _NOT_ALLOWED[2]),
        ("GET /nope", 404, {"content-type": "text/plain"}, _NOT_FOUND[2]),
        ("GET /API/tags", 404, {"content-type": "text/plain"}, _NOT_FOUND[2]),
        ("GET /debug/pprof/", 404, {"content-type": "text/plain"}, _NOT_FOUND[2]),
        ("GET /api/chat/", 404, {"content-type": "text/plain"}, _NOT_FOUND[2]),
        (
            "GET /api/tags/",
            301,
            {"location": "/api/tags", "content-type": "text/html; charset=utf-8"},
            b'<a href="/api/tags">Moved Permanently</a>.\n\n',
        ),
        ("GET /api/tags/?a=b&c", 301, {"location": "/api/tags?a=b&c"}, None),
        ("HEAD /api/tags/", 307, {"location": "/api/tags"}, b""),
        ("POST /api/chat/", 307, {"location": "/api/chat"}, b""),
        ("POST /api//chat", 307, {"location": "/api/chat"}, b""),
        ("GET /api/./tags", 307, {"location": "/api/tags"}, None),
        ("GET /x/../api/tags", 307, {"location": "/api/tags"}, None),
        ("GET /api/tags//", 307, {"location": "/api/tags/"}, None),
        ("GET //evil.example/api", 307, {"location": "/evil.example/api"}, None),
        ("POST /api/blobs/sha256:ab", 200, {}, b"oksha256:ab"),
        ("GET http://localhost:1/api/tags", 200, {}, b"ok"),
    ],
)
async def test_routing(line: str, status: int, headers: dict[str, str], body: bytes | None) -> None:
    async with served(application()) as app:
        answer = await app.answer(request(line), head=line.startswith("HEAD"))
    assert answer.status == status
    assert {name: answer.headers.get(name) for name in headers} == headers
    if body is not None:
        assert answer.body == body
    assert set(answer.headers) <= {
        *headers,
        *("content-type", "content-length", "allow", "location", "date", "x-request-id"),
    }
    assert {"date", "x-request-id"} <= set(answer.headers)


# --- origins and hosts ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "origin", "status", "allowed"),
    [
        ("GET /api/tags", "http://localhost:3000", 200, "http://localhost:3000"),
        ("GET /api/tags", "http://localhost:1", 200, None),  # same origin
        ("GET /api/tags", "http://evil.example", 403, None),
        ("GET /nope", "app://x", 404, "app://x"),
        ("GET /api/show", "app://x", 405, "app://x"),
        ("GET /api/tags/", "http://evil", 301, None),
        ("OPTIONS /api/chat", "http://evil", 403, None),
        ("OPTIONS /api/chat", "http://127.0.0.1", 204, "http://127.0.0.1"),
        ("OPTIONS /nope", "http://127.0.0.1", 204, "http://127.0.0.1"),
    ],
)
async def test_origins(line: str, origin: str, status: int, allowed: str | None) -> None:
    async with served(application()) as app:
        answer = await app.answer(request(line, f"Origin: {origin}"))
    assert answer.status == status
    assert answer.headers.get("access-control-allow-origin") == allowed
    vary = [value for name, value in answer.all_headers if name == "vary"]
    if status == 403:
        assert answer.body == b""
        assert "allow" not in answer.headers
    elif status == 204:
        assert vary == ["Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"]
        assert answer.headers["access-control-max-age"] == "43200"
        assert answer.body == b""
        assert answer.headers.get("allow") == ("POST" if "chat" in line else None)
    else:
        assert vary == (["Origin"] if allowed else [])


async def test_all_origins_allowed() -> None:
    async with served(application(origins=("*", *BUILT_IN_ORIGINS))) as app:
        answer = await app.answer(request("GET /api/tags", "Origin: http://any"))
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "vary" not in answer.headers


@pytest.mark.parametrize(
    ("line", "host", "status"),
    [
        ("GET /api/tags", "attacker.example", 403),
        ("GET /nope", "attacker.example", 403),
        ("GET /api/tags", "", 200),
        ("OPTIONS /api/chat", "localhost:11434", 204),
        ("OPTIONS /nope", "localhost", 204),
        ("OPTIONS /api/chat", "127.0.0.1:11434", 405),
        ("OPTIONS /nope", "127.0.0.1:11434", 404),
    ],
)
async def test_hosts(line: str, host: str, status: int) -> None:
    async with served(application()) as app:
        answer = await app.answer(request(line, host=host))
        assert answer.status == status
        if status in (204, 403):
            assert answer.body == b""
    async with served(application(checks_host=False)) as app:
        assert (await app.answer(request("GET /api/tags", host=host))).status == 200


# --- connections ----------------------------------------------------------------------------------


async def test_connection_close_is_repeated_and_kept() -> None:
    async def refuse(context: Context) -> Any:
        await context.decode(ChatRequest)
        raise BadRequest("model is required")

    async with served(application(Route("POST", "/api/chat", refuse))) as app:
        raw = await app.closed_answer(request("POST /api/chat", "Connection: close", body=b"{}"))
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nconnection: close" in head.lower()
    assert body == b'{"error":"model is required"}'


async def test_http_1_0_without_host_is_answered_and_closed() -> None:
    async with served(application()) as app:
        raw = await app.closed_answer(b"GET /api/version HTTP/1.0\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert raw.endswith(b"\r\n\r\nok")


@pytest.mark.parametrize(
    ("raw", "status", "body"),
    [
        (
            b"GET / HTTP/1.1\r\n\r\n",
            b"400 Bad Request",
            b"400 Bad Request: missing required Host header",
        ),
        (b"GET /\x01 nonsense\r\n\r\n", b"400 Bad Request", b"400 Bad Request"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"400 Bad Request",
            b"400 Bad Request",
        ),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400 Bad Request", b""),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 1_100_000 + b"\r\n\r\n",
            b"431 Request Header Fields Too Large",
            b"431 Request Header Fields Too Large",
        ),
    ],
    ids=["no host", "malformed", "two lengths", "http/2", "long header"],
)
async def test_refusals(raw: bytes, status: bytes, body: bytes) -> None:
    async with served(application()) as app:
        received = await app.closed_answer(raw)
    head, _, rest = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert b"\r\nX-Request-Id: " in head
    assert b"\r\nConnection: close\r\n" in head
    assert rest == body


async def test_a_megabyte_of_headers_is_accepted() -> None:
    async with served(application()) as app:
        answer = await app.answer(request("GET /", "X: " + "x" * 1_000_000))
    assert answer.status == 200


async def test_upgrades_are_ignored() -> None:
    async with served(application()) as app:
        for upgrade in ("h2c", "websocket"):
            headers = (f"Upgrade: {upgrade}", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
            assert (await app.answer(request("GET /", *headers))).body == b"ok"


async def test_pipelined_requests_are_answered_in_order_and_the_connection_stays() -> None:
    async def slow(context: Context) -> Any:
        await trio.testing.wait_all_tasks_blocked()
        return json_response(context.header("x-n"))

    async with served(application(Route("GET", "/api/ps", slow))) as app:
        async with await app.connect() as stream:
            pipeline = b"".join(request("GET /api/ps", f"X-N: {n}") for n in range(5))
            await stream.send_all(pipeline + request("GET /", "Connection: close"))
            received = await until_closed(stream)
        assert [received.find(b'"%d"' % n) > 0 for n in range(5)] == [True] * 5
        places = [received.find(b'\r\n\r\n"%d"' % n) for n in range(5)]
        assert places == sorted(places)
        assert received.endswith(b"\r\n\r\nok")


async def test_many_requests_on_one_connection() -> None:
    async with served(application()) as app, await app.connect() as stream:
        for _ in range(50):
            await stream.send_all(request("GET /"))
            assert (await read_answer(stream)).body == b"ok"


async def test_request_id_is_the_clients_when_harmless() -> None:
    async with served(application()) as app:
        given = await app.answer(request("GET /", "X-Request-Id: abc-1"))
        forged = await app.answer(request("GET /", "X-Request-Id: a b"))
    assert given.headers["x-request-id"] == "abc-1"
    assert forged.headers["x-request-id"] != "a b"


# --- bodies ---------------------------------------------------------------------------------------


async def read_all(context: Context) -> Any:
    return json_response({"length": len(await context.body())})


async def test_large_and_chunked_bodies() -> None:
    async with served(application(Route("POST", "/api/chat", read_all))) as app:
        body = b"x" * 30_000_000
        answer = await app.answer(request("POST /api/chat", body=body))
        assert json.loads(answer.body) == {"length": 30_000_000}
        chunked = request("POST /api/chat", "Transfer-Encoding: chunked")
        answer = await app.answer(chunked + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        assert json.loads(answer.body) == {"length": 5}


async def test_continue_is_sent_when_the_body_is_read() -> None:
    ready, go = trio.Event(), trio.Event()

    async def handler(context: Context) -> Any:
        ready.set()
        await go.wait()
        return await read_all(context)

    async with served(application(Route("POST", "/api/chat", handler))) as app:  # noqa: SIM117
        async with await app.connect() as stream:
            await stream.send_all(
                request("POST /api/chat", "Expect: 100-continue", "Content-Length: 3")
            )
            await ready.wait()
            with trio.move_on_after(0.05) as early:
                await stream.receive_some(1)
            assert early.cancelled_caught
            go.set()
            assert await stream.receive_some(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
            await stream.send_all(b"abc")
            assert (await read_answer(stream)).body == b'{"length":3}'


@pytest.mark.parametrize("expect", [(), ("Expect: 100-continue",)])
async def test_a_large_body_that_nobody_reads_closes_the_connection(expect: tuple[str]) -> None:
    """Case 281."""
    async with served(application()) as app, await app.connect() as stream:
        await stream.send_all(
            request("POST /api/blobs/sha256:1", "Content-Length: 98000000", *expect)
        )
        if not expect:
            with trio.move_on_after(0.1):
                await stream.send_all(b"x" * 5_000_000)  # the answer is not lost to a reset
        raw = await until_closed(stream)
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close" in head.lower()
    assert b"Continue" not in raw
    assert body == b"oksha256:1"


async def test_a_small_body_that_nobody_reads_keeps_the_connection() -> None:
    async with served(application()) as app, await app.connect() as stream:
        body = b"x" * 200_000
        head = request("POST /nope", f"Content-Length: {len(body)}")
        await stream.send_all(head + body[:10])
        await stream.send_all(body[10:])
        assert (await read_answer(stream)).status == 404
        await stream.send_all(request("GET /"))
        assert (await read_answer(stream)).body == b"ok"


async def test_a_slow_reader_of_an_upload_slows_the_sender_down() -> None:
    pieces, go = 0, trio.Event()

    async def handler(context: Context) -> Any:
        nonlocal pieces
        await go.wait()
        async for _ in context.chunks():
            pieces += 1
        return json_response(pieces)

    async with served(application(Route("POST", "/api/chat", handler))) as app:  # noqa: SIM117
        async with await app.connect() as stream, trio.open_nursery() as nursery:
            body = b"x" * 64_000_000
            nursery.start_soon(stream.send_all, request("POST /api/chat", body=body))
            sent = app.server  # the daemon holds only a few pieces while nobody reads
            for _ in range(20):
                await trio.testing.wait_all_tasks_blocked(0.005)
            (connection,) = sent._open
            assert len(connection._http.stream._messages) <= 8
            go.set()
            assert json.loads((await read_answer(stream)).body) > 100


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "headers", "body"),
    [
        (BadRequest("a<b"), 400, {}, b'{"error":"a\\u003cb"}'),
        (OllamadError("x", status=429), 429, {"retry-after": "1"}, b'{"error":"x"}'),
        (
            ServerBusy(7),
            503,
            {"retry-after": "7"},
            b'{"error":"server busy, please try again.  maximum pending requests exceeded"}',
        ),
        (RuntimeError("a bug"), 500, {"content-length": "0"}, b""),
        (ExceptionGroup("g", [BadRequest("inside")]), 400, {}, b'{"error":"inside"}'),
    ],
)
async def test_errors_of_handlers(
    error: Exception, status: int, headers: dict[str, str], body: bytes
) -> None:
    async def handler(_context: Context) -> Any:
        raise error

    async with served(application(Route("GET", "/api/ps", handler))) as app:
        answer = await app.answer(request("GET /api/ps"))
    assert (answer.status, answer.body) == (status, body)
    assert {name: answer.headers[name] for name in headers} == headers
    if body:
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
    else:
        assert "content-type" not in answer.headers


# --- streams --------------------------------------------------------------------------------------


def streaming(*steps: Any) -> Route:
    async def items() -> Any:
        for step in steps:
            if isinstance(step, bytes):
                yield step
            elif isinstance(step, trio.Event):
                await step.wait()
            else:
                raise step

    async def handler(context: Context) -> Any:
        await context.body()
        return await stream_response(items())

    return Route("POST", "/api/chat", handler)


async def post(app: Served, *headers: str) -> trio.SocketStream:
    stream = await app.connect()
    await stream.send_all(request("POST /api/chat", *headers, body=b"{}"))
    return stream


async def test_a_stream_goes_out_piece_by_piece() -> None:
    go = trio.Event()
    async with served(application(streaming(b"1\n", go, b"22\n"))) as app:  # noqa: SIM117
        async with await post(app) as stream:
            first = await stream.receive_some(65536)  # head and first piece in one packet
            head, _, body = first.partition(b"\r\n\r\n")
            assert body == b"2\r\n1\n\r\n"
            assert b"\r\ncontent-type: application/x-ndjson\r\n" in head
            assert b"content-length" not in head
            go.set()
            rest = b""
            while not rest.endswith(b"0\r\n\r\n"):
                rest += await stream.receive_some(65536)
            assert chunks(rest) == [b"22\n"]


async def test_http_1_0_stream_ends_with_the_connection() -> None:
    async with served(application(streaming(b"1\n", b"2\n"))) as app:
        raw = await app.closed_answer(b"POST /api/chat HTTP/1.0\r\n\r\n")
    assert raw.partition(b"\r\n\r\n")[2] == b"1\n2\n"


@pytest.mark.parametrize(
    ("steps", "status", "content_type", "body"),
    [
        ((OllamadError("early", status=429),), 429, "application/json", b'{"error":"early"}'),
        ((), 200, "application/x-ndjson", b""),
        ((b"1\n", OllamadError("late")), 200, "application/x-ndjson", b'1\n{"error":"late"}\n'),
        (
            (b"1\n", ValueError("secret")),
            200,
            "application/x-ndjson",
            b'1\n{"error":"internal error: ValueError"}\n',
        ),
    ],
)
async def test_errors_of_streams(
    steps: tuple[Any], status: int, content_type: str, body: bytes
) -> None:
    async with served(application(streaming(*steps))) as app, await post(app) as stream:
        answer = await read_answer(stream)
        assert (answer.status, answer.headers["content-type"], answer.body) == (
            status,
            content_type,
            body,
        )
        await stream.send_all(request("GET /"))
        assert (await read_answer(stream)).body == b"ok"


@pytest.mark.parametrize("where", ["before the first item", "between items", "reading the body"])
async def test_a_client_that_leaves_cancels_its_handler(where: str) -> None:
    started, ended = trio.Event(), trio.Event()

    async def items() -> Any:
        try:
            if where == "between items":
                yield b"1\n"
            started.set()
            await trio.sleep_forever()
            yield b""
        finally:
            ended.set()

    async def handler(context: Context) -> Any:
        if where == "reading the body":
            try:
                started.set()
                await context.body()
            finally:
                ended.set()
        return await stream_response(items())

    async with served(application(Route("POST", "/api/chat", handler))) as app:
        stream = await app.connect()
        announced = 5 if where == "reading the body" else 2
        await stream.send_all(request("POST /api/chat", f"Content-Length: {announced}") + b"{}")
        await started.wait()
        await stream.aclose()
        await ended.wait()
        assert (await app.answer(request("GET /"))).body == b"ok"


async def test_a_client_that_stops_reading_holds_up_only_itself() -> None:
    produced = 0

    async def items() -> Any:
        nonlocal produced
        while True:
            produced += 1
            yield b"x" * 65536

    async def handler(_context: Context) -> Any:
        return await stream_response(items())

    async with served(application(Route("POST", "/api/chat", handler))) as app:
        stream = await post(app)
        for _ in range(3):
            await trio.testing.wait_all_tasks_blocked(0.01)
        held = produced
        assert (await app.answer(request("GET /"))).body == b"ok"
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert produced == held
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not app.server.app.running


# --- the end --------------------------------------------------------------------------------------


async def test_stop_lets_requests_end_and_closes_idle_connections() -> None:
    go = trio.Event()
    async with served(application(streaming(b"1\n", go, b"2\n"))) as app:
        idle = await app.connect()
        await idle.send_all(request("GET /"))
        await read_answer(idle)
        busy = await post(app)
        await busy.receive_some(65536)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(app.server.stop, 10)
            assert await until_closed(idle) == b""
            with pytest.raises(OSError):
                await app.connect()
            go.set()
            assert chunks(await until_closed(busy)) == [b"2\n"]
        await app.ended.wait()


async def test_stop_cuts_what_does_not_end() -> None:
    never = trio.Event()
    unanswered = Route("GET", "/api/ps", lambda _context: never.wait())
    async with served(application(streaming(b"1\n", never), unanswered)) as app:
        streaming_one = await post(app)
        await streaming_one.receive_some(65536)
        waiting_one = await app.connect()
        await waiting_one.send_all(request("GET /api/ps"))
        await trio.testing.wait_all_tasks_blocked()
        await app.server.stop(0.01)
        await app.ended.wait()
        line = b'{"error":"server is shutting down"}'
        assert chunks(await until_closed(streaming_one)) == [line + b"\n"]
        head, _, body = (await until_closed(waiting_one)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"connection: close" in head.lower()
        assert b"x-request-id" in head
        assert body == line


async def test_stop_ends_connections_of_clients_that_do_not_read(monkeypatch: Any) -> None:
    monkeypatch.setattr("ollamad.api.server._FLUSH_LIMIT", 0.01)

    async def items() -> Any:
        while True:
            yield b"x" * 65536

    async def handler(_context: Context) -> Any:
        return await stream_response(items())

    async with served(application(Route("POST", "/api/chat", handler))) as app:
        stuck = await post(app)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await app.server.stop(0.01)
        await app.ended.wait()
        await stuck.aclose()
