"""Pulling a big blob from a registry on loopback, beside ``curl -o`` and ``sha256sum`` after it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from support.daemon import Daemon
from support.registry import CONFIG, MANIFEST, MODEL, DockerRegistry, digest_of, serving

from benchmarks.figures import Figure, Pairs, alternate, number
from benchmarks.load import Target, exchange
from benchmarks.rig import Neighbours, started
from benchmarks.starting import until_idle

#: Bytes of the blob unless told otherwise.
SIZE = 2_000_000_000
QUICK_SIZE = 250_000_000
REPOSITORY = "bench/big"

_RATE = 0.8
_MEMORY_MB = 60.0
_ANSWER_MS = 20.0
#: Seconds between two questions for the version, and between two looks at the memory.
_ASK = 0.05
_LOOK = 0.1
_CONFIG = b'{"model_format":"gguf","architecture":"amd64","os":"linux"}\n'


def throughput(quick: bool, size: int | None = None) -> list[Figure]:
    """``size``: bytes of the blob. The model directory, curl's file and the registry's data are in
    one temporary folder (``TMPDIR`` chooses the disk), which needs three times the size."""
    if shutil.which("curl") is None or shutil.which("sha256sum") is None:
        pytest.skip("missing: curl and sha256sum")
    size = size or (QUICK_SIZE if quick else SIZE)
    with (
        tempfile.TemporaryDirectory(prefix="ollamad-bench-") as folder,
        serving(Path(folder) / "registry") as registry,
    ):
        digest = _put_blob(registry, Path(folder) / "blob", size)
        file = Path(folder) / "out"
        url = f"{registry.url}/v2/{REPOSITORY}/blobs/{digest}"
        pulls: list[Watched] = []
        with started() as daemon:
            assert daemon.process is not None
            until_idle(psutil.Process(daemon.process.pid))
            idle = _memory(daemon)

            def bare() -> float:
                # The same questions meanwhile, so that both have the same company.
                with watching(daemon):
                    begin = time.perf_counter()
                    subprocess.run(["curl", "-sSf", "-o", file, url], check=True)
                    curl = time.perf_counter()
                    told = subprocess.run(["sha256sum", file], check=True, capture_output=True)
                    end = time.perf_counter()
                if told.stdout.split()[0].decode() != digest.removeprefix("sha256:"):
                    raise RuntimeError("curl got something else")
                downloads.append(size / (curl - begin))
                file.unlink()
                return size / (end - begin) / 1e6

            def ours() -> float:
                with watching(daemon) as watched:
                    seconds = _pull(daemon, registry)
                pulls.append(watched)
                stored = daemon.models / "blobs" / digest.replace(":", "-")
                if stored.stat().st_size != size:
                    raise RuntimeError("the pulled blob is of another size")
                daemon.request("DELETE", "/api/delete", {"model": _name(registry)})
                return size / seconds / 1e6

            downloads: list[float] = []
            pairs = alternate(1 if quick else 3, bare, ours, disturbed=Neighbours())
    return _figures(size, pairs, downloads, pulls, idle)


def _figures(
    size: int, pairs: Pairs, downloads: list[float], pulls: list[Watched], idle: Memory
) -> list[Figure]:
    answers = sorted(ms for watched in pulls for ms in watched.answers)
    rss = max(watched.peak.rss for watched in pulls) - idle.rss
    pss = max(watched.peak.pss for watched in pulls) - idle.pss
    return [
        Figure(
            f"pull of {number(size / 1e6)} MB / (curl -o, then sha256sum)",
            pairs.ratio,
            target=_RATE,
            at_least=True,
            detail=pairs.describe("MB/s"),
        ),
        Figure("  pull", pairs.ours, "MB/s"),
        Figure("  curl alone", statistics.median(downloads) / 1e6, "MB/s"),
        Figure(
            "memory of the daemon above idle, most",
            rss,
            "MB",
            _MEMORY_MB,
            detail=f"RSS; PSS {number(pss)} MB; idle {number(idle.rss)} MB",
        ),
        Figure(
            "/api/version during pulls, 95th percentile",
            answers[int(len(answers) * 0.95)],
            "ms",
            _ANSWER_MS,
            detail=f"median {number(statistics.median(answers))} ms, most "
            f"{number(answers[-1])} ms of {len(answers)}",
        ),
    ]


def _put_blob(registry: DockerRegistry, file: Path, size: int) -> str:
    """A model whose only layer has ``size`` bytes, no two megabytes the same; its digest."""
    megabyte = os.urandom(1 << 20)
    digest = hashlib.sha256()
    with file.open("wb") as output:
        for at in range(0, size, len(megabyte)):
            piece = (at.to_bytes(8, "little") + megabyte[8:])[: size - at]
            digest.update(piece)
            output.write(piece)
    name = "sha256:" + digest.hexdigest()
    registry.place_blob(REPOSITORY, file, name)
    registry.put_blob(REPOSITORY, _CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest_of(_CONFIG), "size": len(_CONFIG)},
        "layers": [{"mediaType": MODEL, "digest": name, "size": size}],
    }
    registry.put_manifest(REPOSITORY, json.dumps(manifest).encode())
    return name


def _name(registry: DockerRegistry) -> str:
    return f"{registry.host}/{REPOSITORY}"


def _pull(daemon: Daemon, registry: DockerRegistry) -> float:
    """Seconds that a pull takes, verification and all."""
    begin = time.perf_counter()
    request = {"model": _name(registry), "insecure": True}
    events = list(daemon.stream("/api/pull", request))
    seconds = time.perf_counter() - begin
    if events[-1] != {"status": "success"}:
        raise RuntimeError(f"the pull failed: {events[-1]}\n{daemon.log}")
    return seconds


@dataclass(frozen=True)
class Memory:
    """Megabytes: of everything that is mapped in, and with shared pages divided by their users."""

    rss: float
    pss: float


@dataclass
class Watched:
    """What a daemon was like for a while: milliseconds of answers, the most memory."""

    answers: list[float] = field(default_factory=list)
    peak: Memory = Memory(0, 0)


def _memory(daemon: Daemon) -> Memory:
    assert daemon.process is not None
    process = psutil.Process(daemon.process.pid)
    pss = getattr(process.memory_full_info(), "pss", 0)
    return Memory(process.memory_info().rss / 1e6, pss / 1e6)


@contextmanager
def watching(daemon: Daemon) -> Iterator[Watched]:
    """Asks for the version and looks at the memory, each in a thread, until it is left."""
    watched = Watched()
    over = threading.Event()
    target = Target(("127.0.0.1", daemon.port))
    request = target.request("GET", "/api/version")

    def ask() -> None:
        begin = time.perf_counter()
        exchange(target, request)
        watched.answers.append((time.perf_counter() - begin) * 1e3)

    def look() -> None:
        now = _memory(daemon)
        watched.peak = Memory(max(watched.peak.rss, now.rss), max(watched.peak.pss, now.pss))

    def again(action: Callable[[], None], pause: float) -> None:
        while not over.wait(pause):
            with contextlib.suppress(psutil.Error):
                action()

    threads = [
        threading.Thread(target=again, args=each, daemon=True)
        for each in ((ask, _ASK), (look, _LOOK))
    ]
    for thread in threads:
        thread.start()
    try:
        yield watched
    finally:
        over.set()
        for thread in threads:
            thread.join()
        # What is over sooner than the first look has been seen, too.
        with contextlib.suppress(psutil.Error):
            look()
