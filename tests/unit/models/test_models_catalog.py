"""What a stored model costs in memory, and models whose files are not all there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from support.gguf_bytes import ARCH, STRING, header
from trio.testing import MockClock

from ollamad.models.catalog import Catalog, known
from ollamad.models.show import show
from ollamad.settings import Settings
from ollamad.store.config import EMPTY_CONFIG, encode_config
from ollamad.store.manifest import (
    MEDIA_ADAPTER,
    MEDIA_CONFIG,
    MEDIA_MODEL,
    MEDIA_PROMPT,
    MEDIA_TEMPLATE,
    Layer,
    Manifest,
)
from ollamad.store.model import load_model
from ollamad.store.names import Name
from ollamad.store.store import Store
from ollamad.wire import ShowRequest

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
    return Catalog(store, _settings(), lambda _key: loaded)


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


# --- what makes the prompts -----------------------------------------------------------------------

JINJA = "{% if tools %}{{ tools }}{% endif %}"


def _templated(
    tmp_path: Path, *texts: str, media_type: str = MEDIA_TEMPLATE, config: Any = None
) -> Store:
    """A store with model ``m``: weights with a chat template, and template layers."""
    store = Store(tmp_path)
    weights = header([ARCH, ("tokenizer.chat_template", STRING, JINJA)])
    layers = [_layer(store, MEDIA_MODEL, weights)]
    layers += [_layer(store, media_type, text.encode()) for text in texts]
    manifest = Manifest(layers=tuple(layers))
    if config is not None:
        content = encode_config(msgspec.structs.replace(EMPTY_CONFIG, **config))
        blob = _layer(store, MEDIA_CONFIG, content)
        manifest = msgspec.structs.replace(manifest, config=blob)
    store.write_manifest(NAME, manifest)
    return store


def _settings(**environ: str) -> Settings:
    return Settings.from_environ({"HOME": "/home/user", **environ})


@pytest.mark.parametrize(
    ("switch", "source", "able", "shown"),
    [
        ("", "gguf_chat_template", ("tools", "completion"), JINJA),
        ("0", "gguf_chat_template", ("tools", "completion"), JINJA),
        ("1", "go_template", ("completion",), "CUSTOM {{ .Prompt }}"),
        ("yes", "go_template", ("completion",), "CUSTOM {{ .Prompt }}"),
    ],
)
async def test_the_switch_decides_between_two_templates(
    tmp_path: Path, switch: str, source: str, able: tuple[str, ...], shown: str
) -> None:
    store = _templated(tmp_path, "CUSTOM {{ .Prompt }}")
    catalog = Catalog(store, _settings(OLLAMA_GO_TEMPLATE=switch))
    found = await catalog.find("m")
    (again,) = catalog.list_sync()
    for model in (found, again):
        assert model.prompt_source == source
        assert model.is_rendered is (source == "go_template")
        assert model.capabilities == able
        assert model.template.text == "CUSTOM {{ .Prompt }}"
    answer = show(found, ShowRequest(model="m"))
    assert answer.template == shown
    assert answer.capabilities == list(able)
    assert "TEMPLATE CUSTOM {{ .Prompt }}" in answer.modelfile.splitlines()


def test_a_template_that_is_not_in_use_tells_nothing(tmp_path: Path) -> None:
    model = known(load_model(_templated(tmp_path, "{{ .Suffix }}"), NAME), go_template=False)
    assert model.capabilities == ("tools", "completion")
    assert "suffix" in model.template.variables


@pytest.mark.parametrize("media_type", [MEDIA_TEMPLATE, MEDIA_PROMPT])
def test_the_last_template_counts(tmp_path: Path, media_type: str) -> None:
    store = _templated(tmp_path, "one", "two {{ .Suffix }}", media_type=media_type)
    model = known(load_model(store, NAME), go_template=True)
    assert model.template.text == "two {{ .Suffix }}"
    assert model.capabilities == ("completion", "insert")


def test_a_model_without_a_template_has_the_default(tmp_path: Path) -> None:
    model = known(load_model(_templated(tmp_path), NAME))
    assert model.template.text == "{{ .Prompt }}"
    assert model.template_error == ""
    assert (model.prompt_source, model.template_in_use) == ("gguf_chat_template", JINJA)
    assert "TEMPLATE {{ .Prompt }}" in show(model, ShowRequest()).modelfile.splitlines()


def test_an_empty_template_is_one(tmp_path: Path) -> None:
    model = known(load_model(_templated(tmp_path, ""), NAME), go_template=True)
    assert model.is_rendered
    assert model.template.text == ""


def test_a_template_that_cannot_be_parsed(tmp_path: Path) -> None:
    """The model is still listed and shown: its owner wants to see what is wrong."""
    store = _templated(tmp_path, "{{ if .Tools }}")
    model = known(load_model(store, NAME), go_template=True)
    assert model.template_error == "template: :1: unexpected EOF"
    assert model.template.text == "{{ .Prompt }}"
    assert model.capabilities == ("completion",)
    assert show(model, ShowRequest()).template == "{{ if .Tools }}"


@pytest.mark.parametrize(
    ("config", "template", "renderer", "parser", "source"),
    [
        ({"renderer": "r", "parser": "p"}, "x", "r", "p", "renderer_parser"),
        ({"model_family": "gptoss"}, "<|start|><|end|>", "", "harmony", "harmony"),
        ({"model_family": "gptoss", "parser": "p"}, "<|start|><|end|>", "", "p", "parser"),
        ({"model_family": "gptoss"}, "<|start|>", "", "", "go_template"),
    ],
)
def test_named_parts(
    tmp_path: Path,
    config: dict[str, str],
    template: str,
    renderer: str,
    parser: str,
    source: str,
) -> None:
    """For all of these the GGUF's own template is not even shown."""
    store = _templated(tmp_path, template, config=config)
    model = known(load_model(store, NAME), go_template=None if renderer or parser else True)
    assert (model.renderer, model.parser, model.prompt_source) == (renderer, parser, source)
    assert model.is_rendered
    assert model.uses_harmony is ("<|end|>" in template)
    assert model.template_in_use == template
