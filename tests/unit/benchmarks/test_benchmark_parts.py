"""The benchmarks' own parts: a figure that is wrong is worse than none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks import relay
from benchmarks.figures import Figure, Pairs, alternate, number, table
from benchmarks.load import (
    Stream,
    Target,
    decode_rate,
    exchange,
    requests_per_second,
    streams,
    whole_rate,
)
from benchmarks.rig import Neighbours, foreign_work

_FAKE = Path(__file__).parents[2] / "fake_runner.py"
_TOKENS = {"n_predict": 7, "stream": True}


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Target]:
    path = tmp_path / "fake.sock"
    process = subprocess.Popen(
        [sys.executable, _FAKE, "--host", str(path)],
        env={**os.environ, "FAKE_RUNNER": json.dumps({"slots": 4})},
    )
    try:
        target = Target(str(path), ("Connection: close",))
        while True:
            try:
                target.connect().close()
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.001)
        yield target
    finally:
        process.kill()
        process.wait()


def test_a_ratio_is_the_median_of_the_pairs_and_not_of_the_sides() -> None:
    # The machine is ten times slower during the second pair, for both.
    pairs = Pairs(((1.0, 2.0), (10.0, 20.0), (1.0, 2.2)))
    assert pairs.ratio == 2.0
    assert (pairs.bare, pairs.ours) == (1.0, 2.2)
    assert pairs.added == pytest.approx(1.2)


def test_the_sides_take_turns_in_going_first() -> None:
    order: list[str] = []

    def measure(side: str, value: float) -> float:
        order.append(side)
        return value

    pairs = alternate(3, lambda: measure("bare", 1.0), lambda: measure("ours", 2.0))
    assert order == ["bare", "ours", "ours", "bare", "bare", "ours"]
    assert pairs.rows == ((1.0, 2.0),) * 3


def test_disturbed_pairs_count_only_when_there_are_no_others() -> None:
    values = iter(range(1, 100))
    # The first answer is about what was before.
    noise = iter([True, True, False, True, False, False])
    pairs = alternate(3, lambda: 1.0, lambda: float(next(values)), disturbed=lambda: next(noise))
    assert [ours for _, ours in pairs.rows] == [2.0, 4.0, 5.0]
    assert pairs.disturbed == 0
    assert "DISTURBED" not in pairs.describe("s")

    noise = iter([False] + [True] * 4 + [False, True])
    pairs = alternate(3, lambda: 1.0, lambda: 2.0, disturbed=lambda: next(noise))
    assert len(pairs.rows) == 3
    assert pairs.disturbed == 2
    assert "2 DISTURBED" in pairs.describe("s")


def test_foreign_work_is_counted_from_call_to_call() -> None:
    readings = iter([(10.0, 5.0), (11.0, 5.1), (13.0, 5.3), (14.0, 5.5), (15.0, 5.5)])
    disturbed = Neighbours(lambda: next(readings))
    assert [disturbed() for _ in range(4)] == [False, False, True, False]


def test_our_own_work_is_not_foreign() -> None:
    (begin, before), spent = foreign_work(), time.process_time()
    while time.process_time() < spent + 0.1:
        pass
    (end, after) = foreign_work()
    # The machine's other processors may do what they like.
    assert after - before < (os.cpu_count() or 1) * (end - begin) - 0.05


@pytest.mark.parametrize(
    ("figure", "met"),
    [
        (Figure("x", 0.98, target=0.98, at_least=True), True),
        (Figure("x", 0.97, target=0.98, at_least=True), False),
        (Figure("x", 2.0, target=2.0), True),
        (Figure("x", 2.1, target=2.0), False),
        (Figure("x", 1.0), None),
    ],
)
def test_targets(figure: Figure, met: bool | None) -> None:
    assert figure.met is met
    text = table([figure])
    assert ("MISS" in text, "ok" in text) == (met is False, met is True)


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12,346"), (123.4, "123"), (12.34, "12.3"), (0.98249, "0.982"), (0.01234, "0.0123")],
)
def test_numbers_keep_the_digits_that_matter(value: float, text: str) -> None:
    assert number(value) == text


def test_rates_of_streams_that_overlap() -> None:
    answers = [
        Stream(sent=0.0, first=1.0, end=3.0, tokens=5),
        Stream(sent=0.5, first=2.0, end=5.0, tokens=5),
    ]
    assert decode_rate(answers) == 8 / 4
    assert whole_rate(answers) == 10 / 5


def test_streams_are_read_to_their_end_and_counted(fake: Target) -> None:
    request = fake.request("POST", "/v1/chat/completions", json.dumps(_TOKENS).encode())
    answers = streams([(fake, request)] * 3, b'"content": "')
    assert [answer.tokens for answer in answers] == [7, 7, 7]
    assert all(a.sent < a.first <= a.end for a in answers)
    assert all(a.data.count(b'" tok"') == 7 for a in answers)


def test_a_refused_stream_is_no_measurement(fake: Target) -> None:
    with pytest.raises(RuntimeError, match="no complete stream"):
        streams([(fake, fake.request("POST", "/nowhere", b"{}"))], b"x")


def test_whole_answers(fake: Target) -> None:
    seconds, body = exchange(fake, fake.request("GET", "/health"))
    assert seconds > 0
    assert json.loads(body) == {"status": "ok"}
    with pytest.raises(RuntimeError, match="not answered"):
        exchange(fake, fake.request("GET", "/nowhere"))


def test_answers_a_second_reconnects_where_the_server_closes(fake: Target) -> None:
    request = fake.request("GET", "/health")
    assert requests_per_second(fake, request, connections=2, seconds=0.05) > 20


def test_the_relay_copies_every_byte(fake: Target) -> None:
    process = subprocess.Popen(
        [sys.executable, relay.__file__, str(fake.address)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        through = Target(("127.0.0.1", int(process.stdout.readline())), fake.headers)
        request = through.request("POST", "/completion", json.dumps(_TOKENS).encode())
        relayed = streams([(through, request)], b'"content": "')[0]
        direct = streams([(fake, request)], b'"content": "')[0]
        assert relayed.tokens == direct.tokens == 7
        # Behind the last token come times, which differ.
        assert relayed.data.rpartition(b"tok")[0] == direct.data.rpartition(b"tok")[0]
    finally:
        process.terminate()
        process.wait()
