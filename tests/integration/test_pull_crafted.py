"""Pulls from a registry that means harm: manifests, headers and bodies made to write elsewhere, to
fill memory or disk, or to crash the daemon. It answers each with an error and goes on."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.daemon import Daemon, running
from support.fake import model_file
from support.gateway import Exchange, Gateway, Headers, Stranger, in_thread
from support.registry import MODEL, digest_of
from support.transfers import blob_files, check_blobs, failure, remove, succeed, transfer

GOOD = b"a layer"
DIGEST, SIZE = digest_of(GOOD), len(GOOD)
#: Megabytes that a pull of rubbish may cost the daemon for a while.
MEMORY = 200


class Crafted(Gateway):
    """Answers from ``answers`` (path below the repository, or a method and that path, to a
    function), else 404."""

    def __init__(self) -> None:
        super().__init__(None)
        self.answers: dict[str, Callable[[Exchange], Any]] = {}

    @property
    def name(self) -> str:
        return f"{self.host}/evil/model"

    async def handle(self, exchange: Exchange) -> None:
        await exchange.body()
        path = exchange.path.removeprefix("/v2/evil/model/")
        answer = self.answers.get(f"{exchange.method} {path}") or self.answers.get(path)
        if answer is None:
            await exchange.answer(404)
        else:
            await answer(exchange)

    def serve_manifest(self, raw: bytes, *headers: tuple[str, str]) -> None:
        """From now on there is this manifest, and the one blob ``GOOD``."""
        self.answers = {
            "manifests/latest": _answer(200, raw, headers),
            f"blobs/{DIGEST}": _blob(GOOD),
        }


def _answer(status: int, body: bytes, headers: Headers = ()) -> Callable[[Exchange], Any]:
    return lambda exchange: exchange.answer(status, body, headers)


def _blob(content: bytes) -> Callable[[Exchange], Any]:
    async def answer(exchange: Exchange) -> None:
        ranged = exchange.headers.get("range", "").removeprefix("bytes=")
        if not ranged:
            await exchange.answer(200, content)
            return
        first, _, last = ranged.partition("-")
        part = content[int(first) : int(last) + 1]
        where = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
        await exchange.answer(206, part, [("Content-Range", where)])

    async def head(exchange: Exchange) -> None:
        if exchange.method == "HEAD":
            await exchange.start(200, [("Content-Length", str(len(content)))])
            await exchange.end()
        else:
            await answer(exchange)

    return head


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("target") / "home"
    with running(home) as daemon:
        daemon.create("kept", model_file(home, "kept"))
        yield daemon


@pytest.fixture
def daemon(shared: Daemon) -> Iterator[Daemon]:
    """With the model ``kept``. Afterwards it has no other, and nothing else has changed."""
    before, logged = listing(shared.home), len(shared.log)
    yield shared
    for model in shared.get("/api/tags")["models"]:
        if model["name"] != "kept:latest":
            remove(shared, model["name"])
    check_blobs(shared.models)
    assert listing(shared.home) == before
    assert [line for line in shared.log[logged:].splitlines() if "Traceback" in line] == []


@pytest.fixture
def registry() -> Iterator[Crafted]:
    with in_thread(Crafted()) as registry:
        yield registry


def listing(home: Path) -> list[str]:
    return sorted(str(path) for path in home.rglob("*") if "/logs" not in str(path))


def layer(digest: Any = DIGEST, size: Any = SIZE, **more: Any) -> dict[str, Any]:
    return {"mediaType": MODEL, "digest": digest, "size": size, **more}


def manifest(*layers: Any, config: Any = None) -> bytes:
    whole = {"schemaVersion": 2, "config": config or layer("", 0), "layers": layers}
    return json.dumps(whole).encode()


def peak(daemon: Daemon, action: Callable[[], Any]) -> tuple[float, Any]:
    """By how many megabytes the daemon's memory has ever grown in ``action``; its result."""
    assert daemon.process is not None
    clear = Path(f"/proc/{daemon.process.pid}/clear_refs")
    if not clear.exists():
        pytest.skip("missing: /proc (the most memory of a process)")
    before = psutil.Process(daemon.process.pid).memory_info().rss
    clear.write_text("5")  # begins a new peak
    result = action()
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    (most,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return (most * 1024 - before) / 1e6, result


# --- manifests ------------------------------------------------------------------------------------

HEX = "ab" * 32


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../../../../../tmp/evil",
        "../" * 8 + "tmp/evil",
        "/tmp/evil",
        "sha256:" + "../" * 21 + "a",
        "sha256:" + HEX + "/../../evil",
        "sha256:" + HEX[:-1] + "/",
        "sha256:" + HEX + "\n",
        "sha256:" + HEX + "\0",
        "sha256:" + HEX + "-partial",
        "sha256:" + "ａ" * 64,
        "sha256:" + "٣" * 64,
        "sha256:" + "a" * 100_000,
        "sha512:" + HEX * 2,
        "sha256%3A" + HEX,
        "-",
    ],
)
def test_digests_that_are_paths(daemon: Daemon, registry: Crafted, digest: str) -> None:
    registry.serve_manifest(manifest(layer(), layer(digest)))
    assert failure(daemon, "pull", registry.name) == "invalid digest format"
    registry.serve_manifest(manifest(layer(), config=layer(digest)))
    assert failure(daemon, "pull", registry.name) == "invalid digest format"
    # Found before anything is fetched.
    assert registry.requests(part="/blobs/") == []


def test_a_digest_that_is_missing(daemon: Daemon, registry: Crafted) -> None:
    registry.serve_manifest(manifest(layer("")))
    assert failure(daemon, "pull", registry.name) == "evil/model: digest is empty"


@pytest.mark.parametrize(
    "size", [-1, -(2**63), 2**50 + 1, 2**63 - 1, 2**63, 10**400, 1.5, "7", True, [7], {"n": 7}]
)
def test_sizes_that_no_blob_has(daemon: Daemon, registry: Crafted, size: Any) -> None:
    registry.serve_manifest(manifest(layer(size=size)))
    text = failure(daemon, "pull", registry.name)
    assert text.startswith("pull model manifest: ") or "bytes" in text, text
    assert registry.requests(part="/blobs/") == []


def test_more_bytes_than_the_disk_has(daemon: Daemon, registry: Crafted) -> None:
    registry.serve_manifest(manifest(layer(), layer("sha256:" + HEX, 2**49)))
    text = failure(daemon, "pull", registry.name)
    assert "space" in text, text
    assert registry.requests(part="/blobs/") == []


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"nope",
        b"[]",
        b"[1, 2]",
        b'"text"',
        b"17",
        b"\xff\xfe{}",
        b"{",
        b'{"layers":',
        b'{"layers":{}}',
        b'{"layers":"x"}',
        b'{"layers":[1]}',
        b'{"layers":["x"]}',
        b'{"layers":[[]]}',
        b'{"config":[]}',
        b'{"config":"x"}',
        b'{"schemaVersion":"2"}',
        b'{"schemaVersion":1e999}',
        b'{"layers":[{"digest":1}]}',
        b'{"layers":[{"digest":["a"]}]}',
        b'{"layers":[{"mediaType":{}}]}',
        b"[" * 1_000_000,
        b'{"a":' * 1_000_000,
        b'{"layers":' + b"[" * 2_000_000 + b"]" * 2_000_000 + b"}",
        b'{"layers":[' + b"[]," * 3_000_000 + b"[]]}",
        b"<html><body>404</body></html>",
        b"\x1f\x8b\x08\x00garbage",
        gzip.compress(b"{}"),
    ],
    ids=lambda raw: repr(raw[:24]),
)
def test_what_is_no_manifest(daemon: Daemon, registry: Crafted, raw: bytes) -> None:
    registry.serve_manifest(raw)
    text = failure(daemon, "pull", registry.name)
    assert text.startswith("pull model manifest: "), text
    assert len(text) < 1000


@pytest.mark.parametrize("raw", [b"{}", b'{"layers":null}', b'{"layers":[]} trailing', b"null"])
def test_manifests_of_nothing(daemon: Daemon, registry: Crafted, raw: bytes) -> None:
    """They are legal, or refused: no daemon falls over one (10.8)."""
    registry.serve_manifest(raw)
    last = transfer(daemon, "pull", registry.name)[-1]
    assert last == {"status": "success"} or last["error"].startswith("pull model manifest: ")
    daemon.request("POST", "/api/show", {"model": registry.name})
    status, _, _ = daemon.request("POST", "/api/generate", {"model": registry.name, "prompt": "x"})
    assert status >= 400
    assert daemon.get("/api/tags")["models"]


def test_odd_but_harmless_manifests(daemon: Daemon, registry: Crafted) -> None:
    for raw in (
        manifest(layer(), layer(), config=layer()),  # the same one thrice
        manifest(layer(**{"from": "../../../../etc/passwd", "name": "../../../x"})),
        manifest(layer(mediaType="../../x\0\n")),
        manifest(layer(urls=["file:///etc/passwd", "http://169.254.169.254/"])),
        b'{"layers":[%s],"layers":[%s]}' % ((json.dumps(layer()).encode(),) * 2),
        b'{"x":"\\ud800","layers":[%s]}' % json.dumps(layer()).encode(),
        json.dumps({"config": layer("", 0), "x" * 100_000: "y", "layers": [layer()]}).encode(),
    ):
        registry.serve_manifest(raw)
        succeed(daemon, "pull", registry.name)
        daemon.request("POST", "/api/show", {"model": registry.name})
        file = daemon.models / "manifests" / registry.host / "evil/model/latest"
        assert file.read_bytes() == raw
        assert daemon.get("/api/tags")["models"]


def test_a_million_layers(daemon: Daemon, registry: Crafted) -> None:
    # As many as fit into what is read of a manifest, and more than that.
    many = b'{"layers":[' + b",".join([b"{}"] * 1_000_000) + b"]}"
    registry.serve_manifest(many)
    grown, text = peak(daemon, lambda: failure(daemon, "pull", registry.name))
    assert "layers" in text, text
    assert grown < 3 * MEMORY
    entry = json.dumps(layer()).encode()
    more = b'{"layers":[' + b",".join([entry] * 1_000_000) + b"]}"
    for raw, headers in ((more, []), (gzip.compress(more), [("Content-Encoding", "gzip")])):
        registry.serve_manifest(raw, *headers)
        grown, text = peak(daemon, lambda: failure(daemon, "pull", registry.name))
        assert text.startswith("pull model manifest: "), text
        assert grown < MEMORY
    assert registry.requests(part="/blobs/") == []
    assert daemon.get("/api/version")


# --- bodies ---------------------------------------------------------------------------------------


def bomb(size: int) -> bytes:
    """gzip of ``size`` zeros."""
    block = gzip.compress(bytes(1 << 24))
    return block * (size >> 24)  # members follow each other


def test_gzip_bombs(daemon: Daemon, registry: Crafted) -> None:
    zipped = [("Content-Encoding", "gzip")]
    for content in (bomb(1 << 31), gzip.compress(bytes(1 << 28))):
        registry.serve_manifest(content, *zipped)
        grown, text = peak(daemon, lambda: failure(daemon, "pull", registry.name))
        assert text.startswith("pull model manifest: "), text
        assert grown < MEMORY
        # As the text of an error, too.
        registry.answers["manifests/latest"] = _answer(500, content, zipped)
        grown, text = peak(daemon, lambda: failure(daemon, "pull", registry.name))
        assert text.startswith("pull model manifest: 500: "), text[:100]
        assert grown < MEMORY
        assert len(text) < 100_000
    # What says that it is compressed and is not; what is compressed as nobody asked for.
    for encoding, body in (("gzip", b"{}"), ("br", b"\x8b\x00"), ("zstd", b"{}"), ("x", b"{}")):
        registry.serve_manifest(body, ("Content-Encoding", encoding))
        assert failure(daemon, "pull", registry.name).startswith("pull model manifest: ")
    # One that is right.
    raw = manifest(layer())
    registry.serve_manifest(gzip.compress(raw), *zipped)
    succeed(daemon, "pull", registry.name)
    file = daemon.models / "manifests" / registry.host / "evil/model/latest"
    assert file.read_bytes() == raw


def test_bodies_without_end(daemon: Daemon, registry: Crafted) -> None:
    async def endless(exchange: Exchange, status: int, first: bytes) -> None:
        await exchange.start(status)
        await exchange.send(first)
        for _ in range(4000):
            await exchange.send(b" " * 65536)

    registry.answers["manifests/latest"] = lambda exchange: endless(exchange, 200, b'{"layers":')
    grown, text = peak(daemon, lambda: failure(daemon, "pull", registry.name))
    assert text.startswith("pull model manifest: "), text
    assert grown < MEMORY
    registry.answers["manifests/latest"] = lambda exchange: endless(exchange, 500, b"boom")
    grown, text = peak(daemon, lambda: failure(daemon, "pull", registry.name))
    assert text.startswith("pull model manifest: 500: boom"), text[:100]
    assert grown < MEMORY
    assert len(text) < 100_000


def test_headers_without_end(daemon: Daemon, registry: Crafted) -> None:
    many = [(f"X-{n}", "y" * 100) for n in range(100_000)]
    for headers in (many, [("X", "y" * 10_000_000)]):
        registry.answers["manifests/latest"] = _answer(200, b"{}", headers)
        grown, text = peak(daemon, lambda: failure(daemon, "pull", registry.name))
        assert text.startswith("pull model manifest: "), text
        assert grown < MEMORY
        assert len(text) < 1000


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "gopher://127.0.0.1/x",
        "//",
        "http://",
        "http://[::1",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:port/",
        "http://" + "a" * 300 + ".example/",
        "\\\\host\\share",
        "http://user:secret@127.0.0.1:1/",
    ],
)
def test_redirects_to_nowhere(daemon: Daemon, registry: Crafted, location: str) -> None:
    registry.answers["manifests/latest"] = _answer(307, b"", [("Location", location)])
    text = failure(daemon, "pull", registry.name)
    assert text.startswith("pull model manifest: "), text
    assert "root:" not in text
    assert "secret" not in text
    assert "secret" not in daemon.log


def test_a_redirect_loop(daemon: Daemon, registry: Crafted) -> None:
    registry.answers["manifests/latest"] = lambda exchange: exchange.answer(
        302, headers=[("Location", exchange.target)]
    )
    url = f"{registry.url}/v2/evil/model/manifests/latest"
    assert failure(daemon, "pull", registry.name) == (
        f'pull model manifest: Get "{url}": stopped after 10 redirects'
    )
    assert len(registry.seen) == 10


# --- blobs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", ["99999999999999999999", "1" * 5000, "-7", "0x7", "1e3"])
def test_lengths_that_no_blob_has(daemon: Daemon, registry: Crafted, length: str) -> None:
    registry.serve_manifest(manifest(layer(size=0)))
    registry.answers[f"HEAD blobs/{DIGEST}"] = lambda exchange: exchange.start(
        200, [("Content-Length", length)]
    )
    last = transfer(daemon, "pull", registry.name)[-1]
    assert "error" in last
    assert "internal" not in last["error"]
    remove_partials(daemon)


def test_a_blob_that_is_larger_than_its_manifest_says(daemon: Daemon, registry: Crafted) -> None:
    registry.serve_manifest(manifest(layer(size=3)))
    text = failure(daemon, "pull", registry.name)
    assert "7 bytes" in text, text
    remove_partials(daemon)


def test_blobs_of_other_content(daemon: Daemon, registry: Crafted) -> None:
    wrong = "sha256:" + hashlib.sha256(b"another").hexdigest()
    registry.serve_manifest(manifest(layer(wrong, 7)))
    registry.answers[f"blobs/{wrong}"] = _blob(b"anothes")
    text = failure(daemon, "pull", registry.name)
    assert text.startswith(f"digest mismatch, file must be downloaded again: want {wrong}, got ")
    # Upper case, and a dash for the colon, are requested as given and never right (3.3).
    for other in (DIGEST.upper().replace("SHA", "sha"), DIGEST.replace(":", "-")):
        registry.serve_manifest(manifest(layer(other)))
        registry.answers[f"blobs/{other}"] = _blob(GOOD)
        text = failure(daemon, "pull", registry.name)
        assert text.startswith("digest mismatch"), text
    # It was never empty, whatever the registry says.
    registry.serve_manifest(manifest(layer(size=0)))
    registry.answers[f"blobs/{DIGEST}"] = _blob(b"")
    text = failure(daemon, "pull", registry.name)
    assert text.endswith(f"got {digest_of(b'')}"), text
    assert daemon.get("/api/tags")["models"][0]["name"] == "kept:latest"


def test_a_blob_in_the_place_of_a_link(daemon: Daemon, registry: Crafted, tmp_path: Path) -> None:
    """Who can write to the store once cannot have the daemon write elsewhere later."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    partial = daemon.models / "blobs" / (DIGEST.replace(":", "-") + "-partial")
    partial.symlink_to(outside)
    registry.serve_manifest(manifest(layer()))
    transfer(daemon, "pull", registry.name)
    assert outside.read_bytes() == b"precious"
    partial.unlink(missing_ok=True)


def test_realms_and_redirects_that_lead_elsewhere(daemon: Daemon, registry: Crafted) -> None:
    challenges = [
        'Bearer realm="{}/token",service="s",scope="repository:a/b:pull"',
        'Bearer realm="http://{host}@registry/token"',
        'Bearer realm="',
        "Bearer realm=",
        "Bearer",
        "",
        'Bearer realm="http://[::1"',
        'Bearer realm="file:///etc/passwd"',
        "Bearer " + "x=y," * 100_000,
        'Bearer realm="' + "a" * 60_000,
        "Negotiate",
    ]
    with in_thread(Stranger()) as stranger:
        for challenge in challenges:
            said = challenge.replace("{}", stranger.url).replace("{host}", stranger.host)
            headers = [("WWW-Authenticate", said)] if said else []
            registry.answers["manifests/latest"] = _answer(401, b"no", headers)
            text = failure(daemon, "pull", registry.name)
            assert text.startswith("pull model manifest: "), text
            assert len(text) < 100_000
        assert stranger.seen == []


def remove_partials(daemon: Daemon) -> None:
    """What a failed pull leaves for the next one; it takes no room."""
    for path in blob_files(daemon.models):
        if "-partial" in path.name:
            assert path.stat().st_blocks * 512 < 10_000
            path.unlink()


def test_an_answer_that_is_none(daemon: Daemon, registry: Crafted) -> None:
    answers = [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
        b"HTTP/1.1 999 x\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
        b"SSH-2.0-OpenSSH_9\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        os.urandom(1000),
    ]
    for raw in answers:

        async def answer(exchange: Exchange, raw: bytes = raw) -> None:
            await exchange._client.stream.send_all(raw)
            await exchange.drop()

        registry.answers["manifests/latest"] = answer
        text = failure(daemon, "pull", registry.name)
        assert text.startswith("pull model manifest: "), (raw, text)
        assert len(text) < 1000
