"""A process killed at any system call of a pull: every blob and every model is whole or not there,
and the next pull goes on.

As in `test_store_crash`: the n-th child dies just before its n-th call that changes the disk.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from functools import partial
from pathlib import Path

import trio
from fetching import World, content, digest_of, jumping_clock, layer, served, world_in
from support.dying import dies
from support.scripted_http import Wait

from ollamad.store.digests import is_digest
from ollamad.store.manifest import Layer, Manifest
from ollamad.store.names import Name
from ollamad.store.store import Store
from ollamad.wire import Progress

NAME = Name.parse("r.test/ns/m")
WEIGHTS, OLD, CONFIG = content(250), content(99, seed=2), b'{"model_format":"gguf"}'
HOUR_NS = 3600 * 10**9


def pull(root: Path) -> list[str]:
    """The statuses of a pull of ``NAME``."""

    async def run() -> list[str]:
        async with world_in(root) as world:
            serve(world)
            return [event.status async for event in world.events() if isinstance(event, Progress)]

    return trio.run(run, clock=jumping_clock())


def serve(world: World) -> bytes:
    # While it waits, the daemon notes what is there.
    world.blob(WEIGHTS, served(WEIGHTS, lambda piece: [piece[:90], Wait(1.5), piece[90:]]))
    world.blob(CONFIG)
    return world.manifest(layer(WEIGHTS), config=layer(CONFIG))


def old_model(root: Path) -> None:
    """What is pulled replaces a model that has one blob of its own."""
    store = Store(root / "models")
    with store.new_blob() as blob:
        blob.write(OLD)
        blob.commit()
    store.write_manifest(
        NAME, Manifest(layers=(Layer(media_type="", digest=digest_of(OLD), size=len(OLD)),))
    )


def check_whole(store: Store) -> str:
    """The digest of the model's first layer; all that can be seen is whole."""
    for path in (store.root / "blobs").iterdir():
        if is_digest(path.name):
            assert path.name == "sha256-" + hashlib.sha256(path.read_bytes()).hexdigest()
    ((name, stored),) = store.manifests()
    assert name == NAME
    assert all(map(store.has_blob, stored.manifest.references())), "a model lacks a blob"
    for path in (store.root / "manifests").rglob("*"):
        below = path.relative_to(store.root / "manifests")
        if path.is_file() and len(below.parts) == 4:
            json.loads(path.read_bytes())  # half a manifest would stop all pruning
    return stored.manifest.layers[0].digest


def test_killed_at_any_call_of_a_pull(tmp_path: Path) -> None:
    seen = set()
    for deadly in itertools.count(1):
        root = tmp_path / str(deadly)
        old_model(root)
        died = dies(partial(pull, root), deadly)
        store = Store(root / "models")
        seen.add(check_whole(store))
        assert pull(root)[-1] == "success"
        assert check_whole(store) == digest_of(WEIGHTS)
        unfinished = [p.name for p in (store.root / "blobs").iterdir() if "partial" in p.name]
        assert unfinished == []
        store.startup_maintenance(time.time_ns() + 2 * HOUR_NS)
        left = sorted(p.relative_to(store.root) for p in store.root.rglob("*") if p.is_file())
        assert [str(path) for path in left if path.name != ".ollamad.lock"] == sorted(
            [
                *(f"blobs/{digest_of(data)}".replace(":", "-") for data in (WEIGHTS, CONFIG)),
                f"manifests/{NAME.relative_path}",
            ]
        )
        if not died:
            break
    assert deadly > 40, "hardly anything was interrupted"
    assert seen == {digest_of(OLD), digest_of(WEIGHTS)}
