"""Sizes, counts, ages and durations: the tables of the contract, and what must hold for all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.units import (
    HOUR,
    MINUTE,
    SECOND,
    format_duration,
    human_bytes,
    human_gib,
    human_number,
    human_time,
    parse_duration,
)

DAY = 24 * HOUR
NOW = 1_700_000_000 * SECOND


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (1024, "1.0 KB"),
        (1500, "1.5 KB"),
        (1234, "1.2 KB"),
        (15_400_000_000, "15 GB"),
        (999_999, "999 KB"),
        (1_000_000, "1 MB"),
        (1_234_567_890, "1.2 GB"),
        (9_960_000_000, "10.0 GB"),
        (999_999_999_999, "999 GB"),
        (1_999_999_999_999, "2.0 TB"),
        (5_000_000_000_000_000, "5000 TB"),
    ],
)
def test_human_bytes(size: int, text: str) -> None:
    assert human_bytes(size) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1_048_575, "1024.0 KiB"),
        (1_073_741_823, "1024.0 MiB"),
        (2_147_483_648, "2.0 GiB"),
        (5 << 40, "5120.0 GiB"),
    ],
)
def test_human_gib(size: int, text: str) -> None:
    assert human_gib(size) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1K"),
        (1001, "1K"),
        (1_000_000, "1M"),
        (125_000_000, "125M"),
        (133_700_000, "133.70M"),
        (500_550_000, "500.55M"),
        (2_800_000_000, "2.8B"),
        (2_850_000_000, "2.9B"),
        (1_000_000_000_000, "1000B"),
    ],
)
def test_human_number(count: int, text: str) -> None:
    assert human_number(count) == text


@pytest.mark.parametrize(
    ("offset", "text"),
    [
        (48 * HOUR, "2 days from now"),
        (-48 * HOUR, "2 days ago"),
        (-24 * HOUR, "24 hours ago"),
        (800_000_000, "Less than a second from now"),
        (0, "Less than a second ago"),
        (-1_900_000_000, "1 second ago"),
        (-59 * SECOND, "59 seconds ago"),
        (-90 * SECOND, "About a minute ago"),
        (-59 * MINUTE, "59 minutes ago"),
        (-89 * MINUTE, "About an hour ago"),
        (-90 * MINUTE, "2 hours ago"),
        (-13 * DAY, "13 days ago"),
        (-14 * DAY, "2 weeks ago"),
        (-60 * DAY, "2 months ago"),
        (-730 * DAY, "2 years ago"),
        (20 * 365 * DAY, "20 years from now"),
        (200 * 365 * DAY, "Forever"),
    ],
)
def test_human_time(offset: int, text: str) -> None:
    assert human_time(NOW + offset, NOW, "Never") == text


def test_a_time_that_was_never_set_has_the_caller_s_text() -> None:
    assert human_time(None, NOW, "Never") == "Never"


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("-0", 0),
        ("+5s", 5 * SECOND),
        ("5m", 5 * MINUTE),
        ("1h30m", 90 * MINUTE),
        ("1.5h", 90 * MINUTE),
        (".5s", 500_000_000),
        ("5.s", 5 * SECOND),
        ("-1m", -MINUTE),
        ("300ms", 300_000_000),
        ("1us1µs1μs1ns", 3001),
        ("2562047h47m16.854775807s", 2**63 - 1),
        ("-9223372036854775808ns", -(2**63)),
        ("0.100000000000000000000h", 6 * MINUTE),
    ],
)
def test_parse_duration(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        (" 5m", 'time: invalid duration " 5m"'),
        ("abc", 'time: invalid duration "abc"'),
        (".s", 'time: invalid duration ".s"'),
        ("1h,", 'time: unknown unit "h," in duration "1h,"'),
        ("10", 'time: missing unit in duration "10"'),
        ("-1", 'time: missing unit in duration "-1"'),
        ("1.2.3s", 'time: missing unit in duration "1.2.3s"'),
        ("5x", 'time: unknown unit "x" in duration "5x"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("1é", 'time: unknown unit "\\xc3\\xa9" in duration "1\\xc3\\xa9"'),
        ('1"', 'time: unknown unit "\\"" in duration "1\\""'),
        ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
        ("2562048h", 'time: invalid duration "2562048h"'),
        ("٣s", 'time: invalid duration "\\xd9\\xa3s"'),
    ],
)
def test_parse_duration_errors(text: str, error: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_duration(text)
    assert str(raised.value) == error


def test_a_huge_number_of_digits_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="invalid duration"):
        parse_duration("9" * 1_000_000 + "s")


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (7, "7ns"),
        (1_500, "1.5µs"),
        (113_200_000, "113.2ms"),
        (5_589_157_167, "5.589157167s"),
        (10 * SECOND, "10s"),
        (62_500_000_000, "1m2.5s"),
        (5 * MINUTE, "5m0s"),
        (HOUR, "1h0m0s"),
        (-90 * SECOND, "-1m30s"),
        (2**63 - 1, "2562047h47m16.854775807s"),
    ],
)
def test_format_duration(nanoseconds: int, text: str) -> None:
    assert format_duration(nanoseconds) == text


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_a_formatted_duration_reads_as_itself(nanoseconds: int) -> None:
    # Fractions pass through binary floats, which can lose the last digit.
    assert abs(parse_duration(format_duration(nanoseconds)) - nanoseconds) <= 1


@given(st.text(alphabet="0123456789.+-hmsnuµ x", max_size=12))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    try:
        parse_duration(text)
    except ValueError as error:
        assert str(error).startswith("time: ")  # noqa: PT017 - either outcome is right
