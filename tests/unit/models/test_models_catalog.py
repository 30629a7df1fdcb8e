"""What a stored model costs in memory, and models whose files are not all there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from support.gguf_bytes import header
from trio.testing import MockClock

from ollamad.models.catalog import Catalog, known
from ollamad.settings import Settings
from ollamad.store.manifest import MEDIA_ADAPTER, MEDIA_MODEL, Layer, Manifest
from ollamad.store.model import load_model
from ollamad.store.names import Name
from ollamad.store.store import Store

NAME = Name.parse("m")


def _layer(store: Store, media_type: str, content: bytes) -> Layer:
    with store.new_blob() as blob:
        blob.write(content)
        result = blob.commit()
    return Layer(media_type=media_type, digest=result.digest, size=result.size)


def _model(tmp_path: Path, **adapter: Any) -> Any:
    store = Store(tmp_path)
    weights = _layer(store, MEDIA_MODEL, header())
    lora = msgspec.structs.replace(_layer(store, MEDIA_ADAPTER, b"twelve bytes"), **adapter)
    store.write_manifest(NAME, Manifest(layers=(weights, lora)))
    return known(load_model(store, NAME))


def test_adapters_count(tmp_path: Path) -> None:
    assert _model(tmp_path).shape.extra_bytes == 12


def test_a_missing_adapter_is_for_the_runner_to_complain_about(tmp_path: Path) -> None:
    assert _model(tmp_path, digest=f"sha256:{'0' * 64}").shape.extra_bytes == 0


def test_the_shape_needs_no_disk(tmp_path: Path) -> None:
    """It is asked for on the event loop, which a slow disk must not stop."""
    model = _model(tmp_path)
    for path in sorted(tmp_path.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert model.shape.extra_bytes == 12


def test_damaged_weights_are_complained_about_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, name = Store(tmp_path), Name.parse("complained-about-only-here")
    store.write_manifest(name, Manifest(layers=(_layer(store, MEDIA_MODEL, b"damaged"),)))
    for _ in range(3):
        assert known(load_model(store, name)).facts is None
    assert len(caplog.records) == 1


def _catalog(store: Store, *, loaded: bool) -> Catalog:
    return Catalog(store, Settings.from_environ({"HOME": "/home/user"}), lambda _key: loaded)


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_loaded_model_is_read_once_a_second(
    tmp_path: Path, loaded: bool, autojump_clock: MockClock
) -> None:
    store = Store(tmp_path)
    store.write_manifest(NAME, Manifest(layers=(_layer(store, MEDIA_MODEL, header()),)))
    catalog = _catalog(store, loaded=loaded)
    first = await catalog.read(NAME)
    assert first is not None
    store.manifest_path(NAME).unlink()
    assert await catalog.read(NAME) is (first if loaded else None)
    await trio.sleep(1)
    assert await catalog.read(NAME) is None


async def test_our_own_changes_are_seen_at_once(tmp_path: Path) -> None:
    store, other = Store(tmp_path), Name.parse("other")
    store.write_manifest(NAME, Manifest(layers=(_layer(store, MEDIA_MODEL, header()),)))
    catalog = _catalog(store, loaded=True)
    first = await catalog.read(NAME)
    assert first is not None
    store.write_manifest(NAME, Manifest(layers=(_layer(store, MEDIA_MODEL, header(version=2)),)))
    second = await catalog.read(NAME)
    assert second is not None
    assert second.stored.digest != first.stored.digest
    store.copy(NAME, other)
    store.delete(NAME)
    assert await catalog.read(NAME) is None
    assert await catalog.read(other) is not None
