"""Pushes against registries without sockets, and the models that are pushed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple
from urllib.parse import parse_qs, urlsplit

import pytest
import trio

from ollamad.errors import OllamadError
from ollamad.registry.client import Session
from ollamad.registry.push import UploadKey, push_events
from ollamad.registry.sharing import Shared
from ollamad.registry.upload import UploadTiming
from ollamad.store.manifest import MEDIA_CONFIG, NO_CONFIG, Layer, Manifest
from ollamad.store.names import Name
from ollamad.store.store import Store
from ollamad.wire import Progress
from support.scripted_http import Answers, Reply, Script, Seen, signing_key

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

HOST = "r.test"
NAME = Name.parse(f"{HOST}/a/b")
BASE = f"https://{HOST}/v2/a/b"
UPLOADS = f"{BASE}/blobs/uploads/"
#: Parts of 100 bytes.
SMALL = UploadTiming(least_part=100, most_part=100)


def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads take real time, in which a clock that jumps would run on: do their work at once."""

    async def run_sync(
        function: Callable[[*Ts], T],
        *arguments: *Ts,
        abandon_on_cancel: bool = False,
        limiter: trio.CapacityLimiter | None = None,
    ) -> T:
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


def put_blob(store: Store, content: bytes) -> str:
    with store.new_blob() as blob:
        blob.write(content)
        return blob.commit().digest


def layer_of(store: Store, content: bytes, media_type: str = "x/y", **more: Any) -> Layer:
    digest = put_blob(store, content)
    return Layer(
        media_type=media_type, digest=digest, **{"size": len(content), "from_": "", **more}
    )


def make_model(
    store: Store, layers: Sequence[Layer], *, config: bytes | None = b"{}\n", name: Name = NAME
) -> Manifest:
    """Store a model of these layers; its manifest."""
    stored = NO_CONFIG if config is None else layer_of(store, config, MEDIA_CONFIG)
    manifest = Manifest(config=stored, layers=tuple(layers))
    store.write_manifest(name, manifest)
    return manifest


@dataclass
class Pushed:
    """What a push said, and how it ended, after how many seconds."""

    events: list[Progress] = field(default_factory=list)
    error: OllamadError | None = None
    seconds: float = 0.0

    @property
    def statuses(self) -> list[str]:
        """Each status once in a row."""
        seen = [event.status for event in self.events]
        return [status for at, status in enumerate(seen) if not at or status != seen[at - 1]]

    def of(self, digest: str) -> list[tuple[int, int]]:
        """Totals and counts of the lines about this digest."""
        return [(each.total, each.completed) for each in self.events if each.digest == digest]


async def push(
    script: Script,
    store: Store,
    *,
    name: Name = NAME,
    insecure: bool = False,
    timing: UploadTiming = SMALL,
    streams: int = 4,
    uploads: Shared[UploadKey] | None = None,
) -> Pushed:
    """One push to its end."""
    started = trio.current_time()
    result = Pushed()
    async with script.http() as http, trio.open_nursery() as nursery:
        session = Session(
            http,
            name,
            insecure=insecure,
            load_key=signing_key,
            now=lambda: 1700000000.0,
            nonce=lambda: bytes(16),
        )
        events = push_events(
            store,
            session,
            name,
            uploads=uploads or Shared(nursery),
            timing=timing,
            streams=streams,
        )
        try:
            async with aclosing(events):
                async for event in events:
                    result.events.append(event)
        except OllamadError as error:
            result.error = error
    result.seconds = trio.current_time() - started
    return result


class PlainRegistry:
    """Keeps what it is sent, as Docker's does: every PATCH and the commit need the newest session
    URL. ``faults`` are answers to the next PATCHes in place of its own (None: its own)."""

    def __init__(self, script: Script, base: str = BASE) -> None:
        self.script = script
        self.base = base
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.faults: list[Answers | None] = []
        self.sessions: dict[str, bytearray] = {}
        script.on("POST", f"{base}/blobs/uploads/*", self._post)
        script.on("PATCH", f"{base}/blobs/uploads/*", self._patch)
        script.on("PUT", f"{base}/blobs/uploads/*", self._commit)
        script.on("PUT", f"{base}/manifests/*", self._manifest)
        script.on("HEAD", f"{base}/blobs/*", self._head)

    def _head(self, seen: Seen) -> Reply:
        return Reply(200 if seen.url.rsplit("/", 1)[1] in self.blobs else 404)

    def _post(self, seen: Seen) -> Reply:
        name = f"U{len(self.sessions)}"
        self.sessions[name] = bytearray()
        return self._accepted(name)

    def _accepted(self, name: str) -> Reply:
        size = len(self.sessions[name])
        return Reply(202, {"Location": f"{self.base}/blobs/uploads/{name}?_state=L{size}&zz=1"})

    def _session(self, seen: Seen) -> str | None:
        """Its name, if the URL is the newest."""
        name = urlsplit(seen.url).path.rsplit("/", 1)[1]
        state = parse_qs(urlsplit(seen.url).query)["_state"][0]
        current = self.sessions.get(name)
        return name if current is not None and state == f"L{len(current)}" else None

    def _patch(self, seen: Seen) -> Any:
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            return fault(seen) if callable(fault) else fault
        name = self._session(seen)
        if name is None:
            return Reply(404, body=b'{"errors":[{"code":"BLOB_UPLOAD_INVALID"}]}')
        self.sessions[name] += seen.body
        return self._accepted(name)

    def _commit(self, seen: Seen) -> Reply:
        name = self._session(seen)
        if name is None:
            return Reply(404)
        content = bytes(self.sessions.pop(name))
        digest = parse_qs(urlsplit(seen.url).query)["digest"][0]
        if digest != "sha256:" + hashlib.sha256(content).hexdigest():
            return Reply(400, body=b"DIGEST_INVALID")
        self.blobs[digest] = content
        self.sessions[name] = bytearray()
        return Reply(201)

    def _manifest(self, seen: Seen) -> Reply:
        self.manifests[seen.url.rsplit("/", 1)[1]] = seen.body
        return Reply(201)


def new_store(path: Path) -> Store:
    store = Store(path / "models")
    store.ensure_directories()
    return store
