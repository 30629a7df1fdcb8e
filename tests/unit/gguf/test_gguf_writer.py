"""Writing: modelfile-and-create.md 8, 9.3, cases C10. What is written is read back."""

from __future__ import annotations

import hashlib
import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import gguf_bytes as raw
from support.gguf_bytes import ARCH, header, padded
from support.models import smollm2

from ollamad.gguf.encoding import Typed, TypedArray, Writable
from ollamad.gguf.errors import GGUFError
from ollamad.gguf.info import model_info
from ollamad.gguf.reader import open_gguf, read_bytes
from ollamad.gguf.validate import validate
from ollamad.gguf.values import Array, ValueType
from ollamad.gguf.writer import Output, Tensor, fresh, merged, rewritten, write_gguf


def written(output: Output) -> bytes:
    data = b"".join(output.chunks())
    assert len(data) == output.size
    return data


def f32(name: str, *values: float) -> Tensor:
    return Tensor(name, 0, (len(values),), struct.pack(f"<{len(values)}f", *values))


def test_worked_example(tmp_path: Path) -> None:
    metadata: dict[str, Writable] = {
        "tokenizer.x": ["a", ""],
        "n": 7,
        "general.architecture": "t",
    }
    output = Tensor("output", 1, (1,), struct.pack("<e", 1.0))
    path = tmp_path / "t.gguf"
    size = write_gguf(path, metadata, [output, f32("blk.10.w", 1.0), f32("blk.2.w", 2.0, 3.0)])
    data = path.read_bytes()
    assert size == len(data) == 322
    assert hashlib.sha256(data).hexdigest() == (
        "511163395f6532f40e4df5e541feca96efc8ecea3d53a1b554bb5b0b7579066d"
    )
    stream = io.BytesIO()
    write_gguf(stream, metadata, [output, f32("blk.10.w", 1.0), f32("blk.2.w", 2.0, 3.0)])
    assert stream.getvalue() == data


def test_key_order_and_prefixes() -> None:
    keys = ["adapter.type", "foo", "split.no", "t.bar", "tokenizer.z", "clip.x", "imatrix.y"]
    metadata: dict[str, Writable] = dict.fromkeys(keys, 1)
    metadata["general.architecture"] = "t"
    file = read_bytes(written(fresh(metadata)))
    assert list(file.metadata) == [
        "general.architecture",
        "adapter.type",
        "clip.x",
        "imatrix.y",
        "split.no",
        "t.bar",
        "t.foo",
        "tokenizer.z",
    ]


def test_tensor_order() -> None:
    given_order = ["output.weight", "blk.10.a", "blk.2.b", "blk.2.a", "a"]
    data = written(fresh({"general.architecture": "t"}, [f32(name, 1) for name in given_order]))
    file = read_bytes(data)
    validate(file)
    assert [t.name for t in file.tensors] == [
        "blk.2.a",
        "blk.2.b",
        "blk.10.a",
        "a",
        "output.weight",
    ]
    assert file.tensor_start(file.tensors[-1]) + 4 == len(data)


@pytest.mark.parametrize("metadata", [{}, {"general.architecture": ""}, {"general.name": "x"}])
def test_architecture_is_needed(metadata: dict[str, Writable]) -> None:
    with pytest.raises(GGUFError, match=r"^architecture not set$"):
        fresh(metadata)


def test_alignment() -> None:
    metadata: dict[str, Writable] = {"general.architecture": "t", "general.alignment": 64}
    file = read_bytes(written(fresh(metadata, [f32("a", 1), f32("b", 1)])))
    assert file.alignment == 64
    assert [tensor.offset for tensor in file.tensors] == [0, 64]
    with pytest.raises(GGUFError, match="invalid GGUF alignment: 7"):
        fresh({**metadata, "general.alignment": 7})
    with pytest.raises(GGUFError, match=r"improper type for 'general.alignment'"):
        fresh({**metadata, "general.alignment": "7"})


@pytest.mark.parametrize(
    ("value", "type_id", "read"),
    [
        (7, ValueType.U32, 7),
        (-7, ValueType.I32, -7),
        (2**32, ValueType.U64, 2**32),
        (-(2**31) - 1, ValueType.I64, -(2**31) - 1),
        (True, ValueType.BOOL, True),
        (0.5, ValueType.F32, 0.5),
        ("é", ValueType.STRING, "é"),
        (b"\xff", ValueType.STRING, "\ufffd"),
        (Typed(ValueType.U8, 200), ValueType.U8, 200),
        (Typed(ValueType.I8, -3), ValueType.I8, -3),
        (Typed(ValueType.U16, 7), ValueType.U16, 7),
        (Typed(ValueType.I16, -7), ValueType.I16, -7),
        (Typed(ValueType.F64, 0.1), ValueType.F64, 0.1),
    ],
)
def test_scalars(value: Writable, type_id: ValueType, read: object) -> None:
    file = read_bytes(written(fresh({"general.architecture": "t", "x": value})))
    record = file.metadata.records["t.x"]
    assert (record.type_id, record.value) == (type_id, read)


@pytest.mark.parametrize(
    ("value", "element_type", "read"),
    [
        ([1, -2], ValueType.I32, [1, -2]),
        ([1, 2**31], ValueType.U32, [1, 2**31]),
        ([1, 2**40], ValueType.U64, [1, 2**40]),
        ([-1, 2**40], ValueType.I64, [-1, 2**40]),
        ([0.5, 1], ValueType.F32, [0.5, 1.0]),
        ([True, False], ValueType.BOOL, [True, False]),
        (["a", "é"], ValueType.STRING, ["a", "é"]),
        ([], ValueType.I32, []),
        (TypedArray(ValueType.STRING, []), ValueType.STRING, []),
        (TypedArray(ValueType.U8, [1, 255]), ValueType.U8, [1, 255]),
        (TypedArray(ValueType.F64, [0.1]), ValueType.F64, [0.1]),
    ],
)
def test_arrays(value: Writable, element_type: ValueType, read: list[object]) -> None:
    file = read_bytes(written(fresh({"general.architecture": "t", "x": value})))
    array = file.metadata["t.x"]
    assert isinstance(array, Array)
    assert (array.element_type, array.read()) == (element_type, read)


@pytest.mark.parametrize(
    "value",
    [
        None,
        2**64,
        Typed(ValueType.U8, 256),
        Typed(ValueType.STRING, 1),
        Typed(ValueType.U32, "x"),
        Typed(ValueType.ARRAY, 1),
        TypedArray(ValueType.ARRAY, [1]),
        [1, "a"],
        [True, 1],
        [[1]],
        "\ud800",
    ],
)
def test_improper_values(value: Writable) -> None:
    with pytest.raises(GGUFError, match=r"^improper type for 't.x'$"):
        fresh({"general.architecture": "t", "x": value})


def test_data_must_fit_its_type() -> None:
    metadata: dict[str, Writable] = {"general.architecture": "t"}
    with pytest.raises(GGUFError, match='tensor "w" has 3 bytes, expected 4'):
        fresh(metadata, [Tensor("w", 0, (1,), b"abc")])
    with pytest.raises(GGUFError, match='tensor "w" size overflow'):
        fresh(metadata, [Tensor("w", 2, (33,), b"")])


# --- rewriting ------------------------------------------------------------------------------------

ODD_KEYS: list[raw.Key] = [
    ("z.last", raw.I8, -3),
    ARCH,
    ("list", raw.ARRAY, (raw.STRING, [b"\xff", "b"])),
    ("bytes", raw.STRING, b"\xfe"),
    ("twice", raw.U8, 1),
    ("twice", raw.U8, 2),
    ("general.parameter_count", raw.U64, 9),
    ("flag", raw.BOOL, b"\2"),
]


def test_rewriting_keeps_bytes_and_order() -> None:
    infos: list[raw.Info] = [("z", [1], 0, 64), ("a", [2], 0, 0)]
    base = read_bytes(padded(header(ODD_KEYS, infos, version=2), b"A" * 8 + bytes(56) + b"Z" * 4))
    data = written(rewritten(base, drop=["flag"], add={"new": "x"}))
    expected_keys = [ODD_KEYS[0], ODD_KEYS[1], ODD_KEYS[2], ODD_KEYS[3], ODD_KEYS[5]]
    expected_infos: list[raw.Info] = [("z", [1], 0, 0), ("a", [2], 0, 32)]
    head = header([*expected_keys, ("new", raw.STRING, "x")], expected_infos)
    assert data == padded(head, b"Z" * 4 + bytes(28) + b"A" * 8)


def test_rewriting_replaces_at_the_end() -> None:
    base = read_bytes(header([("k", raw.U8, 1), ARCH]))
    file = read_bytes(written(rewritten(base, add={"k": 2})))
    assert list(file.metadata.items()) == [("general.architecture", "llama"), ("k", 2)]


def test_a_real_file_comes_back_unchanged() -> None:
    with open_gguf(smollm2()) as file:
        digest = hashlib.sha256()
        largest = 0
        for chunk in rewritten(file).chunks():
            digest.update(chunk)
            largest = max(largest, len(chunk))
    with smollm2().open("rb") as stream:
        assert digest.digest() == hashlib.file_digest(stream, "sha256").digest()
    assert largest < 4 << 20


def test_big_endian_is_not_rewritten() -> None:
    with pytest.raises(GGUFError, match="big-endian"):
        rewritten(read_bytes(header(order=">")))


def test_source_that_got_shorter(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(padded(header([ARCH], [("w", [64], 0, 0)]), 256))
    with open_gguf(path) as file:
        output = rewritten(file)
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(GGUFError, match="unexpected EOF"):
            list(output.chunks())


def part(number: int, count: int, names: list[str], *keys: raw.Key, alignment: int = 32) -> bytes:
    split: list[raw.Key] = [
        ("split.no", raw.U16, number),
        ("split.count", raw.U16, count),
        ("split.tensors.count", raw.I32, 3),
    ]
    infos: list[raw.Info] = [(name, [1], 0, n * alignment) for n, name in enumerate(names)]
    blocks = [name.encode().ljust(4, b".") for name in names]
    data = b"".join(block.ljust(alignment, b"\0") for block in blocks)
    return padded(header([*keys, *split], infos), data, alignment)


def test_merging() -> None:
    first = part(0, 2, ["z"], ARCH, ("llama.split.no", raw.U16, 0), ("last", raw.U8, 1))
    alignment = ("general.alignment", raw.U32, 64)
    second = part(1, 2, ["b", "a"], alignment, alignment=64)
    data = written(merged([read_bytes(first), read_bytes(second)]))
    infos: list[raw.Info] = [("z", [1], 0, 0), ("b", [1], 0, 32), ("a", [1], 0, 64)]
    body = b"z..." + bytes(28) + b"b..." + bytes(28) + b"a..."
    assert data == padded(header([ARCH, ("last", raw.U8, 1)], infos), body)


def test_merging_refuses_a_tensor_twice() -> None:
    parts = [read_bytes(part(n, 2, ["w"], ARCH)) for n in range(2)]
    with pytest.raises(GGUFError, match=r'^duplicate tensor "w"$'):
        merged(parts)


# --- properties -----------------------------------------------------------------------------------

_scalars = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.booleans(),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
)
_lists = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=9),
    st.lists(st.booleans(), min_size=1, max_size=9),
    st.lists(st.text(max_size=9), min_size=1, max_size=9),
)
_keys = st.text(min_size=1, max_size=12).map(lambda text: f"t.{text}")


@given(
    st.dictionaries(_keys, _scalars | _lists, max_size=8),
    st.dictionaries(st.text(max_size=12), st.binary(max_size=9), max_size=6),
    st.sampled_from([8, 32, 4096]),
)
def test_what_is_written_is_read(
    metadata: dict[str, Writable], blobs: dict[str, bytes], alignment: int
) -> None:
    tensors = [Tensor(name, 24, (len(data),), data) for name, data in blobs.items()]
    general: dict[str, Writable] = {
        "general.architecture": "t",
        "general.alignment": alignment,
    }
    data = written(fresh({**general, **metadata}, tensors))
    file = read_bytes(data, strict=True)
    validate(file)
    for key, value in metadata.items():
        read = file.metadata[key]
        assert (read.read() if isinstance(read, Array) else read) == value
    for info in file.tensors:
        start = file.tensor_start(info)
        assert data[start : start + info.nbytes] == blobs[info.name]
    again = read_bytes(written(rewritten(file)))
    assert model_info(again, verbose=True) == model_info(file, verbose=True)
