"""Models of the cloud, the web, accounts and stubs, against a stand-in for ollama.com that checks
every signature (http-api.md 16 and 17, cases 142, 162, 178 to 188, 266 to 270, 284, 285)."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from typing import Any

import pytest
from support.cloud_server import CUTS, LEAVES, CloudServer, Gate
from support.daemon import Daemon, eventually
from support.gateway import in_thread
from support.proxy import ForwardProxy
from support.tls import Authority, free_port

JSON = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"
CHAT = {"messages": [{"role": "user", "content": "x"}]}
NO_MODEL = "ollama cloud is disabled: remote model is unavailable"
NO_DETAILS = "ollama cloud is disabled: remote model details are unavailable"

MakeDaemon = Callable[..., Daemon]


class Clouded(Daemon):
    """A daemon whose cloud is the stand-in."""

    cloud: CloudServer

    @property
    def public_line(self) -> str:
        return (self.home / ".ollama" / "id_ed25519.pub").read_text().strip()

    @property
    def key(self) -> str:
        return self.public_line.split(" ")[1]

    @property
    def signin_url(self) -> str:
        line = base64.urlsafe_b64encode(self.public_line.encode()).decode().rstrip("=")
        return f"https://ollama.com/connect?name={socket.gethostname()}&key={line}"


@pytest.fixture(scope="module")
def cloud_server() -> Iterator[CloudServer]:
    with in_thread(CloudServer()) as server:
        yield server


@pytest.fixture(scope="module")
def clouded(
    cloud_server: CloudServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Clouded]:
    """Its cloud is the stand-in by ``OLLAMA_CLOUD_BASE_URL``; so is ollama.com, by a proxy."""
    home = tmp_path_factory.mktemp("cloud")
    authority = Authority()
    proxy = ForwardProxy(terminated={"ollama.com:443": cloud_server.port}, authority=authority)
    with in_thread(proxy):  # type: ignore[type-var]
        env = {
            **proxy.environ,
            "SSL_CERT_FILE": str(authority.write(home)),
            "OLLAMA_CLOUD_BASE_URL": cloud_server.url,
            "OLLAMA_REMOTES": f"ollama.com,127.0.0.1,localhost,{socket.gethostname()}",
            "OLLAMA_DEBUG": "2",
        }
        daemon = Clouded(home / "home", env)
        daemon.cloud = cloud_server
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()
            assert "Traceback" not in daemon.log


@pytest.fixture
def daemon(clouded: Clouded) -> Iterator[Clouded]:
    clouded.cloud.clear()
    yield clouded
    assert clouded.cloud.refusals == []


@pytest.fixture
def cloud(daemon: Clouded) -> CloudServer:
    return daemon.cloud


def refused(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str, Any]:
    status, headers, body = answer
    return status, headers["content-type"], json.loads(body)


# --- models of the cloud --------------------------------------------------------------------------


def test_a_request_for_the_cloud(daemon: Clouded, cloud: CloudServer) -> None:
    """Case 178."""
    answer = b'{ "model" : "kimi-k2.5",\n  "response":"<hi>", "unknown": 1.50 }\n'
    cloud.will(
        "/api/generate",
        headers=[
            ("Content-Type", "application/json; x=y"),
            ("X-Foo", "a"),
            ("x-foo", "b"),
            ("Keep-Alive", "timeout=5"),
            ("Set-Cookie", "c=d"),
            ("X-Request-Id", "theirs"),
            ("Access-Control-Allow-Origin", "https://ollama.com"),
        ],
        body=answer,
    )
    status, headers, body = daemon.request(
        "POST",
        "/api/generate",
        {"model": "kimi-k2.5:cloud", "prompt": "<p>", "stream": False, "unknown": 1},
        {
            "Authorization": "Bearer mine",
            "X-Mine": "m",
            "User-Agent": "me/1",
            "TE": "trailers",
            "Cookie": "session=1",
            "Connection": "X-Hop",
            "X-Hop": "h",
            "Content-Type": "text/plain",
        },
    )
    assert (status, body) == (200, answer)
    assert headers["content-type"] == "application/json; x=y"
    assert headers["x-foo"] == "b"
    assert headers["x-request-id"] != "theirs"
    assert not {"keep-alive", "set-cookie", "access-control-allow-origin"} & headers.keys()
    call = cloud.call()
    assert (call.method, call.path, call.key) == ("POST", "/api/generate", daemon.key)
    assert call.query == f"ts={call.query.removeprefix('ts=')}"
    assert call.body == (
        b'{"model":"kimi-k2.5","prompt":"\\u003cp\\u003e","suffix":"","system":"","template":"",'
        b'"stream":false,"options":null}'
    )
    kept = {name: value for name, value in call.headers.items() if name != "authorization"}
    assert kept == {
        "host": cloud.host,
        "x-mine": "m",
        "user-agent": "me/1",
        "content-type": "text/plain",
        "accept-encoding": "identity",
        "x-ollama-client-version": "0.33.0",
        "content-length": str(len(call.body)),
    }


@pytest.mark.parametrize(
    ("endpoint", "fields", "sent"),
    [
        ("chat", CHAT, {**CHAT, "options": None}),
        ("embed", {"input": ["a", "b"]}, {"input": ["a", "b"], "options": None}),
        ("embed", {"input": 5}, {"input": 5, "options": None}),
        ("embeddings", {"prompt": "a"}, {"prompt": "a", "options": None}),
        (
            "show",
            {"verbose": True},
            {"system": "", "template": "", "verbose": True, "options": None, "name": ""},
        ),
    ],
)
@pytest.mark.parametrize("model", ["gpt-oss:20b:cloud", "gpt-oss:20b-cloud", " gpt-oss:20b:CLOUD"])
def test_every_endpoint_for_models(
    daemon: Clouded,
    cloud: CloudServer,
    endpoint: str,
    fields: dict[str, Any],
    sent: dict[str, Any],
    model: str,
) -> None:
    """Cases 174 and 179; the local store is not asked."""
    cloud.will(f"/api/{endpoint}", body='{"a":1}')
    status, _, body = daemon.request("POST", f"/api/{endpoint}", {"model": model, **fields})
    assert (status, body) == (200, b'{"a":1}')
    call = cloud.call()
    assert call.path == f"/api/{endpoint}"
    assert call.json == {"model": "gpt-oss:20b", **sent}


def test_what_the_cloud_says_is_said(daemon: Clouded, cloud: CloudServer) -> None:
    """Case 266, and statuses of every kind."""
    cloud.will("/api/chat", 429, [("Content-Type", "text/plain"), ("Retry-After", "7")], b"slow")
    body = {"model": "k:cloud", **CHAT}
    status, headers, text = daemon.request("POST", "/api/chat?x=1&b=2&ts=5", body)
    assert (status, headers["content-type"], headers["retry-after"], text) == (
        429,
        "text/plain",
        "7",
        b"slow",
    )
    call = cloud.call()
    ts = call.query.split("ts=")[1].split("&")[0]
    assert call.query == f"b=2&ts={ts}&x=1"
    assert abs(int(ts) - time.time()) < 30
    for code in (201, 204, 304, 401, 404, 418, 500, 529):
        cloud.will("/api/chat", code, (), b"" if code in (204, 304) else b"text")
        status, headers, text = daemon.request("POST", "/api/chat", body)
        assert (status, text) == (code, b"" if code in (204, 304) else b"text")
        assert "content-type" not in headers


def test_a_redirect_is_not_followed(daemon: Clouded, cloud: CloudServer) -> None:
    cloud.will("/api/chat", 307, [("Location", f"{cloud.url}/api/generate")], b"")
    status, headers, _ = daemon.request("POST", "/api/chat", {"model": "k:cloud", **CHAT})
    assert (status, headers["location"]) == (307, f"{cloud.url}/api/generate")
    assert [call.path for call in cloud.calls] == ["/api/chat"]


def test_each_piece_arrives_at_once(daemon: Clouded, cloud: CloudServer) -> None:
    """Case 180."""
    gate, last = Gate(), Gate()
    cloud.will("/api/chat", 200, [("Content-Type", NDJSON)], [b'{"a":1}\n', gate, b'{"b"', last])
    events = HTTPConnection("127.0.0.1", daemon.port, timeout=30)
    events.request("POST", "/api/chat", json.dumps({"model": "k:cloud", **CHAT}))
    response = events.getresponse()
    assert response.headers["content-type"] == NDJSON
    assert response.read1() == b'{"a":1}\n'
    gate.open()
    assert response.read1() == b'{"b"'
    last.open()
    assert response.read1() == b""
    events.close()


def test_a_client_that_leaves_ends_the_request_to_the_cloud(
    daemon: Clouded, cloud: CloudServer
) -> None:
    cloud.will("/api/chat", 200, [("Content-Type", NDJSON)], [b"{}\n", LEAVES])
    events = daemon.stream("/api/chat", {"model": "k:cloud", **CHAT})
    assert next(events) == {}
    events.close()  # type: ignore[attr-defined]
    assert cloud.left.wait(10)


def test_a_slow_client_slows_the_cloud_down(daemon: Clouded, cloud: CloudServer) -> None:
    piece = b"x" * (1 << 20)
    cloud.will("/api/chat", 200, (), piece)
    daemon.request("POST", "/api/chat", {"model": "k:cloud", **CHAT})  # all is loaded now
    cloud.will("/api/chat", 200, (), [piece] * 64)
    memory = _memory(daemon)
    asked = len(cloud.seen)
    client = socket.create_connection(("127.0.0.1", daemon.port))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    body = json.dumps({"model": "k:cloud", **CHAT}).encode()
    client.sendall(
        b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    client.sendall(body)
    eventually(lambda: len(cloud.seen) > asked and cloud.seen[-1].sent > 0)
    before = -1
    while before != cloud.seen[-1].sent:
        before = cloud.seen[-1].sent
        time.sleep(0.5)
    assert before < 32 * (1 << 20)
    assert _memory(daemon) - memory < 16 * (1 << 20)
    received = 0
    while data := client.recv(1 << 20):
        received += len(data)
        if data.endswith(b"0\r\n\r\n"):
            break
    client.close()
    assert received > 64 * (1 << 20)


def _memory(daemon: Daemon) -> int:
    import psutil

    assert daemon.process is not None
    return int(psutil.Process(daemon.process.pid).memory_info().rss)


def test_an_answer_that_breaks_off(daemon: Clouded, cloud: CloudServer) -> None:
    body = json.dumps({"model": "k:cloud", **CHAT})
    # Between two lines there is a place for an error.
    cloud.will("/api/chat", 200, [("Content-Type", NDJSON)], [b'{"a":1}\n', CUTS])
    events = list(daemon.stream("/api/chat", json.loads(body)))
    assert events[0] == {"a": 1}
    assert list(events[1]) == ["error"]
    # Elsewhere there is none: the answer has no end.
    for kind, piece in ((NDJSON, b'{"a"'), ("text/event-stream", b"data: x\n\n")):
        cloud.will("/api/chat", 200, [("Content-Type", kind)], [piece, CUTS])
        connection = daemon.connection()
        connection.request("POST", "/api/chat", body)
        with pytest.raises(IncompleteRead) as caught:
            connection.getresponse().read()
        assert caught.value.partial == piece
        connection.close()
    assert daemon.get("/api/version")


@pytest.mark.parametrize(
    ("endpoint", "model", "status", "text"),
    [
        ("generate", "foo:cloud:local", 400, "use either :local or :cloud, not both: "),
        ("chat", "foo:cloud:cloud", 400, "use either :local or :cloud, not both: "),
        ("chat", "::cloud", 400, "invalid model name"),
        ("embed", "a b:cloud", 400, "invalid model name"),
        ("show", "é:cloud", 400, "invalid model name"),
        ("generate", "my-cloud-model", 404, "model 'my-cloud-model' not found"),
        ("generate", "gpt-oss:clod", 404, "model 'gpt-oss:clod' not found"),
        ("generate", "qwen3:8b:local", 404, "model 'qwen3:8b:local' not found"),
    ],
)
def test_what_is_not_for_the_cloud(
    daemon: Clouded, cloud: CloudServer, endpoint: str, model: str, status: int, text: str
) -> None:
    """Cases 175 to 177."""
    answer = daemon.request("POST", f"/api/{endpoint}", {"model": model, "prompt": "x"})
    assert (answer[0], json.loads(answer[2])["error"][: len(text)]) == (status, text)
    assert cloud.calls == []


def test_top_logprobs_come_first(daemon: Clouded, cloud: CloudServer) -> None:
    answer = daemon.request("POST", "/api/chat", {"model": "k:cloud", "top_logprobs": 21})
    assert refused(answer) == (400, JSON, {"error": "top_logprobs must be between 0 and 20"})
    assert cloud.calls == []


def test_details_are_served_from_memory(daemon: Clouded, cloud: CloudServer) -> None:
    """17.1.6: the second answer needs no cloud, unless something else is asked."""
    cloud.will("/api/show", body='{"details":{"family":"f"}}')
    for _ in range(2):
        status, _, body = daemon.request("POST", "/api/show", {"model": "d:cloud"})
        assert (status, body) == (200, b'{"details":{"family":"f"}}')
    assert len(cloud.calls) == 1
    for more in ({"verbose": True}, {"system": "s"}, {"options": {"seed": 1}}):
        daemon.request("POST", "/api/show", {"model": "d:cloud", **more})
    assert len(cloud.calls) == 4
    cloud.will("/api/show", 404, body='{"error":"no"}')
    for _ in range(2):
        assert daemon.request("POST", "/api/show", {"model": "e:cloud"})[0] == 404
    assert len(cloud.calls) == 6


# --- the web --------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["web_search", "web_fetch"])
def test_the_web(daemon: Clouded, cloud: CloudServer, what: str) -> None:
    """Cases 186 to 188; the body is nobody's business."""
    cloud.will(f"/api/{what}", body='{"results":[]}')
    headers = {"Authorization": "Bearer x", "X-Test": "y"}
    body = b' {"query" : "a",\n"no json'
    answer = daemon.request("POST", f"/api/experimental/{what}", body, headers)
    assert (answer[0], answer[2]) == (200, b'{"results":[]}')
    call = cloud.call()
    assert (call.path, call.body, call.key) == (f"/api/{what}", body, daemon.key)
    assert call.headers["x-test"] == "y"
    assert call.headers["content-type"] == "application/json"
    assert "Bearer" not in call.headers["authorization"]
    cloud.will(f"/api/{what}", 429, body='{"error":"slow down"}')
    answer = daemon.request("POST", f"/api/experimental/{what}", b"{}")
    assert (answer[0], answer[2]) == (429, b'{"error":"slow down"}')
    for blank in (b"", b" \n\t"):
        answer = daemon.request("POST", f"/api/experimental/{what}", blank)
        assert refused(answer) == (400, JSON, {"error": "missing request body"})
    assert len(cloud.calls) == 2


# --- recommendations ------------------------------------------------------------------------------

RECOMMENDATIONS = "/api/experimental/model-recommendations"


def test_recommendations_are_fetched_behind_the_readers_back(
    daemon: Clouded, cloud: CloudServer
) -> None:
    """Case 190."""
    limits = {"context_length": 1, "max_output_tokens": 2}
    cloud.will(
        RECOMMENDATIONS,
        body=json.dumps(
            {
                "recommendations": [
                    {"model": " new:cloud ", "description": " d ", **limits},
                    {"model": "lacking:cloud", "description": "d"},
                    {"model": "local", "description": "e", "vram_bytes": 3, "required_plan": ""},
                ]
            }
        ),
    )
    fetched = [
        {"model": "new:cloud", "description": "d", **limits},
        {"model": "local", "description": "e", "vram_bytes": 3},
    ]
    first = daemon.get(RECOMMENDATIONS)["recommendations"]
    assert first[0]["model"] in ("kimi-k2.6:cloud", "new:cloud")
    eventually(lambda: daemon.get(RECOMMENDATIONS) == {"recommendations": fetched})
    call = cloud.calls[0]
    assert (call.method, call.path, call.key) == ("GET", RECOMMENDATIONS, daemon.key)
    assert call.headers["accept"] == "application/json"
    assert call.headers["x-ollama-client-version"] == "0.33.0"
    kept = daemon.home / ".ollama" / "cache" / "model-recommendations.json"
    eventually(kept.exists)
    assert json.loads(kept.read_bytes()) == {"recommendations": fetched}
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


# --- accounts -------------------------------------------------------------------------------------


def test_whose_account_this_is(daemon: Clouded, cloud: CloudServer) -> None:
    """5.7: ollama.com itself is asked, over TLS."""
    user = {"id": "u", "email": "e", "name": "ann", "bio": "", "firstname": "A", "plan": ""}
    cloud.will("/api/me", body=json.dumps(user))
    answer = daemon.request("POST", "/api/me")
    assert refused(answer) == (
        200,
        JSON,
        {"id": "u", "email": "e", "name": "ann", "firstname": "A", "plan": "free"},
    )
    call = cloud.call()
    assert (call.method, call.path, call.body) == ("POST", "/api/me", b"")
    assert (call.headers["host"], call.key) == ("ollama.com", daemon.key)


@pytest.mark.parametrize(
    ("status", "body", "expected", "url"),
    [
        (401, '{"signin_url":"https://ollama.com/s"}', 401, "https://ollama.com/s"),
        (401, "{}", 401, None),
        (200, '{"id":"u","email":"e","name":""}', 401, None),
        (500, "{}", 503, ""),
        (200, "no", 503, ""),
    ],
)
def test_nobody_is_signed_in(
    daemon: Clouded, cloud: CloudServer, status: int, body: str, expected: int, url: str | None
) -> None:
    cloud.will("/api/me", status, body=body)
    found = refused(daemon.request("POST", "/api/me"))
    if expected == 503:
        assert found == (503, JSON, {"error": "account unavailable"})
    else:
        shown = url or daemon.signin_url
        assert found == (401, JSON, {"error": "unauthorized", "signin_url": shown})


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/api/signout"), ("DELETE", "/api/user/keys/any-thing")]
)
def test_signing_out(daemon: Clouded, cloud: CloudServer, method: str, path: str) -> None:
    key = base64.urlsafe_b64encode(daemon.public_line.encode()).decode().rstrip("=")
    cloud.will(f"/api/user/keys/{key}")
    assert refused(daemon.request(method, path)) == (200, JSON, None)
    call = cloud.call()
    assert (call.method, call.path) == ("DELETE", f"/api/user/keys/{key}")
    cloud.will(f"/api/user/keys/{key}", 401)
    found = refused(daemon.request(method, path))
    assert found == (401, JSON, {"error": "you are not currently signed in"})
    cloud.will(f"/api/user/keys/{key}", 500)
    found = refused(daemon.request(method, path))
    assert found == (500, JSON, {"error": "there was an error signing out"})


# --- stubs ----------------------------------------------------------------------------------------


@pytest.fixture
def remote(daemon: Clouded) -> Iterator[CloudServer]:
    """A host of remote models that is not ollama.com: it may not be sent a signature."""
    with in_thread(CloudServer(signed=False)) as server:
        yield server
    assert server.refusals == []


def stub(daemon: Daemon, name: str, host: str, **fields: Any) -> str:
    body = {"model": name, "from": "there", "remote_host": host, "stream": False, **fields}
    assert daemon.post("/api/create", body) == {"status": "success"}
    return name


EVENTS = (
    '{"model":"test","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant",'
    '"content":"a<b"},"done":false,"extra":1}\n'
    '{"done":true,"done_reason":"stop","total_duration":5,"message":{"role":"assistant",'
    '"content":""},"model":"test","created_at":"2026-01-01T00:00:01Z"}\n'
)


def test_a_chat_with_a_stub(daemon: Clouded, remote: CloudServer) -> None:
    """Case 184 and 17.3.3."""
    stub(
        daemon,
        "s1",
        remote.url,
        system="S",
        parameters={"top_k": 5, "seed": 1},
        messages=[{"role": "user", "content": "stored"}],
    )
    remote.will("/api/chat", 200, [("Content-Type", NDJSON)], EVENTS)
    request = {"model": "S1", **CHAT, "options": {"seed": 2}, "keep_alive": "1m"}
    status, headers, body = daemon.request("POST", "/api/chat", request, {"X-Mine": "m"})
    assert (status, headers["content-type"]) == (200, NDJSON)
    own = f'"model":"S1","remote_model":"there","remote_host":"{remote.url}"'
    assert body.decode() == (
        f'{{{own},"created_at":"2026-01-01T00:00:00Z","message":{{"role":"assistant",'
        '"content":"a<b"},"done":false}\n'
        f'{{{own},"created_at":"2026-01-01T00:00:01Z","message":{{"role":"assistant",'
        '"content":""},"done":true,"done_reason":"stop","total_duration":5}\n'
    )
    call = remote.call()
    assert (call.target, call.headers.get("x-mine")) == ("/api/chat", None)
    assert call.headers["content-type"] == "application/json"
    assert call.headers["accept"] == NDJSON
    assert call.json == {
        "model": "there",
        "messages": [
            {"role": "system", "content": "S"},
            {"role": "user", "content": "stored"},
            {"role": "user", "content": "x"},
        ],
        "keep_alive": "1m0s",
        "options": {"seed": 2, "top_k": 5},
    }


def test_generating_with_a_stub(daemon: Clouded, remote: CloudServer) -> None:
    """17.3.3 and 17.3.6: what the request lacks is filled; unloading is the remote's business."""
    stub(daemon, "s2", remote.url, system="S", messages=[{"role": "user", "content": "stored"}])
    remote.will("/api/generate", body='{"model":"t","response":"r","done":true}')
    answer = daemon.request("POST", "/api/generate", {"model": "s2", "stream": False, "prompt": ""})
    assert refused(answer) == (
        200,
        JSON,
        {
            "model": "s2",
            "remote_model": "there",
            "remote_host": remote.url,
            "created_at": "0001-01-01T00:00:00Z",
            "response": "r",
            "done": True,
        },
    )
    assert answer[2].endswith(b"\n")
    assert remote.call().json == {
        "model": "there",
        "prompt": "",
        "suffix": "",
        "system": "S",
        "template": "{{ .Prompt }}",
        "stream": False,
        "options": {},
    }
    remote.calls.clear()
    own = {"model": "s2", "system": "R", "template": "T", "keep_alive": 0}
    assert daemon.request("POST", "/api/generate", own)[0] == 200
    sent: Any = remote.call().json
    assert (sent["system"], sent["template"], sent["keep_alive"]) == ("R", "T", "0s")


def test_an_empty_chat_with_a_stub(daemon: Clouded, remote: CloudServer) -> None:
    """17.3.6."""
    stub(daemon, "s3", remote.url)
    unloaded = daemon.post("/api/chat", {"model": "s3", "keep_alive": 0})
    assert unloaded["done_reason"] == "unload"
    assert remote.calls == []
    remote.will("/api/chat", 200, (), EVENTS)
    assert len(list(daemon.stream("/api/chat", {"model": "s3"}))) == 2
    sent: Any = remote.call().json
    assert sent["messages"] == []


def test_each_line_of_a_stub_arrives_at_once(daemon: Clouded, remote: CloudServer) -> None:
    """Case 285."""
    stub(daemon, "s4", remote.url)
    gate = Gate()
    first, second, _ = EVENTS.encode().split(b"\n")
    remote.will("/api/chat", 200, (), [first + b"\n" + second[:5], gate, second[5:]])
    events = daemon.stream("/api/chat", {"model": "s4", **CHAT})
    assert next(events)["message"]["content"] == "a<b"
    gate.open()
    assert next(events)["done"] is True
    assert list(events) == []


def test_a_client_that_leaves_ends_the_request_of_a_stub(
    daemon: Clouded, remote: CloudServer
) -> None:
    stub(daemon, "s5", remote.url)
    remote.will("/api/chat", 200, (), [EVENTS.encode(), LEAVES])
    events = daemon.stream("/api/chat", {"model": "s5", **CHAT})
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert remote.left.wait(10)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("status", "body", "members"),
    [
        (529, '{"error":"over"}', {"StatusCode": 529, "Status": "529 ", "error": "over"}),
        (
            500,
            "boom",
            {"StatusCode": 500, "Status": "500 Internal Server Error", "error": "boom"},
        ),
        (418, "{}", {"StatusCode": 418, "Status": "418 I'm a teapot", "error": ""}),
        (404, '{"error":"nö"}\n', {"StatusCode": 404, "Status": "404 Not Found", "error": "nö"}),
        (503, "", {"StatusCode": 503, "Status": "503 Service Unavailable", "error": ""}),
        (200, '{"error":"first line"}\n', {"error": "first line"}),
        (200, "<html>\n", {"error": "<html>"}),
        (200, "", {"error": "127.0.0.1 sent an empty answer"}),
    ],
)
def test_errors_of_a_stubs_host(
    daemon: Clouded,
    remote: CloudServer,
    status: int,
    body: str,
    members: dict[str, Any],
    stream: bool,
) -> None:
    """Case 267, 17.3.5."""
    stub(daemon, "s6", remote.url)
    remote.will("/api/chat", status, (), body)
    answer = daemon.request("POST", "/api/chat", {"model": "s6", "stream": stream, **CHAT})
    expected = status if status >= 400 else 500
    assert refused(answer) == (expected, NDJSON if stream else JSON, members)


def test_a_stubs_host_that_wants_to_be_signed_in_to(daemon: Clouded, remote: CloudServer) -> None:
    stub(daemon, "s7", remote.url)
    remote.will("/api/chat", 401, (), '{"signin_url":"https://evil.test/","error":"x"}')
    answer = daemon.request("POST", "/api/chat", {"model": "s7", **CHAT})
    expected = {"error": "unauthorized", "signin_url": daemon.signin_url}
    assert refused(answer) == (401, NDJSON, expected)


def test_an_error_in_the_middle_of_a_stubs_answer(daemon: Clouded, remote: CloudServer) -> None:
    stub(daemon, "s8", remote.url)
    remote.will("/api/chat", 200, (), EVENTS.partition("\n")[0] + '\n{"error":"later"}\n{}\n')
    status, _, body = daemon.request("POST", "/api/chat", {"model": "s8", **CHAT})
    assert (status, body.split(b"\n")[1:]) == (200, [b'{"error":"later"}'])
    remote.will("/api/chat", 200, (), [EVENTS.encode(), CUTS])
    status, _, body = daemon.request("POST", "/api/chat", {"model": "s8", **CHAT})
    assert (status, body.split(b"\n")[2:]) == (200, [b'{"error":"unexpected EOF"}'])


def test_a_stubs_host_may_not_send_us_elsewhere(daemon: Clouded, remote: CloudServer) -> None:
    stub(daemon, "s9", remote.url)
    remote.will("/api/chat", 307, [("Location", f"{remote.url}/api/generate")], b"")
    answer = daemon.request("POST", "/api/chat", {"model": "s9", **CHAT})
    assert answer[0] == 502
    assert [call.path for call in remote.calls] == ["/api/chat"]


def test_a_stub_at_ollama_com_is_signed(daemon: Clouded, cloud: CloudServer) -> None:
    """17.3.5, case 162: by the name that create stores."""
    body = {"model": "s10", "from": "gpt-oss:20b:cloud", "stream": False}
    assert daemon.post("/api/create", body) == {"status": "success"}
    cloud.will("/api/chat", 200, (), EVENTS)
    events = list(daemon.stream("/api/chat?x=1", {"model": "s10", **CHAT}))
    assert events[0]["remote_host"] == "https://ollama.com:443"
    assert events[0]["remote_model"] == "gpt-oss:20b"
    call = cloud.call()
    assert (call.headers["host"], call.key) == ("ollama.com:443", daemon.key)
    assert call.query.startswith("ts=")
    sent: Any = call.json
    assert sent["model"] == "gpt-oss:20b"


@pytest.mark.parametrize(
    "host", ["http://127.0.0.2:1", "https://example.com", "http://127.0.0.1.x"]
)
def test_a_host_that_nobody_allows(daemon: Clouded, host: str) -> None:
    """Case 185; nothing is sent."""
    stub(daemon, "s11", host)
    for endpoint, body in (("chat", CHAT), ("generate", {"prompt": "x"})):
        answer = daemon.request("POST", f"/api/{endpoint}", {"model": "s11", **body})
        expected = {"error": "this server cannot run this remote model"}
        assert refused(answer) == (400, JSON, expected)


def test_a_stubs_host_that_is_down(daemon: Clouded) -> None:
    stub(daemon, "s12", f"http://127.0.0.1:{free_port()}")
    status, kind, members = refused(daemon.request("POST", "/api/chat", {"model": "s12", **CHAT}))
    assert (status, kind) == (500, NDJSON)
    assert "connection refused" in members["error"]


def test_a_stub_has_nothing_to_embed(daemon: Clouded, remote: CloudServer) -> None:
    """Case 269, 17.3.7."""
    stub(daemon, "s13", remote.url)
    for endpoint in ("embed", "embeddings"):
        answer = daemon.request("POST", f"/api/{endpoint}", {"model": "s13", "input": "x"})
        expected = {"error": 'model "s13" not found, try pulling it first'}
        assert refused(answer) == (404, JSON, expected)
    assert remote.calls == []


def test_the_life_of_a_stub(daemon: Clouded, cloud: CloudServer) -> None:
    """Created, listed, shown, copied, run, deleted (case 142: by its other spelling)."""
    body = {"model": "life:20b-cloud", "from": "gpt-oss:20b:cloud", "stream": False, "system": "S"}
    body["info"] = {"model_family": "gptoss", "context_length": 131072, "capabilities": ["vision"]}
    assert daemon.post("/api/create", body) == {"status": "success"}

    def listed() -> dict[str, Any]:
        return {entry["name"]: entry for entry in daemon.get("/api/tags")["models"]}

    entry = listed()["life:20b-cloud"]
    assert (entry["remote_model"], entry["remote_host"], entry["capabilities"]) == (
        "gpt-oss:20b",
        "https://ollama.com:443",
        ["vision", "thinking"],
    )
    assert (
        daemon.request("POST", "/api/copy", {"source": "life:20b-cloud", "destination": "copy"})[0]
        == 200
    )
    shown = daemon.post("/api/show", {"model": "copy"})
    assert (shown["remote_model"], shown["system"]) == ("gpt-oss:20b", "S")
    assert shown["model_info"]["gptoss.context_length"] == 131072
    cloud.will("/api/chat", 200, (), EVENTS)
    events = list(daemon.stream("/api/chat", {"model": "copy", **CHAT}))
    assert [event["model"] for event in events] == ["copy", "copy"]
    assert daemon.get("/api/ps") == {"models": []}
    # Its own name means the cloud itself, whatever is stored.
    cloud.calls.clear()
    cloud.will("/api/show", body='{"from":"the cloud"}')
    assert daemon.post("/api/show", {"model": "life:20b-cloud"}) == {"from": "the cloud"}
    assert cloud.call().json == {
        "model": "life:20b",
        "system": "",
        "template": "",
        "verbose": False,
        "options": None,
        "name": "",
    }
    # ":local" is about what is stored, and a stub is not local.
    answer = daemon.request("POST", "/api/show", {"model": "copy:local"})
    assert refused(answer) == (404, JSON, {"error": "model 'copy:local' not found"})
    assert daemon.request("DELETE", "/api/delete", {"model": "life:20b:cloud"})[0] == 200
    assert daemon.request("DELETE", "/api/delete", {"model": "copy"})[0] == 200
    assert not {"life:20b-cloud", "copy:latest"} & listed().keys()
    answer = daemon.request("DELETE", "/api/delete", {"model": "life:20b:cloud"})
    assert refused(answer) == (404, JSON, {"error": "model 'life:20b:cloud' not found"})


# --- switched off, without a key, without a network -----------------------------------------------


@pytest.mark.parametrize("how", ["environment", "file"])
def test_switched_off(tmp_path: Path, make_daemon: MakeDaemon, how: str) -> None:
    """Cases 181, 182 and 268: nothing at all is sent."""
    home = tmp_path / "home"
    env = {}
    if how == "environment":
        env["OLLAMA_NO_CLOUD"] = "1"
    else:
        (home / ".ollama").mkdir(parents=True)
        (home / ".ollama" / "server.json").write_text('{"disable_ollama_cloud": true}')
    with in_thread(CloudServer()) as cloud:
        daemon = make_daemon(home, OLLAMA_CLOUD_BASE_URL=cloud.url, **env)
        source = "env" if how == "environment" else "config"
        assert daemon.get("/api/status")["cloud"] == {"disabled": True, "source": source}
        stub(daemon, "m", "https://ollama.com")
        for model in ("k:cloud", "m"):
            for endpoint, body, text in (
                ("chat", CHAT, NO_MODEL),
                ("generate", {"prompt": "x"}, NO_MODEL),
                ("generate", {"keep_alive": 0}, NO_MODEL),
                ("show", {}, NO_DETAILS),
            ):
                answer = daemon.request("POST", f"/api/{endpoint}", {"model": model, **body})
                assert refused(answer) == (403, JSON, {"error": text}), (model, endpoint)
        for endpoint in ("embed", "embeddings"):
            answer = daemon.request("POST", f"/api/{endpoint}", {"model": "k:cloud", "input": "x"})
            assert refused(answer) == (403, JSON, {"error": NO_MODEL})
            answer = daemon.request("POST", f"/api/{endpoint}", {"model": "m", "input": "x"})
            assert answer[0] == 404
        for what, text in (("web_search", "web search"), ("web_fetch", "web fetch")):
            answer = daemon.request("POST", f"/api/experimental/{what}", {"query": "x"})
            error = f"ollama cloud is disabled: {text} is unavailable"
            assert refused(answer) == (403, JSON, {"error": error})
        unloaded = daemon.post("/api/chat", {"model": "m", "keep_alive": 0})
        assert unloaded["done_reason"] == "unload"
        recommended = daemon.get(RECOMMENDATIONS)["recommendations"]
        assert [entry["model"] for entry in recommended] == [
            "kimi-k2.6:cloud",
            "glm-5.1:cloud",
            "qwen3.5:cloud",
            "minimax-m2.7:cloud",
            "gemma4",
            "qwen3.5",
        ]
    assert (cloud.calls, cloud.refusals) == ([], [])


def test_without_a_key(tmp_path: Path, make_daemon: MakeDaemon) -> None:
    """Case 284; another key is used as soon as it is there."""
    with in_thread(CloudServer()) as cloud:
        daemon = make_daemon(tmp_path / "home", OLLAMA_CLOUD_BASE_URL=cloud.url)
        path = tmp_path / "home" / ".ollama" / "id_ed25519"
        kept = tmp_path / "kept"
        shutil.move(path, kept)
        chat = {"model": "k:cloud", **CHAT}
        answer = daemon.request("POST", "/api/chat", chat)
        assert refused(answer) == (401, JSON, {"error": "unauthorized"})
        answer = daemon.request("POST", "/api/experimental/web_search", {"query": "x"})
        assert refused(answer) == (401, JSON, {"error": "unauthorized"})
        stub(daemon, "m", "https://ollama.com")
        answer = daemon.request("POST", "/api/chat", {"model": "m", **CHAT})
        assert refused(answer) == (401, NDJSON, {"error": "unauthorized"})
        assert refused(daemon.request("POST", "/api/me"))[::2] == (
            503,
            {"error": "account unavailable"},
        )
        assert refused(daemon.request("POST", "/api/signout"))[::2] == (
            500,
            {"error": "there was an error signing out"},
        )
        assert cloud.calls == []
        shutil.move(kept, path)
        cloud.will("/api/chat")
        assert daemon.request("POST", "/api/chat", chat)[0] == 200
        assert len(cloud.calls) == 1


def test_without_a_network(make_daemon: MakeDaemon) -> None:
    """Case 270 and 10.10; the log says nothing of it above debug."""
    port = free_port()
    # Whatever is not on this machine goes through a proxy that is not there.
    proxy = f"http://127.0.0.1:{port}"
    daemon = make_daemon(HTTPS_PROXY=proxy, HTTP_PROXY=proxy, OLLAMA_CLOUD_BASE_URL="")
    for path in ("/api/chat", "/api/experimental/web_search"):
        status, kind, members = refused(daemon.request("POST", path, {"model": "k:cloud", **CHAT}))
        assert (status, kind) == (502, JSON)
        assert "connection refused" in members["error"]
    assert daemon.request("POST", "/api/me")[0] == 503
    assert daemon.request("POST", "/api/signout")[0] == 500
    assert len(daemon.get(RECOMMENDATIONS)["recommendations"]) == 6
    time.sleep(0.3)
    assert not [line for line in daemon.log.splitlines() if "WARN" in line or "recommend" in line]


@pytest.mark.parametrize("url", ["https://example.com", "http://127.0.0.1:1/v1", "ollama.com"])
def test_a_base_that_is_not_accepted(make_daemon: MakeDaemon, url: str) -> None:
    daemon = make_daemon(OLLAMA_CLOUD_BASE_URL=url, HTTPS_PROXY=f"127.0.0.1:{free_port()}")
    assert 'msg="invalid environment variable, using default"' in daemon.log
    status, _, body = daemon.request("POST", "/api/chat", {"model": "k:cloud", **CHAT})
    assert status == 502
    assert b"https://ollama.com:443/api/chat" in body


# --- secrets --------------------------------------------------------------------------------------


def test_nothing_secret_is_in_the_log(clouded: Clouded) -> None:
    """With the most talkative log."""
    cloud = clouded.cloud
    cloud.clear()
    cloud.will("/api/chat", 200, [("Content-Type", NDJSON)], [b"{}\n", CUTS])
    headers = {"Authorization": "Bearer client-secret", "Cookie": "cookie-secret"}
    body = {"model": "k:cloud", "messages": [{"role": "user", "content": "prompt-secret"}]}
    clouded.request("POST", "/api/chat?q=query-secret", body, headers)
    clouded.request("POST", "/api/me", None, headers)
    clouded.request("POST", "/api/signout", None, headers)
    clouded.request("POST", "/api/experimental/web_search", {"query": "web-secret"}, headers)
    stub(clouded, "s14", "https://ollama.com")
    clouded.request("POST", "/api/chat", {**body, "model": "s14"}, headers)
    assert "broke off" in clouded.log
    signatures = [s.headers.get("authorization", "").partition(":")[2] for s in cloud.seen]
    assert len(signatures) >= 5
    assert cloud.refusals == []
    for secret in ("-secret", *filter(None, signatures)):
        assert secret not in clouded.log


def test_the_stand_in_refuses_what_is_not_signed(clouded: Clouded, tmp_path: Path) -> None:
    """The tests above would notice."""
    cloud = clouded.cloud
    cloud.clear()
    connection = HTTPConnection("127.0.0.1", cloud.port, timeout=10)
    connection.request("POST", "/api/chat?ts=1", b"{}", {"Authorization": "a:b"})
    assert connection.getresponse().status == 401
    connection.close()
    assert len(cloud.refusals) == 1
    cloud.clear()
