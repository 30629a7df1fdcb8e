"""Stored models over HTTP: tags, show, copy, delete, create. http-api.md cases C8, C9 and those of
C11 about models. The rules of create itself are in ``tests/unit/create``."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.creating import gguf
from support.daemon import Daemon
from support.fake import JINJA, FakeDaemon, model_file

MakeDaemon = Callable[..., Daemon]
JSON = "application/json; charset=utf-8"
PLAIN = "application/json"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A daemon of this module's own: it counts models and blobs."""
    home = tmp_path_factory.mktemp("models") / "home"
    daemon = FakeDaemon(home, {"TZ": "America/New_York"})
    daemon.start()
    yield daemon
    daemon.stop()


def upload(daemon: Daemon, content: bytes) -> str:
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    status, _, _ = daemon.request("POST", f"/api/blobs/{digest}", content)
    assert status in (200, 201)
    return digest


def derive(daemon: Daemon, name: str, base: str, **fields: Any) -> None:
    answer = daemon.post("/api/create", {"model": name, "from": base, "stream": False, **fields})
    assert answer == {"status": "success"}


def show(daemon: Daemon, model: str, **fields: Any) -> Any:
    return daemon.post("/api/show", {"model": model, **fields})


def listed(daemon: Daemon) -> dict[str, Any]:
    return {model["name"]: model for model in daemon.get("/api/tags")["models"]}


def error(daemon: Daemon, method: str, path: str, body: Any) -> tuple[int, str, str]:
    status, headers, data = daemon.request(method, path, body)
    return status, headers["content-type"], json.loads(data)["error"]


def manifest(daemon: Daemon, name: str) -> Path:
    model, _, tag = name.partition(":")
    return daemon.models / "manifests/registry.ollama.ai/library" / model / (tag or "latest")


def weights(daemon: Daemon, name: str) -> Path:
    layers = json.loads(manifest(daemon, name).read_text())["layers"]
    digest = next(x["digest"] for x in layers if x["mediaType"].endswith(".model"))
    return daemon.models / "blobs" / digest.replace(":", "-")


# --- C8: tags -------------------------------------------------------------------------------------


def test_an_empty_store(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    for path in ("tags", "ps"):
        assert daemon.request("GET", f"/api/{path}")[2] == b'{"models":[]}'


def test_an_entry_of_tags(own: FakeDaemon) -> None:
    own.add("Entry", tokenizer__chat_template=JINJA)
    entry = listed(own)["Entry:latest"]
    assert list(entry) == [
        "name",
        "model",
        "modified_at",
        "size",
        "digest",
        "details",
        "capabilities",
    ]
    assert entry["model"] == "Entry:latest"
    raw = manifest(own, "Entry").read_bytes()
    stored = json.loads(raw)
    assert entry["digest"] == hashlib.sha256(raw).hexdigest()
    assert entry["size"] == sum(part["size"] for part in (stored["config"], *stored["layers"]))
    assert list(entry["details"].items()) == [
        ("parent_model", ""),
        ("format", "gguf"),
        ("family", "llama"),
        ("families", ["llama"]),
        ("parameter_size", "13"),
        ("quantization_level", "F16"),
        ("context_length", 8192),
        ("embedding_length", 8),
    ]
    shown = show(own, "Entry")
    assert set(entry["capabilities"]) == set(shown["capabilities"])
    assert set(entry["capabilities"]) == {"completion", "tools", "thinking"}
    assert entry["modified_at"] == shown["modified_at"]
    assert re.search(r"-0[45]:00$", entry["modified_at"])


def test_names_are_listed_short(own: FakeDaemon) -> None:
    own.add("lister")
    for name in ("apple/OpenELM", "myhost/mynamespace/lips:code", "boreas:2b-code"):
        answer = own.request("POST", "/api/copy", {"source": "lister", "destination": name})
        assert (answer[0], answer[2]) == (200, b"")
        assert "content-type" not in answer[1]
    expected = {"apple/OpenELM:latest", "myhost/mynamespace/lips:code", "boreas:2b-code"}
    assert expected <= set(listed(own))


def test_the_latest_change_comes_first(own: FakeDaemon) -> None:
    own.add("older")
    own.add("newer")
    for name, seconds in (("older", 1000), ("newer", 2000)):
        os.utime(manifest(own, name), (seconds, seconds))
    names = [name for name in listed(own) if name in ("older:latest", "newer:latest")]
    assert names == ["newer:latest", "older:latest"]
    assert listed(own)["older:latest"]["modified_at"] == "1969-12-31T19:16:40-05:00"


def test_lengths_behind_the_tokenizer_are_found(own: FakeDaemon) -> None:
    """A defect of the reference: it stops reading at the first key of the tokenizer."""
    content = gguf(
        "bert",
        tokenizer__ggml__model="bert",
        bert__context_length=512,
        bert__embedding_length=384,
        bert__pooling_type=1,
    )
    path = own.home / "late.gguf"
    path.write_bytes(content)
    own.create("late", path)
    entry = listed(own)["late:latest"]
    assert entry["details"]["context_length"] == 512
    assert entry["details"]["embedding_length"] == 384
    assert entry["capabilities"] == show(own, "late")["capabilities"] == ["embedding"]


def test_a_manifest_that_cannot_be_read(own: FakeDaemon) -> None:
    own.add("broken")
    manifest(own, "broken").write_bytes(b"{bad")
    text = "invalid character 'b' looking for beginning of object key string"
    for endpoint in ("show", "generate", "chat", "embed", "embeddings"):
        assert error(own, "POST", f"/api/{endpoint}", {"model": "broken"}) == (500, JSON, text)
    assert error(own, "DELETE", "/api/delete", {"model": "broken"}) == (500, JSON, text)
    assert "broken:latest" not in listed(own)
    manifest(own, "broken").unlink()


def test_weights_that_are_gone(own: FakeDaemon) -> None:
    own.add("gone")
    weights(own, "gone").unlink()
    for endpoint, status, text in (
        ("generate", 400, '"gone" does not support generate'),
        ("chat", 400, '"gone" does not support chat'),
        ("embed", 404, 'model "gone" not found, try pulling it first'),
        ("embeddings", 404, 'model "gone" not found, try pulling it first'),
        ("show", 404, "model 'gone:latest' not found"),
    ):
        body = {"model": "gone", "prompt": "x", "input": "x"}
        assert error(own, "POST", f"/api/{endpoint}", body) == (status, JSON, text)
    assert "gone:latest" in listed(own)
    assert own.request("POST", "/api/copy", {"source": "gone", "destination": "gone2"})[0] == 200
    status, _, text = error(
        own, "POST", "/api/create", {"model": "gone3", "from": "gone", "stream": False}
    )
    assert status == 500
    assert re.fullmatch(r"stat /.*/blobs/sha256-[0-9a-f]{64}: no such file or directory", text)
    for name in ("gone", "gone2"):
        assert own.request("DELETE", "/api/delete", {"model": name})[0] == 200


# --- C8: show -------------------------------------------------------------------------------------


def line(name: str, value: str) -> str:
    return f"{name:<30} {value}"


def test_parameters_in_show(own: FakeDaemon) -> None:
    own.add("parameters")
    derive(
        own,
        "parameters",
        "parameters",
        parameters={"seed": 42, "top_p": 0.9, "stop": ["foo", "b<r"], "x": 1e6, "y": 0.00001},
    )
    derive(own, "parameters", "parameters", parameters={"b": True, "num_ctx": 131072})
    shown = show(own, "parameters")
    assert sorted(shown["parameters"].splitlines()) == sorted(
        [
            line("seed", "42"),
            line("stop", '"foo"'),
            line("stop", '"b<r"'),
            line("top_p", "0.9"),
            line("x", "1e+06"),
            line("y", "1e-05"),
            line("b", "true"),
            line("num_ctx", "131072"),
        ]
    )
    text = shown["modelfile"].splitlines()
    for wanted in ("PARAMETER x 1e+06", "PARAMETER b true", "PARAMETER num_ctx 131072"):
        assert wanted in text
    assert [x for x in text if x.startswith("PARAMETER stop")] == [
        "PARAMETER stop foo",
        "PARAMETER stop b<r",
    ]


def test_keys_of_show(own: FakeDaemon) -> None:
    own.add("keys", tokenizer__chat_template=JINJA, general__languages=["en", "de"])
    derive(
        own,
        "keys",
        "keys",
        license=["A", ""],
        system="S",
        messages=[{"role": "user", "content": "hi", "images": ["AA=="]}],
        requires="0.1.0",
        parameters={"seed": 1},
    )
    shown = show(own, "keys")
    assert list(shown) == [
        "license",
        "modelfile",
        "parameters",
        "template",
        "system",
        "details",
        "messages",
        "model_info",
        "tensors",
        "capabilities",
        "modified_at",
        "requires",
    ]
    assert shown["license"] == "A\n"
    assert shown["template"] == JINJA
    assert shown["messages"] == [{"role": "user", "content": "hi"}]
    assert list(shown["details"]) == [
        "parent_model",
        "format",
        "family",
        "families",
        "parameter_size",
        "quantization_level",
    ]
    assert shown["details"]["parent_model"] == "keys:latest"
    assert shown["tensors"] == [{"name": "w", "type": "F32", "shape": [13]}]
    info = shown["model_info"]
    assert list(info) == sorted(info)
    assert info["general.parameter_count"] == 13
    assert info["general.languages"] is None
    assert not {"general.name", "tokenizer.chat_template"} & set(info)
    verbose = show(own, "keys", verbose=True)["model_info"]
    assert verbose["general.languages"] == ["en", "de"]
    assert not {"general.name", "tokenizer.chat_template"} & set(verbose)
    assert shown["modelfile"].splitlines()[:5] == [
        '# Modelfile generated by "ollama show"',
        "# To build a new Modelfile based on this, replace FROM with:",
        "# FROM keys:latest",
        "",
        f"FROM {weights(own, 'keys')}",
    ]
    assert "TEMPLATE {{ .Prompt }}\n" in shown["modelfile"]
    assert "MESSAGE user hi\n" in shown["modelfile"]


def test_what_the_request_lays_over_show(own: FakeDaemon) -> None:
    own.add("overlay")
    derive(own, "overlay", "overlay", system="mine", parameters={"top_k": 3})
    shown = show(own, "overlay", system="OV", options={"seed": 7}, template="ignored")
    assert shown["system"] == "OV"
    assert {"SYSTEM OV", "PARAMETER seed 7", "PARAMETER top_k 3"} <= set(
        shown["modelfile"].splitlines()
    )
    assert shown["parameters"] == line("top_k", "3")
    assert show(own, "overlay")["system"] == "mine"


@pytest.mark.parametrize(
    ("system", "text"),
    [
        ("plain", "SYSTEM plain"),
        ("two\nlines", 'SYSTEM "two\nlines"'),
        (" lead", 'SYSTEM " lead"'),
        ('has "q" in', 'SYSTEM has "q" in'),
        ('say """x"""\nmore', 'SYSTEM """say """x"""\nmore"""'),
    ],
)
def test_quotes_in_a_modelfile(own: FakeDaemon, system: str, text: str) -> None:
    if "quotes:latest" not in listed(own):
        own.add("quotes")
    assert f"\n{text}\n" in show(own, "quotes", system=system)["modelfile"]


def test_editors_see_the_name_that_they_asked_for(own: FakeDaemon) -> None:
    own.add("copilot")
    headers = {"User-Agent": "GitHubCopilotChat/0.41.1"}
    body = {"model": "copilot"}
    answer = json.loads(own.request("POST", "/api/show", body, headers)[2])
    assert answer["model_info"]["general.basename"] == "copilot"
    own.request("POST", "/api/copy", {"source": "copilot", "destination": "copilot2"})
    answer = json.loads(own.request("POST", "/api/show", {"model": "Copilot2"}, headers)[2])
    assert answer["model_info"]["general.basename"] == "Copilot2"
    assert show(own, "copilot2")["model_info"]["general.basename"] == "copilot"


def test_a_gguf_without_tensors(own: FakeDaemon) -> None:
    path = own.home / "bare.gguf"
    path.write_bytes(gguf(tensors={}))
    own.create("bare", path)
    shown = show(own, "bare")
    assert shown["model_info"]["general.parameter_count"] == 0
    assert "tensors" not in shown


def test_a_model_with_a_projector(own: FakeDaemon) -> None:
    model = model_file(own.home, "seeing").read_bytes()
    projector = gguf(
        "clip",
        {"v.blk.0.weight": 64},
        clip__has_vision_encoder=True,
        clip__projector_type="mlp",
        general__name="Eyes",
        clip__vision__image_mean=[0.5, 0.25],
    )
    files = {"m.gguf": upload(own, model), "p.gguf": upload(own, projector)}
    own.post("/api/create", {"model": "seeing", "files": files, "stream": False})
    shown = show(own, "seeing")
    assert shown["model_info"]["general.architecture"] == "llama"
    assert shown["projector_info"]["general.name"] == "Eyes"
    assert shown["projector_info"]["general.parameter_count"] == 64
    assert shown["projector_info"]["clip.vision.image_mean"] is None
    assert len(re.findall("(?m)^FROM ", shown["modelfile"])) == 2
    assert shown["capabilities"] == listed(own)["seeing:latest"]["capabilities"]
    assert set(shown["capabilities"]) == {"completion", "vision"}


def test_a_quantization_that_the_config_does_not_know(own: FakeDaemon) -> None:
    own.add("level", general__file_type=15)
    derive(own, "level", "level", info={"quantization_level": "unknown"})
    assert show(own, "level")["details"]["quantization_level"] == "Q4_K_M"
    assert listed(own)["level:latest"]["details"]["quantization_level"] == "Q4_K_M"


# --- stubs ----------------------------------------------------------------------------------------

STUB_INFO = {
    "model_family": "gptoss",
    "context_length": 131072,
    "embedding_length": 2880,
    "quantization_level": "MXFP4",
    "parameter_size": "20.9B",
    "capabilities": ["completion", "tools"],
}


def test_a_stub(own: FakeDaemon) -> None:
    derive(own, "stub", "bob", remote_host="ollama.com", info=STUB_INFO)
    shown = show(own, "stub")
    assert shown["details"] == {
        "parent_model": "",
        "format": "",
        "family": "gptoss",
        "families": ["gptoss"],
        "parameter_size": "20.9B",
        "quantization_level": "MXFP4",
    }
    assert shown["model_info"] == {
        "general.architecture": "gptoss",
        "gptoss.context_length": 131072,
        "gptoss.embedding_length": 2880,
    }
    assert shown["capabilities"][:2] == ["completion", "tools"]
    assert (shown["remote_model"], shown["remote_host"]) == ("bob", "https://ollama.com:443")
    entry = listed(own)["stub:latest"]
    assert list(entry)[:4] == ["name", "model", "remote_model", "remote_host"]


def test_a_stub_without_a_family(own: FakeDaemon) -> None:
    derive(own, "bare-stub", "gpt-oss:20b:cloud")
    shown = show(own, "bare-stub")
    assert list(shown) == [
        "modelfile",
        "template",
        "details",
        "remote_model",
        "remote_host",
        "model_info",
        "modified_at",
    ]
    assert shown["details"]["families"] is None
    assert shown["model_info"] == {}
    assert {"FROM ", "TEMPLATE {{ .Prompt }}"} <= set(shown["modelfile"].splitlines())
    assert (shown["remote_model"], shown["remote_host"]) == (
        "gpt-oss:20b",
        "https://ollama.com:443",
    )
    headers = {"User-Agent": "GitHubCopilotChat/0.41.1"}
    answer = own.request("POST", "/api/show", {"model": "bare-stub"}, headers)[2]
    assert json.loads(answer)["model_info"] == {"general.basename": "bare-stub"}


@pytest.mark.parametrize("off", [False, True])
def test_requests_to_a_stub(make_daemon: MakeDaemon, off: bool) -> None:
    daemon = make_daemon(**({"OLLAMA_NO_CLOUD": "1"} if off else {}))
    derive(daemon, "m", "bob", remote_host="https://example.com")
    refusal = (
        (403, JSON, "ollama cloud is disabled: remote model is unavailable")
        if off
        else (400, JSON, "this server cannot run this remote model")
    )
    chat = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    assert error(daemon, "POST", "/api/chat", chat) == refusal
    for prompt in ({"prompt": "x"}, {"keep_alive": 0}):
        assert error(daemon, "POST", "/api/generate", {"model": "m", **prompt}) == refusal
    # Unloading is looked at before the stub by chat only.
    unloaded = daemon.post("/api/chat", {"model": "m", "keep_alive": 0})
    assert unloaded["done_reason"] == "unload"
    for endpoint in ("embed", "embeddings"):
        body = {"model": "m", "input": "x", "prompt": "x"}
        missing = (404, JSON, 'model "m" not found, try pulling it first')
        assert error(daemon, "POST", f"/api/{endpoint}", body) == missing
    for endpoint, body in (("generate", {"prompt": "x"}), ("chat", {"messages": []}), ("show", {})):
        found = error(daemon, "POST", f"/api/{endpoint}", {"model": "m:local", **body})
        assert found == (404, JSON, "model 'm:local' not found")
    if off:
        assert error(daemon, "POST", "/api/show", {"model": "m"}) == (
            403,
            JSON,
            "ollama cloud is disabled: remote model details are unavailable",
        )


# --- C8: copy and delete --------------------------------------------------------------------------


def test_copy(own: FakeDaemon) -> None:
    own.add("hamshank")
    derive(own, "hamshank", "hamshank", system="ham")
    own.add("beefsteak")
    body = {"source": "HamShank", "destination": "BEEFSTEAK"}
    status, headers, data = own.request("POST", "/api/copy", body)
    assert (status, data, headers["content-length"]) == (200, b"", "0")
    assert show(own, "beefsteak")["system"] == "ham"
    assert "BEEFSTEAK:latest" not in listed(own)
    same = {"source": "not-there", "destination": "not-there:latest"}
    assert own.request("POST", "/api/copy", same)[0] == 200


def test_delete(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    daemon = make_daemon()
    blobs = daemon.models / "blobs"
    daemon.create("x", model_file(tmp_path, "x"))
    derive(daemon, "y", "x", system="other")
    shared = weights(daemon, "x")
    status, headers, data = daemon.request("DELETE", "/api/delete", {"model": "x"})
    assert (status, data, "content-type" in headers) == (200, b"", False)
    assert error(daemon, "DELETE", "/api/delete", {"name": "x"}) == (
        404,
        JSON,
        "model 'x' not found",
    )
    assert shared.exists()
    # The same blob twice in a manifest is no reason to fail.
    path = manifest(daemon, "y")
    stored = json.loads(path.read_text())
    stored["layers"].append(stored["layers"][0])
    path.write_text(json.dumps(stored))
    assert daemon.request("DELETE", "/api/delete", {"model": "Y"})[0] == 200
    assert list(blobs.iterdir()) == []
    assert not path.parent.exists()


def test_cloud_names_in_the_store(own: FakeDaemon) -> None:
    own.add("gpt-oss")
    body = {"source": "gpt-oss", "destination": "gpt-oss:20b-cloud"}
    own.request("POST", "/api/copy", body)
    assert "gpt-oss:20b-cloud" in listed(own)
    assert own.request("DELETE", "/api/delete", {"model": "gpt-oss:20b:cloud"})[0] == 200
    assert "gpt-oss:20b-cloud" not in listed(own)


def test_one_name_in_many_spellings(own: FakeDaemon) -> None:
    own.add("Spelling")
    derive(own, "sPELLING", "SPELLING", system="one")
    own.add("SPELLing")
    own.request("POST", "/api/copy", {"source": "late", "destination": "spelling:LATEST"})
    derive(own, "SpEllIng", "spelling")
    assert [n for n in listed(own) if n.lower() == "spelling:latest"] == ["Spelling:latest"]


# --- C9: create -----------------------------------------------------------------------------------


def create(daemon: Daemon, stream: bool, **body: Any) -> tuple[int, str, list[Any]]:
    """Status, content type, and the objects of the answer."""
    status, headers, data = daemon.request("POST", "/api/create", {"stream": stream, **body})
    if stream and headers["content-type"] == "application/x-ndjson":
        assert headers["transfer-encoding"] == "chunked"
        assert data.endswith(b"\n")
    else:
        assert not data.endswith(b"\n")
    return status, headers["content-type"], [json.loads(x) for x in data.splitlines()]


def test_events_of_an_import(own: FakeDaemon) -> None:
    content = model_file(own.home, "imported").read_bytes()
    digest = upload(own, content)
    body = {"model": "imported", "files": {"test.gguf": digest}}
    assert create(own, False, **body) == (200, PLAIN, [{"status": "success"}])
    status, media, events = create(own, True, **body)
    assert (status, media) == (200, "application/x-ndjson")
    statuses = [event["status"] for event in events]
    assert statuses[0] == "parsing GGUF"
    assert statuses[-3:] == [f"using existing layer {digest}", "writing manifest", "success"]
    (validating,) = (e for e in events if e["status"] == "validating GGUF model")
    assert list(validating) == ["status", "digest", "total", "completed"]
    assert (validating["digest"], validating["total"]) == ("0" * 19, len(content))
    del body["files"]
    status, media, events = create(own, True, model="Imported", **{"from": "imported"})
    assert [e["status"] for e in events] == statuses[-3:]


def test_events_of_a_derived_model(own: FakeDaemon) -> None:
    own.add("base")
    status, media, events = create(
        own,
        True,
        model="derived",
        **{"from": "base"},
        system="derived S",
        parameters={"seed": 987},
        license=["derived MIT", "Apache-2.0"],
        messages=[{"role": "user", "content": "hi, derived"}],
    )
    assert (status, media) == (200, "application/x-ndjson")
    statuses = [event["status"] for event in events]
    assert statuses[0].startswith("using existing layer sha256:")
    assert [s.rpartition(" ")[0] for s in statuses[1:6]] == ["creating new layer"] * 5
    assert statuses[6:] == ["writing manifest", "success"]
    layers = json.loads(manifest(own, "derived").read_text())["layers"]
    kinds = [layer["mediaType"].rpartition(".")[2] for layer in layers]
    assert kinds == ["model", "system", "license", "license", "params", "messages"]


def test_parameters_are_merged_and_sorted(own: FakeDaemon) -> None:
    own.add("merge")
    first = {"temperature": 1, "top_k": 10, "stop": ["A", "B"]}
    derive(own, "merge", "merge", parameters=first)
    derive(own, "merge", "merge", parameters={"temperature": 0.6, "top_p": 0.7}, system="")
    layers = json.loads(manifest(own, "merge").read_text())["layers"]
    (digest,) = (x["digest"] for x in layers if x["mediaType"].endswith(".params"))
    content = (own.models / "blobs" / digest.replace(":", "-")).read_bytes()
    assert content == b'{"stop":["A","B"],"temperature":0.6,"top_k":10,"top_p":0.7}\n'


UNKNOWN = "sha256:" + "0" * 64
FIRST_SIGHT = [
    ({"model": "bad name!", "from": "base"}, "invalid model name"),
    ({"model": "", "from": "base"}, "invalid model name"),
    ({"model": "t", "files": {"0.gguf": ""}}, "invalid digest format"),
    ({"model": "t", "from": "base", "adapters": {"0.gguf": ""}}, "invalid digest format"),
    ({"model": "t", "files": {"../x": UNKNOWN}}, "file path must be relative"),
    ({"model": "t", "files": {"/x": UNKNOWN}}, "file path must be relative"),
    (
        {"model": "t", "from": "base", "draft_quantize": "q8_0"},
        "--draft-quantize requires a DRAFT model",
    ),
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("body", "text"), FIRST_SIGHT)
def test_what_is_wrong_at_first_sight(own: FakeDaemon, stream: bool, body: Any, text: str) -> None:
    assert create(own, stream, **body) == (400, JSON, [{"error": text}])


BEFORE_ANY_EVENT = [
    ({}, 400, "neither 'from' or 'files' was specified"),
    ({"from": "bad name!"}, 400, "invalid model name"),
    ({"from": "a:cloud:local"}, 400, "invalid model name"),
    ({"files": {}}, 400, "unknown type"),
    ({"files": {"x.txt": "TEXT"}}, 400, "unknown type"),
    ({"files": {"m.safetensors": "TEXT"}}, 400, "importing safetensors is not available yet"),
    ({"from": "base", "info": {"model_family": 1}}, 400, 'info field "model_family" must be a'),
    ({"from": "base", "info": {"context_length": 1.5}}, 400, 'info field "context_length" must'),
    ({"from": "base", "quantize": "Q9"}, 500, "unsupported quantization type Q9 - supported types"),
    ({"from": "base", "quantize": "q8_0"}, 500, "quantizing to Q8_0 is not available yet"),
    ({"from": "base", "template": "{{ .Prompt"}, 400, "template error: template: :1: unclosed"),
    ({"from": "base", "template": "{{ if .Prompt }}"}, 400, "template error: "),
    ({"from": "base", "template": "{{ Prompt }}"}, 400, "template error: "),
    ({"from": "base", "license": {}}, 500, "json: cannot unmarshal object into Go value of type"),
    ({"from": "bob", "remote_host": "http://[::1]:namedport"}, 400, "bad remote"),
    (
        {"from": "bob", "remote_host": "https://ollama.com", "draft_files": {"d": UNKNOWN}},
        400,
        "DRAFT cannot be used with remote models",
    ),
]


def with_digests(daemon: Daemon, body: Any) -> Any:
    """``TEXT`` in a request stands for a stored text file."""
    if "files" not in body:
        return body
    digest = upload(daemon, b"just a text")
    return {**body, "files": {k: digest if v == "TEXT" else v for k, v in body["files"].items()}}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("body", "status", "text"), BEFORE_ANY_EVENT)
def test_errors_before_any_event(
    own: FakeDaemon, stream: bool, body: Any, status: int, text: str
) -> None:
    if "base:latest" not in listed(own):
        own.add("base")
    found, media, events = create(own, stream, model="t", **with_digests(own, body))
    assert (found, media, len(events)) == (status, PLAIN, 1)
    assert events[0]["error"].startswith(text)
    assert "t:latest" not in listed(own)


@pytest.mark.parametrize("stream", [True, False])
def test_a_base_that_cannot_be_pulled(own: FakeDaemon, stream: bool) -> None:
    """Nothing listens there; never over plain http, whatever the request says (3.1)."""
    body = {"model": "t", "from": "127.0.0.1:1/u/m", "insecure": True}
    status, _, events = create(own, stream, **body)
    error = events.pop()["error"]
    assert error.startswith(
        'pull model manifest: Get "https://127.0.0.1:1/v2/u/m/manifests/latest": dial tcp'
    )
    if stream:
        assert (status, events) == (200, [{"status": "pulling manifest"}])
    else:
        assert (status, events) == (500, [])
    assert "t:latest" not in listed(own)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"files": {"a.gguf": "TEXT"}}, 400, "supplied file was not in GGUF format"),
        ({"files": {"a.gguf": "zzz"}}, 500, "invalid digest format"),
        ({"files": {"a.gguf": UNKNOWN}}, 500, "open /"),
    ],
)
def test_errors_after_the_first_event(own: FakeDaemon, body: Any, status: int, text: str) -> None:
    body = with_digests(own, body)
    found, media, (event,) = create(own, False, model="t", **body)
    assert (found, media) == (status, PLAIN)
    assert event["error"].startswith(text)
    found, media, events = create(own, True, model="t", **body)
    assert (found, media) == (200, "application/x-ndjson")
    assert events == [{"status": "parsing GGUF"}, event]


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("/foo/../bar", "http://localhost:11434/bar"),
        ("example.com", "http://example.com:11434"),
        ("example.com:8080", "http://example.com:8080"),
        ("ollama.com", "https://ollama.com:443"),
        ("http://example.com/", "http://example.com:11434"),
        ("http://localhost", "http://localhost:11434"),
    ],
)
def test_remote_hosts(own: FakeDaemon, given: str, stored: str) -> None:
    for host in (given, stored):
        derive(own, "hosted", "bob", remote_host=host)
        assert show(own, "hosted")["remote_host"] == stored


def test_renderer_and_parser_are_inherited(own: FakeDaemon) -> None:
    def config(name: str) -> Any:
        digest = json.loads(manifest(own, name).read_text())["config"]["digest"]
        return json.loads((own.models / "blobs" / digest.replace(":", "-")).read_bytes())

    own.add("renders")
    derive(own, "renders", "renders", renderer="ra", parser="pa", requires="1.2.3")
    derive(own, "inherits", "renders")
    derive(own, "replaces", "renders", renderer="rb")
    for name, renderer in (("inherits", "ra"), ("replaces", "rb")):
        stored = config(name)
        assert (stored["renderer"], stored["parser"], stored["requires"]) == (
            renderer,
            "pa",
            "1.2.3",
        )
    text = show(own, "replaces")["modelfile"]
    assert "\nRENDERER rb\nPARSER pa\n" in text
    own.add("gemma", "gemma4")
    assert (config("gemma")["renderer"], config("gemma")["parser"]) == ("gemma4", "gemma4")
