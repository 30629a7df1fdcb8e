"""Cases C7 of modelfile-and-create, and those of http-api C9 that are errors."""

from __future__ import annotations

import shutil
import struct
from typing import Any

import pytest
from support import gguf_bytes
from support.creating import Creator, G, digest_of, gguf

from ollamad.create.apply import create_events
from ollamad.errors import BadRequest
from ollamad.gguf.writer import Tensor, fresh
from ollamad.store.names import Name
from ollamad.wire import CreateRequest

UNKNOWN = digest_of(b"never stored")


@pytest.mark.parametrize(
    ("request_", "status", "text"),
    [
        ({"files": {}}, 400, "unknown type"),
        ({"from": "a", "adapters": {}}, 400, "unknown type"),
        ({"from": "a", "draft_files": {}}, 400, "unknown type"),
        ({}, 400, "neither 'from' or 'files' was specified"),
        ({"files": {"a.gguf": "sha256:zz"}}, 500, "invalid digest format"),
        ({"files": {"a.txt": "sha256:zz"}}, 400, "unknown type"),
        ({"from": "a", "adapters": {"a.gguf": "sha256:zz"}}, 400, "invalid digest format"),
        ({"from": "bad name!"}, 400, "invalid model name"),
        ({"from": "b:cloud:local"}, 400, "invalid model name"),
        ({"from": "  "}, 400, "invalid model name"),
        ({"from": "a", "files": {"a//b.gguf": UNKNOWN}}, 400, "file path must be relative"),
        ({"files": {"../x": UNKNOWN}}, 400, "file path must be relative"),
        ({"files": {"/x": UNKNOWN}}, 400, "file path must be relative"),
        ({"files": {"0.gguf": ""}}, 400, "invalid digest format"),
        ({"from": "a", "adapters": {"0.gguf": ""}}, 400, "invalid digest format"),
        (
            {"from": "a", "draft_quantize": "q8_0"},
            400,
            "--draft-quantize requires a DRAFT model",
        ),
        ({"model": "bad name!", "from": "a"}, 400, "invalid model name"),
        ({"model": "", "from": "a"}, 400, "invalid model name"),
        (
            {"from": "a", "license": {"a": 1}},
            500,
            "json: cannot unmarshal object into Go value of type []string",
        ),
        (
            {"from": "a", "license": 7},
            500,
            "json: cannot unmarshal number into Go value of type []string",
        ),
        (
            {"from": "a", "license": True},
            500,
            "json: cannot unmarshal bool into Go value of type []string",
        ),
        (
            {"from": "a", "license": ["x", 7]},
            500,
            "json: cannot unmarshal number into Go value of type string",
        ),
        (
            {"from": "a", "quantize": "q9"},
            500,
            "unsupported quantization type Q9 - supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0",
        ),
        ({"from": "a", "quantize": "q8_0"}, 500, "quantizing to Q8_0 is not available yet"),
        (
            {"from": "a", "info": {"model_family": None}},
            400,
            'info field "model_family" must be a string',
        ),
        (
            {"from": "bob", "remote_host": "https://ollama.com", "draft_files": {"d": UNKNOWN}},
            400,
            "DRAFT cannot be used with remote models",
        ),
        ({"from": "bob", "remote_host": "http://a b"}, 400, "bad remote"),
        (
            {"from": "nope"},
            500,
            "model 'nope:latest' not found, and pulling models is not available yet",
        ),
        (
            {"files": {"model.safetensors": UNKNOWN}},
            400,
            "importing safetensors is not available yet: convert to GGUF first",
        ),
        (
            {"from": "gone:cloud", "adapters": {}, "info": {"base_name": 1}},
            400,
            'info field "base_name" must be a string',
        ),
    ],
)
async def test_requests_refused(
    request_: dict[str, Any], status: int, text: str, with_a: Creator
) -> None:
    before = with_a.blobs()
    assert await with_a.failure(**{"model": "m", **request_}) == (status, text)
    assert [name.short for name, _ in with_a.store.manifests()] == ["a:latest"]
    assert with_a.blobs() == before


@pytest.mark.parametrize(
    ("name", "content", "status", "text"),
    [
        ("a.gguf", b"hello world", 400, "supplied file was not in GGUF format"),
        ("a.gguf", b"GG", 400, "supplied file was not in GGUF format"),
        ("a.gguf", b"", 400, "supplied file was not in GGUF format"),
        ("a.gguf", b"gguf\x03\0\0\0", 400, "supplied file was not in GGUF format"),
        ("a.gguf", b"lmgg\x03\0\0\0", 400, "supplied file was not in GGUF format"),
        ("a.txt", b"hello world", 400, "unknown type"),
        ("a", b"GG", 400, "unknown type"),
        ("a.gguf", b"GGUF\x03\0\0\0", 500, "EOF"),
        ("a.gguf", b"GGUF\x01\0\0\0", 500, "unsupported GGUF version 1"),
        (
            "a.gguf",
            b"FUGG" + struct.pack(">IQQ", 3, 0, 0),
            400,
            "big-endian GGUF files are not supported",
        ),
    ],
)
async def test_files_refused(
    name: str, content: bytes, status: int, text: str, creator: Creator
) -> None:
    digest = creator.upload(content)
    assert await creator.failure(model="m", files={name: digest}) == (status, text)
    assert creator.store.manifests() == []


async def test_unknown_blobs(creator: Creator) -> None:
    path = creator.store.blob_path(UNKNOWN)
    assert await creator.failure(model="m", files={"a.gguf": UNKNOWN}) == (
        500,
        f"open {path}: no such file or directory",
    )
    assert await creator.failure(model="m", files={"a": UNKNOWN}) == (400, "unknown type")
    # One that cannot be read does not hide what another one tells.
    files = {"a": UNKNOWN, "b": creator.upload(G)}
    assert (await creator.failure(model="m", files=files))[0] == 500


async def test_a_directory_in_place_of_a_blob(creator: Creator) -> None:
    path = creator.store.blob_path(UNKNOWN)
    path.mkdir(parents=True)
    status, text = await creator.failure(model="m", files={"a.gguf": UNKNOWN})
    assert (status, text) == (500, f"open {path}: is a directory")


async def test_companions_of_a_gguf_are_skipped(creator: Creator) -> None:
    files = {
        name: creator.upload(name.encode())
        for name in ("c.json", "chat_template.jinja", "README.md", "x/tokenizer.model")
    }
    files["a.gguf"] = creator.upload(G)
    assert (await creator.statuses(model="m", files=files)).count("parsing GGUF") == 1
    assert creator.layers("m") == [("model", G, "")]


async def test_a_base_with_a_missing_blob(with_a: Creator) -> None:
    await with_a.events(**{"from": "a"}, model="b", system="S")
    path = with_a.store.blob_path(digest_of(b"S"))
    path.unlink()
    assert await with_a.failure(**{"from": "b"}, model="m") == (
        500,
        f"stat {path}: no such file or directory",
    )
    assert await with_a.failure(**{"from": "b"}, model="b", system="T") == (
        500,
        f"stat {path}: no such file or directory",
    )
    assert len(with_a.manifest("b").layers) == 2


async def test_a_base_with_a_damaged_manifest(with_a: Creator) -> None:
    with_a.store.manifest_path(Name.parse("a")).write_text("{bad")
    status, text = await with_a.failure(**{"from": "a"}, model="m")
    assert status == 500
    assert text == "invalid character 'b' looking for beginning of object key string"


async def test_a_damaged_target_is_replaced(with_a: Creator) -> None:
    await with_a.events(**{"from": "a"}, model="m")
    with_a.store.manifest_path(Name.parse("m")).write_text("{bad")
    await with_a.events(**{"from": "a"}, model="m")
    assert with_a.layers("m") == [("model", G, "a:latest")]


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{{ .Prompt", "template: :1: unclosed action"),
        ("{{ if .Prompt }}", "template: :1: unexpected EOF"),
        ("{{ Prompt }}", 'template: :1: function "Prompt" not defined'),
        ('{{ template "x" }}', "undefined template specified"),
    ],
)
async def test_templates_that_cannot_be_parsed(template: str, error: str, with_a: Creator) -> None:
    """Case 197, and 154 of the API."""
    failure = await with_a.failure(**{"from": "a"}, model="m", template=template)
    assert failure == (400, f"template error: {error}")


async def test_templates_are_checked_before_anything_is_rewritten(with_a: Creator) -> None:
    request = CreateRequest(model="m", files={"g.gguf": with_a.upload(G)}, template="{{ .P")
    events = create_events(with_a.store, request, locks=with_a.locks)
    # The file has been parsed by then, but not yet been rewritten.
    assert (await anext(events)).status == "parsing GGUF"
    with pytest.raises(BadRequest, match=r"^template error: "):
        await anext(events)


@pytest.mark.parametrize("file_type", [15, 2])
async def test_quantized_models_are_not_quantized_again(file_type: int, creator: Creator) -> None:
    digest = creator.upload(gguf(general__file_type=file_type))
    for wanted in ("q8_0", "q4_k"):
        assert await creator.failure(model="m", files={"g.gguf": digest}, quantize=wanted) == (
            500,
            "quantization is only supported for F16, BF16 and F32 models",
        )


@pytest.mark.parametrize("keys", [{}, {"general__file_type": 0}])
async def test_f32_without_a_file_type_is_f32(keys: dict[str, int], creator: Creator) -> None:
    metadata = {"general.architecture": "llama"} | {
        name.replace("__", "."): value for name, value in keys.items()
    }
    output = fresh(metadata, [Tensor("w", 0, (2, 2), bytes(16))])
    digest = creator.upload(b"".join(output.chunks()))
    await creator.events(model="m", files={"g.gguf": digest}, quantize="f32")
    assert b'"file_type":"F32"' in creator.config("m")


async def test_quantized_drafts_are_not_quantized_again(with_a: Creator) -> None:
    digest = with_a.upload(gguf(general__file_type=15))
    assert await with_a.failure(
        **{"from": "a"}, model="m", draft_files={"d.gguf": digest}, draft_quantize="q8_0"
    ) == (500, "draft quantization requires an unquantized draft model, got Q4_K_M")


async def test_adapters_refused(with_a: Creator) -> None:
    adapter = with_a.upload(gguf(general__type="adapter"))
    base = {"from": "a", "model": "m"}
    assert await with_a.failure(**base, adapters={"a.gguf": adapter, "b.gguf": adapter}) == (
        400,
        "only one adapter is currently supported",
    )
    assert await with_a.failure(**base, adapters={"a.gguf": with_a.upload(G)}) == (
        400,
        "supplied file is not an adapter",
    )
    assert await with_a.failure(
        **{"from": "a"}, model="m", adapters={"a.gguf": with_a.upload(b"GGUF\x03\0\0\0")}
    ) == (400, "EOF")
    assert await with_a.failure(
        model="m",
        files={"p.gguf": with_a.upload(gguf("clip", general__type="mmproj"))},
        adapters={"adapter_model.safetensors": adapter},
    ) == (400, "no base model was found")


@pytest.mark.parametrize(
    ("info", "text"),
    [
        ({"context_length": -1}, 'info field "context_length" must be a non-negative integer'),
        ({"context_length": 1.5}, 'info field "context_length" must be a non-negative integer'),
        ({"context_length": 1e30}, 'info field "context_length" must be a non-negative integer'),
        ({"context_length": None}, 'info field "context_length" must be a number'),
        ({"context_length": True}, 'info field "context_length" must be a number'),
        ({"embedding_length": "5"}, 'info field "embedding_length" must be a number'),
        (
            {"parameter_size": 7, "context_length": -1},
            'info field "parameter_size" must be a string',
        ),
    ],
)
async def test_info_refused(info: dict[str, Any], text: str, with_a: Creator) -> None:
    assert await with_a.failure(**{"from": "a"}, model="m", info=info) == (400, text)


async def test_info_ignored(with_a: Creator) -> None:
    info = {"capabilities": "vision", "other": 1, "context_length": 7.0}
    await with_a.events(**{"from": "a"}, model="m", info=info)
    assert b'"context_length":7,' in with_a.config("m")
    assert b"capabilities" not in with_a.config("m")


def split(number: int, count: int, name: str = "t", **keys: Any) -> bytes:
    return gguf(tensors={name: 2}, split__no=number, split__count=count, **keys)


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (
            {"m-00001-of-00002.gguf": split(0, 2)},
            'split GGUF "m-00001-of-00002.gguf" has 1 shards, expected 2',
        ),
        (
            {"m.gguf": split(0, 2)},
            'split GGUF "m.gguf" must use llama.cpp split filename pattern',
        ),
        (
            {"m-00000-of-00002.gguf": split(0, 2)},
            'split GGUF "m-00000-of-00002.gguf" must use llama.cpp split filename pattern',
        ),
        (
            {"m-00001-of-00003.gguf": split(0, 2)},
            'split GGUF "m-00001-of-00003.gguf" filename count 3 does not match metadata count 2',
        ),
        (
            {"m-00002-of-00002.gguf": split(0, 2)},
            'split GGUF "m-00002-of-00002.gguf" filename index 1 does not match metadata index 0',
        ),
        (
            {"m-00001-of-00002.gguf": gguf(split__count=2)},
            'split GGUF "m-00001-of-00002.gguf" is missing split.no metadata',
        ),
        (
            {
                "x/m-00001-of-00002.gguf": split(0, 2),
                "y/m-00001-of-00002.gguf": split(0, 2),
            },
            "split GGUF has duplicate shard index 0",
        ),
        (
            {
                "m-00001-of-00002.gguf": split(0, 2, split__tensors__count=3),
                "m-00002-of-00002.gguf": split(1, 2, "u"),
            },
            'split GGUF "m-00001-of-00002.gguf" has 2 tensors, expected 3',
        ),
        (
            {"m-00001-of-00002.gguf": split(0, 2), "m-00002-of-00002.gguf": split(1, 2)},
            'duplicate tensor "t"',
        ),
        (
            {"m-00003-of-00002.gguf": split(2, 2), "m-00001-of-00002.gguf": split(0, 2)},
            'split GGUF "m-00003-of-00002.gguf" has invalid shard index 2',
        ),
    ],
)
async def test_split_files_refused(files: dict[str, bytes], text: str, creator: Creator) -> None:
    digests = {name: creator.upload(content) for name, content in files.items()}
    before = creator.blobs()
    assert await creator.failure(model="m", files=digests) == (500, text)
    assert creator.blobs() == before


async def test_incomplete_split_drafts_are_bad_requests(with_a: Creator) -> None:
    digest = with_a.upload(split(0, 2))
    status, text = await with_a.failure(
        **{"from": "a"}, model="m", draft_files={"m-00001-of-00002.gguf": digest}
    )
    assert (status, text) == (400, 'split GGUF "m-00001-of-00002.gguf" has 1 shards, expected 2')


async def test_unsound_files_are_refused(creator: Creator) -> None:
    infos = [("a", (8,), 0, 0), ("b", (8,), 0, 0)]
    digest = creator.upload(gguf_bytes.padded(gguf_bytes.header(infos=infos), 32))
    assert await creator.failure(model="m", files={"g.gguf": digest}) == (
        500,
        'failed to validate GGUF: tensors "a" and "b" overlap',
    )


async def test_a_full_disk_is_told_before_the_merge(
    creator: Creator, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1_000_000)
    monkeypatch.setattr("ollamad.create.space.shutil.disk_usage", lambda _: usage)
    files = {f"m-0000{n + 1}-of-00002.gguf": creator.upload(split(n, 2, f"t{n}")) for n in range(2)}
    status, text = await creator.failure(model="m", files=files)
    assert (status, text) == (
        500,
        "not enough disk space to create model: need 268 MB, have 1 MB",
    )


async def test_an_error_of_the_system_is_an_answer(
    with_a: Creator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ollamad.store.blobs.write_all", full)
    before = with_a.blobs()
    assert await with_a.failure(**{"from": "a"}, model="m", system="new") == (
        500,
        "write: no space left on device",
    )
    assert with_a.blobs() == before
