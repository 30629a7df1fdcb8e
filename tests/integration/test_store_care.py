"""Two daemons on one model directory, and the care for what is in it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon, eventually
from support.fake import model_file

MakeDaemon = Callable[..., Daemon]
HOUR = 3600
ORPHAN = "sha256-" + "a" * 64
ANOTHER = "another process uses the model directory"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "shared"


def blobs(models: Path) -> set[str]:
    return {path.name for path in (models / "blobs").iterdir()}


def aged(path: Path, hours: float = 2, content: bytes = b"old") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    moment = time.time() - hours * HOUR
    os.utime(path, (moment, moment))
    return path


@contextmanager
def uploading(daemon: Daemon, content: bytes = b"weights") -> Iterator[Callable[[], int]]:
    """An upload that has begun. The result sends the rest and tells the status."""
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    connection = daemon.connection()

    def finish() -> int:
        connection.send(content[1:])
        return int(connection.getresponse().status)

    before = blobs(daemon.models)
    try:
        connection.putrequest("POST", f"/api/blobs/{digest}")
        connection.putheader("Content-Length", str(len(content)))
        connection.endheaders(content[:1])
        eventually(lambda: blobs(daemon.models) - before, what="the upload's file is there")
        yield finish
    finally:
        connection.close()


def pair(make_daemon: MakeDaemon, models: Path) -> tuple[Daemon, Daemon]:
    daemons = [make_daemon(OLLAMA_MODELS=str(models)) for _ in range(2)]
    for daemon in daemons:
        daemon.models = models
    return daemons[0], daemons[1]


def prune(daemon: Daemon, **fields: Any) -> Any:
    return daemon.post("/api/prune", fields)


def error(daemon: Daemon, body: Any, **headers: str) -> tuple[int, str]:
    status, _, data = daemon.request("POST", "/api/prune", body, headers)
    return status, json.loads(data)["error"] if data else ""


def test_a_delete_and_a_prune_beside_another_daemons_upload(
    make_daemon: MakeDaemon, models: Path, tmp_path: Path
) -> None:
    first, second = pair(make_daemon, models)
    first.create("m", model_file(tmp_path, "m"))
    aged(models / "blobs" / ORPHAN)
    kept = blobs(models)
    with uploading(first) as finish:
        assert second.request("DELETE", "/api/delete", {"model": "m"})[0] == 200
        assert second.get("/api/tags") == {"models": []}
        answer = prune(second, older_than="0")
        assert (answer["entries"], answer["freed"]) == ([], 0)
        assert {entry["reason"] for entry in answer["kept"]} == {ANOTHER}
        assert blobs(models) >= kept
        assert finish() == 201
    answer = prune(second)
    assert [entry["name"] for entry in answer["entries"]] == [f"blobs/{ORPHAN}"]
    prune(second, older_than="0")
    assert blobs(models) == set()
    assert f"blobs that are not needed stay until they are pruned: {ANOTHER}" in second.log


def test_a_second_daemon_starts_beside_an_upload(make_daemon: MakeDaemon, models: Path) -> None:
    first = make_daemon(OLLAMA_MODELS=str(models))
    first.models = models
    aged(models / "blobs" / ORPHAN)
    with uploading(first) as finish:
        second = make_daemon(OLLAMA_MODELS=str(models))
        assert ORPHAN in blobs(models)
        assert f"skipping prune operation: {ANOTHER}" in second.log
        assert finish() == 201
    assert ORPHAN not in blobs(models) or prune(second)["freed"] > 0


def test_a_daemon_that_was_killed_hinders_nobody(make_daemon: MakeDaemon, models: Path) -> None:
    first, second = pair(make_daemon, models)
    with uploading(first):
        first.signal(signal.SIGKILL)
        first.wait()
        (left,) = prune(second, older_than="0")["entries"]
    assert left["kind"] == "temporary"
    assert blobs(models) == set()


def test_two_daemons_create_and_delete_at_once(
    make_daemon: MakeDaemon, models: Path, tmp_path: Path
) -> None:
    """Whatever the order, no model is left without a blob."""
    daemons = pair(make_daemon, models)
    weights = model_file(tmp_path, "m")
    daemons[0].create("base", weights)

    def work(number: int) -> None:
        daemon = daemons[number % 2]
        for turn in range(6):
            name = f"m{(number + turn) % 3}"
            if turn % 3 == 2:
                daemon.request("DELETE", "/api/delete", {"model": name})
            elif turn % 3 == 1:
                daemon.request("POST", "/api/copy", {"source": name, "destination": "copy"})
            else:
                system = f"system {number} {turn}"
                fields = {"model": name, "from": "base", "system": system, "stream": False}
                daemon.request("POST", "/api/create", fields)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    stored = daemons[0].get("/api/tags")["models"]
    assert stored
    for path in (models / "manifests").rglob("*"):
        if path.is_file():
            manifest = json.loads(path.read_bytes())
            for layer in (manifest["config"], *manifest["layers"]):
                assert (models / "blobs" / layer["digest"].replace(":", "-")).exists(), path
    for model in stored:
        assert daemons[1].request("DELETE", "/api/delete", {"model": model["name"]})[0] == 200
    prune(daemons[1], older_than="0")
    assert blobs(models) == set()


def test_prune_over_http(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(OLLAMA_NOPRUNE="1")
    models = daemon.models
    aged(models / "blobs" / ORPHAN, content=b"x" * 5000)
    data = aged(models / f"blobs/{ORPHAN}-partial")
    os.truncate(data, 10_000_000)
    aged(data)
    aged(models / f"blobs/{ORPHAN}-partial-0", hours=0.2)
    planned = prune(daemon, dry_run=True)
    assert blobs(models) == {ORPHAN, f"{ORPHAN}-partial", f"{ORPHAN}-partial-0"}
    assert prune(daemon) == planned
    (entry,) = planned["entries"]
    assert entry.pop("modified_at")
    on_disk = planned["freed"]
    assert 5000 <= on_disk < 100_000
    assert entry == {
        "name": f"blobs/{ORPHAN}",
        "kind": "blob",
        "size": on_disk,
        "length": 5000,
    }
    reason = "younger than 1h"
    assert planned["kept"] == [{"name": f"blobs/{ORPHAN}-partial", "reason": reason}]
    assert prune(daemon, blobs=True, older_than="0")["entries"] == []
    (entry,) = prune(daemon, partials=True, older_than="10m")["entries"]
    assert entry["kind"] == "partial"
    assert blobs(models) == set()


def test_what_prune_refuses(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    orphan = aged(daemon.models / "blobs" / ORPHAN)
    assert error(daemon, {"older_than": "soon"}) == (400, 'time: invalid duration "soon"')
    assert error(daemon, {"older_than": 5})[0] == 400
    assert error(daemon, b"")[0] == 400
    assert error(daemon, {}, Origin="https://example.com") == (403, "")
    assert error(daemon, {}, Host="example.com") == (403, "")
    assert daemon.request("GET", "/api/prune")[0] == 405
    bad = aged(daemon.models / "manifests/h/n/m/t", content=b"{bad")
    status, text = error(daemon, {})
    assert status == 409
    assert str(bad) in text
    assert orphan.exists()
    (unreadable,) = daemon.get("/api/disk")["unreadable"]
    assert unreadable.startswith(f"{bad}: ")


def ollama(daemon: Daemon, *words: str) -> tuple[int, str, str]:
    process = subprocess.run(
        [sys.executable, "-m", "ollamad", *words],
        env={**daemon.env, "OLLAMA_HOST": daemon.url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return process.returncode, process.stdout, process.stderr


def test_the_commands(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    daemon = make_daemon()
    daemon.create("m", model_file(tmp_path, "m"))
    aged(daemon.models / "blobs" / ORPHAN)
    status, out, err = ollama(daemon, "disk")
    assert (status, err) == (0, "")
    assert out.splitlines()[1].startswith("m:latest")
    assert f"Directory                 {daemon.models}" in out
    status, out, _ = ollama(daemon, "prune", "-n")
    assert (status, out.splitlines()[-1][:11]) == (0, "Would free ")
    assert ORPHAN in blobs(daemon.models)
    status, out, _ = ollama(daemon, "prune")
    assert out.splitlines()[-1].startswith("Freed ")
    assert ORPHAN not in blobs(daemon.models)
    assert ollama(daemon, "prune", "--age", "x") == (1, "", 'Error: time: invalid duration "x"\n')
    assert [model["name"] for model in daemon.get("/api/tags")["models"]] == ["m:latest"]
