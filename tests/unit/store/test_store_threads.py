"""Concurrent create, copy, delete and upload do no damage."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from store_samples import CONFIG, WEIGHTS, add_model, blob_files, put

from ollamad.store.config import parse_config
from ollamad.store.manifest import (
    MEDIA_CONFIG,
    MEDIA_MODEL,
    MEDIA_SYSTEM,
    MEDIA_TEMPLATE,
    Layer,
    Manifest,
)
from ollamad.store.model import Models
from ollamad.store.names import Name
from ollamad.store.store import Store

NAMES = [Name.parse(text) for text in ("a", "b", "c/d", "h/e/f:g")]


def create(store: Store, name: Name, template: str) -> None:
    """As a create does it: protect, store the blobs, write, remove what was replaced."""
    with store.in_use() as used:

        def layer(media_type: str, content: bytes) -> Layer:
            with store.new_blob(used) as blob:
                blob.write(content)
                result = blob.commit()
            return Layer(media_type=media_type, digest=result.digest, size=result.size)

        layers = (
            layer(MEDIA_MODEL, WEIGHTS),
            layer(MEDIA_TEMPLATE, template.encode()),
            layer(MEDIA_SYSTEM, b"shared"),
        )
        manifest = Manifest(config=layer(MEDIA_CONFIG, CONFIG), layers=layers)
        assert all(store.has_blob(digest) for digest in manifest.references())
        try:
            old = store.read_manifest(name)
        except FileNotFoundError:
            old = None
        store.write_manifest(name, manifest)
        if old is not None:
            store.remove_superseded(old)


def together(*operations: Callable[[], None]) -> None:
    with ThreadPoolExecutor(len(operations)) as pool:
        for done in [pool.submit(operation) for operation in operations]:
            done.result()


def test_a_storm_of_operations(store: Store) -> None:
    """After any mixture every model has its blobs, and no blob is left that none needs."""

    def operate(seed: int) -> None:
        dice = random.Random(seed)
        models = Models(store)
        for _ in range(40):
            name = dice.choice(NAMES)
            match dice.randrange(5):
                case 0 | 1:
                    create(store, name, dice.choice("ABC"))
                case 2:
                    try:
                        store.delete(name)
                    except FileNotFoundError:
                        pass
                case 3:
                    try:
                        store.copy(name, dice.choice(NAMES))
                    except FileNotFoundError:
                        pass
                case _:
                    for model in models.all():
                        assert model.config == parse_config(CONFIG)

    together(*(lambda seed=seed: operate(seed) for seed in range(6)))
    referenced = set()
    for _, stored in store.manifests():
        for digest in stored.manifest.references():
            assert store.has_blob(digest)
            referenced.add(store.blob_path(digest).name)
    # A copy over a model leaves the old one's blobs to the next start, as the reference does.
    store.startup_maintenance(4 * 10**18)
    assert set(blob_files(store)) == referenced
    for name, _ in store.manifests():
        store.delete(name)
    assert blob_files(store) == []
    assert not (store.root / "manifests").exists()


def test_the_same_content_at_once_is_stored_once(store: Store) -> None:
    start = threading.Barrier(8)

    def upload() -> None:
        with store.new_blob() as blob:
            blob.write(WEIGHTS)
            start.wait()
            blob.commit()

    together(*[upload] * 8)
    assert len(blob_files(store)) == 1
    digest = put(store, MEDIA_MODEL, WEIGHTS).digest
    assert store.blob_path(digest).read_bytes() == WEIGHTS


def test_a_removal_in_progress_is_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who begins to count on a blob never sees it vanish afterwards."""
    digest = put(store, MEDIA_MODEL, WEIGHTS).digest
    removing, go_on = threading.Event(), threading.Event()
    unlink = Path.unlink

    def slow_unlink(path: Path, missing_ok: bool = False) -> None:
        if path == store.blob_path(digest):
            removing.set()
            assert go_on.wait(10)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", slow_unlink)
    order: list[str] = []

    def remove() -> None:
        store.remove_unreferenced([digest])
        order.append("removed")

    def use() -> None:
        assert removing.wait(10)
        with store.in_use([digest]):
            order.append("used")
            assert not store.has_blob(digest)
            assert put(store, MEDIA_MODEL, WEIGHTS).digest == digest

    remover, user = threading.Thread(target=remove), threading.Thread(target=use)
    remover.start()
    user.start()
    assert removing.wait(10)
    with store.in_use(["sha256:" + "1" * 64]):
        pass  # other blobs are not waited for
    assert order == []
    go_on.set()
    remover.join(10)
    user.join(10)
    assert sorted(order) == ["removed", "used"]
    assert store.has_blob(digest)


def test_a_copy_of_what_is_being_deleted_is_whole_or_absent(store: Store) -> None:
    for _ in range(20):
        source = add_model(store, "source", template="T")

        def copy(source: Name = source) -> None:
            try:
                store.copy(source, Name.parse("target"))
            except FileNotFoundError:
                pass

        together(copy, lambda source=source: store.delete(source))
        for name, stored in store.manifests():
            assert name.short == "target:latest"
            assert all(store.has_blob(digest) for digest in stored.manifest.references())
            store.delete(name)
        assert blob_files(store) == []
