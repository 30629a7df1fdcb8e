"""http-api.md 3.2.5 and case 274."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from ollamad.timestamps import UtcClock, local_time

MOMENT = 1_787_363_280_123_450_000  # 2026-08-22T01:48:00.12345Z


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (MOMENT, "2026-08-22T01:48:00.12345Z"),
        (MOMENT + 1, "2026-08-22T01:48:00.123450001Z"),
        (1_787_363_280_000_000_000, "2026-08-22T01:48:00Z"),
        (0, "1970-01-01T00:00:00Z"),
    ],
)
def test_utc(ns: int, text: str) -> None:
    clock = UtcClock()
    assert clock.format(ns) == text
    assert clock.format(ns) == text


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    yield monkeypatch
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("America/New_York", "2026-08-21T21:48:00.12345-04:00"),
        ("UTC", "2026-08-22T01:48:00.12345Z"),
        ("IST-5:30", "2026-08-22T07:18:00.12345+05:30"),
    ],
)
def test_local(zone: pytest.MonkeyPatch, name: str, text: str) -> None:
    zone.setenv("TZ", name)
    time.tzset()
    assert local_time(MOMENT) == text


def test_forever_is_a_date_far_ahead() -> None:
    assert local_time(MOMENT + 2**63 - 1).startswith("2318-")
