"""Pulls and pushes of real daemons, and what is in their stores afterwards."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.daemon import Daemon
from support.models import smollm2
from support.registry import CONFIG, MANIFEST, MODEL, DockerRegistry, digest_of

#: A short answer of SmolLM2 that is always the same.
QUESTION = {
    "prompt": "Why is the sky blue?",
    "stream": False,
    "options": {"temperature": 0, "seed": 1, "num_predict": 12, "num_ctx": 512},
}
_BLOB_NAME = re.compile(r"sha256-[0-9a-f]{64}")


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def put_smollm2(registry: DockerRegistry, repository: str) -> bytes:
    """SmolLM2 as the model ``repository``, put there by no daemon; the manifest."""
    weights = smollm2()
    digest = file_digest(weights)
    if not registry.blob_file(digest).exists():
        copy = registry.root / "smollm2"
        copy.write_bytes(weights.read_bytes())
        registry.place_blob(repository, copy, digest)
    else:
        registry.place_blob(repository, registry.blob_file(digest), digest)
    config = b'{"model_format":"gguf","model_family":"llama","architecture":"amd64","os":"linux"}\n'
    registry.put_blob(repository, config)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": [{"mediaType": MODEL, "digest": digest, "size": weights.stat().st_size}],
    }
    # Not in the form in which a daemon would write it: what is stored has to be these bytes.
    raw = json.dumps(manifest, indent=1).encode()
    registry.put_manifest(repository, raw)
    return raw


def transfer(daemon: Daemon, way: str, name: str) -> list[dict[str, Any]]:
    """All events of a ``pull`` or a ``push``."""
    return list(daemon.stream(f"/api/{way}", {"model": name, "insecure": True}))


def succeed(daemon: Daemon, way: str, name: str) -> list[dict[str, Any]]:
    """The same, for one that has to succeed."""
    events = transfer(daemon, way, name)
    assert events[-1] == {"status": "success"}, f"{events[-1]}\n{daemon.log}"
    return events


def failure(daemon: Daemon, way: str, name: str) -> str:
    """The error in which it ends."""
    events = transfer(daemon, way, name)
    assert set(events[-1]) == {"error"}, events[-1]
    return str(events[-1]["error"])


def manifest_file(daemon: Daemon, host: str, repository: str, tag: str = "latest") -> Path:
    return daemon.models / "manifests" / host / repository / tag


def blob_files(models: Path) -> list[Path]:
    """Every file in ``blobs``: whole blobs and what is still arriving."""
    folder = models / "blobs"
    return sorted(folder.iterdir()) if folder.exists() else []


def blobs(models: Path) -> dict[str, str]:
    """The files in ``blobs``, each with the name that its content should have."""
    return {path.name: file_digest(path).replace(":", "-") for path in blob_files(models)}


def check_blobs(models: Path) -> None:
    """No file with the name of a digest may have other content."""
    for path in blob_files(models):
        if _BLOB_NAME.fullmatch(path.name):
            assert file_digest(path) == path.name.replace("-", ":"), f"wrong bytes in {path}"


def remove(daemon: Daemon, *names: str) -> None:
    for name in names:
        assert daemon.request("DELETE", "/api/delete", {"model": name})[0] == 200


class BlobWatch:
    """Looks, again and again, for a blob that has its name but not its content.

    Blobs that were found right are not read again unless they changed. ``wrong`` holds what was
    found, ``looks`` tells how often it looked.
    """

    def __init__(self, models: Path) -> None:
        self.models = models
        self.wrong: list[str] = []
        self.looks = 0
        self._right: dict[str, tuple[int, int, int]] = {}

    def look(self) -> None:
        self.looks += 1
        for path in blob_files(self.models):
            if not _BLOB_NAME.fullmatch(path.name):
                continue
            try:
                stat = path.stat()
                state = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
                if self._right.get(path.name) == state:
                    continue
                content = file_digest(path)
            except FileNotFoundError:
                continue  # removed meanwhile
            if content == path.name.replace("-", ":"):
                self._right[path.name] = state
            else:
                self.wrong.append(f"{path.name} has {content}")

    @contextmanager
    def watching(self, pause: float = 0.002) -> Iterator[BlobWatch]:
        """It looks in a thread; nothing may be wrong in the end."""
        over = threading.Event()

        def run() -> None:
            while not over.wait(pause):
                self.look()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            over.set()
            thread.join()
        self.look()
        assert self.wrong == []


def together(*actions: Callable[[], Any]) -> list[Any]:
    """Runs all at once, each in a thread; their results, or the first error."""
    with ThreadPoolExecutor(len(actions)) as threads:
        futures = [threads.submit(action) for action in actions]
        return [future.result(120) for future in futures]
