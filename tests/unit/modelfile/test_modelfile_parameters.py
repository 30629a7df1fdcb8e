"""Cases C2 of modelfile-and-create: parameter texts and versions."""

from __future__ import annotations

import math
import struct
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.errors import UsageError
from ollamad.modelfile.numbers import shortest_float32
from ollamad.modelfile.parameters import TYPES, parameter_value
from ollamad.modelfile.semver import is_newer, sort_key


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("temperature", "1", 1),
        ("num_ctx", "4096", 4096),
        ("num_parallel", "4", 4),
        ("num_ctx", "+7", 7),
        ("num_ctx", "007", 7),
        ("num_ctx", "0" * 5000 + "7", 7),
        ("seed", "9223372036854775807", 2**63 - 1),
        ("seed", "-9223372036854775808", -(2**63)),
        ("top_p", ".5", 0.5),
        ("top_p", "5.", 5),
        ("top_p", "1e-5", 0.00001),
        ("top_p", "0x1p-2", 0.25),
        ("top_p", "0X.8P1", 1),
        ("top_p", "16777217", 16777216),
        ("top_p", "3.4028235e38", 3.4028235e38),
        ("min_p", "0.30000001", 0.3),
        ("temperature", "1e+06", 1000000),
        ("temperature", "0.1", 0.1),
        ("use_mmap", "true", True),
        ("use_mmap", "T", True),
        ("use_mmap", "1", True),
        ("use_mmap", "False", False),
        ("num_predict", "-2", -2),
        ("main_gpu", "0", 0),
        ("stop", "", [""]),
        ("stop", "### User: ", ["### User: "]),
    ],
)
def test_values(name: str, text: str, value: object) -> None:
    result = parameter_value(name, [text])
    assert result == value
    assert isinstance(result, bool) == isinstance(value, bool)


def test_whole_floats_are_numbers_without_fraction() -> None:
    assert msgspec.json.encode(parameter_value("temperature", ["1"])) == b"1"
    assert msgspec.json.encode(parameter_value("temperature", ["1e20"])) == b"1" + b"0" * 20
    assert math.copysign(1, parameter_value("temperature", ["-0"])) == -1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *[
            ("num_ctx", text)
            for text in ("4096.0", "1e3", "0x10", "1_000", "8 # c", "", "8\n", " 8", "٣")
        ],
        ("top_k", "40 50"),
        ("seed", "9223372036854775808"),
        ("seed", "1" + "0" * 5000),
        *[
            ("top_p", text)
            for text in ("1e40", "1e400", "0,5", "", "inf", "-Infinity", "nan", "1_0", "0x10", ".")
        ],
        *[("use_mmap", text) for text in ("yes", "tRUE", "on", "")],
    ],
)
def test_invalid_values(name: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parameter_value(name, [text])
    assert caught.value.message == f"invalid {TYPES[name]} value [{text}]"


@pytest.mark.parametrize("name", ["Temperature", "think", "num_gqa", "tfs_z", "numa", "", "model"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        parameter_value(name, ["1"])
    assert caught.value.message == f"unknown parameter '{name}'"


def test_all_values_stand_in_the_error_of_a_scalar() -> None:
    with pytest.raises(UsageError, match=r"^invalid int value \[a b\]$"):
        parameter_value("seed", ["a", "b"])
    assert parameter_value("seed", ["7", "b"]) == 7
    assert parameter_value("stop", ["a", "b"]) == ["a", "b"]


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_shortest_digits_give_the_same_float32(value: float) -> None:
    short = shortest_float32(value)
    assert struct.pack("<f", short) == struct.pack("<f", value)
    assert len(repr(short).replace("-", "").split("e")[0].replace(".", "").strip("0")) <= 9


@pytest.mark.parametrize(
    "text", ["0.14.0", "v0.14", "1", "0.14.0-rc1+b", "1.2.3-0.a.10", "1.0.0+01", "1.2.3--"]
)
def test_versions(text: str) -> None:
    assert sort_key(text) is not None


@pytest.mark.parametrize(
    "text",
    ["V1.2.3", "01.2.3", "vv1.2.3", "1.2.3.4", "", "v", "1.2-rc1", "1.2.3-01", "1.2.3-", "1\n"],
)
def test_no_versions(text: str) -> None:
    assert sort_key(text) is None


def test_order_of_versions() -> None:
    rising = [
        "0.9.9",
        "0.14",
        "1.0.0-1",
        "1.0.0-2",
        "1.0.0-10",
        "1.0.0-a",
        "1.0.0-a.1",
        "1.0.0",
        "1.0.1",
    ]
    keys = [sort_key(text) for text in rising]
    assert keys == sorted(keys)  # type: ignore[type-var]
    assert all(is_newer(b, a) for a, b in pairwise(rising))
    assert not is_newer("1.0.0+a", "1.0.0")
    assert not is_newer("soon", "1.0.0")
