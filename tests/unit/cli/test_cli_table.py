"""Tables, and the rows of list and ps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.cli.listing import loaded_table, loaded_table_in_full, models_table, processor
from ollamad.cli.table import broken, table
from ollamad.cli.times import unix_ns
from ollamad.cli.width import width
from ollamad.units import SECOND
from ollamad.wire import ListedModel, ModelDetails, RunningModel

NOW = 1_700_000_000 * SECOND  # 2023-11-14T22:13:20Z
DETAILS = ModelDetails(
    parent_model="", format="", family="", families=None, parameter_size="", quantization_level=""
)


def listed(name: str, digest: str, size: int, modified_at: str, remote: str = "") -> ListedModel:
    return ListedModel(
        name=name,
        model=name,
        modified_at=modified_at,
        size=size,
        digest=digest,
        details=DETAILS,
        remote_model=remote,
    )


MODELS = [
    listed("model1", "sha256:abc123456", 1024, "2023-11-13T22:13:20Z"),
    listed("model2", "sha256:def456789", 2048, "2023-11-12T23:13:20.000000000+01:00"),
]


def test_list() -> None:
    assert models_table(MODELS, "", NOW) == (
        "NAME      ID              SIZE      MODIFIED     \n"
        "model1    sha256:abc12    1.0 KB    24 hours ago    \n"
        "model2    sha256:def45    2.0 KB    2 days ago      \n"
    )


def test_list_ignores_case_in_its_prefix() -> None:
    lines = models_table(MODELS, "MODEL1", NOW).splitlines()
    assert [line[:6] for line in lines] == ["NAME  ", "model1"]


def test_list_of_nothing_is_a_header() -> None:
    assert models_table(MODELS, "x", NOW) == "NAME    ID    SIZE    MODIFIED \n"


def test_list_of_a_short_digest_a_remote_model_and_no_time() -> None:
    text = models_table([listed("m", "abc", 5, "0001-01-01T00:00:00Z", "there")], "", NOW)
    assert text.splitlines()[1] == "m       abc    -       Never       "


def running(name: str, size: int, vram: int, expires_at: str) -> RunningModel:
    return RunningModel(
        name=name,
        model=name,
        size=size,
        digest="0123456789abcdef",
        details=DETAILS,
        expires_at=expires_at,
        size_vram=vram,
        context_length=4096,
    )


def test_ps() -> None:
    models = [
        running("gemma4:latest", 6_600_000_000, 3_432_000_000, "2023-11-14T22:15:21Z"),
        running("qwen3:8b", 4_900_000_000, 4_900_000_000, "2319-11-14T22:15:21.123456789+02:00"),
        running("old", 0, 0, "2023-11-14T22:13:19.999999999Z"),
        running("unset", 1, 0, "0001-01-01T00:00:00Z"),
    ]
    # The dots stand for blanks at the ends of lines.
    assert loaded_table(models, "", NOW).replace(" \n", "·\n") == _PS


_PS = """\
NAME             ID              SIZE      PROCESSOR          CONTEXT    UNTIL             ·
gemma4:latest    0123456789ab    6.6 GB    48%/52% CPU/GPU    4096       2 minutes from now   ·
qwen3:8b         0123456789ab    4.9 GB    100% GPU           4096       Forever              ·
old              0123456789ab    0 B       100% CPU           4096       Stopping...          ·
unset            0123456789ab    1 B       100% CPU           4096       Stopping...          ·
"""


def test_ps_in_full() -> None:
    part = running("a", 100, 60, "2023-11-14T22:15:21Z")
    part.devices = {"CUDA0": 40, "CUDA1": 20}
    part.reason = "20 of 33 layers on CUDA0, CUDA1 (all need 100 B, 70 B are available)"
    whole = running("b", 9, 9, "2023-11-14T22:15:21Z")
    whole.devices = {"MTL0": 9}
    models = [part, whole, running("c", 9, 0, "2023-11-14T22:15:21Z")]
    lines = [line.rstrip() for line in loaded_table_in_full(models, "", NOW).splitlines()]
    assert lines[0].endswith("UNTIL                 DEVICES                   REASON")
    assert [line.partition("from now    ")[2] for line in lines[1:]] == [
        f"CUDA0 40 B, CUDA1 20 B    {part.reason}",
        "MTL0 9 B",
        "",
    ]
    assert len(loaded_table_in_full(models, "b", NOW).splitlines()) == 2


def test_ps_minds_case_in_its_prefix() -> None:
    models = [running("Abc", 1, 0, "")]
    assert len(loaded_table(models, "abc", NOW).splitlines()) == 1
    assert len(loaded_table(models, "Ab", NOW).splitlines()) == 2


@pytest.mark.parametrize(
    ("size", "vram", "text"),
    [
        (100, 0, "100% CPU"),
        (100, 100, "100% GPU"),
        (100, 52, "48%/52% CPU/GPU"),
        (1000, 995, "1%/99% CPU/GPU"),
        (200, 1, "100%/0% CPU/GPU"),
        (8, 5, "38%/62% CPU/GPU"),
        (100, 101, "Unknown"),
        (0, 5, "Unknown"),
    ],
)
def test_processor(size: int, vram: int, text: str) -> None:
    assert processor(size, vram) == text


def test_rows_may_end_early_and_wide_characters_take_two_columns() -> None:
    assert table([("日本", "x"), ("a",), ("abcde", "")]) == (
        "日本     x    \na        \nabcde         \n"
    )


def test_a_long_cell_wraps_at_blanks_and_the_others_hold_blanks() -> None:
    text = table([("one two three", "x")], wrap=7)
    assert text == "one two    x    \nthree           \n"


@pytest.mark.parametrize(
    ("text", "wrap", "lines"),
    [
        ("short", 30, ["short"]),
        ("a  b", 30, ["a  b"]),
        ("averylongword and", 5, ["averylongword", "and"]),
        # Filling the first line would leave the second with more slack squared.
        ("aaa bb cc ddddd", 6, ["aaa", "bb cc", "ddddd"]),
        (" " * 40, 30, [""]),
    ],
)
def test_broken(text: str, wrap: int, lines: list[str]) -> None:
    assert broken(text, wrap) == lines


@given(
    st.lists(st.text("ab日", min_size=1, max_size=9), min_size=1, max_size=25), st.integers(1, 20)
)
def test_wrapping_keeps_the_words_and_the_limit(words: list[str], wrap: int) -> None:
    lines = broken(" ".join(words), wrap)
    assert " ".join(lines).split() == words
    assert max(map(width, lines)) <= max(wrap, *map(width, words))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00.5+01:00", 500_000_000),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("1970-01-01T00:00:00.1234567891Z", 123_456_789),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        ("2023-13-01T00:00:00Z", None),
        ("yesterday", None),
    ],
)
def test_unix_ns(text: str, value: int | None) -> None:
    assert unix_ns(text) == value
