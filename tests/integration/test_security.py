"""Attacks on a real daemon: through names, digests, files, headers, bodies, connections and models.

Each is one of the security reports that programs of this kind have had, or a way to make one of
their resources run out (issue: "What Ollama's users suffer from most").
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import resource
import signal
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.daemon import Daemon, eventually, running
from support.fake import FakeDaemon, model_file, running_fake
from support.gguf_bytes import ARCH, ARRAY, STRING, U8, U32, U64, header, padded, string
from support.raw import exchange, request_bytes

MakeDaemon = Callable[..., Daemon]
EMPTY = "sha256:" + hashlib.sha256(b"").hexdigest()
UNKNOWN = "sha256:" + "ab" * 32


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with the small model ``m``, and a file outside of its store."""
    home = tmp_path_factory.mktemp("target") / "home"
    with running(home) as daemon:
        (home / "victim").write_text("precious")
        daemon.create("m", model_file(home, "m"))
        yield daemon


@pytest.fixture
def unharmed(target: Daemon) -> Iterator[Daemon]:
    """``target``; afterwards all files must be what they were, and the daemon well."""
    before = files(target.home)
    yield target
    assert files(target.home) == before
    assert [model["name"] for model in target.get("/api/tags")["models"]] == ["m:latest"]
    assert "Traceback" not in target.log


def files(top: Path) -> dict[str, bytes | None]:
    """Every file below ``top`` with a digest of its content; directories have none."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).digest() if path.is_file() else None
        for path in sorted(top.rglob("*"))
        if not path.is_socket()
    }


def error_of(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str]:
    """Status and text of an error, which must be a JSON object."""
    status, _, body = answer
    return status, json.loads(body)["error"]


# --- names and paths ------------------------------------------------------------------------------

NAMES = (
    "../../victim",
    "../victim:latest",
    "..",
    "../..",
    "/etc/passwd",
    "//etc/passwd",
    "a/../../b",
    "h/n/..:latest",
    "h/../m:latest",
    "../n/m:latest",
    "m:../../../victim",
    "m:..",
    "h/n/m:/etc/passwd",
    "file:///../etc/passwd",
    "..\\..\\victim",
    "C:\\victim",
    "m\x00.txt",
    "m\n.txt",
    "%2e%2e%2fvictim",
    ".hidden",
    "-rf",
    "m@sha256:../../victim",
    "\u202evictim",
    "m:" + "t" * 81,
    "x" * 100_000,
)
NAMED = (
    ("POST", "/api/show", {"model": "{}"}),
    ("POST", "/api/generate", {"model": "{}", "prompt": "x"}),
    ("POST", "/api/generate", {"model": "{}", "keep_alive": 0}),
    ("POST", "/api/chat", {"model": "{}", "messages": []}),
    ("POST", "/api/embed", {"model": "{}", "input": "x"}),
    ("POST", "/api/embeddings", {"model": "{}", "prompt": "x"}),
    ("POST", "/api/copy", {"source": "{}", "destination": "m2"}),
    ("POST", "/api/copy", {"source": "m", "destination": "{}"}),
    ("DELETE", "/api/delete", {"model": "{}"}),
    ("POST", "/api/create", {"model": "{}", "from": "m", "stream": False}),
    ("POST", "/api/create", {"model": "m2", "from": "{}", "stream": False}),
    ("POST", "/api/pull", {"model": "{}", "stream": False}),
    ("POST", "/api/push", {"model": "{}", "stream": False}),
)


@pytest.mark.parametrize(("method", "path", "body"), NAMED)
def test_names_that_are_paths(
    unharmed: Daemon, method: str, path: str, body: dict[str, Any]
) -> None:
    for name in NAMES:
        filled = {k: name if v == "{}" else v for k, v in body.items()}
        status, text = error_of(unharmed.request(method, path, filled))
        assert 400 <= status <= 501, name
        assert "precious" not in text
        assert "root:" not in text


@pytest.mark.parametrize(
    "name", ["h" * 300 + "/n/m", "h" * 300 + "/n/m:t", "a." * 170 + "b:80/n/m"]
)
@pytest.mark.parametrize(("method", "path", "body"), NAMED[:10])
def test_names_that_are_too_long_for_a_file(
    unharmed: Daemon, method: str, path: str, body: dict[str, Any], name: str
) -> None:
    filled = {k: name if v == "{}" else v for k, v in body.items()}
    status, text = error_of(unharmed.request(method, path, filled))
    assert status in (400, 404, 500)
    assert text


DIGESTS = (
    "sha256:../../victim",
    "sha256-../../victim",
    "../../victim",
    "..%2f..%2fvictim",
    "%2e%2e%2f%2e%2e%2fvictim",
    "..%5c..%5cvictim",
    "sha256:" + "a" * 63,
    "sha256:" + "a" * 65,
    "sha256:" + "a" * 64 + "%00",
    "sha256:" + "a" * 64 + "%0a",
    "sha256:" + "a" * 62 + "%2f%2f",
    "sha256:" + "%EF%BC%A1" * 64,  # digits of another script
    "sha512:" + "a" * 64,
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "a" * 100_000,
)


@pytest.mark.parametrize("method", ["HEAD", "POST"])
def test_digests_that_are_paths(unharmed: Daemon, method: str) -> None:
    for digest in DIGESTS:
        line = f"{method} /api/blobs/{digest}"
        body = b"evil" if method == "POST" else b""
        answer = exchange(unharmed.port, request_bytes(line, body=body), head=method == "HEAD")
        assert answer.status in (307, 400, 404), digest
        assert b"precious" not in answer.body


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../victim", "a/../../victim", "..", "a//b", "./a", "a/", "", "a/./b"],
)
@pytest.mark.parametrize("field", ["files", "draft_files"])
def test_files_of_create_that_are_elsewhere(unharmed: Daemon, field: str, name: str) -> None:
    body = {"model": "x", "from": "m", field: {name: UNKNOWN}, "stream": False}
    assert error_of(unharmed.request("POST", "/api/create", body)) == (
        400,
        "file path must be relative",
    )


@pytest.mark.parametrize("field", ["files", "adapters", "draft_files"])
def test_digests_of_create_that_are_paths(unharmed: Daemon, field: str) -> None:
    for digest in ("../../victim", "sha256:../../victim", "/etc/passwd", "sha256:" + "\uff11" * 64):
        body: dict[str, Any] = {"model": "x", "stream": False, field: {"a.gguf": digest}}
        if field != "files":
            body["from"] = "m"
        status, text = error_of(unharmed.request("POST", "/api/create", body))
        assert status in (400, 500)
        assert text == "invalid digest format"


# --- the store ------------------------------------------------------------------------------------


def plant(daemon: Daemon, name: str, *layers: dict[str, Any]) -> Path:
    """A manifest as an attacker's registry, or another program, may have left it."""
    path = daemon.models / "manifests/registry.ollama.ai/library" / name / "latest"
    path.parent.mkdir(parents=True)
    config = {
        "mediaType": "application/vnd.docker.container.image.v1+json",
        "digest": "",
        "size": 0,
    }
    content = {"schemaVersion": 2, "mediaType": "", "config": config, "layers": list(layers)}
    path.write_text(json.dumps(content))
    return path


def layer(kind: str, digest: str) -> dict[str, Any]:
    return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": digest, "size": 1}


@pytest.mark.parametrize(
    "digest", ["../../victim", "sha256:../../../victim", "/etc/passwd", "sha256-../victim", ".", ""]
)
@pytest.mark.parametrize("kind", ["model", "system", "license", "params", "adapter", "template"])
def test_a_manifest_that_names_files_elsewhere(unharmed: Daemon, kind: str, digest: str) -> None:
    path = plant(unharmed, "evil", layer(kind, digest))
    shown = unharmed.request("POST", "/api/show", {"model": "evil", "verbose": True})
    assert b"precious" not in shown[2]
    assert b"root:" not in shown[2]
    unharmed.request("POST", "/api/generate", {"model": "evil", "prompt": "x"})
    unharmed.request("DELETE", "/api/delete", {"model": "evil"})
    assert (unharmed.home / "victim").read_text() == "precious"
    assert not path.exists()


def test_deleting_a_link_leaves_what_it_leads_to(unharmed: Daemon) -> None:
    victim = unharmed.home / "victim"
    blob = unharmed.models / "blobs" / UNKNOWN.replace(":", "-")
    blob.symlink_to(victim)
    plant(unharmed, "linked", layer("license", UNKNOWN))
    assert unharmed.request("DELETE", "/api/delete", {"model": "linked"})[0] == 200
    assert not blob.is_symlink()
    assert victim.read_text() == "precious"


def test_uploading_over_a_link_leaves_what_it_leads_to(unharmed: Daemon) -> None:
    victim = unharmed.home / "victim"
    content = b"something else entirely"
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    blob = unharmed.models / "blobs" / digest.replace(":", "-")
    blob.symlink_to(unharmed.home / "nowhere")
    assert unharmed.request("POST", f"/api/blobs/{digest}", content)[0] == 201
    assert not blob.is_symlink()
    assert not (unharmed.home / "nowhere").exists()
    assert victim.read_text() == "precious"
    blob.unlink()


@pytest.mark.parametrize("what", ["fifo", "directory", "loop", "device"])
def test_what_is_no_file_in_the_store(unharmed: Daemon, what: str) -> None:
    """Nothing may wait for a writer that never comes, or read without end."""
    path = plant(unharmed, "odd", layer("system", UNKNOWN), layer("model", UNKNOWN))
    blob = unharmed.models / "blobs" / UNKNOWN.replace(":", "-")
    if what == "fifo":
        os.mkfifo(blob)
    elif what == "directory":
        blob.mkdir()
    else:
        blob.symlink_to(blob if what == "loop" else "/dev/zero")
    try:
        for line, body in (("show", {}), ("generate", {"prompt": "x"}), ("embed", {"input": "x"})):
            status, _ = error_of(unharmed.request("POST", f"/api/{line}", {"model": "odd", **body}))
            assert status >= 400
        assert unharmed.request("GET", "/api/tags")[0] == 200
    finally:
        blob.rmdir() if what == "directory" else blob.unlink()
        path.unlink()
        path.parent.rmdir()


def test_half_open_uploads_leave_nothing_behind(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(OLLAMAD_SHUTDOWN_GRACE="0s")
    blobs = daemon.models / "blobs"
    head = request_bytes(f"POST /api/blobs/{UNKNOWN}", "Content-Length: 50000000")

    def begin() -> socket.socket:
        before = len(list(blobs.iterdir()))
        client = socket.create_connection(("127.0.0.1", daemon.port))
        client.sendall(head + bytes(300_000))
        eventually(lambda: len(list(blobs.iterdir())) > before, what="a temporary file")
        return client

    clients = [begin() for _ in range(3)]
    for path in blobs.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    clients[0].close()
    clients[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    clients[1].close()  # with a reset
    eventually(lambda: len(list(blobs.iterdir())) == 1, what="the end of two uploads")
    assert daemon.stop() == 0
    assert list(blobs.iterdir()) == []
    clients[2].close()


def test_private_files_are_private(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    assert stat.S_IMODE((daemon.home / ".ollama/id_ed25519").stat().st_mode) == 0o600
    (rundir,) = daemon.home.glob("ollamad-*")
    assert stat.S_IMODE(rundir.stat().st_mode) == 0o700


# --- hosts, origins, headers ----------------------------------------------------------------------

REBOUND = (
    "evil.example",
    "evil.example:11434",
    "localhost.evil.example",
    "evil.example#localhost",
    "evil.example/localhost",
    "localhost@evil.example",
    "127.0.0.1.evil.example",
    "127.0.0.1.",
    "0x7f.1",
    "8.8.8.8",
    "[2001:db8::1]:11434",
    "localhost evil",
    "\u0131ocalhost",
)


@pytest.mark.parametrize("host", REBOUND)
def test_a_rebound_name_reaches_nothing(unharmed: Daemon, host: str) -> None:
    for line, body in (("GET /api/tags", b""), ("DELETE /api/delete", b'{"model":"m"}')):
        for extra in ((), (f"Origin: http://{host}",)):
            request = "\r\n".join(
                [
                    f"{line} HTTP/1.1",
                    f"Host: {host}",
                    f"Content-Length: {len(body)}",
                    *extra,
                    "",
                    "",
                ]
            )
            assert exchange(unharmed.port, request.encode() + body).status in (400, 403)


def test_two_hosts(unharmed: Daemon) -> None:
    request = request_bytes("GET /api/tags", "Host: evil.example")
    assert exchange(unharmed.port, request).status == 400


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://localhost.evil.example"]
)
def test_foreign_pages_change_nothing(unharmed: Daemon, origin: str) -> None:
    # What a page may send without asking first: a POST of plain text.
    for line, body in (
        ("POST /api/copy", b'{"source":"m","destination":"stolen"}'),
        (f"POST /api/blobs/{EMPTY}", b""),
        ("OPTIONS /api/delete", b""),
    ):
        request = request_bytes(line, f"Origin: {origin}", "Content-Type: text/plain", body=body)
        assert exchange(unharmed.port, request).status == 403


@pytest.mark.parametrize(
    "target_path",
    [
        "/%0d%0aX-Evil:%201/../x",
        "//evil.example/%0d%0aX-Evil:%201",
        "/api/tags/%0d%0aX-Evil:%201/..",
        "//evil.example/..",
        "/\\evil.example/../x",
        "http://evil.example//x",
    ],
)
def test_no_header_and_no_other_site_through_a_redirect(unharmed: Daemon, target_path: str) -> None:
    answer = exchange(unharmed.port, request_bytes(f"GET {target_path}"))
    assert "x-evil" not in answer.headers
    location = answer.headers.get("location", "/")
    assert location.startswith("/")
    assert not location.startswith(("//", "/\\"))


def test_a_request_id_is_no_way_in(unharmed: Daemon) -> None:
    request = request_bytes("GET /api/version", "X-Request-Id: a\tb<script>", "Origin: file://a\tb")
    answer = exchange(unharmed.port, request)
    assert "<" not in answer.headers["x-request-id"]


def test_a_head_of_more_than_a_megabyte(unharmed: Daemon) -> None:
    huge = request_bytes("GET /api/version", "X: " + "x" * 1_100_000)
    assert exchange(unharmed.port, huge).status == 431
    many = request_bytes("GET /api/version", *["a: b"] * 100_000)
    assert exchange(unharmed.port, many).status == 431


# --- bodies ---------------------------------------------------------------------------------------


def test_a_body_nested_100_000_deep(unharmed: Daemon) -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        deep = opening * 100_000 + b"1" + closing * 100_000
        for body in (deep, b'{"model":"m","options":{"a":' + deep + b"}}"):
            for path in ("generate", "chat", "create", "show"):
                status, text = error_of(unharmed.request("POST", f"/api/{path}", body))
                assert (status, "max depth" in text) == (400, True)


def test_a_body_of_a_million_keys_holds_up_nobody(unharmed: Daemon) -> None:
    keys = b",".join(b'"k%d":1' % number for number in range(1_000_000))
    body = b'{"model":"nobody","options":{' + keys + b"}}"
    answers: list[int] = []
    attack = threading.Thread(
        target=lambda: answers.append(unharmed.request("POST", "/api/generate", body)[0])
    )
    attack.start()
    served = 0
    while attack.is_alive():
        assert unharmed.request("GET", "/api/version")[0] == 200
        served += 1
    attack.join()
    assert answers == [404]
    assert served > 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","images":["' + b"A" * 4_000_000 + b'!"]}',
        b'{"model":"m","options":{"a":' + b"9" * 1_000_000 + b"}}",
        b'{"model":"m","keep_alive":"' + b"9" * 1_000_000 + b'"}',
        b'{"model":"m","prompt":"\\ud800"',
        b"\xff\xfe" * 1000,
        b"[" * 10_001,
        b'{"model":' + b" " * 4_000_000,
        gzip.compress(bytes(10_000_000)),
    ],
    ids=["base64", "number", "duration", "surrogate", "no text", "brackets", "blanks", "gzip bomb"],
)
def test_bodies_that_are_wrong_at_length(unharmed: Daemon, body: bytes) -> None:
    headers = {"Content-Encoding": "gzip"}  # which is never undone
    assert error_of(unharmed.request("POST", "/api/generate", body, headers))[0] == 400


# --- connections ----------------------------------------------------------------------------------


def test_slow_clients_hold_up_neither_others_nor_the_end(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(OLLAMAD_SHUTDOWN_GRACE="100ms")
    beginnings = (
        b"",
        b"G",
        b"GET /api/version HTTP/1.1\r\nHost: loc",
        request_bytes("POST /api/chat", "Content-Length: 100") + b"{",
        request_bytes("POST /api/chat", "Transfer-Encoding: chunked") + b"5\r\n{",
        request_bytes(f"POST /api/blobs/{UNKNOWN}", "Content-Length: 100") + b"x",
        request_bytes("GET /api/version", "Content-Length: 10"),
        request_bytes("GET /nowhere", "Content-Length: 10"),
        request_bytes("GET /api/tags") * 50,  # and never reads
    )
    clients = []
    for beginning in beginnings * 10:
        client = socket.create_connection(("127.0.0.1", daemon.port))
        client.sendall(beginning)
        clients.append(client)
    for _ in range(20):
        assert daemon.request("GET", "/api/version")[0] == 200
    began = time.monotonic()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait(20) == 0
    assert time.monotonic() - began < 15
    for client in clients:
        client.close()


def test_more_idle_connections_than_the_soft_limit_of_files(make_daemon: MakeDaemon) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        daemon = make_daemon()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert daemon.process is not None
    process = psutil.Process(daemon.process.pid)
    clients = [socket.create_connection(("127.0.0.1", daemon.port)) for _ in range(300)]
    assert daemon.request("GET", "/api/version")[0] == 200
    eventually(lambda: process.num_fds() >= 300, what="300 accepted connections")
    for client in clients:
        client.close()
    eventually(lambda: process.num_fds() < 100, what="300 closed connections")


def test_clients_that_leave_at_once_keep_no_slot(fake: FakeDaemon) -> None:
    fake.will(tokens=100_000, interval_us=20_000)
    fake.add("left")
    body = json.dumps({"model": "left", "messages": [{"role": "user", "content": "x"}]}).encode()
    for _ in range(20):
        client = socket.create_connection(("127.0.0.1", fake.port))
        client.sendall(request_bytes("POST /api/chat", body=body))
        client.close()
    # There is one slot: somebody who stays gets it.
    events = fake.stream("/api/chat", json.loads(body))
    assert next(events)["message"]["content"]
    events.close()


# --- models ---------------------------------------------------------------------------------------

HUGE = 2**64 - 1
ALIGNMENT = ("general.alignment", U32, 0)

HOSTILE = {
    "no magic": b"GGML" + bytes(100),
    "cut after the magic": b"GGUF",
    "version 4": header(version=4),
    "2^64-1 keys": header(key_count=HUGE),
    "2^63 keys": header(key_count=2**63),
    "2^64-1 tensors": header(tensor_count=HUGE),
    "a million tensors that are not there": header(tensor_count=1_000_000),
    "a key of 2^64-1 bytes": header([], key_count=1) + struct.pack("<Q", HUGE),
    "a string of 2^64-1 bytes": header([], key_count=1)
    + string("a")
    + struct.pack("<IQ", STRING, HUGE),
    "a string of 16 MB that is not there": header([], key_count=1)
    + string("a")
    + struct.pack("<IQ", STRING, 16 << 20),
    "an array of 2^64-1 bytes": header([], key_count=1)
    + string("a")
    + struct.pack("<IIQ", ARRAY, U8, HUGE),
    "an array of 2^61 numbers, 2^64 bytes": header([], key_count=1)
    + string("a")
    + struct.pack("<IIQ", ARRAY, U64, 2**61),
    "64 million strings that are not there": header([], key_count=1)
    + string("a")
    + struct.pack("<IIQ", ARRAY, STRING, 64 << 20),
    "arrays in arrays": header([], key_count=1)
    + string("a")
    + struct.pack("<IIQ", ARRAY, ARRAY, 1) * 10_000,
    "type 99": header([], key_count=1) + string("a") + struct.pack("<I", 99),
    "alignment 0": header([ARCH, ALIGNMENT]),
    "alignment 2^31": header([ARCH, ("general.alignment", U32, 2**31)]),
    "a tensor of 2^64 elements": padded(header(infos=[("t", [2**32, 2**32], 0, 0)])),
    "a tensor beyond the end": padded(header(infos=[("t", [1024], 0, 0)]), 8),
    "a tensor at 2^64-32": padded(header(infos=[("t", [8], 0, 2**64 - 32)]), 64),
    "a tensor of 200 dimensions": header(infos=[("t", [1] * 200, 0, 0)]),
    "a tensor of an unknown type": padded(header(infos=[("t", [8], 250, 0)]), 64),
    "tensors that overlap": padded(header(infos=[("a", [32], 0, 0), ("b", [32], 0, 32)]), 256),
    "the same key twice": header([ARCH, ARCH]),
    "another byte order": header(magic=b"FUGG", order=">", version=3),
}


def upload(daemon: Daemon, content: bytes) -> str:
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    assert daemon.request("POST", f"/api/blobs/{digest}", content)[0] in (200, 201)
    return digest


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files(target: Daemon, what: str) -> None:
    digest = upload(target, HOSTILE[what])
    body = {"model": "hostile", "files": {"a.gguf": digest}, "stream": False}
    status, text = error_of(target.request("POST", "/api/create", body))
    assert status in (400, 500)
    assert len(text) < 1000
    # And as if another program had stored it.
    path = plant(target, "hostile", layer("model", digest))
    for line, more in (
        ("show", {"verbose": True}),
        ("generate", {"prompt": "x"}),
        ("create", {"model": "derived", "from": "hostile", "stream": False}),
    ):
        status, _, answer = target.request("POST", f"/api/{line}", {"model": "hostile", **more})
        assert answer, line
        assert status in (200, 400, 404, 500), line
    assert target.request("GET", "/api/tags")[0] == 200
    target.request("DELETE", "/api/delete", {"model": "hostile"})
    target.request("DELETE", "/api/delete", {"model": "derived"})
    assert not path.exists()
    (target.models / "blobs" / digest.replace(":", "-")).unlink(missing_ok=True)
    assert "Traceback" not in target.log


def test_hostile_files_take_no_memory(target: Daemon) -> None:
    """Claims of gigabytes in files of some bytes, all together."""
    assert target.process is not None
    process = psutil.Process(target.process.pid)
    before = process.memory_info().rss
    for content in HOSTILE.values():
        digest = upload(target, content)
        body = {"model": "hostile", "files": {"a.gguf": digest}, "stream": False}
        assert target.request("POST", "/api/create", body)[0] >= 400
        (target.models / "blobs" / digest.replace(":", "-")).unlink()
    assert process.memory_info().rss - before < 64 << 20


def test_a_file_with_a_header_of_megabytes_can_be_shown(target: Daemon) -> None:
    tokens = (STRING, ["x" * 100] * 50_000)
    keys = [ARCH, ("general.name", STRING, "n" * (15 << 20)), ("llama.a", ARRAY, tokens)]
    digest = upload(target, header(keys))
    target.post("/api/create", {"model": "wide", "files": {"a.gguf": digest}, "stream": False})
    for verbose in (False, True):
        info = target.post("/api/show", {"model": "wide", "verbose": verbose})["model_info"]
        assert (info["llama.a"] is None) is not verbose
    assert target.request("DELETE", "/api/delete", {"model": "wide"})[0] == 200


def test_what_a_template_prints_does_not_end_the_daemon(fake: FakeDaemon) -> None:
    """A runner prints what a model's chat template makes of an example, line breaks and all."""
    fake.will(log=["load_tensors: CPU model buffer size = 1.2.3 MiB", "x" * 70_000 + " MiB layers"])
    fake.add("printing")
    assert fake.post("/api/generate", {"model": "printing"})["done"]
    assert fake.process is not None
    assert fake.process.poll() is None


# --- what leaks -----------------------------------------------------------------------------------


def test_secrets_stay_where_they_are(tmp_path: Path) -> None:
    secrets = {
        "OLLAMA_API_KEY": "secret-of-ollama",
        "HF_TOKEN": "secret-of-hf",
        "PGPASSWORD": "secret-of-pg",
        "DATABASE_URL": "postgres://me:secret-of-url@db/x",
        "LLAMA_API_KEY": "secret-of-llama",
    }
    with running_fake(tmp_path / "home", **secrets) as daemon:
        daemon.add("m")
        body = json.dumps(
            {"model": "m", "messages": [{"role": "user", "content": "secret-of-mine"}]}
        ).encode()
        path = "/api/chat?key=secret-of-query"
        headers = {"Authorization": "Bearer secret-of-client", "Cookie": "secret-of-cookie"}
        assert daemon.request("POST", path, body, headers)[0] == 200
        wrong = (
            b'{"model":"m","messages":[{"role":"user","content":"secret-of-mine","images":["!"]}]}'
        )
        assert daemon.request("POST", path, wrong, headers)[0] == 400
        (runner,) = daemon.runners()
        environment = runner.environ()
        key_of_runner = environment.pop("LLAMA_API_KEY")
        assert "secret-of-" not in str(environment) + key_of_runner
        for process in daemon.family():
            assert "secret-of-" not in str(process.cmdline())
            assert key_of_runner not in str(process.cmdline())
        daemon.stop()
        assert "secret-of-" not in daemon.log
        assert key_of_runner not in daemon.log
        assert list((tmp_path / "home").glob("ollamad-*")) == []
