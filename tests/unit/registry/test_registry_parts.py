"""How blobs are cut, and which part files may be believed (registry-and-store 3.5, 3.6)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.registry.parts import Part, accepted, cut, encode_part, parse_part


@pytest.mark.parametrize(
    ("total", "count", "size", "last"),
    [
        (99_999_999, 1, 99_999_999, 99_999_999),
        (100_000_001, 2, 100_000_000, 1),
        (250_000_000, 3, 100_000_000, 50_000_000),
        (1_600_000_001, 17, 100_000_000, 1),
        (4_700_000_000, 16, 293_750_000, 293_750_000),
        (20_000_000_000, 20, 1_000_000_000, 1_000_000_000),
    ],
)
def test_the_cases_of_cutting(total: int, count: int, size: int, last: int) -> None:
    parts = cut(total)
    assert len(parts) == count
    assert {part.size for part in parts[:-1]} <= {size}
    assert parts[-1].size == last


def test_an_empty_blob_has_no_parts() -> None:
    assert cut(0) == []


@given(st.integers(1, 10**6), st.integers(1, 1000), st.integers(1000, 10**5))
def test_parts_cover_the_blob_without_gaps(total: int, least: int, most: int) -> None:
    end = 0
    for number, part in enumerate(cut(total, least, most)):
        assert (part.number, part.offset, part.completed) == (number, end, 0)
        assert 0 < part.size <= most
        end = part.end
    assert end == total


def test_the_file_is_what_other_versions_read() -> None:
    part = Part(0, 0, 100_000_000, 52_428_800)
    assert encode_part(part) == b'{"N":0,"Offset":0,"Size":100000000,"Completed":52428800}\n'
    assert parse_part(encode_part(part)) == part


def test_keys_of_any_case_and_unknown_keys_are_accepted() -> None:
    raw = b'{"n":1,"offset":10,"size":5,"completed":2,"etag":"x"}'
    assert parse_part(raw) == Part(1, 10, 5, 2)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"N":"0"}', b"\0\0\0", b'{"N":1.5}'])
def test_what_cannot_be_read_is_no_part(raw: bytes) -> None:
    assert parse_part(raw) is None


def _files(*parts: Part) -> list[bytes]:
    return [encode_part(part) for part in parts]


def test_a_whole_set_is_accepted_in_any_order() -> None:
    # Eleven, because "-10" comes before "-2" in a directory.
    parts = [Part(n, n * 10, 10, n % 10) for n in range(11)]
    files = sorted(_files(*parts), key=lambda raw: str(json.loads(raw)["N"]))
    assert accepted(files, data_size=110, stated=110) == parts


WHOLE = (Part(0, 0, 100, 100), Part(1, 100, 50, 20))


def test_a_data_file_that_only_lacks_its_end_will_do() -> None:
    assert accepted(_files(*WHOLE), data_size=120, stated=150) == list(WHOLE)


def test_nothing_completed_needs_no_data_file() -> None:
    parts = [Part(0, 0, 100), Part(1, 100, 50)]
    assert accepted(_files(*parts), data_size=None) == parts


@pytest.mark.parametrize(
    ("files", "data_size", "stated"),
    [
        ([], 150, 150),
        (_files(WHOLE[1]), 150, 150),  # the first was pruned
        (_files(WHOLE[0]), 150, 150),  # the last was pruned
        (_files(WHOLE[0], WHOLE[0]), 200, 200),
        ([*_files(*WHOLE), b""], 150, 150),
        ([*_files(*WHOLE), b"nope"], 150, 150),
        (_files(WHOLE[0], Part(1, 101, 49)), 150, 150),  # a hole
        (_files(WHOLE[0], Part(1, 99, 51)), 150, 150),  # an overlap
        (_files(Part(0, 0, 150, 151)), 200, 150),
        (_files(Part(0, 0, 150, -1)), 150, 150),
        (_files(Part(0, 0, 0)), 0, 0),
        (_files(Part(0, -5, 155)), 150, 150),
        (_files(Part(0, 0, -150)), 150, 0),
        (_files(*WHOLE), None, 150),
        (_files(*WHOLE), 119, 150),  # claims a byte that is not there
        (_files(*WHOLE), 150, 149),
        (_files(*WHOLE), 150, 151),
    ],
)
def test_a_doubtful_set_is_refused(files: list[bytes], data_size: int | None, stated: int) -> None:
    assert accepted(files, data_size=data_size, stated=stated) is None
