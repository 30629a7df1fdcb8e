"""Recommended models (http-api.md 16 and case 190)."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.registry.recommended import BUILT_IN, BadList, Schedule, read_list, snapshot
from ollamad.wire import ModelRecommendation

HOUR = 3600.0


def listed(*entries: Any) -> bytes:
    return json.dumps({"recommendations": entries}).encode()


LOCAL = {"model": "a", "description": "d"}


def test_the_built_in_list() -> None:
    shown = [
        (m.model, m.context_length, m.max_output_tokens, m.vram_bytes, m.required_plan)
        for m in BUILT_IN
    ]
    assert shown == [
        ("kimi-k2.6:cloud", 262144, 262144, 0, ""),
        ("glm-5.1:cloud", 202752, 131072, 0, ""),
        ("qwen3.5:cloud", 262144, 32768, 0, ""),
        ("minimax-m2.7:cloud", 204800, 128000, 0, ""),
        ("gemma4", 0, 0, 12000000000, ""),
        ("qwen3.5", 0, 0, 14000000000, ""),
    ]
    assert all(m.description and "\n" not in m.description for m in BUILT_IN)


def test_a_snapshot_is_read_back() -> None:
    assert read_list(snapshot(BUILT_IN)) == BUILT_IN
    assert json.loads(snapshot(BUILT_IN[4:5])) == {
        "recommendations": [
            {
                "model": "gemma4",
                "description": BUILT_IN[4].description,
                "vram_bytes": 12000000000,
            }
        ]
    }


def test_a_list_is_read_with_trimmed_texts() -> None:
    entry = {
        "model": " k:cloud ",
        "description": "\td ",
        "context_length": 5,
        "max_output_tokens": 6,
        "vram_bytes": 7,
        "required_plan": " pro ",
        "unknown": [1],
    }
    assert read_list(listed(entry)) == (
        ModelRecommendation(
            model="k:cloud",
            description="d",
            context_length=5,
            max_output_tokens=6,
            vram_bytes=7,
            required_plan="pro",
        ),
    )


@pytest.mark.parametrize("name", ["k:cloud", "k:20b-cloud", "K:CLOUD", "k-cloud"])
@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({"context_length": 1, "max_output_tokens": 1}, True),
        ({"context_length": 1}, False),
        ({"max_output_tokens": 1}, False),
        ({"context_length": 0, "max_output_tokens": 1}, False),
        ({"context_length": 1, "max_output_tokens": -1}, False),
        ({"context_length": None, "max_output_tokens": None}, False),
    ],
)
def test_models_of_the_cloud_need_both_limits(
    name: str, limits: dict[str, int], kept: bool
) -> None:
    models = read_list(listed({"model": name, **limits}, LOCAL))
    assert [m.model for m in models] == ([name, "a"] if kept else ["a"])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no",
        b"[]",
        b"{}",
        b'{"recommendations":null}',
        b'{"recommendations":{}}',
        listed(),
        listed(LOCAL, {"description": "no name"}),
        listed(LOCAL, {"model": "  "}),
        listed(LOCAL, {"model": " a"}),
        listed({"model": 5}),
        listed({"model": "a", "vram_bytes": "5"}),
        listed({"model": "k:cloud"}),
        listed(*({"model": f"m{i}"} for i in range(201))),
        listed({"model": "a", "description": "x" * 300_000}),
        b'{"recommendations":' + b"[" * 100_000,
        b'{"recommendations":[{"model":"\xff"}]}',
        b'{"recommendations":[{"model":"\\ud800"}]}',
    ],
)
def test_what_is_not_believed(raw: bytes) -> None:
    with pytest.raises(BadList):
        read_list(raw)


def test_nothing_in_it_steers_a_terminal() -> None:
    models = read_list(listed({"model": "a\x1b[2J", "description": "b\r\n\x9bc\u202e"}))
    assert (models[0].model, models[0].description) == ("a [2J", "b   c")


def test_huge_numbers_can_be_written_again() -> None:
    models = read_list(b'{"recommendations":[{"model":"a","vram_bytes":' + b"9" * 30 + b"}]}")
    assert read_list(snapshot(models)) == models


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_list_or_not(raw: bytes) -> None:
    try:
        assert read_list(raw)
    except BadList:
        pass


# --- when -----------------------------------------------------------------------------------------


def test_the_first_fetch_is_due_at_once() -> None:
    assert Schedule(50.0).due == 50.0


@pytest.mark.parametrize(("chance", "hours"), [(0.0, 3.2), (0.5, 4.0), (1.0, 4.8)])
def test_a_success_is_good_for_four_hours_or_so(chance: float, hours: float) -> None:
    schedule = Schedule(0.0)
    schedule.succeeded(100.0, chance)
    assert schedule.due == pytest.approx(100.0 + hours * HOUR)


def test_failures_wait_longer_and_longer() -> None:
    schedule = Schedule(0.0)
    waits = []
    for _ in range(6):
        schedule.failed(1000.0)
        waits.append(schedule.due - 1000.0)
    assert waits == [300.0, 900.0, HOUR, 4 * HOUR, 4 * HOUR, 4 * HOUR]
    schedule.succeeded(1000.0, 0.5)
    schedule.failed(2000.0)
    assert schedule.due == 2300.0


def test_a_reader_has_it_fetched_but_not_more_often_than_every_five_seconds() -> None:
    schedule = Schedule(0.0)
    schedule.started(0.0)
    schedule.succeeded(1.0, 0.5)
    assert not schedule.read(4.9)
    assert schedule.due > HOUR
    assert schedule.read(5.0)
    assert schedule.due == 5.0
    schedule.started(6.0)
    schedule.failed(9.0)
    assert not schedule.read(10.9)
    assert schedule.read(11.0)


def test_reading_never_postpones() -> None:
    schedule = Schedule(0.0)
    assert schedule.read(3.0)
    assert schedule.due == 0.0
