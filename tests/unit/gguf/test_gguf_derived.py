"""What follows from a header: modelfile-and-create.md 4.4, 4.6, 7 and C9, prompting.md 6."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import gguf_bytes as raw
from support.gguf_bytes import ARCH, header, padded

from ollamad import wire
from ollamad.gguf import names
from ollamad.gguf.capabilities import (
    has_thinking,
    has_tool_round_trip,
    has_tools,
    model_capabilities,
    projector_capabilities,
    template_capabilities,
)
from ollamad.gguf.classify import is_adapter, media_kind, needs_projector_type
from ollamad.gguf.errors import GGUFError
from ollamad.gguf.facts import Facts, FactsCache, facts_of
from ollamad.gguf.file import GGUFFile
from ollamad.gguf.info import (
    VERBOSE_ELEMENTS,
    model_info,
    projector_info,
    shortest_float32,
    tensor_infos,
)
from ollamad.gguf.reader import open_gguf, read_bytes
from ollamad.gguf.validate import validate

U32, BOOL, STRING, ARRAY = raw.U32, raw.BOOL, raw.STRING, raw.ARRAY


def arch(name: str) -> raw.Key:
    return ("general.architecture", STRING, name)


def opened(*keys: raw.Key, infos: list[raw.Info] | None = None, data: int = 0) -> GGUFFile:
    return read_bytes(padded(header(keys, infos or []), data))


def facts(*keys: raw.Key, infos: list[raw.Info] | None = None, data: int = 0) -> Facts:
    return facts_of(opened(*keys, infos=infos, data=data))


# --- names ----------------------------------------------------------------------------------------


def test_file_type_names() -> None:
    known = {0: "F32", 7: "Q8_0", 15: "Q4_K_M", 32: "BF16", 38: "MXFP4_MOE", 40: "Q1_0"}
    for number, name in known.items():
        assert names.file_type_name(number) == name
        assert names.file_type_id(name) == number
    for number in (4, 5, 6, 33, 34, 35, 41, 1000, 1024, -1, None):
        assert names.file_type_name(number) == "unknown"
    assert names.file_type_id("unknown") is None


@pytest.mark.parametrize("type_id", [raw.U32, raw.I32, raw.U64])
def test_file_type_of_any_integer_type(type_id: int) -> None:
    found = facts(ARCH, ("general.file_type", type_id, 15))
    assert (found.file_type, found.file_type_id) == ("Q4_K_M", 15)


def test_file_type_zero_is_f32() -> None:
    found = facts(ARCH, ("general.file_type", U32, 0))
    assert (found.file_type, found.file_type_id) == ("F32", 0)


@pytest.mark.parametrize(
    ("kinds", "name"),
    [
        ([], "unknown"),
        ([0, 0], "F32"),
        ([1, 0], "F16"),
        ([30, 30, 1], "BF16"),
        ([30, 1, 1], "F16"),
        ([0, 2], "unknown"),
        ([99], "unknown"),
    ],
)
def test_inferred_file_type(kinds: list[int], name: str) -> None:
    infos: list[raw.Info] = [(str(n), [32, 1], kind, 0) for n, kind in enumerate(kinds)]
    infos.append(("vector", [32], 0, 0))  # one dimension does not count
    assert facts(ARCH, infos=infos, data=128).file_type == name


# --- model_info -----------------------------------------------------------------------------------


def test_numbers_of_every_type() -> None:
    keys = [
        ("u8", raw.U8, 200),
        ("i8", raw.I8, -3),
        ("u16", raw.U16, 65535),
        ("i16", raw.I16, -300),
        ("u32", raw.U32, 4000000000),
        ("i32", raw.I32, -7),
        ("f32", raw.F32, 0.1),
        ("bool", raw.BOOL, True),
        ("string", raw.STRING, b"h\xc3\xa9\xff"),
        ("u64", raw.U64, 2**64 - 1),
        ("i64", raw.I64, -(2**63)),
        ("f64", raw.F64, 0.1),
        ("nan", raw.F32, math.nan),
        ("inf", raw.F64, math.inf),
    ]
    info = model_info(opened(ARCH, *keys), verbose=False)
    assert info == {
        "general.architecture": "llama",
        "u8": 200,
        "i8": -3,
        "u16": 65535,
        "i16": -300,
        "u32": 4000000000,
        "i32": -7,
        "f32": 0.1,
        "bool": True,
        "string": "hé\ufffd",
        "u64": 2**64 - 1,
        "i64": -(2**63),
        "f64": 0.1,
        "nan": None,
        "inf": None,
        "general.parameter_count": 0,
    }
    assert list(info) == sorted(info)
    assert msgspec.json.encode(info)


def test_arrays() -> None:
    keys = [
        ("u8", (raw.U8, [1, 2, 3])),
        ("i8", (raw.I8, [1, -2])),
        ("i32", (raw.I32, [-7])),
        ("f32", (raw.F32, [0.1, 1.0, math.nan])),
        ("f64", (raw.F64, [0.1])),
        ("bool", (raw.BOOL, [True, False])),
        ("string", (raw.STRING, ["a", ""])),
        ("none", (raw.STRING, [])),
        ("no_u8", (raw.U8, [])),
    ]
    file = opened(ARCH, *((name, ARRAY, content) for name, content in keys))
    brief = model_info(file, verbose=False)
    assert [brief[name] for name, _ in keys] == [None] * 7 + [[], []]
    full = model_info(file, verbose=True)
    assert [full[name] for name, _ in keys] == [
        "AQID",
        [1, -2],
        [-7],
        [0.1, 1.0, None],
        [0.1],
        [True, False],
        ["a", ""],
        [],
        [],
    ]


def test_verbose_has_an_end() -> None:
    count = VERBOSE_ELEMENTS // 2 + 1
    big = struct.pack("<IQ", raw.BOOL, count) + bytes(count)
    file = opened(ARCH, ("a", ARRAY, big), ("b", ARRAY, big), ("c", ARRAY, (raw.U8, [1])))
    info = model_info(file, verbose=True)
    assert len(info["a"]) == count
    assert info["b"] is None
    assert info["c"] == "AQ=="


def test_name_and_template_are_of_models_only() -> None:
    keys = [
        ARCH,
        ("general.name", STRING, "N"),
        ("tokenizer.chat_template", STRING, "T"),
        ("general.parameter_count", U32, 9),
    ]
    file = opened(*keys, infos=[("w", [4], 0, 0)], data=16)
    assert model_info(file, verbose=False) == {
        "general.architecture": "llama",
        "general.parameter_count": 4,
    }
    assert projector_info(file, verbose=False) == {
        "general.architecture": "llama",
        "general.name": "N",
        "general.parameter_count": 4,
        "tokenizer.chat_template": "T",
    }


def test_tensor_infos() -> None:
    infos: list[raw.Info] = [
        ("blk.0.attn.weight", [4, 2], 0, 0),
        ("token_embd.weight", [32, 3], 8, 32),
        ("new", [4], 99, 0),
    ]
    assert tensor_infos(opened(ARCH, infos=infos, data=134)) == [
        wire.TensorInfo(name="blk.0.attn.weight", type="F32", shape=[4, 2]),
        wire.TensorInfo(name="token_embd.weight", type="Q8_0", shape=[32, 3]),
        wire.TensorInfo(name="new", type="unknown", shape=[4]),
    ]


def as_float32(value: float) -> float:
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_shortest_float32(value: float) -> None:
    short = shortest_float32(value)
    assert as_float32(short) == value
    assert math.copysign(1, short) == math.copysign(1, value)
    mantissa = repr(short).partition("e")[0].replace(".", "").strip("-0")
    for digits in range(1, len(mantissa)):
        fewer = float(f"{value:.{digits - 1}e}")
        assert abs(fewer) > 3.4028235e38 or as_float32(fewer) != value


@pytest.mark.parametrize("value", [0.1, 1e-05, 0.010071029, 3.4028235e38, 1e-45, 1.0, 16777216.0])
def test_known_shortest_digits(value: float) -> None:
    assert shortest_float32(as_float32(value)) == value


# --- facts ----------------------------------------------------------------------------------------

LAYERS = [
    ARCH,
    ("llama.block_count", U32, 4),
    ("llama.embedding_length", U32, 64),
    ("llama.attention.head_count", U32, 8),
]


def test_head_counts() -> None:
    found = facts(*LAYERS, ("llama.attention.head_count_kv", U32, 2))
    assert found.head_counts == (8, 8, 8, 8)
    assert found.kv_head_counts == (2, 2, 2, 2)
    assert (found.key_length, found.value_length) == (8, 8)
    assert found.offloadable_layers == 5


def test_head_counts_of_each_layer() -> None:
    counts = (raw.I32, [2, 0, -1])
    found = facts(*LAYERS, ("llama.attention.head_count_kv", ARRAY, counts))
    assert found.kv_head_counts == (2, 0, 0, 2)


def test_head_counts_that_are_missing() -> None:
    assert facts(*LAYERS).kv_head_counts == (8, 8, 8, 8)
    assert facts(ARCH).kv_head_counts == ()
    assert facts(*LAYERS, ("llama.attention.key_length", U32, 5)).key_length == 5


def test_hybrids_have_caches_in_some_layers_only() -> None:
    assert facts(*LAYERS, ("llama.full_attention_interval", U32, 2)).kv_head_counts == (0, 8, 0, 8)


def test_false_layer_count_makes_no_lists() -> None:
    found = facts(
        ARCH,
        ("llama.block_count", U32, 2**32 - 1),
        ("llama.attention.head_count", U32, 8),
        ("llama.attention.sliding_window", U32, 8),
    )
    assert found.block_count == 2**32 - 1
    assert (found.head_counts, found.windowed) == ((), ())
    assert len(found.layer_bytes) <= 4096


def windowed(name: str, *more: raw.Key) -> tuple[bool, ...]:
    base = [(f"{name}.block_count", U32, 4), (f"{name}.attention.sliding_window", U32, 512)]
    return facts(arch(name), *base, *more).windowed


def test_windowed_layers() -> None:
    pattern = "attention.sliding_window_pattern"
    assert windowed("llama") == (False,) * 4
    assert windowed("gemma2") == (True, False, True, False)
    assert windowed("gemma2", (f"gemma2.{pattern}", U32, 3)) == (True, True, False, True)
    flags = (raw.BOOL, [True, False, True])
    assert windowed("new", (f"new.{pattern}", ARRAY, flags)) == (True, False, True, False)
    assert facts(arch("cohere2"), ("cohere2.block_count", U32, 4)).windowed == ()


def test_bytes_by_block() -> None:
    infos: list[raw.Info] = [
        ("token_embd.weight", [8], 0, 0),
        ("blk.0.a", [8], 0, 32),
        ("blk.1.a", [8], 0, 64),
        ("blk.1.b", [8], 0, 96),
        ("blk.9.a", [8], 0, 128),
        ("blk.x", [8], 0, 160),
        ("v.blk.0.a", [8], 0, 192),
        ("mm.0", [8], 0, 224),
        ("mtp.0", [8], 0, 256),
    ]
    keys = [arch("qwen35"), ("qwen35.block_count", U32, 2)]
    found = facts(*keys, infos=infos, data=288)
    assert found.layer_bytes == (32, 64)
    assert found.inline_projector_bytes == 64
    assert found.other_bytes == 128
    assert found.tensor_bytes == 288
    assert found.tensor_prefixes == {"v.", "mm.", "mtp."}
    assert found.has_inline_projector
    assert found.has_builtin_draft
    assert not facts(ARCH, infos=infos, data=288).has_inline_projector


def test_bytes_of_unknown_types_reach_to_the_next_tensor() -> None:
    infos: list[raw.Info] = [
        ("blk.0.new", [4], 99, 32),
        ("blk.0.old", [8], 0, 0),
        ("last", [4], 99, 96),
    ]
    found = facts(ARCH, ("llama.block_count", U32, 1), infos=infos, data=128)
    assert (found.layer_bytes, found.other_bytes) == ((96,), 32)
    beyond: list[raw.Info] = [("new", [4], 99, 2**63)]
    assert facts(ARCH, infos=beyond).tensor_bytes == 0


def test_keys_before_the_architecture_count() -> None:
    found = facts(
        ("bert.context_length", U32, 512),
        ("bert.pooling_type", U32, 1),
        arch("bert"),
        ("tokenizer.ggml.model", STRING, "bert"),
    )
    assert (found.arch, found.context_length, found.is_embedding) == ("bert", 512, True)
    assert model_capabilities(found) == ["embedding"]


@pytest.mark.parametrize(
    ("name", "tokenizer", "normalize", "is_raw"),
    [
        ("bert", None, None, False),
        ("bert", "bert", None, False),
        ("bert", "bert", False, True),
        ("bert", "t5", True, True),
        ("nomic-bert", None, None, True),
        ("nomic-bert-moe", None, True, False),
        ("llama", None, False, False),
    ],
)
def test_raw_legacy_embeddings(
    name: str, tokenizer: str | None, normalize: bool | None, is_raw: bool
) -> None:
    keys: list[raw.Key] = [arch(name), (f"{name}.pooling_type", U32, 1)]
    if tokenizer is not None:
        keys.append(("tokenizer.ggml.model", STRING, tokenizer))
    if normalize is not None:
        keys.append((f"{name}.normalize_embeddings", BOOL, normalize))
    assert facts(*keys).has_raw_legacy_embeddings is is_raw
    assert not facts(keys[0], *keys[2:]).has_raw_legacy_embeddings


@pytest.mark.parametrize("prefix", ["", "llama."])
def test_split_keys(prefix: str) -> None:
    found = facts(
        ARCH,
        (f"{prefix}split.no", raw.U16, 1),
        (f"{prefix}split.count", raw.U16, 3),
        (f"{prefix}split.tensors.count", raw.I32, 100000),
    )
    assert (found.split_no, found.split_count, found.split_tensor_count) == (1, 3, 100000)


def test_split_keys_out_of_range() -> None:
    found = facts(ARCH, ("split.no", raw.I32, -1), ("split.count", U32, 65536))
    assert (found.split_no, found.split_count, found.split_tensor_count) == (None, 0, None)


def test_cache_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(header([ARCH, ("llama.context_length", U32, 1)]))
    cache = FactsCache(most=1)
    first = cache.get(path)
    assert cache.get(path) is first
    other = tmp_path / "other.gguf"
    other.write_bytes(header([ARCH, ("llama.context_length", U32, 2)]))
    other.replace(path)
    assert cache.get(path).context_length == 2
    other.write_bytes(header())
    second = cache.get(path)
    cache.get(other)
    assert cache.get(path) is not second  # the least recently used has gone
    path.write_bytes(b"nope")
    with pytest.raises(GGUFError):
        cache.get(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        cache.get(path)


@pytest.mark.parametrize("key", ["tokenizer.chat_template", "tokenizer.ggml.pre", "general.type"])
def test_cache_keeps_no_huge_texts(tmp_path: Path, key: str) -> None:
    path = tmp_path / "model.gguf"
    cache = FactsCache()
    for length, kept in ((1000 << 10, True), (1 << 20, False)):
        path.write_bytes(header([ARCH, (key, STRING, "x" * length)]))
        assert (cache.get(path) is cache.get(path)) is kept


# --- capabilities ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("", []),
        ("{% if tools %}", ["tools"]),
        ("<tool_call>", ["tools"]),
        ("tools <think> </think>", ["tools", "thinking"]),
        ("<think>", []),
        ("content.split('</think>')", ["thinking"]),
        ('content.split("</think>")', ["thinking"]),
        ("content.split('</think>') reasoning_content", []),
        ("content.split('</think>') <SPECIAL_12>", []),
    ],
)
def test_template_capabilities(template: str, expected: list[str]) -> None:
    assert template_capabilities(template) == expected
    assert has_tools(template) is ("tools" in expected)
    assert has_thinking(template) is ("thinking" in expected)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("tools tool_calls tool_response", True),
        ("tools tool_calls message['role'] == 'tool'", True),
        ("tools tool_calls ipython", True),
        ("tools tool_calls", False),
        ("tools tool_response", False),
        ("assistant_tool_call ipython", True),
    ],
)
def test_tool_round_trip(template: str, expected: bool) -> None:
    assert has_tool_round_trip(template) is expected


def test_model_capabilities() -> None:
    assert model_capabilities(facts(ARCH)) == ["completion"]
    assert model_capabilities(facts(ARCH, ("llama.vision.block_count", U32, 0))) == [
        "completion",
        "vision",
    ]
    assert model_capabilities(facts(ARCH, ("llama.audio.block_count", STRING, ""))) == [
        "completion",
        "audio",
    ]
    assert model_capabilities(facts(ARCH, ("llama.pooling_type", STRING, ""))) == ["embedding"]


def test_projector_capabilities() -> None:
    clip = arch("clip")
    hears = ("clip.has_audio_encoder", BOOL, True)
    deaf = ("clip.has_audio_encoder", BOOL, False)
    kind = ("clip.vision.projector_type", STRING, "gemma3nv")
    assert projector_capabilities(facts(clip)) == ["vision"]
    assert projector_capabilities(facts(clip, hears)) == ["vision", "audio"]
    assert projector_capabilities(facts(clip, deaf)) == ["vision"]
    assert projector_capabilities(facts(clip, hears, kind)) == ["vision"]


# --- classification -------------------------------------------------------------------------------

CLIP = arch("clip")


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ([ARCH], "model"),
        ([ARCH, ("general.type", STRING, "adapter")], "adapter"),
        ([ARCH, ("general.type", STRING, "projector")], "projector"),
        ([ARCH, ("general.type", STRING, "mmproj")], "projector"),
        ([arch("g"), ("g.vision.block_count", U32, 2)], "projector"),
        ([arch("g"), ("g.vision.block_count", U32, 2), ("g.block_count", U32, 0)], "projector"),
        ([arch("g"), ("g.vision.block_count", U32, 2), ("g.block_count", U32, 1)], "model"),
        ([arch("g"), ("g.vision.block_count", U32, 0)], "model"),
        ([arch("g"), ("g.vision.block_count", raw.I64, 2)], "projector"),
        ([CLIP], "model"),
        ([CLIP, ("clip.has_vision_encoder", BOOL, True)], "projector"),
        ([CLIP, ("clip.has_audio_encoder", BOOL, True)], "projector"),
        ([CLIP, ("clip.has_vision_encoder", BOOL, False)], "model"),
        ([CLIP, ("clip.has_vision_encoder", BOOL, True), ("clip.block_count", U32, 1)], "model"),
        ([ARCH, ("clip.has_vision_encoder", BOOL, True)], "model"),
        ([ARCH, ("llama.has_vision_encoder", BOOL, True)], "model"),
    ],
)
def test_media_kind(keys: list[raw.Key], kind: str) -> None:
    assert media_kind(opened(*keys)) == kind


def test_is_adapter() -> None:
    pair: list[raw.Info] = [("x.lora_a", [1], 0, 0), ("x.lora_b", [1], 0, 32)]
    assert is_adapter(opened(ARCH, ("general.type", STRING, "adapter")))
    assert is_adapter(opened(ARCH, infos=pair, data=64))
    assert not is_adapter(opened(ARCH, infos=[*pair, ("w", [1], 0, 0)], data=64))
    assert not is_adapter(opened(ARCH))


def test_needs_projector_type() -> None:
    sees = ("clip.has_vision_encoder", BOOL, True)
    assert needs_projector_type(opened(CLIP, sees))
    assert not needs_projector_type(opened(CLIP))
    assert not needs_projector_type(opened(CLIP, sees, ("clip.projector_type", STRING, "")))
    assert not needs_projector_type(opened(CLIP, sees, ("clip.vision.projector_type", STRING, "")))
    assert not needs_projector_type(opened(ARCH, ("llama.has_vision_encoder", BOOL, True)))


# --- validation -----------------------------------------------------------------------------------


def test_sound_files() -> None:
    infos: list[raw.Info] = [
        ("b", [8], 0, 32),
        ("a", [8], 0, 0),
        ("none", [0], 0, 32),
        ("x" * 64, [8], 0, 64),
    ]
    validate(opened(ARCH, infos=infos, data=96))
    validate(opened())


@pytest.mark.parametrize(
    ("infos", "why"),
    [
        ([("a", [8], 0, 0), ("a", [8], 0, 32)], 'duplicate tensor "a"'),
        ([("a", [8], 0, 4)], 'tensor "a" offset 4 is not a multiple of 32'),
        ([("a", [9], 0, 0), ("b", [8], 0, 32)], 'tensors "a" and "b" overlap'),
        ([("a", [9], 0, 0), ("b", [8], 0, 0)], 'tensors "a" and "b" overlap'),
        ([("a", [8], 99, 0)], 'tensor "a" size overflow'),
        ([("x" * 65, [8], 0, 0)], f'tensor name "{"x" * 65}" exceeds maximum 64 bytes'),
    ],
)
def test_unsound_tensors(infos: list[raw.Info], why: str) -> None:
    with pytest.raises(GGUFError) as caught:
        validate(opened(ARCH, infos=infos, data=96))
    assert caught.value.message == f"failed to validate GGUF: {why}"
    assert caught.value.status == 500


def test_unsound_keys() -> None:
    with pytest.raises(GGUFError, match=r'^failed to validate GGUF: duplicate key "k"$'):
        validate(opened(ARCH, ("k", U32, 1), ("k", U32, 1)))
    with pytest.raises(GGUFError, match=r"^failed to validate GGUF: invalid GGUF alignment: 4$"):
        validate(opened(ARCH, ("general.alignment", U32, 4)))


def test_big_endian_cannot_be_created_from() -> None:
    with pytest.raises(GGUFError, match=r"^big-endian GGUF files are not supported$") as caught:
        validate(read_bytes(header(order=">")))
    assert caught.value.status == 400


def test_facts_need_no_open_file(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(header([ARCH, ("tokenizer.chat_template", STRING, "x" * 5000)]))
    with open_gguf(path) as file:
        found = facts_of(file)
    assert len(found.chat_template) == 5000
