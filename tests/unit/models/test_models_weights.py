"""Several layers of weights: the shards of one model, or the last one counts (2.5)."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from support.creating import gguf

from ollamad.errors import NotFound, OllamadError
from ollamad.gguf.errors import GGUFError
from ollamad.gguf.shards import Shards
from ollamad.inference.services import Services, require
from ollamad.models import weights as module
from ollamad.models.catalog import Catalog, KnownModel
from ollamad.models.listing import listed
from ollamad.models.manage import copy, delete
from ollamad.models.show import show
from ollamad.models.weights import Weights, incomplete_text, read_weights
from ollamad.scheduler.options import Defaults
from ollamad.settings import Settings
from ollamad.store.manifest import (
    MEDIA_DRAFT,
    MEDIA_MODEL,
    MEDIA_PROJECTOR,
    Layer,
    Manifest,
)
from ollamad.store.names import Name
from ollamad.store.store import Store
from ollamad.wire import ShowRequest

NAME = Name.parse("m")


@pytest.fixture(autouse=True)
def _forget_complaints() -> None:
    module._complain.cache_clear()
    module._complain_of_layers.cache_clear()


def shard(number: int, count: int = 3, **fields: Any) -> bytes:
    """The first one has the keys; each has one tensor of 10, 20 … elements."""
    if number == 0:
        fields = {
            "llama__block_count": 2,
            "llama__context_length": 77,
            "general__file_type": 1,
            "tokenizer__chat_template": "{% if tools %}{% endif %}",
            **fields,
        }
    tensors = {f"blk.{number}.w": 10 * (number + 1)}
    return gguf("llama", tensors, split__no=number, split__count=count, **fields)


SHARDS = [shard(number) for number in range(3)]
WHOLE = gguf(tensors={"w": 7}, llama__context_length=5)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    store.ensure_directories()
    return store


def put(store: Store, content: bytes, media_type: str = MEDIA_MODEL) -> Layer:
    with store.new_blob() as blob:
        blob.write(content)
        result = blob.commit()
    return Layer(media_type=media_type, digest=result.digest, size=result.size)


def add(store: Store, *contents: bytes, name: Name = NAME, beside: tuple[Layer, ...] = ()) -> None:
    layers = (*(put(store, content) for content in contents), *beside)
    store.write_manifest(name, Manifest(layers=layers))


def path(store: Store, content: bytes) -> Path:
    return store.blob_path(put(store, content).digest)


def catalog(store: Store) -> Catalog:
    return Catalog(store, Settings.from_environ({"HOME": "/home/user"}))


def read(store: Store) -> KnownModel:
    model = catalog(store).read_sync(NAME)
    assert model is not None
    return model


def test_shards_in_any_order(store: Store) -> None:
    add(store, SHARDS[2], SHARDS[0], SHARDS[1])
    model = read(store)
    assert model.weight_paths == tuple(path(store, content) for content in SHARDS)
    assert model.facts is not None
    assert (model.facts.arch, model.facts.parameter_count) == ("llama", 60)
    assert model.shape.weight_bytes == sum(map(len, SHARDS))
    assert model.traits.train_context == 77
    assert model.capabilities == ("tools", "completion")
    assert listed(model).details.quantization_level == "F16"
    assert listed(model).details.context_length == 77
    assert listed(model).size == sum(map(len, SHARDS))


def test_the_same_blob_twice_is_one_shard(store: Store) -> None:
    add(store, SHARDS[0], SHARDS[0], SHARDS[1], SHARDS[2])
    assert len(read(store).weight_paths) == 3


def test_what_show_tells(store: Store) -> None:
    add(store, SHARDS[1], SHARDS[0], SHARDS[2])
    answer = show(read(store), ShowRequest(model="m"))
    assert answer.model_info == {
        "general.architecture": "llama",
        "general.file_type": 1,
        "general.parameter_count": 60,
        "llama.block_count": 2,
        "llama.context_length": 77,
    }
    assert [(t.name, t.shape) for t in answer.tensors or ()] == [
        ("blk.0.w", [10]),
        ("blk.1.w", [20]),
        ("blk.2.w", [30]),
    ]
    expected = [f"FROM {path(store, content)}" for content in SHARDS]
    lines = answer.modelfile.splitlines()
    assert [line for line in lines if line.startswith("FROM")] == expected


@pytest.mark.parametrize(
    "contents",
    [
        (SHARDS[0], SHARDS[1], SHARDS[2], WHOLE),
        (SHARDS[0], WHOLE),
        (shard(0, 2), SHARDS[1], WHOLE),
        (gguf(), WHOLE),
        (b"damaged", WHOLE),
    ],
)
def test_else_the_last_one_counts(
    store: Store, contents: tuple[bytes, ...], caplog: pytest.LogCaptureFixture
) -> None:
    add(store, *contents)
    for _ in range(2):
        model = read(store)
        assert model.weight_paths == (path(store, WHOLE),)
        assert model.traits.train_context == 5
        assert model.shape.weight_bytes == len(WHOLE)
    told = [r for r in caplog.records if "the last one counts" in r.message]
    assert len(told) == 1


def test_one_layer_is_as_ever(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    add(store, WHOLE)
    assert read(store).weight_paths == (path(store, WHOLE),)
    add(store, gguf(split__no=0, split__count=1))
    assert read(store).incomplete == ""
    add(store)
    assert read(store).weight_paths == ()
    assert not caplog.records


def test_too_many_layers_are_not_even_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SHARDS", 3)
    paths = [tmp_path / str(number) for number in range(4)]
    paths[-1].write_bytes(WHOLE)
    assert read_weights(paths, "m").paths == (paths[-1],)
    monkeypatch.setattr(module, "arrange", None)
    assert read_weights(paths, "m").paths == (paths[-1],)


# --- missing and damaged shards -------------------------------------------------------------------

LACKS = "model 'm:latest' is incomplete: shard 2 of 3 is missing, try `ollama pull m:latest`"


@pytest.mark.parametrize("blob", [True, False])
async def test_a_missing_shard_is_named(store: Store, blob: bool) -> None:
    """Its blob is gone, or the manifest has no such layer."""
    add(store, *(SHARDS if blob else SHARDS[::2]))
    if blob:
        path(store, SHARDS[1]).unlink()
    model = read(store)
    assert model.incomplete == LACKS
    assert model.capabilities == ("tools", "completion")  # the list still tells what it is
    for ask in (
        lambda: require(model, "m", "chat"),
        lambda: show(model, ShowRequest(model="m")),
        lambda: model.shape,
    ):
        with pytest.raises(NotFound) as caught:
            ask()
        assert caught.value.message == LACKS
    with pytest.raises(NotFound) as caught:
        await catalog(store).find_weights("m")
    assert caught.value.message == LACKS


def test_without_the_first_shard_nothing_is_known(store: Store) -> None:
    add(store, *SHARDS)
    path(store, SHARDS[0]).unlink()
    model = read(store)
    assert model.facts is None
    assert "shard 1 of 3 is missing" in model.incomplete


def test_a_lone_shard_among_others_is_told_of_too(store: Store) -> None:
    """Two of the same number: the last one counts, and is not a model by itself."""
    add(store, WHOLE, shard(1, 2))
    assert "shard 1 of 2 is missing" in read(store).incomplete


def test_a_pull_that_brings_the_shard_back_is_seen_at_once(store: Store) -> None:
    add(store, *SHARDS)
    found = catalog(store)
    path(store, SHARDS[1]).unlink()
    incomplete = found.read_sync(NAME)
    put(store, SHARDS[1])
    complete = found.read_sync(NAME)
    assert incomplete is not None
    assert incomplete.incomplete
    assert complete is not None
    assert not complete.incomplete


def test_all_shards_gone(store: Store) -> None:
    add(store, *SHARDS)
    for content in SHARDS:
        path(store, content).unlink()
    model = read(store)
    assert (model.facts, model.damage, model.incomplete) == (None, "", "")


def test_a_damaged_shard(store: Store) -> None:
    damaged = SHARDS[1][:-1]
    add(store, SHARDS[0], damaged, SHARDS[2])
    model = read(store)
    assert model.facts is None
    assert model.damage.startswith("a shard of the model is damaged: ")
    assert "exceeds file size" in model.damage
    with pytest.raises(GGUFError, match="is damaged"):
        require(model, "m", "chat")


@pytest.mark.parametrize(
    ("count", "missing", "text"),
    [
        (2, (0,), "shard 1 of 2 is missing"),
        (3, (0, 2), "shards 1 and 3 of 3 are missing"),
        (5, (1, 2, 4), "shards 2, 3 and 5 of 5 are missing"),
        (99, tuple(range(20)), "shards 1, 2, 3, 4, 5, 6, 7, 8 and 12 more of 99 are missing"),
    ],
)
def test_texts(count: int, missing: tuple[int, ...], text: str) -> None:
    assert incomplete_text("a:b", Shards((), count, missing)) == (
        f"model 'a:b' is incomplete: {text}, try `ollama pull a:b`"
    )


def test_a_file_that_vanishes_meanwhile(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [path(store, content) for content in SHARDS]

    def gone(_paths: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(module, "cached_shards", gone)
    assert read_weights(paths, "m") == Weights(tuple(paths), None)


def test_headers_are_read_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add(store, *SHARDS)
    first = read(store)
    monkeypatch.setattr("ollamad.gguf.facts.open_gguf", None)
    monkeypatch.setattr("ollamad.gguf.shards.open_gguf", None)
    assert read(store).facts is first.facts


# --- the rest of the daemon -----------------------------------------------------------------------


def prepared(store: Store) -> Any:
    services: Any = SimpleNamespace(
        defaults=Defaults(context_length=0, tier=4096), machine=SimpleNamespace(is_known=True)
    )

    async def prepare() -> Any:
        spec, _ = await Services.prepare(services, read(store), None)
        return spec

    return trio.run(prepare)


def test_what_the_scheduler_is_asked_for(store: Store) -> None:
    eye, draft = gguf("clip", {"v.w": 64}), gguf(tensors={"d": 9})
    beside = (put(store, eye, MEDIA_PROJECTOR), put(store, draft, MEDIA_DRAFT))
    add(store, SHARDS[1], SHARDS[0], SHARDS[2], beside=beside)
    spec = prepared(store)
    paths = tuple(path(store, content) for content in SHARDS)
    assert (spec.model_path, spec.shards) == (paths[0], paths)
    assert spec.key == "\n".join(map(str, paths))
    assert spec.projectors == (path(store, eye),)
    assert spec.draft == path(store, draft)
    assert spec.shape.weight_bytes == sum(map(len, SHARDS))
    assert spec.shape.extra_bytes == len(eye) + len(draft)


def test_a_model_in_one_file_has_no_shards(store: Store) -> None:
    add(store, WHOLE)
    spec = prepared(store)
    assert (spec.model_path, spec.shards) == (path(store, WHOLE), ())
    assert spec.key == str(path(store, WHOLE))


def test_copy_and_delete(store: Store) -> None:
    add(store, *SHARDS)
    key = read(store).key
    copy(store, "m", "n")
    assert delete(store, "m") is None
    assert all(store.has_blob(layer.digest) for layer in _layers(store, "n"))
    digests = [layer.digest for layer in _layers(store, "n")]
    assert delete(store, "n") == key
    assert not any(store.has_blob(digest) for digest in digests)


def test_a_model_that_shares_shards_keeps_them(store: Store) -> None:
    """Of two models with the same first shard one goes: what was loaded of it goes, too."""
    other = shard(2, general__name="other")
    add(store, *SHARDS)
    key = read(store).key
    add(store, SHARDS[0], SHARDS[1], other, name=Name.parse("n"))
    assert delete(store, "m") == key
    assert [store.has_blob(layer.digest) for layer in _layers(store, "n")] == [True] * 3


def test_start_up_pruning_keeps_all_shards(store: Store) -> None:
    add(store, *SHARDS)
    lost = path(store, WHOLE)
    store.startup_maintenance(4 * 10**18)
    assert not lost.exists()
    assert read(store).incomplete == ""


def _layers(store: Store, name: str) -> tuple[Layer, ...]:
    return store.read_manifest(Name.parse(name)).manifest.layers


async def test_create_from_it_keeps_the_shards(store: Store) -> None:
    from support.creating import Creator

    add(store, SHARDS[2], SHARDS[0], SHARDS[1])
    creator = Creator(store)
    assert (await creator.statuses(**{"from": "m"}, model="n", system="x"))[-1] == "success"
    before, after = _layers(store, "m"), _layers(store, "n")
    assert [layer.digest for layer in after[:3]] == [layer.digest for layer in before]
    assert {layer.from_ for layer in after[:3]} == {"m:latest"}
    config = creator.config("n")
    assert b'"model_family":"llama","model_families":["llama"]' in config
    assert b'"model_type":"60","file_type":"F16"' in config
    # The same quantization is nothing to do, another one has to wait for its time.
    await creator.events(**{"from": "m"}, model="n", quantize="F16")
    status, text = await creator.failure(**{"from": "m"}, model="n", quantize="Q8_0")
    assert (status, text) == (500, "quantizing to Q8_0 is not available yet")


async def test_create_from_an_incomplete_one(store: Store) -> None:
    from support.creating import Creator

    add(store, *SHARDS[::2])
    assert await Creator(store).failure(**{"from": "m"}, model="n") == (500, LACKS)


async def test_create_from_several_layers_that_are_no_shards(store: Store) -> None:
    from support.creating import Creator

    add(store, gguf("qwen2"), WHOLE)
    creator = Creator(store)
    await creator.events(**{"from": "m"}, model="n")
    assert b'"model_families":["qwen2","llama"]' in creator.config("n")


def test_errors_are_those_of_clients(store: Store) -> None:
    """A program that gets a 404 knows that a pull can help."""
    add(store, SHARDS[0])
    with pytest.raises(OllamadError) as caught:
        require(read(store), "m", "generate")
    assert caught.value.status == 404


def test_complaints_name_the_model(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    add(store, *SHARDS)
    path(store, SHARDS[1]).unlink()
    read(store)
    assert [getattr(record, "model", None) for record in caplog.records] == ["m:latest"]
