"""Models as read from the store (registry-and-store 2.4, 2.5)."""

from __future__ import annotations

import logging

import pytest
from store_samples import CONFIG, WEIGHTS, add_model, put, write_raw_manifest

from ollamad.errors import BadRequest
from ollamad.store import manifest_files, model
from ollamad.store.config import EMPTY_CONFIG
from ollamad.store.errors import ManifestError
from ollamad.store.manifest import (
    MEDIA_ADAPTER,
    MEDIA_CONFIG,
    MEDIA_DRAFT,
    MEDIA_EMBED,
    MEDIA_LICENSE,
    MEDIA_MESSAGES,
    MEDIA_MODEL,
    MEDIA_PARAMS,
    MEDIA_PROJECTOR,
    MEDIA_PROMPT,
    MEDIA_SYSTEM,
    MEDIA_TEMPLATE,
    Layer,
    Manifest,
)
from ollamad.store.model import Models, load_model, parse_messages, parse_params
from ollamad.store.names import Name
from ollamad.store.store import Store
from ollamad.wire import Message, ToolCall, ToolCallFunction

NAME = Name.parse("acme/tiny")


def absent(media_type: str, digit: str) -> Layer:
    return Layer(media_type=media_type, digest="sha256:" + digit * 64, size=1)


def test_every_kind_of_layer(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    messages = b'[{"role":"USER","content":"hi"},{"role":"assistant"}]\n'
    manifest = Manifest(
        config=put(store, MEDIA_CONFIG, CONFIG),
        layers=(
            absent(MEDIA_MODEL, "0"),
            put(store, MEDIA_MODEL, WEIGHTS, from_="base:latest"),
            absent(MEDIA_ADAPTER, "1"),
            absent(MEDIA_ADAPTER, "2"),
            absent(MEDIA_PROJECTOR, "3"),
            absent(MEDIA_PROJECTOR, "4"),
            absent(MEDIA_DRAFT, "5"),
            absent(MEDIA_DRAFT, "6"),
            put(store, MEDIA_TEMPLATE, b"old"),
            put(store, MEDIA_PROMPT, "néw\n".encode()),
            put(store, MEDIA_SYSTEM, b"first"),
            put(store, MEDIA_SYSTEM, b"be \xff nice"),
            put(store, MEDIA_PARAMS, b'{"stop":["a"],"top_k":1,"seed":null}\n'),
            put(store, MEDIA_PARAMS, b'{"stop":["b"],"temperature":0.5}\n'),
            put(store, MEDIA_MESSAGES, b'[{"role":"user","content":"gone"}]\n'),
            put(store, MEDIA_MESSAGES, messages),
            put(store, MEDIA_LICENSE, b"MIT"),
            put(store, MEDIA_LICENSE, b"Apache-2.0"),
            absent(MEDIA_EMBED, "7"),
            absent("application/vnd.example.unknown", "8"),
        ),
    )
    stored = store.write_manifest(NAME, manifest)
    found = load_model(store, NAME)
    assert found.name == NAME
    assert found.short_name == "acme/tiny:latest"
    assert (found.digest, found.size) == (stored.digest, stored.size)
    assert found.modified_at_ns == stored.modified_at_ns
    assert found.config.model_family == "test"
    assert found.model_path == store.blob_path(manifest.layers[1].digest)
    assert found.model_digest == manifest.layers[1].digest
    assert found.parent == "base:latest"
    assert found.adapter_paths == tuple(store.blob_path("sha256:" + d * 64) for d in "12")
    assert found.projector_paths == tuple(store.blob_path("sha256:" + d * 64) for d in "34")
    assert found.draft_path == store.blob_path("sha256:" + "6" * 64)
    assert found.template == "néw\n"
    assert found.system == "be \ufffd nice"
    assert found.params == {"stop": ["b"], "top_k": 1, "seed": None, "temperature": 0.5}
    assert found.messages == (
        Message(role="user", content="hi"),
        Message(role="assistant", content=""),
    )
    assert found.licenses == ("MIT", "Apache-2.0")
    assert "no longer supported" in caplog.text


def test_a_model_of_nothing(store: Store) -> None:
    write_raw_manifest(store, NAME.relative_path, b"{}")
    found = load_model(store, NAME)
    assert found.config is EMPTY_CONFIG
    assert found.model_path is None
    assert found.draft_path is None
    assert found.template is None
    assert (found.system, found.params, found.messages, found.licenses) == ("", {}, (), ())


def test_missing_weights_are_tolerated_and_missing_texts_are_not(store: Store) -> None:
    name = add_model(store, "m", template="{{ .Prompt }}")
    layers = store.read_manifest(name).manifest.layers
    store.blob_path(layers[0].digest).unlink()
    assert load_model(store, name).model_path == store.blob_path(layers[0].digest)
    store.blob_path(layers[1].digest).unlink()
    with pytest.raises(FileNotFoundError):
        load_model(store, name)
    with pytest.raises(FileNotFoundError):
        load_model(store, Name.parse("absent"))
    with pytest.raises(BadRequest):
        load_model(store, Name.parse("a/b/c/d"))


@pytest.mark.parametrize("media_type", [MEDIA_MODEL, MEDIA_SYSTEM, MEDIA_PROJECTOR])
def test_digests_that_are_none(store: Store, media_type: str) -> None:
    layer = Layer(media_type=media_type, digest="sha256:../../../etc/passwd", size=1)
    store.write_manifest(NAME, Manifest(layers=(layer,)))
    with pytest.raises(ManifestError, match=r"^invalid digest format$") as caught:
        load_model(store, NAME)
    assert caught.value.status == 500


def test_texts_have_a_limit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    name = add_model(store, "m", system="x" * 200)
    monkeypatch.setattr(model, "MAX_TEXT_BYTES", 200)
    assert load_model(store, name).system == "x" * 200
    monkeypatch.setattr(model, "MAX_TEXT_BYTES", 199)
    with pytest.raises(ManifestError, match="layer larger than 199 bytes"):
        load_model(store, name)


def test_params() -> None:
    assert parse_params(b"null") == {}
    assert parse_params(b'{"top_k":40,"stop":["a"],"x":1.5}') == {
        "top_k": 40,
        "stop": ["a"],
        "x": 1.5,
    }
    for raw in (b"[]", b"1", b"{bad"):
        with pytest.raises(ManifestError):
            parse_params(raw)


def test_messages() -> None:
    raw = (
        b'[{"role":"user","content":null,"images":["aGk="]},'
        b'{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":{"b":1,"a":2}}}]}]'
    )
    call = ToolCall(function=ToolCallFunction(index=0, name="f", arguments={"b": 1, "a": 2}))
    assert parse_messages(raw) == (
        Message(role="user", content="", images=[b"hi"]),
        Message(role="assistant", content="", tool_calls=[call]),
    )
    assert parse_messages(b"null") == ()
    for broken in (b"{}", b"[1]", b'[{"role":1}]', b'[{"images":["%"]}]', b'[{"tool_calls":[1]}]'):
        with pytest.raises(ManifestError):
            parse_messages(broken)


def test_models_are_read_once_while_they_stay_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_files, "_SETTLED_NS", -(10**18))
    models = Models(store)
    name = add_model(store, "m", system="one")
    first = models.load(name)
    assert models.load(name) is first
    assert models.all() == [first]
    add_model(store, "m", system="two")
    assert models.load(name).system == "two"
    assert [found.system for found in models.all()] == ["two"]
    store.delete(name)
    assert models.all() == []
    with pytest.raises(FileNotFoundError):
        models.load(name)


def test_models_that_cannot_be_read_are_left_out(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    add_model(store, "good")
    missing = Manifest(config=absent(MEDIA_CONFIG, "9"))
    store.write_manifest(Name.parse("missing"), missing)
    broken = Manifest(config=put(store, MEDIA_CONFIG, b"{bad"))
    store.write_manifest(Name.parse("broken"), broken)
    no_weights = Manifest(layers=(absent(MEDIA_MODEL, "9"),))
    store.write_manifest(Name.parse("weightless"), no_weights)
    models = Models(store)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):  # the log is told once
            found = models.all()
            assert [each.short_name for each in found] == ["good:latest", "weightless:latest"]
    assert len([record for record in caplog.records if "bad model" in record.message]) == 2
