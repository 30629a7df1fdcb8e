"""What a model's template or metadata makes a runner print must not get at the daemon: the reader
takes any bytes, raises nothing, and stays small."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.runners.log import LogReader

_BUFFER = "load_tensors: CPU_Mapped model buffer size = {} MiB"
_FORMS = (
    _BUFFER,
    "x: CUDA0 KV buffer size = {} MiB",
    "using device CUDA0 (name) - {} MiB free",
    "offloaded {}/{} layers to GPU",
    "common_params_fit_impl:  - a: 3 layers ( {} overflowing), MiB",
    "estimated worst-case memory usage of mmproj is {} MiB",
)
_NUMBERS = (
    "1.2.3",
    ".",
    "..",
    "9" * 400,
    "9" * 5000,
    "\u0661\u0662",
    "1e999",
    "-1",
    "inf",
    "",
    "0.",
)


@pytest.mark.parametrize("form", _FORMS)
@pytest.mark.parametrize("number", _NUMBERS)
def test_numbers_that_are_none(form: str, number: str) -> None:
    reader = LogReader()
    reader.feed((form.replace("{}", number) + "\n").encode())
    assert 0 <= reader.memory(7).total < 1 << 80


_pieces = st.sampled_from(
    (
        *_FORMS,
        *_NUMBERS,
        " MiB",
        " layers",
        "model buffer size = ",
        ": ",
        "\n",
        "error: ",
        "\r",
        "\0",
    )
)


@given(st.lists(st.binary(max_size=40) | _pieces.map(str.encode), max_size=40))
def test_any_output(pieces: list[bytes]) -> None:
    reader = LogReader()
    for piece in pieces:
        reader.feed(piece)
    reader.feed_eof()
    assert 0 <= reader.memory(7).total < 1 << 80
    assert len(reader.last_error.encode()) <= 8192


def test_a_flood_of_buffers_stays_small() -> None:
    reader = LogReader()
    for number in range(20):
        lines = (f"x{number}: B{i} KV buffer size = 1.00 MiB" for i in range(1000))
        reader.feed("\n".join([*lines, ""]).encode())
    assert reader.memory(7).total <= 1000 << 20


def test_a_long_line_is_not_searched_over_and_over() -> None:
    # Quadratic in the line's length this would take minutes.
    reader = LogReader()
    for _ in range(20):
        reader.feed(b"a" * 60_000 + b" MiB layers\n")
    assert not reader.memory(7).measured
