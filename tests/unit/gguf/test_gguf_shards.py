"""Shards of one model: which files they are, and what they say together (9.1, 9.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from support import gemma3
from support.creating import gguf
from support.split_gguf import split_gguf

from ollamad.gguf.errors import GGUFError
from ollamad.gguf.facts import Facts, read_facts
from ollamad.gguf.reader import open_gguf
from ollamad.gguf.shards import MAX_SHARDS, Shards, arrange, cached_shards, read_shards
from ollamad.gguf.writer import Tensor, fresh, merged


def shard(number: int | None, count: int) -> Facts:
    return Facts(split_no=number, split_count=count)


WHOLE = Facts()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([shard(0, 2), shard(1, 2)], Shards((0, 1), 2, ())),
        ([shard(2, 3), shard(0, 3), shard(1, 3)], Shards((1, 2, 0), 3, ())),
        # Some are gone, or were never there.
        ([shard(0, 2), None], Shards((0,), 2, (1,))),
        ([None, shard(2, 3), shard(0, 3)], Shards((2, 1), 3, (1,))),
        ([shard(1, 4)], Shards((0,), 4, (0, 2, 3))),
        ([shard(0, 3), shard(2, 3)], Shards((0, 1), 3, (1,))),
        # No shards of one model.
        ([], None),
        ([None], None),
        ([None, None], None),
        ([WHOLE], None),
        ([WHOLE, WHOLE], None),
        ([shard(0, 1)], None),
        ([shard(0, 0), shard(1, 0)], None),
        ([WHOLE, shard(0, 2), shard(1, 2)], None),
        ([shard(0, 2), shard(1, 3)], None),
        ([shard(0, 2), shard(0, 2)], None),
        ([shard(0, 2), shard(2, 2)], None),
        ([shard(0, 2), shard(None, 2)], None),
        ([shard(None, 2)], None),
        ([shard(0, 2), shard(1, 2), None], None),
        ([shard(0, MAX_SHARDS + 1)], None),
    ],
)
def test_which_files_make_one_model(files: list[Facts | None], expected: Shards | None) -> None:
    assert arrange(files) == expected


def as_one_file(parts: list[Path], target: Path) -> Facts:
    files = [open_gguf(part) for part in parts]
    target.write_bytes(b"".join(merged(files).chunks()))
    return read_facts(target)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_facts_are_those_of_the_merged_file(tmp_path: Path, count: int) -> None:
    parts = split_gguf(gemma3.library_file(tmp_path / "m.gguf"), tmp_path, count)
    whole = as_one_file(parts, tmp_path / "merged")
    assert whole.tensor_prefixes
    assert sum(whole.layer_bytes) > 0
    assert whole.inline_projector_bytes > 0
    found = read_shards(*parts)
    assert found.size == sum(part.stat().st_size for part in parts)
    # Where in the file the data is, is another matter.
    places = {"size": 0, "data_offset": 0}
    assert msgspec.structs.replace(found, **places) == msgspec.structs.replace(whole, **places)


def small(folder: Path, number: int, **fields: Any) -> Path:
    path = folder / f"{number}.gguf"
    path.write_bytes(gguf(split__no=number, split__count=2, **fields))
    return path


_BYTES = {0: 4, 1: 2, 24: 1, 30: 2}


def matrices(folder: Path, number: int, *types: int) -> Path:
    """A shard without ``general.file_type`` and with small matrices of these types."""
    keys = {"general.architecture": "llama", "split.no": number, "split.count": 2}
    tensors = [
        Tensor(f"t{number}.{index}", type_id, (2, 1), bytes(2 * _BYTES[type_id]))
        for index, type_id in enumerate(types)
    ]
    path = folder / f"{number}.gguf"
    path.write_bytes(b"".join(fresh(keys, tensors).chunks()))
    return path


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((), (1,), "F16"),  # the first one may have no tensors at all
        ((0,), (0,), "F32"),
        ((0, 0, 1), (30, 30), "BF16"),
        ((1,), (24,), "unknown"),
    ],
)
def test_the_type_is_inferred_from_all_shards(
    tmp_path: Path, first: tuple[int, ...], second: tuple[int, ...], expected: str
) -> None:
    parts = [matrices(tmp_path, 0, *first), matrices(tmp_path, 1, *second)]
    assert read_shards(*parts).file_type == expected


def test_they_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [small(tmp_path, 0, tensors={"a": 3}), small(tmp_path, 1, tensors={"b": 5})]
    first = cached_shards(parts)
    assert (first.parameter_count, first.tensor_count, first.split_count) == (8, 2, 0)
    monkeypatch.setattr("ollamad.gguf.shards.open_gguf", None)
    assert cached_shards(parts) is first
    with pytest.raises(TypeError):  # another order is another model
        cached_shards(parts[::-1])
    parts[1].unlink()
    with pytest.raises(FileNotFoundError):
        cached_shards(parts)


def test_a_changed_shard_is_read_again(tmp_path: Path) -> None:
    parts = [small(tmp_path, 0, tensors={"a": 3}), small(tmp_path, 1, tensors={"b": 5})]
    cached_shards(parts)
    small(tmp_path, 1, tensors={"b": 500})
    assert cached_shards(parts).parameter_count == 503


def test_a_damaged_shard(tmp_path: Path) -> None:
    parts = [small(tmp_path, 0), small(tmp_path, 1)]
    parts[1].write_bytes(parts[1].read_bytes()[:-1])
    with pytest.raises(GGUFError, match="exceeds file size"):
        read_shards(*parts)
