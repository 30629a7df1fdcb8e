"""``kill -9`` of the daemon amid pulls: the next one serves what it had, and goes on."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

import pytest
from support.daemon import Daemon, running
from support.fake import model_file
from support.fault_proxy import FaultProxy
from support.gateway import in_thread
from support.models import smollm2
from support.registry import MODEL, DockerRegistry, serving
from support.transfers import (
    QUESTION,
    blob_files,
    blobs,
    check_blobs,
    file_digest,
    put_smollm2,
    succeed,
)

SYSTEM = "application/vnd.ollama.image.system"
#: Bytes a second of the slow pull.
RATE = 6_000_000
#: What a kill may cost: the daemon notes every second what is there; this many seconds' worth, on a
#: busy machine, and what is in buffers.
NOTED = 2.0
BUFFERS = 1_500_000


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with serving(tmp_path_factory.mktemp("registry")) as registry:
        put_smollm2(registry, "acme/smol")
        yield registry


@contextmanager
def killed(home: Path, name: str, seconds: float) -> Iterator[Daemon]:
    """A daemon that is killed ``seconds`` after it was asked for ``name``."""
    daemon = Daemon(home).start()
    try:
        yield daemon  # what it had is looked at before

        def pull() -> None:
            # A killed daemon ends its answer anyhow.
            with suppress(OSError, HTTPException, json.JSONDecodeError):
                for _ in daemon.stream("/api/pull", {"model": name, "insecure": True}):
                    pass

        client = threading.Thread(target=pull, daemon=True)
        client.start()
        time.sleep(seconds)
        daemon.signal(signal.SIGKILL)
        daemon.wait()
        client.join(10)
        assert not client.is_alive()
    finally:
        daemon.stop()
    assert "Traceback" not in daemon.log, daemon.log


def check_models(daemon: Daemon, *names: str) -> None:
    """It shows these models and perhaps others, all of which are whole."""
    shown = {model["name"] for model in daemon.get("/api/tags")["models"]}
    assert shown >= set(names), daemon.log
    for path in (daemon.models / "manifests").rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            manifest = json.loads(path.read_bytes())
            for layer in (*manifest["layers"], manifest["config"]):
                blob = daemon.models / "blobs" / layer["digest"].replace(":", "-")
                assert file_digest(blob) == layer["digest"], f"{path} is not whole"
    check_blobs(daemon.models)


def begins(proxy: FaultProxy, since: int) -> list[int]:
    """Where in the blob the requests after the first ``since`` ones began."""
    ranges = [seen.headers.get("range", "") for seen in proxy.seen[since:]]
    return [int(found[1]) for r in ranges if (found := re.match(r"bytes=(\d+)-", r))]


def test_kills_of_a_slow_pull(registry: DockerRegistry, tmp_path: Path) -> None:
    home, size = tmp_path / "home", smollm2().stat().st_size
    dice = random.Random(9)
    with running(home) as daemon:
        daemon.create("kept", model_file(tmp_path, "kept"))
    with in_thread(FaultProxy(registry.port, None, rate=RATE)) as proxy:
        name = f"{proxy.host}/acme/smol"
        had = 0  # bytes that it surely has
        for kill in range(10):
            requests, before = len(proxy.seen), proxy.transferred
            # Now and then before anything could be noted.
            seconds = dice.uniform(0, 1) if kill % 3 == 0 else dice.uniform(1.5, 3.5)
            with killed(home, name, seconds) as daemon:
                check_models(daemon, "kept:latest")
            passed = proxy.transferred - before
            for begin in begins(proxy, requests)[:1]:
                assert begin >= had, f"after {kill} kills: lost {had - begin} bytes"
                had = max(had, begin + passed - int(NOTED * RATE) - BUFFERS)
        assert 0 < had < size, proxy.history
        proxy.rate = None
        requests, before = len(proxy.seen), proxy.transferred
        with running(home) as daemon:
            check_models(daemon, "kept:latest")
            succeed(daemon, "pull", name)
            # Of the last megabytes, too, only what was missing was fetched.
            (begin,) = begins(proxy, requests)[:1]
            assert begin >= had
            assert proxy.transferred - before <= size - begin + BUFFERS
            check_models(daemon, "kept:latest", f"{name}:latest")
            assert daemon.post("/api/generate", {"model": name, **QUESTION})["response"]
            left = blobs(daemon.models)
            assert all(name == content for name, content in left.items()), left


def test_kills_of_quick_pulls(registry: DockerRegistry, tmp_path: Path) -> None:
    """Many small layers: a kill is as likely as not between two of them, or in between the last one
    and the model."""
    home = tmp_path / "home"
    dice = random.Random(4)
    layers = [(SYSTEM, b"layer %d" % n + os.urandom(100_000)) for n in range(12)]
    with running(home) as daemon:
        daemon.create("kept", model_file(tmp_path, "kept"))
        name = f"{registry.host}/acme/first"
        registry.put_model("acme/first", [(MODEL, b"first"), *layers[:2]])
        begin = time.monotonic()
        succeed(daemon, "pull", name)
        # How long a pull of few layers takes here: then kills come in the middle of those of many.
        span = 3 * (time.monotonic() - begin)
    seen = {f"{name}:latest", "kept:latest"}
    for kill in range(10):
        tag = f"v{kill // 2}"  # each twice: a second one goes on where the first one ended
        registry.put_model("acme/many", [(MODEL, tag.encode() * 99), *layers[kill // 2 :]], tag=tag)
        with killed(home, f"{registry.host}/acme/many:{tag}", dice.uniform(0, span)) as daemon:
            check_models(daemon, *seen)
    with running(home) as daemon:
        check_models(daemon, *seen)
        for kill in range(0, 10, 2):
            succeed(daemon, "pull", f"{registry.host}/acme/many:v{kill // 2}")
        check_models(daemon, *seen, *(f"{registry.host}/acme/many:v{n}" for n in range(5)))
        unfinished = [path.name for path in blob_files(daemon.models) if "partial" in path.name]
        assert unfinished == []
