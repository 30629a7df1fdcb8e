"""Blobs of scripted registries and the store that they arrive in."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
import trio.testing
from support.scripted_http import Reply, Script, Seen, Step, signing_key

from ollamad.registry.client import Session
from ollamad.registry.download import Timing
from ollamad.registry.fetch import Wanted, fetch_blob
from ollamad.registry.http import Http
from ollamad.registry.pull import pull_events
from ollamad.registry.sharing import Shared, Transfer
from ollamad.store.name_locks import NameLocks
from ollamad.store.names import Name
from ollamad.store.store import Store
from ollamad.wire import Progress

REGISTRY = "https://r.test"
BASE = f"{REGISTRY}/v2/ns/m"


def jumping_clock() -> trio.testing.MockClock:
    """Jumps over waits, but not while a thread is busy: how long a disk takes changes nothing."""
    clock = trio.testing.MockClock(autojump_threshold=0.0005)
    jump = clock._autojump

    def autojump() -> None:
        if not trio.to_thread.current_default_thread_limiter().borrowed_tokens:
            jump()

    clock._autojump = autojump  # type: ignore[method-assign]
    return clock


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def served(data: bytes, steps: Callable[[bytes], Sequence[Step]] | None = None) -> Any:
    """An answer to a ranged request for ``data``; ``steps`` say how the piece comes."""

    def answer(seen: Seen) -> Reply:
        if "range" not in seen.headers:
            return Reply(200, {"Content-Length": str(len(data))}, [data])
        first, last = map(int, seen.headers["range"].removeprefix("bytes=").split("-"))
        piece = data[first : last + 1]
        headers = {
            "Content-Length": str(len(piece)),
            "Content-Range": f"bytes {first}-{last}/{len(data)}",
        }
        return Reply(206, headers, steps(piece) if steps else [piece])

    return answer


class World:
    """A script, a store, and pulls between them."""

    def __init__(self, root: Path, nursery: trio.Nursery, timing: Timing | None = None) -> None:
        self.script = Script()
        self.store = Store(root / "models")
        self.timing = timing or Timing()
        self.downloads: Shared[str] = Shared(nursery)
        self.locks = NameLocks()
        self.http: Http = self.script.http()

    # --- what the registry has --------------------------------------------------------------------

    def blob(self, data: bytes, *answers: Any, digest: str = "", size: int | None = None) -> str:
        """Serve ``data``; ``answers`` come first to ranged requests, one after another."""
        digest = digest or digest_of(data)
        url = f"{BASE}/blobs/{digest}"
        length = str(len(data) if size is None else size)
        self.script.on("HEAD", url, Reply(200, {"Content-Length": length}))
        left = list(answers)

        def answer(seen: Seen) -> Any:
            if "range" in seen.headers and left:
                reply = left.pop(0)
                return reply(seen) if callable(reply) else reply
            return served(data)(seen)

        self.script.on("GET", url, answer)
        return digest

    def manifest(self, *layers: Any, config: Any = None, name: str = "m", **fields: Any) -> bytes:
        value = {"schemaVersion": 2, "layers": list(layers), **fields}
        if config is not None:
            value["config"] = config
        raw = json.dumps(value).encode()
        url = f"{REGISTRY}/v2/ns/{name}/manifests/latest"
        self.script.on("GET", url, Reply(body=raw))
        return raw

    def model(self, *contents: bytes) -> bytes:
        """A manifest whose layers are these, all of them served."""
        return self.manifest(*(layer(data) for data in contents if self.blob(data)))

    # --- what is asked for ------------------------------------------------------------------------

    def session(self, name: str = "r.test/ns/m", *, insecure: bool = False) -> Session:
        return Session(self.http, Name.parse(name), insecure=insecure, load_key=signing_key)

    async def fetch(self, digest: str, size: int = 0) -> Transfer:
        transfer = Transfer()
        wanted = Wanted(digest, size)
        await fetch_blob(self.session(), self.store, wanted, transfer, timing=self.timing)
        return transfer

    def events(self, name: str = "r.test/ns/m", *, insecure: bool = False) -> Any:
        return pull_events(
            self.store,
            self.session(name, insecure=insecure),
            downloads=self.downloads,
            locks=self.locks,
            timing=self.timing,
        )

    async def pull(
        self, name: str = "r.test/ns/m", into: list[Progress] | None = None
    ) -> list[Any]:
        """All events, those that repeat themselves while bytes arrive left out."""
        seen: list[Progress] = [] if into is None else into
        async for event in self.events(name):
            if event.total and event.completed < event.total:
                continue
            seen.append(event)
        return seen

    # --- what became of it ------------------------------------------------------------------------

    def ranges(self, part: str = "") -> list[tuple[float, str]]:
        """When which range was asked for."""
        return [
            (round(seen.at, 1), seen.headers["range"].removeprefix("bytes="))
            for seen in self.script.asked("GET", part)
            if "range" in seen.headers
        ]

    def stored(self, digest: str) -> bytes:
        return self.store.blob_path(digest).read_bytes()

    def files(self) -> list[str]:
        directory = self.store.root / "blobs"
        return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def layer(data: bytes, media_type: str = "application/vnd.ollama.image.model") -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


@asynccontextmanager
async def world_in(root: Path, timing: Timing | None = None) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        world = World(root, nursery, timing)
        async with world.http:
            yield world
        nursery.cancel_scope.cancel()
