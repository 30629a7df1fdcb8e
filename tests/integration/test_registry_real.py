"""Pushes to Debian's ``docker-registry`` and pulls from it, with a real model and real daemons."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from support.daemon import Daemon, eventually
from support.fault_proxy import UPLOADS, FaultProxy, Plan
from support.gateway import Exchange, Gateway, Stranger, in_thread
from support.models import smollm2
from support.registry import MODEL, DockerRegistry, digest_of, serving
from support.token_server import TokenServer
from support.transfers import (
    QUESTION,
    BlobWatch,
    blobs,
    check_blobs,
    failure,
    manifest_file,
    put_smollm2,
    remove,
    succeed,
    together,
    transfer,
)

MakeDaemon = Callable[..., Daemon]
SYSTEM = "application/vnd.ollama.image.system"
#: What the weights are without: so that a model consists of several layers.
EXTRAS = {"system": "Answer briefly.", "license": ["MIT"], "parameters": {"top_k": 5}}
SMALL = "".join(f"{i:07d}\n" for i in range(40_000)).encode()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """With the model ``acme/smol``, which is SmolLM2."""
    with serving(tmp_path_factory.mktemp("registry")) as registry:
        put_smollm2(registry, "acme/smol")
        yield registry


# --- there and back -------------------------------------------------------------------------------


def test_push_delete_pull(registry: DockerRegistry, make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    name = f"{registry.host}/there/back"
    daemon.create("smol", smollm2(), **EXTRAS)
    daemon.post("/api/copy", {"source": "smol", "destination": name})
    before = daemon.post("/api/generate", {"model": "smol", **QUESTION})["response"]
    assert before
    file = manifest_file(daemon, registry.host, "there/back")
    stored, local = blobs(daemon.models), file.read_bytes()
    assert all(name == content for name, content in stored.items())
    assert len(stored) >= 5  # weights, system, licence, parameters, config

    events = succeed(daemon, "push", name)
    assert events[0] == {"status": "retrieving manifest"}
    assert events[-2] == {"status": "pushing manifest"}
    last = {e["digest"]: e for e in events if "digest" in e}
    assert {d.replace(":", "-") for d in last} == set(stored)
    assert all(e["completed"] == e["total"] for e in last.values())
    # The registry has these very bytes, and the manifest without its newline (4.1).
    assert registry.get_manifest("there/back") == local.removesuffix(b"\n")
    for digest in last:
        kept = daemon.models / "blobs" / digest.replace(":", "-")
        assert registry.blob_file(digest).read_bytes() == kept.read_bytes()

    remove(daemon, "smol", name)
    eventually(lambda: not blobs(daemon.models), what="no blob is left")
    assert daemon.get("/api/tags")["models"] == []

    events = succeed(daemon, "pull", name)
    assert [e["status"] for e in events if "digest" not in e] == [
        "pulling manifest",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    assert file.read_bytes() == local.removesuffix(b"\n")
    assert blobs(daemon.models) == stored
    assert daemon.post("/api/generate", {"model": name, **QUESTION})["response"] == before
    shown = daemon.post("/api/show", {"model": name})
    assert (shown["system"], shown["license"]) == ("Answer briefly.", "MIT")


def test_a_second_time_nothing_is_transferred(
    registry: DockerRegistry, make_daemon: MakeDaemon
) -> None:
    daemon = make_daemon()
    raw = registry.put_model("second/time", [(MODEL, SMALL)])
    with in_thread(Gateway(registry.port)) as gateway:
        name = f"{gateway.host}/second/time"
        succeed(daemon, "pull", name)
        manifest = manifest_file(daemon, gateway.host, "second/time")
        first = manifest.stat().st_mtime_ns
        gateway.seen.clear()
        succeed(daemon, "pull", name)
        assert [(s.method, s.path) for s in gateway.seen] == [
            ("GET", "/v2/second/time/manifests/latest")
        ]
        assert manifest.stat().st_mtime_ns > first
        assert manifest.read_bytes() == raw
        gateway.seen.clear()
        succeed(daemon, "push", name)
        assert [(s.method, s.status) for s in gateway.seen] == [
            ("HEAD", 200),
            ("HEAD", 200),
            ("PUT", 201),
        ]


def test_a_registry_with_relative_locations(tmp_path: Path, make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    with serving(tmp_path / "relative", {"relativeurls": True}) as registry:
        registry.put_model("a/b", [(MODEL, SMALL), (SYSTEM, b"x")])
        succeed(daemon, "pull", f"{registry.host}/a/b")
        copy = f"{registry.host}/c/d:Q4_K_M"
        daemon.post("/api/copy", {"source": f"{registry.host}/a/b", "destination": copy})
        succeed(daemon, "push", copy)
        assert registry.get_manifest("c/d", "Q4_K_M") == registry.get_manifest("a/b")


def test_an_update_removes_what_it_replaces(
    registry: DockerRegistry, make_daemon: MakeDaemon
) -> None:
    daemon = make_daemon()
    name = f"{registry.host}/up/date"
    registry.put_model("up/date", [(MODEL, SMALL), (SYSTEM, b"old")])
    succeed(daemon, "pull", name)
    raw = registry.put_model("up/date", [(MODEL, SMALL), (SYSTEM, b"new")])
    events = succeed(daemon, "pull", name)
    assert [e["status"] for e in events[-4:]] == [
        "verifying sha256 digest",
        "writing manifest",
        "removing unused layers",
        "success",
    ]
    assert manifest_file(daemon, registry.host, "up/date").read_bytes() == raw
    names = set(blobs(daemon.models))
    assert digest_of(b"new").replace(":", "-") in names
    assert digest_of(b"old").replace(":", "-") not in names


def test_empty_blobs(registry: DockerRegistry, make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    raw = registry.put_model("empty/blob", [(SYSTEM, b"")])
    name = f"{registry.host}/empty/blob"
    succeed(daemon, "pull", name)
    file = daemon.models / "blobs" / digest_of(b"").replace(":", "-")
    assert file.stat().st_size == 0
    daemon.post("/api/copy", {"source": name, "destination": f"{registry.host}/empty/copy"})
    succeed(daemon, "push", f"{registry.host}/empty/copy")
    assert registry.get_manifest("empty/copy") == raw


def test_what_is_not_there(registry: DockerRegistry, make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    unknown = f"{registry.host}/no/such"
    assert failure(daemon, "pull", unknown) == "pull model manifest: file does not exist"
    assert "no such file or directory" in failure(daemon, "push", unknown)
    status, _, body = daemon.request(
        "POST", "/api/pull", {"model": unknown, "insecure": True, "stream": False}
    )
    assert (status, body) == (500, b'{"error":"pull model manifest: file does not exist"}')
    status, _, body = daemon.request("POST", "/api/pull", {"model": unknown, "stream": False})
    assert status == 500
    assert b"error" in body  # https, which nobody speaks there
    # A layer that the manifest names and the registry has lost.
    registry.put_model("lost/layer", [(SYSTEM, b"first"), (MODEL, b"lost")])
    registry.blob_file(digest_of(b"lost")).unlink()
    name = f"{registry.host}/lost/layer"
    assert failure(daemon, "pull", name) == "file does not exist"
    assert not manifest_file(daemon, registry.host, "lost/layer").exists()
    check_blobs(daemon.models)
    # It was changed behind the registry's back: its size is right, its content is not.
    registry.put_model("wrong/layer", [(MODEL, b"right")])
    registry.blob_file(digest_of(b"right")).write_bytes(b"wrong")
    text = failure(daemon, "pull", f"{registry.host}/wrong/layer")
    assert text == (
        "digest mismatch, file must be downloaded again: "
        f"want {digest_of(b'right')}, got {digest_of(b'wrong')}"
    )
    assert not (daemon.models / "blobs" / digest_of(b"right").replace(":", "-")).exists()
    assert daemon.get("/api/tags")["models"] == []


# --- several at once ------------------------------------------------------------------------------


def test_two_clients_share_one_transfer(registry: DockerRegistry, make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    size = smollm2().stat().st_size
    # Slow enough that the second comes while the first is at it, on any machine.
    with in_thread(FaultProxy(registry.port, None, rate=60e6)) as proxy:
        pull = partial(succeed, daemon, "pull", f"{proxy.host}/acme/smol")
        first, second = together(pull, pull)
    for events in (first, second):
        steps = [e.get("completed", 0) for e in events if e.get("total") == size]
        assert len(steps) > 5  # each has its own progress
        assert steps == sorted(steps)
        assert steps[-1] == size
    assert proxy.transferred <= 1.02 * size, proxy.history
    check_blobs(daemon.models)
    answer = daemon.post("/api/generate", {"model": f"{proxy.host}/acme/smol", **QUESTION})
    assert answer["response"]


def test_two_daemons_on_one_model_directory(
    registry: DockerRegistry, make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    models = tmp_path / "shared"
    one, other = (make_daemon(OLLAMA_MODELS=str(models)) for _ in range(2))
    size = smollm2().stat().st_size
    with in_thread(FaultProxy(registry.port, None, rate=60e6)) as proxy:
        name = f"{proxy.host}/acme/smol"
        with BlobWatch(models).watching():
            together(partial(succeed, one, "pull", name), partial(succeed, other, "pull", name))
    assert proxy.transferred <= 1.02 * size, proxy.history
    for daemon in (one, other):
        (model,) = daemon.get("/api/tags")["models"]
        assert model["name"] == f"{name}:latest"
    assert set(blobs(models).items()) == {(n, n) for n in blobs(models)}
    # What one removes is gone for both, and the other can get it again.
    remove(one, name)
    assert other.get("/api/tags")["models"] == []
    registry.put_model("acme/small", [(MODEL, SMALL)])
    small = f"{registry.host}/acme/small"
    together(*(partial(succeed, d, "pull", small) for d in (one, other) * 3))
    check_blobs(models)


def test_who_leaves_does_not_disturb_who_stays(
    registry: DockerRegistry, make_daemon: MakeDaemon
) -> None:
    daemon = make_daemon()
    size = smollm2().stat().st_size
    with in_thread(FaultProxy(registry.port, None, rate=60e6)) as proxy:
        name = f"{proxy.host}/acme/smol"
        events = daemon.stream("/api/pull", {"model": name, "insecure": True})
        while next(events).get("completed", 0) < size / 5:
            pass

        other = daemon.stream("/api/pull", {"model": name, "insecure": True})
        while next(other).get("total", 0) < size:
            pass
        events.close()
        assert list(other)[-1] == {"status": "success"}
        assert proxy.transferred <= 1.02 * size, proxy.history
        remove(daemon, name)
        # Nobody stays: the transfer ends, and goes on where it was.
        events = daemon.stream("/api/pull", {"model": name, "insecure": True})
        while next(events).get("completed", 0) < size / 2:
            pass
        before = proxy.transferred
        events.close()

        def rests() -> bool:
            nonlocal before
            before, last = proxy.transferred, before
            return before == last

        eventually(rests, what="the transfer rests")
        first = next(e for e in succeed(daemon, "pull", name) if e.get("total") == size)
        assert first["completed"] >= size / 2
        assert proxy.transferred <= 2.05 * size, proxy.history
    check_blobs(daemon.models)


# --- bad networks (pulls: test_pull_faults) -------------------------------------------------------


def test_pushes_through_faults(registry: DockerRegistry, make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    seeds = range(6)
    for seed in seeds:
        content = random.Random(seed).randbytes(5_000_000)
        registry.put_model(f"source/{seed}", [(MODEL, content), (SYSTEM, b"%d" % seed)])
        source = f"{registry.host}/source/{seed}"
        succeed(daemon, "pull", source)
        # Without it in the registry: the push has to send it.
        registry.blob_file(digest_of(content)).unlink()

    def push(seed: int) -> FaultProxy:
        methods = ("PATCH", "PUT", "POST") if seed > 2 else ("PATCH",)
        plan = Plan(seed, 0.7, 2, UPLOADS, methods)
        with in_thread(FaultProxy(registry.port, plan)) as proxy:
            name = f"{proxy.host}/pushed/{seed}"
            source = f"{registry.host}/source/{seed}"
            daemon.post("/api/copy", {"source": source, "destination": name})
            for _ in range(4):
                last = transfer(daemon, "push", name)[-1]
                if last == {"status": "success"}:
                    return proxy
                # What is not repeated (3.2) ends the push at once, and says with what.
                assert re.match(r'\d{3}: |(Post|Put|Patch) "http://|max retries', last["error"])
        raise AssertionError(f"no success: {proxy.history}")

    proxies = together(*(partial(push, seed) for seed in seeds))
    assert sum(sum(proxy.done.values()) for proxy in proxies) >= 9
    for seed in seeds:
        raw = registry.get_manifest(f"pushed/{seed}")
        assert raw == registry.get_manifest(f"source/{seed}")
        content = random.Random(seed).randbytes(5_000_000)
        assert registry.blob_file(digest_of(content)).read_bytes() == content


# --- tokens ---------------------------------------------------------------------------------------


def public_line(daemon: Daemon) -> str:
    return (daemon.home / ".ollama/id_ed25519.pub").read_text().strip()


def test_push_and_pull_with_tokens(registry: DockerRegistry, make_daemon: MakeDaemon) -> None:
    # The most talkative log has no secret either.
    daemon, stranger = make_daemon(OLLAMA_DEBUG="2"), make_daemon(OLLAMA_DEBUG="2")
    grants = [("safe/model", "pull"), ("safe/model", "push")]
    with in_thread(TokenServer(registry.port, {public_line(daemon): grants})) as server:
        name = f"{server.host}/safe/model"
        daemon.create("smol", smollm2(), **EXTRAS)
        daemon.post("/api/copy", {"source": "smol", "destination": name})
        succeed(daemon, "push", name)
        assert server.refusals == []
        # Two scopes were asked for one after the other: pull for the first HEAD, then push.
        assert len(server.requests("GET", "/v2/token")) == 2
        assert all(s.status != 401 for s in server.requests("PATCH"))
        stored = blobs(daemon.models)
        remove(daemon, "smol", name)

        server.seen.clear()
        succeed(daemon, "pull", name)
        assert blobs(daemon.models) == stored
        assert len(server.requests("GET", "/v2/token")) == 1
        assert server.refusals == []

        # Another key may do nothing; what it is told is what the server said.
        assert failure(stranger, "pull", name) == (
            'pull model manifest: 403: {"errors": [{"code": "DENIED", "message": "unknown key"}]}'
        )
        # A token that does not allow what was asked for is refused a second time.
        other = f"{server.host}/other/model"
        daemon.post("/api/copy", {"source": name, "destination": other})
        assert failure(daemon, "push", other) == "unauthorized: access denied"
        # Without a key there is no token.
        for file in (stranger.home / ".ollama").glob("id_ed25519*"):
            file.unlink()
        text = failure(stranger, "pull", name)
        assert text.endswith("id_ed25519: no such file or directory"), text
        tokens = list(server.tokens)
    for log in (daemon.log, stranger.log):
        assert not any(token in log for token in tokens)
        assert not re.search(r"AAAAC3NzaC1lZDI1NTE5AAAAI\S*:", log), "a signature"


def test_tokens_that_end_early(registry: DockerRegistry, make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    registry.put_model("short/lived", [(MODEL, SMALL), (SYSTEM, b"short-lived")])
    with in_thread(TokenServer(registry.port, {}, uses=2)) as server:
        line = public_line(daemon)
        server.allowed = {line.split()[1]: frozenset({("*", "pull"), ("*", "push")})}
        name = f"{server.host}/short/lived"
        succeed(daemon, "pull", name)
        copy = f"{server.host}/short/copy"
        daemon.post("/api/copy", {"source": name, "destination": copy})
        succeed(daemon, "push", copy)
        assert server.refusals == []
        assert len(server.tokens) > 4
    assert registry.get_manifest("short/copy") == registry.get_manifest("short/lived")
    check_blobs(daemon.models)


def test_tokens_stay_with_who_gave_them(registry: DockerRegistry, make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(OLLAMA_DEBUG="2")
    registry.put_model("safe/tokens", [(MODEL, SMALL)])
    grants = {public_line(daemon): [("*", "pull"), ("*", "push")]}
    with (
        in_thread(Stranger(418)) as stranger,
        in_thread(TokenServer(registry.port, grants)) as server,
    ):
        name = f"{server.host}/safe/tokens"

        # A forged realm: not even a signature goes to another port.
        server.challenge = lambda _: (
            f'Bearer realm="{stranger.url}/v2/token",service="tests",scope="repository:a/b:pull"'
        )
        assert failure(daemon, "pull", name) == (
            f'pull model manifest: realm host "{stranger.host}" does not match '
            f'original host "{server.host}"'
        )
        assert stranger.seen == []
        server.challenge = None

        # Blobs that are elsewhere: the other server sees no token.
        with in_thread(Gateway(registry.port)) as store:

            def elsewhere(exchange: Exchange) -> str | None:
                blob = exchange.method == "GET" and "/blobs/sha256" in exchange.path
                return f"{store.url}{exchange.target}?sig=as-good-as-a-password" if blob else None

            server.redirect = elsewhere
            succeed(daemon, "pull", name)
            assert all("sig=" in s.target for s in store.requests("GET", "/blobs/"))
            assert store.requests("GET", "/blobs/")
            assert "as-good-as-a-password" not in daemon.log
            assert [s for s in store.seen if s.authorization] == []
            assert any(s.authorization for s in server.seen)

        # The same for everything else that is redirected once a token is there.
        server.redirect = lambda exchange: (
            stranger.url + exchange.target
            if exchange.seen.authorization.startswith("Bearer")
            else None
        )
        remove(daemon, name)
        server.seen.clear()
        assert failure(daemon, "pull", name) == "pull model manifest: 418: {}"
        (asked,) = stranger.seen
        assert asked.path == "/v2/safe/tokens/manifests/latest"
        assert [s for s in stranger.seen if s.authorization] == []
        # The token's own request, with its signature, is not sent on either.
        server.redirect = lambda exchange: (
            stranger.url + "/stolen" if "/token" in exchange.path else None
        )
        stranger.seen.clear()
        failure(daemon, "pull", name)
        assert [s for s in stranger.seen if s.authorization] == []
        assert not any(token in daemon.log for token in server.tokens)
