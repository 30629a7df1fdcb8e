"""Hostile files: whatever the bytes, GGUFError is all that comes out, and memory has a bound.

Headers are mutated where it hurts, in counts, lengths, types and offsets; then everything that the
daemon does with a file is done.
"""

from __future__ import annotations

import contextlib
import random
import struct
import tracemalloc
from functools import cache

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import gguf_bytes as raw
from support.gguf_bytes import header, padded
from support.models import smollm2

from ollamad.gguf.capabilities import model_capabilities, projector_capabilities
from ollamad.gguf.classify import is_adapter, media_kind, needs_projector_type
from ollamad.gguf.errors import GGUFError
from ollamad.gguf.facts import facts_of
from ollamad.gguf.info import model_info, projector_info, tensor_infos
from ollamad.gguf.reader import open_gguf, read_source
from ollamad.gguf.source import BytesSource
from ollamad.gguf.validate import validate
from ollamad.gguf.writer import merged, rewritten

#: Numbers at which signs, sizes and limits turn.
NASTY = [
    *(
        2**bits + step
        for bits in (0, 7, 8, 15, 16, 24, 26, 31, 32, 40, 62, 63)
        for step in (-1, 0, 1)
    ),
    2**64 - 1,
    2**64 - 8,
    2**64 - 32,
    1000,
    65537,
]


class Cut(BytesSource):
    """A header in memory with data behind it that nobody reads."""

    def __init__(self, head: bytes, size: int) -> None:
        super().__init__(head)
        self.size = size


def use_everything(source: BytesSource) -> bool:
    """Do all that is done with a file. True if it was readable."""
    try:
        file = read_source(source)
    except GGUFError:
        return False
    try:
        facts = facts_of(file)
        info = model_info(file, verbose=True)
        projector_info(file, verbose=False)
    except GGUFError:
        return False
    msgspec.json.encode(info)
    msgspec.json.encode(facts)
    msgspec.json.encode(tensor_infos(file))
    media_kind(file)
    is_adapter(file)
    needs_projector_type(file)
    model_capabilities(facts)
    projector_capabilities(facts)
    for action in (validate, rewritten, lambda file: merged([file, file])):
        with contextlib.suppress(GGUFError):
            action(file)
    return True


def rich() -> bytes:
    """A small file with something of everything."""
    keys: list[raw.Key] = [
        raw.ARCH,
        ("general.alignment", raw.U32, 32),
        ("general.file_type", raw.U32, 1),
        ("general.type", raw.STRING, "model"),
        ("llama.block_count", raw.U32, 2),
        ("llama.context_length", raw.U32, 64),
        ("llama.embedding_length", raw.U32, 8),
        ("llama.attention.head_count", raw.U32, 2),
        ("llama.attention.head_count_kv", raw.ARRAY, (raw.I32, [1, 2])),
        ("llama.attention.sliding_window", raw.U32, 4),
        ("llama.attention.sliding_window_pattern", raw.ARRAY, (raw.BOOL, [True, False])),
        ("llama.full_attention_interval", raw.U32, 2),
        ("tokenizer.chat_template", raw.STRING, "tools <think></think>"),
        ("tokenizer.ggml.tokens", raw.ARRAY, (raw.STRING, ["a", b"\xff", "hé", ""])),
        ("tokenizer.ggml.scores", raw.ARRAY, (raw.F32, [0.1, 1.0, -1.0, 0.0])),
        ("tokenizer.ggml.add_bos_token", raw.BOOL, True),
        ("split.no", raw.U16, 0),
        ("split.count", raw.U16, 2),
        ("x.u8s", raw.ARRAY, (raw.U8, [1, 2, 3])),
        ("x.f64", raw.F64, 0.1),
        ("x.i64", raw.I64, -1),
    ]
    infos: list[raw.Info] = [
        ("blk.0.a", [8, 2], 0, 0),
        ("blk.1.a", [32, 2], 2, 64),
        ("v.a", [4], 1, 128),
        ("output", [], 0, 160),
    ]
    return padded(header(keys, infos), 164)


RICH = rich()


def test_unchanged_files_pass() -> None:
    assert use_everything(BytesSource(RICH))
    assert use_everything(real_source())


_edits = st.lists(
    st.tuples(
        st.integers(0, len(RICH) - 1),
        st.one_of(
            st.sampled_from(NASTY).map(lambda number: struct.pack("<Q", number % 2**64)),
            st.sampled_from(NASTY).map(lambda number: struct.pack("<I", number % 2**32)),
            st.binary(min_size=1, max_size=3),
        ),
    ),
    max_size=4,
)


@settings(max_examples=1500, deadline=None)
@given(_edits, st.integers(0, len(RICH)), st.booleans())
def test_edited_files(edits: list[tuple[int, bytes]], end: int, cut: bool) -> None:
    data = bytearray(RICH)
    for at, patch in edits:
        data[at : at + len(patch)] = patch
    use_everything(BytesSource(bytes(data[:end] if cut else data)))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"GGUF\3\0\0\0", b"GGUF", b"FUGG\0\0\0\3", b""]))
def test_noise(noise: bytes, start: bytes) -> None:
    use_everything(BytesSource(start + noise))


@cache
def real_head() -> tuple[bytes, int]:
    """The header of a real model, and the size of its file."""
    with open_gguf(smollm2()) as file:
        return file.source.read(file.data_offset, 0), file.size


def real_source() -> Cut:
    return Cut(*real_head())


@cache
def real_fields() -> list[int]:
    """Where the real header has its counts, lengths and types: what is worth changing."""
    fields = [4, 8, 16]
    with open_gguf(smollm2()) as file:
        for key, record in file.metadata.records.items():
            after_key = record.start + 8 + len(key.encode())
            fields += [record.start, after_key, after_key + 4, after_key + 8, after_key + 16]
    # Tensor infos are a small part of the header behind all keys.
    fields += range(max(fields), len(real_head()[0]) - 8, 61)
    return fields


@pytest.mark.parametrize("seed", range(150))
def test_edited_real_header(seed: int) -> None:
    chance = random.Random(seed)
    head, size = real_head()
    data = bytearray(head)
    for _ in range(chance.randint(1, 3)):
        at = chance.choice(real_fields())
        number = chance.choice(NASTY)
        patch = struct.pack("<Q", number % 2**64)[: chance.choice([1, 4, 8])]
        data[at : at + len(patch)] = patch
    use_everything(Cut(bytes(data), size))


def hostile_numbers() -> list[bytes]:
    """Small files that claim to hold a lot, each at one place."""
    lie = struct.pack("<Q", 2**26)
    files = [
        header(tensor_count=2**20),
        header(key_count=2**16),
        header([raw.ARCH, ("llama.block_count", raw.U64, 2**63)]),
        header([("k", raw.STRING, b"")])[:-8] + struct.pack("<Q", 2**24) + bytes(100),
    ]
    for element_type in (raw.U8, raw.I8, raw.F64, raw.STRING):
        array = struct.pack("<I", element_type) + lie + bytes(100)
        files.append(header([raw.ARCH, ("tokenizer.ggml.tokens", raw.ARRAY, array)]))
    return files


@pytest.mark.parametrize("data", hostile_numbers())
def test_lies_cost_no_memory(data: bytes) -> None:
    tracemalloc.start()
    try:
        use_everything(BytesSource(data))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


class Zeros(BytesSource):
    """Zeros, made as they are read, with some pieces of bytes laid over them."""

    def __init__(self, pieces: dict[int, bytes], size: int) -> None:
        super().__init__(b"")
        self.size = size
        self._pieces = pieces

    def read(self, count: int, offset: int) -> bytes:
        data = bytearray(max(0, min(count, self.size - offset)))
        for start, piece in self._pieces.items():
            for at, byte in enumerate(piece, start - offset):
                if 0 <= at < len(data):
                    data[at] = byte
        return bytes(data)


def test_arrays_cost_no_memory_until_they_are_asked_for() -> None:
    size = 64 << 20
    first = struct.pack("<4sIQQ", b"GGUF", 3, 0, 2)
    first += raw.string("a") + struct.pack("<IIQ", raw.ARRAY, raw.U8, size)
    second = raw.string("b") + struct.pack("<IIQ", raw.ARRAY, raw.F64, size // 8)
    pieces = {0: first, len(first) + size: second}
    source = Zeros(pieces, len(first) + size + len(second) + size)
    tracemalloc.start()
    try:
        file = read_source(source)
        info = model_info(file, verbose=False)
        facts_of(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert info == {"a": None, "b": None, "general.parameter_count": 0}
    assert peak < 4 << 20
