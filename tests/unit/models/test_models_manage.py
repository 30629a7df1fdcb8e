"""http-api.md 13.1, 13.2 and cases 136 to 143: copy and delete."""

from __future__ import annotations

from pathlib import Path

import pytest

from ollamad.errors import BadRequest, NotFound
from ollamad.models.manage import copy, delete
from ollamad.store.manifest import MEDIA_MODEL, Layer, Manifest
from ollamad.store.names import Name
from ollamad.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    store.ensure_directories()
    return store


def add(store: Store, name: str, content: bytes = b"weights") -> Path:
    with store.in_use() as used, store.new_blob(used) as blob:
        blob.write(content)
        result = blob.commit()
        layer = Layer(media_type=MEDIA_MODEL, digest=result.digest, size=result.size)
        config = Layer(media_type="", digest="", size=0)
        manifest = Manifest(schema_version=2, media_type="", config=config, layers=(layer,))
        store.write_manifest(Name.parse(name), manifest)
        return store.blob_path(result.digest)


def names(store: Store) -> list[str]:
    return [name.short for name, _ in store.manifests()]


def test_copy(store: Store) -> None:
    add(store, "hamshank")
    copy(store, "hamshank", "beefsteak")
    assert names(store) == ["beefsteak:latest", "hamshank:latest"]


@pytest.mark.parametrize(
    ("source", "destination", "text"),
    [
        ("bad name!", "also bad!", 'source "bad name!" is invalid'),
        ("a", "bad name!", 'destination "bad name!" is invalid'),
        ("", "", 'source "" is invalid'),
    ],
)
def test_copy_of_invalid_names(store: Store, source: str, destination: str, text: str) -> None:
    with pytest.raises(BadRequest) as error:
        copy(store, source, destination)
    assert error.value.message == text


def test_copy_of_a_missing_model_creates_nothing(store: Store) -> None:
    with pytest.raises(NotFound, match=r'^model "x" not found$'):
        copy(store, "x", "y")
    with pytest.raises(NotFound, match=r'^model "test:local" not found$'):
        copy(store, "test:local", "y")
    assert names(store) == []


def test_copy_onto_itself_in_another_case(store: Store) -> None:
    add(store, "Foo")
    copy(store, "foo", "FOO")
    copy(store, "missing", "missing")
    assert names(store) == ["Foo:latest"]


def test_delete_tells_when_the_weights_are_gone(store: Store) -> None:
    weights = add(store, "a")
    add(store, "b")
    assert delete(store, "a") is None
    assert weights.exists()
    assert delete(store, "B") == str(weights)
    assert not weights.exists()


def test_delete_twice(store: Store) -> None:
    add(store, "x")
    delete(store, "x")
    with pytest.raises(NotFound, match=r"^model 'x' not found$"):
        delete(store, "x")


def test_delete_reads_cloud_suffixes(store: Store) -> None:
    add(store, "gpt-oss:20b-cloud")
    delete(store, "gpt-oss:20b:cloud")
    assert names(store) == []
    with pytest.raises(NotFound, match=r"^model 'qwen3:cloud' not found$"):
        delete(store, "qwen3:cloud")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "model is required"),
        ("é", 'name "é" is invalid'),
        ('q"\\é', r'name "q\"\\é" is invalid'),
    ],
)
def test_delete_of_no_name(store: Store, name: str, text: str) -> None:
    with pytest.raises(BadRequest) as error:
        delete(store, name)
    assert error.value.message == text
