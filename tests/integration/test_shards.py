"""A split model whose shards are layers of their own, as some registries serve it, and the same
model in one file: nobody can tell them apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon, eventually, running
from support.models import smollm2
from support.registry import serving
from support.split_gguf import split_gguf
from support.transfers import manifest_file, remove, succeed

from ollamad.store.digests import blob_filename
from ollamad.store.manifest import (
    MEDIA_MODEL,
    Layer,
    Manifest,
    encode_manifest,
    parse_manifest,
)

COUNT = 3
OPTIONS = {"temperature": 0, "seed": 1, "num_predict": 12, "num_ctx": 512, "num_thread": 1}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return split_gguf(smollm2(), tmp_path_factory.mktemp("shards"), COUNT)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, shards: list[Path]) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("split") / "home"
    environment = {"OLLAMA_MAX_LOADED_MODELS": "9", "XDG_RUNTIME_DIR": str(home)}
    with running(home, environment) as started:
        started.create("whole", smollm2())
        # Not in the order of their numbers: nobody promised that.
        add(started, "split", [shards[1], shards[2], shards[0]])
        yield started


def put_blob(daemon: Daemon, content: bytes) -> str:
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    path = daemon.models / "blobs" / digest.replace(":", "-")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return digest


def manifest_path(daemon: Daemon, name: str) -> Path:
    return daemon.models / "manifests/registry.ollama.ai/library" / name / "latest"


def add(daemon: Daemon, name: str, files: Sequence[Path]) -> None:
    """Stores ``whole`` under another name and with these files as its weights, as a pull does."""
    whole = parse_manifest(manifest_path(daemon, "whole").read_bytes())
    layers = []
    for file in files:
        digest = put_blob(daemon, file.read_bytes())
        layers.append(Layer(media_type=MEDIA_MODEL, digest=digest, size=file.stat().st_size))
    layers += [layer for layer in whole.layers if layer.media_type != MEDIA_MODEL]
    path = manifest_path(daemon, name)
    path.parent.mkdir(parents=True)
    path.write_bytes(encode_manifest(Manifest(config=whole.config, layers=tuple(layers))))


def digest(file: Path) -> str:
    return "sha256-" + hashlib.sha256(file.read_bytes()).hexdigest()


def generated(daemon: Daemon, model: str, **fields: Any) -> dict[str, Any]:
    body = {"model": model, "prompt": "Name three colours.", "stream": False, "options": OPTIONS}
    answer: dict[str, Any] = daemon.post("/api/generate", {**body, **fields})
    assert answer["response"]
    return answer


def failure(daemon: Daemon, path: str, body: dict[str, Any]) -> tuple[int, str]:
    status, _, data = daemon.request("POST", path, {"stream": False, **body})
    return status, json.loads(data)["error"]


def loaded(daemon: Daemon) -> dict[str, dict[str, Any]]:
    return {model["name"]: model for model in daemon.get("/api/ps")["models"]}


def listed(daemon: Daemon, name: str) -> dict[str, Any]:
    (model,) = (m for m in daemon.get("/api/tags")["models"] if m["name"] == f"{name}:latest")
    return model


def test_the_answer_is_that_of_the_whole_model(daemon: Daemon) -> None:
    whole, split = generated(daemon, "whole"), generated(daemon, "split")
    assert split["response"] == whole["response"]
    assert split["context"] == whole["context"]
    # Both are in memory now, and take as much of it.
    models = loaded(daemon)
    assert models["split:latest"]["size"] == pytest.approx(models["whole:latest"]["size"], rel=0.02)
    # The links that the runner was given are gone: it has opened the files.
    assert not list(daemon.home.glob("**/shards-*"))


def test_the_weights_may_be_mapped(daemon: Daemon) -> None:
    options = {**OPTIONS, "use_mmap": True}
    split = generated(daemon, "split", options=options)
    assert split["response"] == generated(daemon, "whole", options=options)["response"]
    models = loaded(daemon)
    assert models["split:latest"]["size"] == pytest.approx(models["whole:latest"]["size"], rel=0.02)


def test_lists_and_show_tell_of_the_whole_model(daemon: Daemon, shards: list[Path]) -> None:
    whole, split = listed(daemon, "whole"), listed(daemon, "split")
    for field in ("details", "capabilities"):
        assert split[field] == whole[field]
    header = sum(shard.stat().st_size for shard in shards) - smollm2().stat().st_size
    assert split["size"] == whole["size"] + header
    shown = {name: daemon.post("/api/show", {"model": name}) for name in ("whole", "split")}
    for field in ("details", "model_info", "capabilities", "template", "tensors"):
        assert shown["split"][field] == shown["whole"][field], field
    lines = [line for line in shown["split"]["modelfile"].splitlines() if line.startswith("FROM ")]
    assert [line.rpartition("/")[2] for line in lines] == [digest(shard) for shard in shards]


def test_a_model_made_from_it_shares_its_shards(daemon: Daemon, shards: list[Path]) -> None:
    daemon.post(
        "/api/create", {"model": "made", "from": "split", "system": "Shout.", "stream": False}
    )
    daemon.post("/api/copy", {"source": "split", "destination": "copied"})
    made = daemon.post("/api/show", {"model": "made"})
    assert made["details"]["parameter_size"] == listed(daemon, "whole")["details"]["parameter_size"]
    assert made["details"]["families"] == ["llama"]
    assert generated(daemon, "copied")["response"] == generated(daemon, "split")["response"]
    daemon.post("/api/generate", {"model": "made", "prompt": "", "stream": False})
    for name in ("made", "copied"):
        assert daemon.request("DELETE", "/api/delete", {"model": name})[0] == 200
    blobs = {path.name for path in (daemon.models / "blobs").iterdir()}
    assert {digest(shard) for shard in shards} <= blobs


def test_the_shards_that_a_modelfile_names_become_one_file(
    daemon: Daemon, shards: list[Path]
) -> None:
    files = {digest(shard): digest(shard).replace("-", ":", 1) for shard in shards}
    daemon.post("/api/create", {"model": "merged", "files": files, "stream": False})
    assert generated(daemon, "merged")["response"] == generated(daemon, "whole")["response"]


def test_a_missing_shard(daemon: Daemon, shards: list[Path]) -> None:
    add(daemon, "lacking", shards[:2])
    text = "model 'lacking:latest' is incomplete: shard 3 of 3 is missing, try `ollama pull lacking"
    for path in ("generate", "chat", "embed", "show"):
        status, error = failure(daemon, f"/api/{path}", {"model": "lacking", "input": "x"})
        assert (status, error) == (404, f"{text}:latest`")
    status, error = failure(daemon, "/api/create", {"model": "new", "from": "lacking"})
    assert (status, error) == (500, f"{text}:latest`")
    assert listed(daemon, "lacking")["capabilities"] == listed(daemon, "whole")["capabilities"]


def test_deleting_it_leaves_nothing_and_ends_its_runner(tmp_path: Path, shards: list[Path]) -> None:
    with running(tmp_path / "home") as daemon:
        daemon.create("whole", smollm2())
        add(daemon, "split", shards)
        generated(daemon, "split")
        assert list(loaded(daemon)) == ["split:latest"]
        assert daemon.request("DELETE", "/api/delete", {"model": "split"})[0] == 200
        eventually(lambda: not loaded(daemon), what="the runner of a deleted model ends")
        blobs = {path.name for path in (daemon.models / "blobs").iterdir()}
        assert not {digest(shard) for shard in shards} & blobs


def test_from_a_registry_and_back(tmp_path: Path, shards: list[Path], daemon: Daemon) -> None:
    """Served as hf.co does it: one layer a shard, in the manifest of somebody else."""
    config = b'{"model_format":"gguf","model_family":"llama","architecture":"amd64","os":"linux"}'
    layers = [(MEDIA_MODEL, shard.read_bytes()) for shard in shards]
    template = [layer for layer in whole_layers(daemon) if layer[0] != MEDIA_MODEL]
    with serving(tmp_path) as registry, running(tmp_path / "home") as puller:
        manifest = registry.put_model("acme/split", [*layers, *template], config=config)
        name = f"{registry.host}/acme/split"
        succeed(puller, "pull", name)
        assert manifest_file(puller, registry.host, "acme/split").read_bytes() == manifest
        expected = generated(daemon, "whole")["response"]
        assert generated(puller, name)["response"] == expected

        # A shard is lost: the error says which, and a pull brings back that one alone.
        first, lost = (puller.models / "blobs" / digest(shard) for shard in shards[:2])
        kept = first.stat().st_ino
        lost.unlink()
        lacking = (
            404,
            f"model '{name}:latest' is incomplete: shard 2 of 3 is missing, "
            f"try `ollama pull {name}:latest`",
        )
        # What others do to the files of a loaded model is seen a second later.
        eventually(
            lambda: failure(puller, "/api/show", {"model": name}) == lacking, what="it is missed"
        )
        assert failure(puller, "/api/generate", {"model": name, "prompt": "x"}) == lacking
        succeed(puller, "pull", name)
        assert lost.stat().st_size == shards[1].stat().st_size
        assert first.stat().st_ino == kept
        assert generated(puller, name)["response"] == expected

        # Under another name it goes to the registry as it came.
        copied = f"{registry.host}/other/split"
        puller.post("/api/copy", {"source": name, "destination": copied})
        succeed(puller, "push", copied)
        assert registry.get_manifest("other/split") == manifest
        remove(puller, name, copied)
        assert not list((puller.models / "blobs").iterdir())
        succeed(puller, "pull", copied)
        assert generated(puller, copied)["response"] == expected


def whole_layers(daemon: Daemon) -> list[tuple[str, bytes]]:
    manifest = parse_manifest(manifest_path(daemon, "whole").read_bytes())
    return [
        (layer.media_type, (daemon.models / "blobs" / blob_filename(layer.digest)).read_bytes())
        for layer in manifest.layers
    ]
