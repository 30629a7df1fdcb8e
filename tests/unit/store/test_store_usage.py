"""What nothing needs, and how much room everything takes (registry-and-store 2.8, 2.9, 3.6)."""

from __future__ import annotations

import pytest

from ollamad.store.usage import (
    KINDS,
    Amount,
    Contents,
    Entry,
    Kept,
    ModelFiles,
    decide,
    files_of,
    is_work_directory,
    measure,
    unneeded,
)
from ollamad.units import HOUR, MINUTE, SECOND

A, B, C = ("sha256-" + letter * 64 for letter in "abc")
UPPER = "sha256-" + "D" * 64
NOW = 1000 * HOUR


def entry(path: str, *, size: int = 10, length: int | None = None, age: int = 0) -> Entry:
    return Entry(path, size if length is None else length, size, NOW - age)


def blob(name: str, **fields: int) -> Entry:
    return entry(f"blobs/{name}", **fields)


def made(name: str, **fields: int) -> Entry:
    return entry(f"compat/{name}", **fields)


def found(contents: Contents, *referenced: str) -> list[tuple[str, str]]:
    return [(i.kind, i.name) for i in unneeded(contents, referenced, version="v2")]


def test_what_a_model_names_is_needed() -> None:
    blobs = [blob(name) for name in (A, B, UPPER)]
    assert found(Contents(blobs=blobs), A, UPPER.lower()) == [
        ("blob", f"blobs/{UPPER}"),
        ("blob", f"blobs/{B}"),
    ]
    assert found(Contents(blobs=blobs), A, B, UPPER) == []


@pytest.mark.parametrize(
    "name",
    ["junk", "x.tmp", "sha256-123456", "split-copy12", "Q4_K_M77", "COPY5", f"{A}.tmp", f"{A}x"],
)
def test_any_other_file_among_the_blobs_is_temporary(name: str) -> None:
    assert found(Contents(blobs=[blob(name)])) == [("temporary", f"blobs/{name}")]


def test_the_files_of_a_download_are_one_thing() -> None:
    suffixes = ["-partial-10", "-partial", "-partial-0", "-partial-9"]
    blobs = [blob(A + suffix, size=1, length=2, age=HOUR) for suffix in suffixes]
    blobs += [blob(f".{A}-partial-3", age=2 * HOUR), blob(f"{B}-partial-0"), blob(A)]
    first, second = unneeded(Contents(blobs=blobs), {A}, version="v2")
    assert (first.kind, first.name, first.blob) == ("partial", f"blobs/{A}-partial", A)
    assert (first.size, first.length, first.modified_ns) == (14, 18, NOW - HOUR)
    assert (second.name, len(second.entries)) == (f"blobs/{B}-partial", 1)


def test_what_is_left_of_a_download_at_any_moment_does_no_harm() -> None:
    """The reference believes every set of part files: it starts anew from the first ones alone,
    but never recovers when the first one is missing (3.6)."""
    suffixes = ["-partial", *(f"-partial-{n}" for n in range(12))]
    blobs = [blob(A + suffix) for suffix in suffixes]
    blobs += [blob(f".{A}-partial-11"), blob(f"{A}-partial-x"), blob(f"{A}-partial-1.tmp")]
    (item,) = unneeded(Contents(blobs=blobs), (), version="v2")
    names = [e.name.removeprefix(A) for e in item.entries]
    assert sorted(names[:3]) == ["-partial-1.tmp", "-partial-x", f".{A}-partial-11"]
    assert names[3:] == [*(f"-partial-{n}" for n in range(11, -1, -1)), "-partial"]


def test_a_download_is_as_old_as_its_youngest_file() -> None:
    """Finished parts are not written any more, and so look old."""
    blobs = [blob(f"{A}-partial-0", age=9 * HOUR), blob(f"{A}-partial", age=MINUTE)]
    items = unneeded(Contents(blobs=blobs), (), version="v2")
    assert decide(items, kinds=KINDS, now_ns=NOW, least_age_ns=HOUR)[0] == []
    assert decide(items, kinds=KINDS, now_ns=NOW, least_age_ns=MINUTE)[0] == items


def test_what_was_made_of_a_blob_goes_with_it() -> None:
    derived = [made(f"{name}.v2.{kind}") for name in (A, B) for kind in ("json", "text.gguf")]
    derived.append(made(f"{A}.v1.mmproj.gguf"))
    contents = Contents(blobs=[blob(A), blob(B)], derived=derived)
    (item,) = unneeded(contents, {B}, version="v2")
    assert [e.name for e in item.entries] == [
        A,
        f"{A}.v2.json",  # before what it tells of
        f"{A}.v1.mmproj.gguf",
        f"{A}.v2.text.gguf",
    ]


def test_derived_files_that_nobody_will_use() -> None:
    complete = [f"{A}.v2.json", f"{A}.v2.text.gguf"]
    useless = [
        f"{A}.v1.json",  # another version's
        f"{B}.v2.text.gguf",  # without a note
        f"{C}.v2.json",  # of a blob that is gone
    ]
    unfinished = f".{A}.v2.text.gguf.12-ab.tmp"
    derived = [made(name) for name in (*complete, *useless, unfinished, "README")]
    contents = Contents(blobs=[blob(A), blob(B)], derived=derived)
    assert found(contents, A, B) == [
        ("temporary", f"compat/{unfinished}"),
        *(("derived", f"compat/{name}") for name in useless),
    ]


def test_work_directories_and_unfinished_manifests() -> None:
    contents = Contents(
        directories=[entry("ollama-safetensors12")], manifests=[entry("manifests/.ollamad-1")]
    )
    assert found(contents) == [
        ("temporary", "manifests/.ollamad-1"),
        ("import", "ollama-safetensors12"),
    ]


@pytest.mark.parametrize(
    ("name", "in_blobs", "is_one"),
    [
        ("ollama-safetensors123", False, True),
        ("ollama-safetensors", False, False),
        ("ollama-safetensors1x", False, False),
        ("manifests", False, False),
        ("split-gguf-1", False, False),
        ("split-gguf-1", True, True),
        ("split-gguf-", True, False),
        ("ollama-safetensors1", True, False),
    ],
)
def test_which_directories_are_imports(name: str, in_blobs: bool, is_one: bool) -> None:
    assert is_work_directory(name, in_blobs=in_blobs) is is_one


@pytest.mark.parametrize(
    ("age", "least", "goes"),
    [
        (HOUR, HOUR, True),
        (HOUR - 1, HOUR, False),
        (-HOUR, HOUR, False),
        (-HOUR, 0, True),
        (0, 0, True),
    ],
)
def test_age(age: int, least: int, goes: bool) -> None:
    items = unneeded(Contents(blobs=[blob(A, age=age)]), (), version="v2")
    remove, keep = decide(items, kinds=KINDS, now_ns=NOW, least_age_ns=least)
    assert (len(remove), len(keep)) == (goes, not goes)


@pytest.mark.parametrize(
    ("least", "text"),
    [
        (HOUR, "1h"),
        (24 * HOUR, "24h"),
        (90 * MINUTE, "1h30m"),
        (10 * MINUTE, "10m"),
        (10 * SECOND, "10s"),
        (HOUR + SECOND, "1h0m1s"),
    ],
)
def test_why_it_is_kept(least: int, text: str) -> None:
    items = unneeded(Contents(blobs=[blob(A)]), (), version="v2")
    _, keep = decide(items, kinds=KINDS, now_ns=NOW, least_age_ns=least)
    assert keep == [Kept(f"blobs/{A}", f"younger than {text}")]


def test_other_kinds_are_not_even_mentioned() -> None:
    items = unneeded(Contents(blobs=[blob(A), blob(f"{B}-partial"), blob("x")]), (), version="v2")
    for least in (0, HOUR):
        remove, keep = decide(items, kinds=["partial"], now_ns=NOW, least_age_ns=least)
        names = [i.name for i in remove] + [k.name for k in keep]
        assert names == [f"blobs/{B}-partial"]


def test_what_is_no_digest_names_no_file() -> None:
    assert files_of([A.replace("-", ":"), "", "sha256:zz", "../x"]) == {A}


def test_how_much_room_everything_takes() -> None:
    contents = Contents(
        blobs=[
            blob(A, size=100),
            blob(B, size=30),
            blob(C, size=7, length=6),
            blob(f"{A}-partial", size=20, length=400),
            blob(f"{A}-partial-0", size=4, length=50),
            blob("sha256-123", size=3),
        ],
        directories=[entry("ollama-safetensors1", size=9)],
        derived=[
            made(f"{A}.v2.json", size=1),
            made(f"{A}.v2.text.gguf", size=50),
            made(f"{C}.v2.json", size=2),
            made(".x.tmp", size=5),
        ],
    )
    models = [
        ModelFiles("small", "1" * 64, frozenset({B})),
        ModelFiles("one", "2" * 64, frozenset({A, B})),
        ModelFiles("gone", "3" * 64, frozenset({UPPER})),
    ]
    usage = measure(contents, models, version="v2")
    assert [(m.name, m.size, m.unique, m.shared) for m in usage.models] == [
        ("one", 181, 151, 30),
        ("small", 30, 0, 30),
        ("gone", 0, 0, 0),
    ]
    assert usage.blobs == Amount(3, 137, 136)
    assert usage.unreferenced == Amount(1, 7, 6)
    assert usage.partials == Amount(1, 24, 450)
    assert usage.temporary == Amount(3, 17, 17)
    assert usage.derived == Amount(3, 53, 53)


def test_two_names_of_one_model_have_nothing_of_their_own() -> None:
    models = [ModelFiles(name, "1" * 64, frozenset({A})) for name in ("b", "a")]
    usage = measure(Contents(blobs=[blob(A)]), models, version="v2")
    assert [(m.name, m.unique) for m in usage.models] == [("a", 0), ("b", 0)]
