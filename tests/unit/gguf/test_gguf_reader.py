"""Reading hand-made files: modelfile-and-create.md 6 and cases C8."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from support import gguf_bytes as raw
from support.gguf_bytes import ARCH, header, padded

from ollamad.gguf import names
from ollamad.gguf.cursor import MAX_HEADER
from ollamad.gguf.errors import GGUFError
from ollamad.gguf.reader import has_magic, open_gguf, read_bytes, read_source
from ollamad.gguf.source import BytesSource, FileSource
from ollamad.gguf.values import Array

MAX_U64 = 2**64 - 1


def refused(data: bytes, *, strict: bool = False) -> str:
    with pytest.raises(GGUFError) as caught:
        read_bytes(data, strict=strict)
    assert caught.value.status == 500
    return caught.value.message


def test_only_an_architecture() -> None:
    data = header()
    assert len(data) == 69
    file = read_bytes(data)
    assert (file.arch, file.data_offset, file.parameter_count) == ("llama", 96, 0)
    assert file.tensors == ()


SCALARS = [
    ("u8", raw.U8, 200),
    ("i8", raw.I8, -3),
    ("u16", raw.U16, 65535),
    ("i16", raw.I16, -300),
    ("u32", raw.U32, 4000000000),
    ("i32", raw.I32, -7),
    ("bool", raw.BOOL, True),
    ("string", raw.STRING, "hé"),
    ("u64", raw.U64, MAX_U64),
    ("i64", raw.I64, -(2**63)),
    ("f64", raw.F64, 0.1),
]


@pytest.mark.parametrize(("name", "type_id", "content"), SCALARS)
def test_scalars(name: str, type_id: int, content: object) -> None:
    file = read_bytes(header([ARCH, (name, type_id, content), ("after", raw.U8, 1)]))
    assert file.metadata[name] == content
    assert type(file.metadata[name]) is type(content)
    assert list(file.metadata) == ["general.architecture", name, "after"]


@pytest.mark.parametrize(
    ("element_type", "elements"),
    [
        (raw.U8, [1, 2, 3]),
        (raw.I8, [1, -2]),
        (raw.I16, [-300, 300]),
        (raw.U16, [65535]),
        (raw.I32, [7, -7]),
        (raw.U32, [4000000000]),
        (raw.U64, [MAX_U64]),
        (raw.I64, [-(2**63)]),
        (raw.F32, [0.5, -1.0]),
        (raw.F64, [0.1]),
        (raw.BOOL, [True, False]),
        (raw.STRING, ["a", "", "hé"]),
        (raw.STRING, []),
        (raw.U32, []),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_arrays(element_type: int, elements: list[object], order: str) -> None:
    keys = [ARCH, ("list", raw.ARRAY, (element_type, elements)), ("after", raw.U8, 1)]
    file = read_bytes(header(keys, order=order))
    array = file.metadata["list"]
    assert isinstance(array, Array)
    assert len(array) == len(elements)
    assert array.read() == elements
    assert file.metadata["after"] == 1


def test_bool_is_any_non_zero_byte() -> None:
    keys = [
        ARCH,
        ("one", raw.BOOL, b"\2"),
        ("many", raw.ARRAY, b"\7\0\0\0" + struct.pack("<Q3B", 3, 0, 2, 1)),
    ]
    file = read_bytes(header(keys))
    assert file.metadata["one"] is True
    many = file.metadata["many"]
    assert isinstance(many, Array)
    assert many.read() == [False, True, True]


def test_each_byte_that_is_not_utf8_becomes_one_mark() -> None:
    truncated = b"a\xe2\x82b"
    keys = [
        ARCH,
        ("bad", raw.STRING, b"\xff\xfe"),
        ("cut", raw.STRING, truncated),
        ("list", raw.ARRAY, (raw.STRING, [b"\xff", truncated])),
    ]
    file = read_bytes(header(keys))
    assert file.metadata["bad"] == "\ufffd\ufffd"
    assert file.metadata["cut"] == "a\ufffd\ufffdb"
    array = file.metadata["list"]
    assert isinstance(array, Array)
    assert array.read() == ["\ufffd", "a\ufffd\ufffdb"]
    assert array.read_raw_strings() == [b"\xff", truncated]


def test_repeated_key_the_last_wins() -> None:
    file = read_bytes(header([ARCH, ("k", raw.U8, 1), ("k", raw.STRING, "x")]))
    assert file.metadata["k"] == "x"
    assert file.repeated_keys == ("k",)


def test_empty_key() -> None:
    assert read_bytes(header([("", raw.U8, 1)])).metadata[""] == 1


# --- container ------------------------------------------------------------------------------------


def test_version_2() -> None:
    assert read_bytes(header(version=2)).version == 2


@pytest.mark.parametrize("version", [0, 1, 4, 77])
def test_other_versions(version: int) -> None:
    assert refused(header(version=version)) == f"unsupported GGUF version {version}"


def test_big_endian_with_swapped_magic() -> None:
    keys = [ARCH, ("llama.context_length", raw.U32, 77)]
    infos = [("w", [4], 0, 0)]
    data = padded(header(keys, infos, magic=b"FUGG", order=">"), 16)
    file = read_bytes(data)
    assert file.big_endian
    assert file.get_int("context_length") == 77
    assert file.tensors[0].shape == (4,)


def test_swapped_magic_means_that_all_is_swapped() -> None:
    assert refused(header(magic=b"FUGG")) == "unsupported GGUF version 50331648"


def test_big_endian_with_normal_magic() -> None:
    file = read_bytes(header([], order=">"))
    assert file.big_endian
    assert file.version == 3
    assert not read_bytes(header([])).big_endian


@pytest.mark.parametrize("magic", [b"lmgg", b"fmgg", b"tjgg", b"algg", b"gguf", b"\0\0\0\0"])
def test_other_magics(magic: bytes) -> None:
    assert not has_magic(magic)
    assert refused(header(magic=magic)) == "invalid file magic"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "EOF"),
        (b"GG", "unexpected EOF"),
        (b"GGUF\3\0\0", "unexpected EOF"),
        (b"GGUF\3\0\0\0", "EOF"),
        (header(key_count=2), "EOF"),
        (header()[:-1], "unexpected EOF"),
    ],
)
def test_ends_too_early(data: bytes, text: str) -> None:
    assert refused(data) == text


def test_every_truncation_is_refused() -> None:
    keys = [
        ARCH,
        *SCALARS,
        ("l", raw.ARRAY, (raw.STRING, ["abc"])),
        ("n", raw.ARRAY, (raw.I32, [1])),
    ]
    data = header(keys, [("w", [4, 2], 0, 0)])
    for end in range(len(data)):
        assert "EOF" in refused(data[:end])


def test_last_string_of_an_array_is_cut() -> None:
    data = header([ARCH, ("list", raw.ARRAY, (raw.STRING, ["a", "bc"]))])
    assert refused(data[:-1]) == "unexpected EOF"


@pytest.mark.parametrize(
    ("cut", "field"),
    [
        (0, "name: EOF"),
        (9, "dimensions: EOF"),
        (13, "shape: EOF"),
        (21, "kind: EOF"),
        (25, "offset: EOF"),
        (26, "offset: unexpected EOF"),
    ],
)
def test_tensor_info_cut(cut: int, field: str) -> None:
    info = raw.info("w", [4], 0, 0)
    data = header([ARCH], tensor_count=1) + info[:cut]
    assert refused(data) == f"failed to read tensor {field}"


# --- limits ---------------------------------------------------------------------------------------


def test_unknown_types() -> None:
    assert refused(header([("k", 13, b"")])) == "invalid type: 13"
    assert refused(header([("k", raw.ARRAY, struct.pack("<IQ", 9, 0))])) == "invalid array type: 9"
    assert (
        refused(header([("k", raw.ARRAY, struct.pack("<IQ", 13, 0))])) == "invalid array type: 13"
    )


def test_string_too_long() -> None:
    text = "GGUF string length 16777217 exceeds maximum 16777216"
    length = struct.pack("<Q", 16777217)
    assert refused(header([("k", raw.STRING, b"")])[:-8] + length) == text
    strings = struct.pack("<IQ", raw.STRING, 1) + length
    assert refused(header([("k", raw.ARRAY, strings)])) == text


def test_key_too_long() -> None:
    assert refused(header([("k" * 65536, raw.U8, 1)])) == (
        "GGUF string length 65536 exceeds maximum 65535"
    )
    read_bytes(header([("k" * 65535, raw.U8, 1)]))


def test_array_too_long() -> None:
    head = struct.pack("<IQ", raw.U8, 67108865)
    assert refused(header([("k", raw.ARRAY, head)])) == (
        "GGUF array size 67108865 exceeds maximum 67108864"
    )


@pytest.mark.parametrize("element_type", [raw.U8, raw.F64, raw.STRING])
def test_array_longer_than_the_file(element_type: int) -> None:
    head = struct.pack("<IQ", element_type, 1 << 20) + b"\0" * 16
    assert refused(header([("k", raw.ARRAY, head)])) == "unexpected EOF"


@pytest.mark.parametrize("count", [65537, 2**63, MAX_U64])
def test_too_many_keys(count: int) -> None:
    assert refused(header(key_count=count)) == f"GGUF key count {count} exceeds maximum 65536"


def test_too_many_tensors() -> None:
    assert refused(header(tensor_count=2**63)) == "failed to read tensor name: EOF"
    assert refused(header(tensor_count=2**63) + b"\0") == (
        "GGUF tensor count 9223372036854775808 exceeds maximum 1048576"
    )


class Sparse(BytesSource):
    """A file whose end is far beyond the bytes that were given; the rest is zeros."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self.size = size

    def read(self, count: int, offset: int) -> bytes:
        count = min(count, self.size - offset)
        return super().read(count, offset).ljust(count, b"\0")


def test_header_too_long() -> None:
    arrays = [(str(n), raw.ARRAY, struct.pack("<IQ", raw.F64, 1 << 26)) for n in range(2)]
    head = header([arrays[0]], key_count=2)
    with pytest.raises(GGUFError, match=f"GGUF header exceeds maximum {MAX_HEADER} bytes"):
        read_source(Sparse(head, 1 << 31))


# --- tensors --------------------------------------------------------------------------------------


def one(shape: list[int], type_id: int = 0, offset: int = 0, data: int = 0, **more: int) -> bytes:
    keys: list[raw.Key] = [ARCH]
    keys.extend((f"general.{name}", raw.U32, number) for name, number in more.items())
    return padded(header(keys, [("w", shape, type_id, offset)]), data, more.get("alignment", 32))


def test_shapes() -> None:
    scalar = read_bytes(one([], data=4)).tensors[0]
    assert (scalar.n_elements, scalar.nbytes) == (1, 4)
    empty = read_bytes(one([0, 4])).tensors[0]
    assert (empty.n_elements, empty.nbytes) == (0, 0)
    quantized = read_bytes(one([64, 2], 2, data=72)).tensors[0]
    assert (quantized.type_name, quantized.nbytes) == ("Q4_0", 72)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (one([1, 1, 1, 1, 1]), 'tensor "w" dimensions 5 exceeds maximum 4'),
        (one([2**40, 2**40]), 'tensor "w" elements overflow'),
        (one([64], data=255), 'tensor "w" offset+size (384) exceeds file size (383)'),
        (one([33], 2, data=99), 'tensor "w" size overflow'),
        (one([2**63], 28, data=8), 'tensor "w" size overflow'),
        (one([1], offset=2**64 - 8, data=64), 'tensor "w" offset+size overflows'),
        (one([2**61], 27, data=8), 'tensor "w" size overflow'),
    ],
)
def test_refused_tensors(data: bytes, text: str) -> None:
    assert refused(data) == text


def test_exactly_to_the_end() -> None:
    assert read_bytes(one([64], data=256)).size == 384


def test_names_are_quoted() -> None:
    data = header([ARCH], [('a"\n', [1] * 5, 0, 0)])
    assert refused(data) == r'tensor "a\"\n" dimensions 5 exceeds maximum 4'


def test_sum_of_elements() -> None:
    infos = [("a", [2**32, 2**31], 99, 0), ("b", [2**32, 2**31], 99, 0)]
    assert refused(header([ARCH], infos)) == "parameter count overflow"
    assert read_bytes(header([ARCH], infos[:1])).parameter_count == 2**63


def test_unknown_tensor_type() -> None:
    data = one([4], 99)
    tensor = read_bytes(data).tensors[0]
    assert (tensor.type_name, tensor.nbytes) == ("unknown", 0)
    assert refused(data, strict=True) == 'tensor "w" size overflow'
    assert refused(one([4], 4), strict=True) == 'tensor "w" size overflow'


def test_unaligned_overlapping_and_repeated_tensors_are_readable() -> None:
    infos = [("w", [4], 0, 0), ("w", [4], 0, 3)]
    assert len(read_bytes(padded(header([ARCH], infos), 19)).tensors) == 2


def test_alignment() -> None:
    data = padded(header([ARCH, ("general.alignment", raw.U32, 64)], [("w", [1], 0, 0)]), 4, 64)
    assert read_bytes(data).data_offset == 192
    wide = [ARCH, ("general.alignment", raw.U64, 64)]
    assert read_bytes(header(wide)).alignment == 64
    other = [ARCH, ("general.alignment", raw.STRING, "64")]
    assert read_bytes(header(other)).alignment == 32
    assert read_bytes(header([ARCH, ("general.alignment", raw.U32, 1 << 20)])).alignment == 1 << 20


@pytest.mark.parametrize("alignment", [0, 7, 1 << 21])
def test_refused_alignment(alignment: int) -> None:
    data = header([ARCH, ("general.alignment", raw.U32, alignment)])
    assert refused(data) == f"invalid GGUF alignment: {alignment}"


@pytest.mark.parametrize(("type_id", "kind"), names.TENSOR_TYPES.items())
def test_every_type_has_its_size(type_id: int, kind: names.TensorType) -> None:
    tensor = read_bytes(one([kind.block, 3], type_id, data=3 * kind.nbytes), strict=True).tensors[0]
    assert (tensor.type_name, tensor.nbytes) == (kind.name, 3 * kind.nbytes)


# --- access ---------------------------------------------------------------------------------------


def test_accessors() -> None:
    file = read_bytes(
        header(
            [
                ("llama.n", raw.I64, 7),  # before the architecture
                ARCH,
                ("llama.below", raw.I32, -1),
                ("llama.flag", raw.BOOL, True),
                ("llama.f32", raw.F32, 0.5),
                ("llama.f64", raw.F64, 0.25),
                ("llama.text", raw.STRING, "x"),
                ("llama.list", raw.ARRAY, (raw.I32, [3, -4])),
                ("tokenizer.t", raw.STRING, "y"),
            ]
        )
    )
    assert file.get_int("n") == 7
    assert file.get_int("below") is None
    assert file.get_int("below", 5) == 5
    assert file.get_int("flag") is None
    assert file.get_bool("flag") is True
    assert file.get_bool("n", False) is False
    assert (file.get_float("f32"), file.get_float("f64"), file.get_float("n")) == (0.5, 0.25, None)
    assert (file.get_str("text"), file.get_str("tokenizer.t"), file.get_str("n", "")) == (
        "x",
        "y",
        "",
    )
    assert file.get_array("text") is None
    assert file.get_ints("list") == (3, 0)
    assert file.get_ints("list", most=1) == ()
    assert file.get_ints("n") == (7,)
    assert file.get_ints("text") == ()
    assert file.has("below")
    assert not file.has("above")


def test_no_architecture() -> None:
    file = read_bytes(header([("unknown.n", raw.U32, 1)]))
    assert (file.arch, file.get_int("n")) == ("unknown", 1)
    assert read_bytes(header([("general.architecture", raw.U32, 1)])).arch == "unknown"


# --- files ----------------------------------------------------------------------------------------


def test_large_values_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    long = "x" * 70000
    strings = ["a" * (n * 7919 % 90000) for n in range(40)]  # some longer than one block's rest
    path.write_bytes(
        header([ARCH, ("long", raw.STRING, long), ("list", raw.ARRAY, (raw.STRING, strings))])
    )
    with open_gguf(path) as file:
        assert file.metadata["long"] == long
        array = file.metadata["list"]
        assert isinstance(array, Array)
        assert array.read() == strings
    with pytest.raises(ValueError, match="closed"):
        array.read()


def test_file_that_got_shorter(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(header([ARCH, ("list", raw.ARRAY, (raw.U8, [1] * 9))]))
    with open_gguf(path) as file:
        os.truncate(path, 30)
        array = file.metadata["list"]
        assert isinstance(array, Array)
        with pytest.raises(GGUFError, match="unexpected EOF"):
            array.read()


def test_file_that_was_changed_under_us(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(header([ARCH, ("list", raw.ARRAY, (raw.STRING, ["abc", "d"]))]))
    with open_gguf(path) as file:
        array = file.metadata["list"]
        assert isinstance(array, Array)
        first, second = array.span.start, array.span.start + 11
        for at, length in ((second, 2), (first, 100), (first, 8)):
            with path.open("r+b") as changed:
                changed.seek(at)
                changed.write(struct.pack("<Q", length))
            with pytest.raises(GGUFError, match="unexpected EOF"):
                array.read()


def test_what_is_appended_later_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"12")
    source = FileSource(path)
    path.write_bytes(b"1234")
    assert source.read(4, 1) == b"2"
    source.close()


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_gguf(tmp_path / "none")
    with pytest.raises(GGUFError, match="is a directory"):
        open_gguf(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(GGUFError, match="not a regular file"):
        open_gguf(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(GGUFError, match="too many levels of symbolic links"):
        open_gguf(tmp_path / "loop")


def test_descriptor_is_closed(tmp_path: Path) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("missing: /proc/self/fd")
    path = tmp_path / "model.gguf"
    path.write_bytes(header())
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"nope")
    before = len(list(descriptors.iterdir()))
    open_gguf(path).close()
    open_gguf(path)  # dropped without being closed
    with pytest.raises(GGUFError) as caught:
        open_gguf(bad)
    assert caught.traceback  # which keeps all frames alive
    assert len(list(descriptors.iterdir())) == before
