"""When a stream of tokens is read again."""

from __future__ import annotations

from ollamad.parsing.frames import FRAME, Frames


def _reads(
    pace: float, events: int, *, limit: int = 0, start: float = 5.001
) -> list[tuple[float, int]]:
    """When a stream of ``events`` that come every ``pace`` seconds is read, and how many were."""
    arrivals = [start + pace * n for n in range(events)]
    frames = Frames(limit)
    reads = []
    now = 0.0
    while arrivals:
        now = max(now, arrivals[0])
        ready = [at for at in arrivals if at <= now]
        del arrivals[: len(ready)]
        reads.append((now, len(ready)))
        now = frames.next_read(len(ready), now) or now
    return reads


def test_a_fast_stream_is_read_in_frames() -> None:
    reads = _reads(0.005, 200)
    assert [count for _, count in reads[:8]] == [1] * 8
    gathered = reads[9:-1]
    assert {count for _, count in gathered} <= {3, 4, 5}
    assert all(abs(at / FRAME - round(at / FRAME)) < 1e-6 for at, _ in gathered)


def test_streams_share_their_frames() -> None:
    one = {round(at, 6) for at, _ in _reads(0.005, 200)[12:-1]}
    other = {round(at, 6) for at, _ in _reads(0.004, 250, start=5.0027)[12:-1]}
    assert len(one & other) > 40
    assert max(len(one), len(other)) - len(one & other) <= 2


def test_no_token_of_a_slow_stream_waits() -> None:
    assert all(count == 1 for _, count in _reads(0.011, 100))


def test_the_end_does_not_wait_when_it_is_known() -> None:
    last = 5.001 + 0.005 * 99
    assert _reads(0.005, 100)[-1][0] > last + 0.001
    assert abs(_reads(0.005, 100, limit=100)[-1][0] - last) < 1e-9


def test_a_stream_faster_than_frames_gathers_by_itself() -> None:
    frames = Frames()
    frames.next_read(1, 1.0)
    assert frames.next_read(500, 1.05) is None
