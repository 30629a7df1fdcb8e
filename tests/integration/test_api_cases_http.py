"""The router, the guard and the decoder of the running daemon, byte by byte: http-api.md cases
C1 to C3 and those of C11 that are about transport and bodies."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from support.daemon import Daemon, eventually
from support.fake import FakeDaemon
from support.raw import exchange, request_bytes

from ollamad.version import API_VERSION

MakeDaemon = Callable[..., Daemon]
JSON = "application/json; charset=utf-8"

# --- C1: router -----------------------------------------------------------------------------------

TEXT_404 = (404, b"404 page not found", {"content-type": "text/plain"})


@pytest.mark.parametrize(
    ("line", "status", "body", "headers"),
    [
        ("GET /", 200, b"Ollama is running", {"content-type": "text/plain; charset=utf-8"}),
        ("HEAD /", 200, b"", {"content-length": "17"}),
        (
            "GET /api/version",
            200,
            json.dumps({"version": API_VERSION}, separators=(",", ":")).encode(),
            {"content-type": JSON},
        ),
        ("HEAD /api/version", 200, b"", {"content-type": JSON}),
        ("HEAD /api/tags", 200, b"", {"content-type": JSON}),
        ("GET /api/show", 405, b"405 method not allowed", {"allow": "POST"}),
        ("GET /api/generate", 405, b"405 method not allowed", {"allow": "POST"}),
        ("POST /api/delete", 405, b"405 method not allowed", {"allow": "DELETE"}),
        ("DELETE /api/tags", 405, b"405 method not allowed", {"allow": "HEAD, GET"}),
        ("PUT /api/tags", 405, b"405 method not allowed", {"content-type": "text/plain"}),
        ("HEAD /api/ps", 405, b"", {"allow": "GET", "content-length": "22"}),
        ("GET /api/blobs/sha256:1", 405, b"405 method not allowed", {"allow": "HEAD, POST"}),
        ("FOO /api/version", 405, b"405 method not allowed", {"allow": "HEAD, GET"}),
        ("POST /api/stop", *TEXT_404),
        ("GET /nope", *TEXT_404),
        ("GET /API/tags", *TEXT_404),
        ("GET /favicon.ico", *TEXT_404),
        ("GET /debug/pprof/", *TEXT_404),
        ("GET /api/chat/", *TEXT_404),
        ("GET /api/tags/?a=b", 301, None, {"location": "/api/tags?a=b"}),
        ("HEAD /api/tags/", 307, b"", {"location": "/api/tags"}),
        ("POST /api/chat/", 307, b"", {"location": "/api/chat"}),
        ("POST /api//chat", 307, b"", {"location": "/api/chat"}),
        ("DELETE /api/delete/", 307, b"", {"location": "/api/delete"}),
        ("GET /api//tags", 307, None, {"location": "/api/tags"}),
        ("GET /api/tags//", 307, None, {"location": "/api/tags/"}),
        ("GET /x/../api/tags", 307, None, {"location": "/api/tags"}),
    ],
)
def test_routes(
    fake_daemon: FakeDaemon, line: str, status: int, body: bytes | None, headers: dict[str, str]
) -> None:
    answer = exchange(fake_daemon.port, request_bytes(line), head=line.startswith("HEAD"))
    assert answer.status == status
    if body is not None:
        assert answer.body == body
    assert {name: answer.headers.get(name) for name in headers} == headers
    assert "server" not in answer.headers
    assert "cache-control" not in answer.headers
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"])


def test_status(fake_daemon: FakeDaemon) -> None:
    answer = exchange(fake_daemon.port, request_bytes("GET /api/status"))
    assert answer.status == 200
    assert answer.body.startswith(b'{"cloud":{"disabled":false,"source":"none"},')
    assert json.loads(answer.body)["queue"] == {"waiting": 0, "running": 0}


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/tags"])
def test_head_is_get_without_a_body(fake_daemon: FakeDaemon, path: str) -> None:
    got = exchange(fake_daemon.port, request_bytes(f"GET {path}"))
    head = exchange(fake_daemon.port, request_bytes(f"HEAD {path}"), head=True)
    assert head.status == got.status
    assert head.headers["content-type"] == got.headers["content-type"]
    assert int(head.headers["content-length"]) == len(got.body)


@pytest.mark.parametrize("media", ["application/x-www-form-urlencoded", "text/plain", ""])
def test_the_media_type_of_a_request_does_not_matter(fake_daemon: FakeDaemon, media: str) -> None:
    headers = [f"Content-Type: {media}"] if media else []
    body = '{"model":"nope"}'
    answer = exchange(
        fake_daemon.port, request_bytes("POST /api/generate", *headers, "Accept: x/y", body=body)
    )
    assert (answer.status, answer.body) == (404, b'{"error":"model \'nope\' not found"}')


def test_an_answer_that_closes(fake_daemon: FakeDaemon) -> None:
    request = request_bytes("POST /api/chat", "Connection: close", body="{}")
    answer = exchange(fake_daemon.port, request)
    assert (answer.status, answer.body) == (400, b'{"error":"model is required"}')
    assert answer.headers["content-type"] == JSON
    assert answer.closed


def test_http_1_0_needs_no_host(fake_daemon: FakeDaemon) -> None:
    answer = exchange(fake_daemon.port, b"GET /api/version HTTP/1.0\r\n\r\n")
    assert (answer.status, answer.closed) == (200, True)


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (
            b"GET / HTTP/1.1\r\n\r\n",
            400,
            b"400 Bad Request: missing required Host header",
        ),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 1_100_000 + b"\r\n\r\n", 431, None),
        (b"nonsense\r\n\r\n", 400, b"400 Bad Request"),
    ],
)
def test_what_is_not_http(
    fake_daemon: FakeDaemon, request_: bytes, status: int, body: bytes | None
) -> None:
    answer = exchange(fake_daemon.port, request_)
    assert answer.status == status
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.closed
    if body is not None:
        assert answer.body == body


def test_a_chunked_body(fake_daemon: FakeDaemon) -> None:
    head = request_bytes("POST /api/chat", "Transfer-Encoding: chunked")
    answer = exchange(fake_daemon.port, head + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n")
    assert (answer.status, answer.body) == (400, b'{"error":"model is required"}')


# --- C2: origins and hosts ------------------------------------------------------------------------

HERE = "127.0.0.1:11434"


@pytest.mark.parametrize(
    ("line", "host", "origin", "status", "allowed"),
    [
        ("GET /api/tags", HERE, "http://localhost:3000", 200, "http://localhost:3000"),
        ("GET /api/tags", HERE, "https://127.0.0.1", 200, "https://127.0.0.1"),
        ("GET /api/tags", HERE, f"http://{HERE}", 200, None),
        ("GET /api/tags", HERE, "vscode-webview://abc", 200, "vscode-webview://abc"),
        ("GET /api/tags", HERE, "app://x", 200, "app://x"),
        ("GET /api/tags", HERE, "tauri://localhost", 200, "tauri://localhost"),
        ("GET /api/tags", HERE, "file://", 200, "file://"),
        ("GET /api/tags", HERE, "http://localhost:", 200, "http://localhost:"),
        ("GET /api/tags", HERE, "http://evil.example", 403, None),
        ("GET /api/tags", HERE, "null", 403, None),
        ("GET /api/tags", HERE, "chrome-extension://abc", 403, None),
        ("GET /api/tags", HERE, "http://LOCALHOST", 403, None),
        ("GET /api/tags", HERE, "HTTP://localhost", 403, None),
        ("GET /api/tags", HERE, "http://localhost.evil", 403, None),
        ("GET /nope", HERE, "app://x", 404, "app://x"),
        ("GET /api/show", HERE, "app://x", 405, "app://x"),
        ("GET /api/tags/", HERE, "http://evil", 301, None),
        ("POST /api/chat", HERE, "http://evil", 403, None),
        ("OPTIONS /api/chat", HERE, "http://evil", 403, None),
        ("OPTIONS /api/chat", "localhost:11434", None, 204, None),
        ("OPTIONS /api/chat", HERE, None, 405, None),
        ("OPTIONS /nope", "localhost", None, 204, None),
        ("OPTIONS /nope", HERE, None, 404, None),
        ("GET /api/tags", "attacker.example", None, 403, None),
        ("GET /nope", "attacker.example", None, 403, None),
        *[
            ("GET /api/tags", host, None, 200, None)
            for host in [
                "localhost",
                "LOCALHOST:1",
                "x.local",
                "x.internal",
                "a.localhost",
                "192.168.1.9",
                "[::1]:11434",
                "0.0.0.0:11434",
                "localhost:abc",
                "127.0.0.2",
                "10.0.0.1:99",
            ]
        ],
        ("GET /api/tags", "", None, 200, None),
        *[
            ("GET /api/tags", host, None, 403, None)
            for host in [
                "[::1]",
                "localhost.",
                "169.254.1.1",
                "a:b:c",
                "8.8.8.8",
                "172.32.0.1",
                "100.64.0.1",
                "[fe80::1]:1",
            ]
        ],
    ],
)
def test_origins_and_hosts(
    fake_daemon: FakeDaemon,
    line: str,
    host: str,
    origin: str | None,
    status: int,
    allowed: str | None,
) -> None:
    headers = [] if origin is None else [f"Origin: {origin}"]
    answer = exchange(fake_daemon.port, request_bytes(line, *headers, host=host))
    assert answer.status == status
    assert answer.headers.get("access-control-allow-origin") == allowed
    assert answer.headers.get("vary") == ("Origin" if allowed else None)
    if status in (204, 403):
        assert answer.body == b""


def test_the_machines_own_name_is_same_origin(fake_daemon: FakeDaemon) -> None:
    host = f"{socket.gethostname()}:11434"
    request = request_bytes("GET /api/tags", f"Origin: http://{host}", host=host)
    answer = exchange(fake_daemon.port, request)
    assert answer.status == 200
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/api/chat", "/nope"])
def test_preflight(fake_daemon: FakeDaemon, path: str) -> None:
    request = request_bytes(
        f"OPTIONS {path}",
        "Origin: http://localhost:3000",
        "Access-Control-Request-Method: POST",
        host=HERE,
    )
    answer = exchange(fake_daemon.port, request)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert answer.headers["access-control-max-age"] == "43200"
    assert (
        answer.headers["access-control-allow-methods"] == "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
    )
    assert answer.headers["access-control-allow-headers"].startswith("Authorization,Content-Type,")
    assert (
        answer.headers["vary"]
        == "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
    )
    assert "access-control-allow-credentials" not in answer.headers
    if path == "/nope":
        assert "allow" not in answer.headers


@pytest.mark.parametrize(
    ("setting", "origin", "allowed"),
    [
        ("*", "http://any.example", "*"),
        ("chrome-extension://*", "chrome-extension://abc", "chrome-extension://abc"),
        ('"http://10.0.0.1,https://A.example"', "https://a.example", "https://a.example"),
        ('"http://10.0.0.1,https://A.example"', "http://10.0.0.1", "http://10.0.0.1"),
    ],
)
def test_origins_of_the_user(
    make_daemon: MakeDaemon, setting: str, origin: str, allowed: str
) -> None:
    daemon = make_daemon(OLLAMA_ORIGINS=setting)
    answer = exchange(daemon.port, request_bytes("GET /api/tags", f"Origin: {origin}"))
    assert (answer.status, answer.body) == (200, b'{"models":[]}')
    assert answer.headers["access-control-allow-origin"] == allowed
    assert ("vary" in answer.headers) == (allowed != "*")


@pytest.mark.parametrize("setting", ["http://10.0.0.1, https://a.example", "example.com"])
def test_origins_that_make_no_sense_stop_the_start(make_daemon: MakeDaemon, setting: str) -> None:
    with pytest.raises(AssertionError, match="bad origin: origins must contain"):
        make_daemon(OLLAMA_ORIGINS=setting)


def test_hosts_are_not_checked_on_an_open_address(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(OLLAMA_HOST="0.0.0.0:0")
    assert exchange(daemon.port, request_bytes("GET /", host="anything")).status == 200


# --- C3: bodies -----------------------------------------------------------------------------------

POSTS = {
    "generate": (404, "model '' not found"),
    "chat": (400, "model is required"),
    "embed": (404, "model '' not found"),
    "embeddings": (400, "model is required"),
    "show": (400, "model is required"),
    "create": (400, "invalid model name"),
    "pull": (400, "invalid model name"),
    "push": (400, "model is required"),
    "copy": (400, 'source "" is invalid'),
    "delete": (400, "model is required"),
}
TYPE_NAMES = {
    "generate": "GenerateRequest",
    "chat": "ChatRequest",
    "embed": "EmbedRequest",
    "embeddings": "EmbeddingRequest",
    "show": "ShowRequest",
    "create": "CreateRequest",
    "pull": "PullRequest",
    "push": "PushRequest",
    "copy": "CopyRequest",
    "delete": "DeleteRequest",
}


def refused(daemon: Daemon, endpoint: str, body: str) -> tuple[int, str]:
    """Status and text of an answer that must be an ordinary error."""
    method = "DELETE" if endpoint == "delete" else "POST"
    answer = exchange(daemon.port, request_bytes(f"{method} /api/{endpoint}", body=body))
    assert answer.headers["content-type"] == JSON
    assert not answer.body.endswith(b"\n")
    decoded = json.loads(answer.body)
    assert list(decoded) == ["error"]
    return answer.status, decoded["error"]


@pytest.mark.parametrize("endpoint", POSTS)
def test_bodies_without_content(fake_daemon: FakeDaemon, endpoint: str) -> None:
    for body in ("", " \n "):
        assert refused(fake_daemon, endpoint, body) == (400, "missing request body")
    for body in ("null", "{}"):
        assert refused(fake_daemon, endpoint, body) == POSTS[endpoint]


@pytest.mark.parametrize("endpoint", POSTS)
def test_bodies_that_are_broken(fake_daemon: FakeDaemon, endpoint: str) -> None:
    assert refused(fake_daemon, endpoint, "{") == (400, "unexpected EOF")
    name = TYPE_NAMES[endpoint]
    assert refused(fake_daemon, endpoint, "[]") == (
        400,
        f"json: cannot unmarshal array into Go value of type api.{name}",
    )
    field = "source" if endpoint == "copy" else "model"
    assert refused(fake_daemon, endpoint, f'{{"{field}":5}}') == (
        400,
        f"json: cannot unmarshal number into Go struct field {name}.{field} of type string",
    )


@pytest.mark.parametrize(
    ("endpoint", "body", "text"),
    [
        ("generate", '{"model":1,"prompt":2}', "…number…GenerateRequest.model of type string"),
        ("generate", '{"images":["data:image/png;base64,AAAA"]}', "illegal base64 data at input"),
        ("generate", '{"images":[5]}', "…number…GenerateRequest.images of type api.ImageData"),
        ("generate", '{"keep_alive":"10"}', 'time: missing unit in duration "10"'),
        ("embed", '{"keep_alive":true}', "Unsupported type: 'bool'"),
        ("chat", '{"think":"invalid"}', 'invalid think value: "invalid" (must be "high", '),
        ("chat", '{"think":1}', 'think must be a boolean or string ("high", "medium", '),
        ("embed", '{"dimensions":1.5}', "…number 1.5…EmbedRequest.dimensions of type int"),
        (
            "chat",
            '{"messages":[{"role":"assistant","tool_calls":[{"function":{"arguments":"{}"}}]}]}',
            "Value looks like object, but can't find closing '}' symbol",
        ),
        (
            "chat",
            '{"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}]}',
            "…array…ChatRequest.messages.content of type string",
        ),
        (
            "create",
            '{"messages":[{"content":5}]}',
            "…number…CreateRequest.messages.content of type string",
        ),
    ],
)
def test_fields_of_the_wrong_type(
    fake_daemon: FakeDaemon, endpoint: str, body: str, text: str
) -> None:
    status, error = refused(fake_daemon, endpoint, body)
    assert status == 400
    kind, _, field = text.removeprefix("…").partition("…")
    if field:
        assert error == f"json: cannot unmarshal {kind} into Go struct field {field}"
    else:
        assert error.startswith(text)


#: Errors come in the order of the contract, so each of these hides all that follow it.
ORDER = [
    ('{"model":"nope","top_logprobs":21,"think":5}', 400, "think must be a boolean or string"),
    ('{"model":"a:cloud:local","top_logprobs":21}', 400, "top_logprobs must be between 0 and 20"),
    ('{"model":"a:cloud:local"}', 400, "use either :local or :cloud, not both"),
    ('{"model":"é"}', 400, "invalid model name"),
]


@pytest.mark.parametrize("endpoint", ["generate", "chat"])
@pytest.mark.parametrize(("body", "status", "text"), ORDER)
def test_the_order_of_the_first_checks(
    fake_daemon: FakeDaemon, endpoint: str, body: str, status: int, text: str
) -> None:
    found, error = refused(fake_daemon, endpoint, body)
    assert (found, error[: len(text)]) == (status, text)


@pytest.mark.parametrize(
    "name", ["test:", "a" * 81, "é", "a'b", "a/b/c/d/e", "../x", "a:b@sha256:0"]
)
@pytest.mark.parametrize("endpoint", ["generate", "chat", "embed", "embeddings", "show", "pull"])
def test_names_that_are_none(fake_daemon: FakeDaemon, endpoint: str, name: str) -> None:
    body = json.dumps({"model": name})
    assert refused(fake_daemon, endpoint, body) == (400, "invalid model name")


@pytest.mark.parametrize(
    ("endpoint", "body", "status", "text"),
    [
        ("delete", {"model": "bad name!"}, 400, 'name "bad name!" is invalid'),
        ("delete", {"name": "nope"}, 404, "model 'nope' not found"),
        ("delete", {"model": "a:cloud:local"}, 400, 'use either :local or :cloud, not both: "'),
        ("delete", {"model": "qwen3:cloud"}, 404, "model 'qwen3:cloud' not found"),
        ("show", {"name": "nope"}, 404, "model 'nope:latest' not found"),
        ("show", {"model": "nope:local"}, 404, "model 'nope:latest' not found"),
        ("show", {"model": "a:cloud:local"}, 400, 'use either :local or :cloud, not both: "'),
        ("copy", {"source": "x", "destination": "y"}, 404, 'model "x" not found'),
        ("copy", {"source": "bad!", "destination": "y!"}, 400, 'source "bad!" is invalid'),
        ("copy", {"source": "x", "destination": "y!"}, 400, 'destination "y!" is invalid'),
        ("embed", {"model": "nope"}, 404, 'model "nope" not found, try pulling it first'),
        ("embed", {"model": "nope", "input": 5}, 400, "invalid input type"),
        ("embed", {"input": 5}, 404, "model '' not found"),
        ("embed", {"model": "é", "input": 5}, 400, "invalid model name"),
        ("embeddings", {"model": "nope"}, 404, 'model "nope" not found, try pulling it first'),
        ("generate", {"name": "nope"}, 404, "model '' not found"),
        ("chat", {"name": "nope"}, 400, "model is required"),
        ("pull", {"model": "bad name!"}, 400, "invalid model name"),
        ("pull", {"model": "a:cloud:local"}, 400, 'use either :local or :cloud, not both: "'),
        ("generate", {"model": "m:cloud"}, 502, 'Post "http://127.0.0.1:1/api/generate?ts='),
        ("show", {"name": "m:cloud"}, 502, 'Post "http://127.0.0.1:1/api/show?ts='),
        ("generate", {"model": "é:cloud"}, 400, "invalid model name"),
    ],
)
def test_names_and_their_errors(
    fake_daemon: FakeDaemon, endpoint: str, body: Any, status: int, text: str
) -> None:
    found, error = refused(fake_daemon, endpoint, json.dumps(body))
    assert (found, error[: len(text)]) == (status, text)


@pytest.mark.parametrize(
    ("endpoint", "what"),
    [
        ("generate", "remote model is unavailable"),
        ("chat", "remote model is unavailable"),
        ("embed", "remote model is unavailable"),
        ("show", "remote model details are unavailable"),
    ],
)
def test_cloud_models_when_the_cloud_is_off(
    make_daemon: MakeDaemon, endpoint: str, what: str
) -> None:
    daemon = make_daemon(OLLAMA_NO_CLOUD="1")
    assert daemon.get("/api/status")["cloud"] == {"disabled": True, "source": "env"}
    found = refused(daemon, endpoint, '{"model":"m:cloud"}')
    assert found == (403, f"ollama cloud is disabled: {what}")


@pytest.mark.parametrize(
    "body",
    [
        '{"MODEL":"%s","Prompt":""}',
        '{"model":"%s"} junk',
        '{"model":"%s","nonsense":{"a":1}}',
        '{"model":"x","model":"%s"}',
        '{"model":"%s","a":' + "[" * 9000 + "]" * 9000 + "}",
        '{"model":"%s","keep_alive":1e10}',
        '{"model":"%s","images":["AA==",null,[1,2]]}',
        '{"model":"%s","stream":true}',
        '{"model":"%s","format":"xml"}',
        '{"model":"%s","raw":true,"context":[]}',
    ],
)
def test_bodies_that_are_understood(fake_daemon: FakeDaemon, plain: str, body: str) -> None:
    answer = exchange(fake_daemon.port, request_bytes("POST /api/generate", body=body % plain))
    assert (answer.status, answer.headers["content-type"]) == (200, JSON)
    decoded = json.loads(answer.body)
    assert list(decoded) == ["model", "created_at", "response", "done", "done_reason"]
    assert (decoded["model"], decoded["done_reason"]) == (plain, "load")


@pytest.fixture(scope="module")
def plain(fake_daemon: FakeDaemon) -> str:
    fake_daemon.add("http-plain")
    return "http-plain"


@pytest.mark.parametrize("name", [" http-plain ", "HTTP-Plain", "http-plain:latest:LOCAL"])
def test_a_name_comes_back_as_it_was_given(fake_daemon: FakeDaemon, plain: str, name: str) -> None:
    assert fake_daemon.post("/api/generate", {"model": name})["model"] == name


def test_a_large_body_is_read_and_the_daemon_does_not_keep_it(
    fake_daemon: FakeDaemon, plain: str
) -> None:
    body = b'{"model":"%s","unknown":"%s"}' % (plain.encode(), b"x" * 30_000_000)
    status, _, data = fake_daemon.request("POST", "/api/generate", body)
    assert (status, json.loads(data)["done_reason"]) == (200, "load")


# --- blobs ----------------------------------------------------------------------------------------


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def test_blobs(fake_daemon: FakeDaemon) -> None:
    content = b"a blob for this test"
    digest = digest_of(content)
    upper = "sha256:" + digest[7:].upper()

    def head(what: str) -> int:
        return fake_daemon.request("HEAD", f"/api/blobs/{what}")[0]

    assert [head(d) for d in (digest, "sha256:zz", "nonsense")] == [404, 400, 400]
    answer = exchange(fake_daemon.port, request_bytes(f"POST /api/blobs/{digest}", body=content))
    assert (answer.status, answer.body, answer.headers["content-length"]) == (201, b"", "0")
    assert "content-type" not in answer.headers
    assert fake_daemon.request("POST", f"/api/blobs/{digest}", b"anything else")[0] == 200
    assert [head(d) for d in (digest, digest.replace(":", "-"), upper)] == [200, 200, 404]


@pytest.mark.parametrize("path", ["sha256:zz", "sha256:" + "g" * 64, "..", "md5:1"])
def test_digests_that_are_none(fake_daemon: FakeDaemon, path: str) -> None:
    answer = exchange(fake_daemon.port, request_bytes(f"POST /api/blobs/{path}", body=b"x"))
    if path == "..":
        assert (answer.status, answer.headers["location"]) == (307, "/api")
    else:
        assert (answer.status, answer.body) == (400, b'{"error":"invalid digest format"}')
        assert answer.headers["content-type"] == JSON


@pytest.mark.parametrize("form", ["other", "dash", "upper"])
def test_a_digest_that_does_not_match_is_refused_but_the_content_stays(
    fake_daemon: FakeDaemon, form: str
) -> None:
    content = f"not what was promised: {form}".encode()
    real = digest_of(content)
    given = {
        "other": digest_of(b"promised"),
        "dash": real.replace(":", "-"),
        "upper": "sha256:" + real[7:].upper(),
    }[form]
    status, headers, data = fake_daemon.request("POST", f"/api/blobs/{given}", content)
    assert (status, headers["content-type"]) == (400, JSON)
    assert json.loads(data) == {"error": f'digest mismatch, expected "{given}", got "{real}"'}
    assert fake_daemon.request("HEAD", f"/api/blobs/{real}")[0] == 200


@pytest.mark.parametrize("expect", [(), ("Expect: 100-continue",)])
def test_a_blob_that_is_there_is_not_read_again(
    fake_daemon: FakeDaemon, expect: tuple[str]
) -> None:
    content = b"there already"
    digest = digest_of(content)
    fake_daemon.request("POST", f"/api/blobs/{digest}", content)
    request = request_bytes(f"POST /api/blobs/{digest}", "Content-Length: 98000000", *expect)
    answer = exchange(fake_daemon.port, request)
    assert (answer.status, answer.interim) == (200, ())
    assert answer.headers["content-length"] == "0"
    assert answer.closed


def test_an_upload_goes_to_the_disk_not_to_memory(fake_daemon: FakeDaemon) -> None:
    assert fake_daemon.process is not None
    daemon = psutil.Process(fake_daemon.process.pid)
    piece = os.urandom(1 << 20)
    count = 48
    hashing = hashlib.sha256()
    for _ in range(count):
        hashing.update(piece)
    path = f"/api/blobs/sha256:{hashing.hexdigest()}"
    connection = fake_daemon.connection()
    most = before = daemon.memory_info().rss
    connection.putrequest("POST", path)
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    for _ in range(count):
        connection.send(b"100000\r\n" + piece + b"\r\n")
        most = max(most, daemon.memory_info().rss)
    connection.send(b"0\r\n\r\n")
    assert connection.getresponse().status == 201
    connection.close()
    assert most - before < 16 << 20


@pytest.mark.parametrize("framing", ["Content-Length: 999999", "Transfer-Encoding: chunked"])
def test_a_client_that_leaves_an_upload_leaves_nothing(
    make_daemon: MakeDaemon, framing: str
) -> None:
    daemon = make_daemon()
    blobs = daemon.models / "blobs"
    start = request_bytes(f"POST /api/blobs/{digest_of(b'x')}", framing)
    with socket.create_connection(("127.0.0.1", daemon.port)) as client:
        client.sendall(start + (b"9\r\n" if "chunked" in framing else b"") + b"beginning")
        eventually(lambda: any(blobs.iterdir()), what="the upload has begun")
    eventually(lambda: not any(blobs.iterdir()), what="nothing of it is left")
    assert daemon.get("/api/tags") == {"models": []}
