"""Plans for published files: library-gguf-compat.md 2, 2.1, 3.1, 6 and 7 (rows 1 to 4)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import gemma3
from support.gemma3 import F16, F32, ROWS

from ollamad.gguf.derive.plan import FilePlan, Plan
from ollamad.gguf.derive.registry import find_plan, may_need_plan
from ollamad.gguf.derive.tensors import AsF32, as_f32, renamed
from ollamad.gguf.derive.text import text_plan
from ollamad.gguf.encoding import Writable
from ollamad.gguf.errors import GGUFError
from ollamad.gguf.file import GGUFFile
from ollamad.gguf.reader import read_bytes
from ollamad.gguf.source import BytesSource
from ollamad.gguf.validate import validate
from ollamad.gguf.values import Span, Value
from ollamad.gguf.writer import Tensor, fresh, tensors_of

BF16 = 30


def file_of(keys: Mapping[str, Writable], tensors: Sequence[Tensor] = ()) -> GGUFFile:
    return read_bytes(b"".join(fresh(keys, tensors).chunks()))


def made(plan: FilePlan | None) -> GGUFFile:
    """The file that a plan makes, checked as rules 3 and 4 want it."""
    assert plan is not None
    output = plan.output()
    data = b"".join(output.chunks())
    assert len(data) == output.size
    file = read_bytes(data, strict=True)
    validate(file)
    at = 0
    for tensor in file.tensors:
        assert tensor.offset == at
        at += tensor.nbytes + -tensor.nbytes % file.alignment
    return file


def planned(file: GGUFFile) -> Plan:
    plan = find_plan(file)
    assert plan is not None
    return plan


def contents(file: GGUFFile) -> dict[str, tuple[int, tuple[int, ...], bytes]]:
    return {t.name: (t.type_id, t.shape, data_of(t)) for t in tensors_of(file)}


def data_of(tensor: Tensor) -> bytes:
    assert isinstance(tensor.data, Span)
    return tensor.data.read()


def values(file: GGUFFile) -> dict[str, object]:
    """Every key with its type and value; arrays as their elements' bytes."""
    found = {}
    for key, record in file.metadata.records.items():
        value = file.metadata[key]
        found[key] = (record.type_id, value if not hasattr(value, "read_bytes") else raw(value))
    return found


def raw(value: Value) -> object:
    assert not isinstance(value, int | float | str)
    return (value.element_type, value.count, value.read_bytes())


def small(*, drop: Sequence[str] = (), rows: int = 4, **keys: Writable) -> GGUFFile:
    """A text-only file of Gemma 3 without weights to speak of."""
    metadata: dict[str, Writable] = {
        "general.architecture": "gemma3",
        "gemma3.block_count": 26,
        "gemma3.context_length": 32768,
        "gemma3.attention.layer_norm_rms_epsilon": 1e-5,
    }
    metadata |= {key.replace("__", "."): value for key, value in keys.items()}
    for key in drop:
        del metadata[key]
    return file_of(metadata, [Tensor("token_embd.weight", F32, (2, rows), bytes(8 * rows))])


# --- gemma3 ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library() -> GGUFFile:
    return file_of(gemma3.library_keys(), gemma3.library_tensors())


def test_the_text_model_is_that_of_llama_cpps_tools(library: GGUFFile) -> None:
    plan = planned(library)
    assert plan.kind == "gemma3"
    text = made(plan.text)
    wanted = file_of(gemma3.loadable_keys(), gemma3.text_tensors())
    assert contents(text) == contents(wanted)
    assert values(text) == values(wanted)
    assert find_plan(text) is None


def test_the_projector_of_gemma3(library: GGUFFile) -> None:
    projector = made(planned(library).mmproj)
    assert contents(projector) == {
        # The embeddings of patches and positions were F16.
        t.name: (F32, t.shape, struct.pack(f"<{t_count(t)}f", *numbers(t)))
        for t in gemma3.eye_tensors(type_id=F16)
    }
    keys = dict(projector.metadata)
    for name in ("image_mean", "image_std"):
        array = projector.metadata.records[f"clip.vision.{name}"].value
        assert not isinstance(array, int | float | str | Span)
        assert (array.element_type, array.read()) == (6, [0.5, 0.5, 0.5])
        del keys[f"clip.vision.{name}"]
    epsilon = keys.pop("clip.vision.attention.layer_norm_epsilon")
    assert epsilon == pytest.approx(1e-6)
    assert keys == {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "general.name": "tiny",
        "general.file_type": 1,
        "general.quantization_version": 2,
        "clip.projector_type": "gemma3",
        "clip.has_vision_encoder": True,
        "clip.use_gelu": True,
        "clip.vision.block_count": gemma3.EYE_LAYERS,
        "clip.vision.embedding_length": gemma3.EYE_WIDTH,
        "clip.vision.feed_forward_length": gemma3.EYE_INNER,
        "clip.vision.image_size": gemma3.IMAGE,
        "clip.vision.patch_size": gemma3.PATCH,
        "clip.vision.attention.head_count": gemma3.EYE_HEADS,
        "clip.vision.projection_dim": gemma3.WIDTH,
    }
    kinds = {projector.metadata.records[key].type_id for key, v in keys.items() if type(v) is int}
    assert kinds == {4}  # u32: others end the process


def t_count(tensor: Tensor) -> int:
    assert isinstance(tensor.data, bytes)
    return len(tensor.data) // (4 if tensor.type_id == F32 else 2)


def numbers(tensor: Tensor) -> tuple[float, ...]:
    assert isinstance(tensor.data, bytes)
    code = "f" if tensor.type_id == F32 else "e"
    return struct.unpack(f"<{t_count(tensor)}{code}", tensor.data)


def test_a_text_model_with_other_names_for_positions() -> None:
    bases: dict[str, Writable] = {
        "gemma3__rope__local__freq_base": 10000.0,
        "gemma3__rope__global__freq_base": 2e6,
    }
    file = small(**bases)
    plan = planned(file)
    assert plan.mmproj is None
    text = made(plan.text)
    assert text.get_float("rope.freq_base") == 2e6
    assert text.get_float("rope.freq_base_swa") == 10000.0
    assert text.get_float("attention.layer_norm_rms_epsilon") == pytest.approx(1e-5)
    assert not [k for k in text.metadata if "scaling" in k or "global" in k or "local" in k]
    assert find_plan(text) is None


def test_what_a_file_says_wins_over_defaults_and_copies() -> None:
    text = made(
        planned(
            small(
                gemma3__rope__global__freq_base=2e6,
                gemma3__rope__freq_base=3e6,
                gemma3__context_length=131072,
                gemma3__rope__scaling__factor=4.0,
            )
        ).text
    )
    assert text.get_float("rope.freq_base") == 3e6
    assert text.get_float("rope.scaling.factor") == 4.0
    assert text.get_str("rope.scaling.type") == "linear"


def test_files_that_need_nothing() -> None:
    assert find_plan(small()) is None
    dense = [Tensor("dense.0.weight", F32, (1,), bytes(4))]
    assert find_plan(file_of({"general.architecture": "gemma3"}, dense)) is None
    assert find_plan(file_of({"general.architecture": "llama"})) is None
    parts = small(drop=["gemma3.attention.layer_norm_rms_epsilon"], split__count=2)
    assert find_plan(parts) is None
    assert may_need_plan("gemma3")
    assert not may_need_plan("llama")


@pytest.mark.parametrize(
    "mark",
    [
        {"gemma3__mm__tokens_per_image": 256},
        {"gemma3__rope__global__freq_base": 1e6},
        {"gemma3__rope__local__freq_base": 1e4},
        {"tokenizer__ggml__add_padding_token": False},
        {"tokenizer__ggml__add_unknown_token": False},
        {"drop": ["gemma3.attention.layer_norm_rms_epsilon"]},
    ],
    ids=str,
)
def test_each_mark_of_a_published_file(mark: dict[str, Writable]) -> None:
    file = small(**mark)  # type: ignore[arg-type]
    assert find_plan(made(planned(file).text)) is None


def test_an_eye_without_its_keys_is_an_error_that_names_one() -> None:
    keys = gemma3.library_keys()
    del keys["gemma3.vision.patch_size"]
    file = file_of(keys, gemma3.library_tensors())
    with pytest.raises(GGUFError, match=r"gemma3\.vision\.patch_size is missing"):
        find_plan(file)


# --- vocabulary -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [ROWS - 3, ROWS, ROWS + 1, ROWS + 70])
def test_a_vocabulary_gets_as_long_as_the_embeddings(count: int) -> None:
    file = file_of(gemma3.library_keys(tokens=count), gemma3.text_tensors())
    text = made(planned(file).text)
    tokens = text.get_array("tokenizer.ggml.tokens")
    scores = text.get_array("tokenizer.ggml.scores")
    types = text.get_array("tokenizer.ggml.token_type")
    assert tokens is not None
    assert scores is not None
    assert types is not None
    kept = min(count, ROWS)
    assert tokens.read_raw_strings() == [
        *gemma3.TOKENS[:kept],
        *(b"[PAD%d]" % number for number in range(kept, ROWS)),
    ]
    assert scores.read() == [-1.0 * n for n in range(kept)] + [0.0] * (ROWS - kept)
    assert types.read() == gemma3.TYPES[:kept] + [5] * (ROWS - kept)


# --- what all kinds use ---------------------------------------------------------------------------


def test_keys_move_to_another_architecture() -> None:
    file = file_of(
        {
            "general.architecture": "old",
            "old.a": 1,
            "old.b": 2,
            "old.list": [1, 2, 3],
            "old.vision.block_count": 3,
            "tokenizer.ggml.model": "llama",
        },
        [Tensor("blk.0.old", F32, (1,), bytes(4)), Tensor("mm.1", F32, (1,), bytes(4))],
    )
    both = read_bytes(
        b"".join(
            text_plan(
                file,
                arch="new",
                copies={"new.c": "new.b"},
                defaults={"new.a": 5, "new.d": 6},
                values={"tokenizer.ggml.model": "test"},
                change=lambda t: Tensor(t.name.replace("old", "new"), t.type_id, t.shape, t.data),
            )
            .output()
            .chunks()
        )
    )
    arrays = {k: v for k, v in both.metadata.items() if not isinstance(v, int | float | str)}
    assert list(arrays) == ["new.list"]
    assert both.get_ints("list") == (1, 2, 3)
    assert {k: v for k, v in both.metadata.items() if k not in arrays} == {
        "general.architecture": "new",
        "new.a": 1,
        "new.c": 2,
        "new.d": 6,
        "tokenizer.ggml.model": "test",
    }
    assert [t.name for t in both.tensors] == ["blk.0.new"]


def test_a_key_that_has_its_new_name_already_stays() -> None:
    # Written by hand: the writer would put the foreign key below the architecture.
    file = file_of({"general.architecture": "clip", "clip.x": 1, "general.x": 2})
    plan = text_plan(file, arch="general")
    assert "clip.x" in plan.drop
    assert "general.x" not in plan.drop


@given(st.binary(min_size=2, max_size=64).map(lambda raw: raw[: len(raw) // 2 * 2]))
def test_bf16_becomes_f32(data: bytes) -> None:
    tensor = Tensor("x.weight", BF16, (len(data) // 2,), Span(BytesSource(data), 0, len(data)))
    wide = as_f32(tensor)
    assert isinstance(wide.data, AsF32)
    out = b"".join(wide.data.blocks())
    assert len(out) == wide.data.size
    assert out == b"".join(b"\0\0" + data[i : i + 2] for i in range(0, len(data), 2))


def test_long_tensors_are_converted_in_pieces() -> None:
    data = struct.pack("<e", 1.5) * (700 * 1024)
    wide = as_f32(Tensor("x", F16, (700 * 1024,), Span(BytesSource(data), 0, len(data))))
    assert isinstance(wide.data, AsF32)
    pieces = list(wide.data.blocks())
    assert len(pieces) == 2
    assert b"".join(pieces) == struct.pack("<f", 1.5) * (700 * 1024)
    cut = AsF32(Span(BytesSource(data[:-1]), 0, len(data)), F16)
    with pytest.raises(GGUFError, match="unexpected EOF"):
        list(cut.blocks())


def test_small_tensors_become_f32_and_large_ones_stay() -> None:
    half = struct.pack("<2e", 1, 2)
    file = file_of(
        {"general.architecture": "x"},
        [
            Tensor(name, F16, shape, half)
            for name, shape in (
                ("blk.0.attn_q.bias", (2,)),
                ("blk.0.attn_norm.weight", (2,)),
                ("blk.0.exps.bias", (1, 2)),
                ("blk.0.attn_q.weight", (1, 2)),
                ("rope_freqs.weight", (2,)),
            )
        ],
    )
    kinds = {t.name: t.type_id for t in made(text_plan(file)).tensors}
    assert kinds == {
        "blk.0.attn_q.bias": F32,
        "blk.0.attn_norm.weight": F32,
        "blk.0.exps.bias": F32,
        "blk.0.attn_q.weight": F16,
        "rope_freqs.weight": F16,
    }


def test_quantised_tensors_are_not_converted() -> None:
    with pytest.raises(GGUFError, match='tensor "x" of type Q8_0 cannot be converted to F32'):
        as_f32(Tensor("x", 8, (32,), bytes(34)))


def test_rules_apply_in_turn_and_to_the_first_place() -> None:
    assert renamed("v.a.a", [("a", "b"), ("b", "c")]) == "v.c.a"


def test_a_source_that_gets_shorter(tmp_path: Path) -> None:
    path = gemma3.library_file(tmp_path / "m")
    whole = path.read_bytes()
    file = read_bytes(whole)
    output = planned(file).text.output()
    file.source._data = whole[: len(whole) // 2]  # type: ignore[attr-defined]
    with pytest.raises(GGUFError, match="unexpected EOF"):
        for _ in output.chunks():
            pass
