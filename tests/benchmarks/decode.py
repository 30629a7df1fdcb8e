"""Decode throughput and time to the first token with a real model, through the daemon and bare."""

from __future__ import annotations

from collections.abc import Callable

from support.models import smollm2

from benchmarks.figures import Figure, Pairs, alternate, number
from benchmarks.load import decode_rate, streams
from benchmarks.rig import FIRST_CHAT_TOKEN, Neighbours, Rig, fake, loaded

#: Streams, tokens of each, target.
_CASES = ((1, 160, 0.98), (4, 96, 0.97), (16, 48, 0.95))

_SUBJECTS = [
    *("a lighthouse", "a river", "a violin", "a mountain", "a train", "a garden", "a desert"),
    *("a bakery", "a library", "a ship", "a comet", "a bridge", "a forest", "a clock"),
    *("a harbour", "a school"),
]


def throughput(quick: bool) -> list[Figure]:
    """Tokens a second of 1, 4 and 16 streams."""
    figures = []
    for count, tokens, target in _CASES:
        with loaded(smollm2(), parallel=count) as rig:
            pairs = _rates(rig, count, tokens // (2 if quick else 1), 3 if quick else 9)
        figures.append(
            Figure(
                f"decode, {count} stream{'s' * (count > 1)}: daemon / runner",
                pairs.ratio,
                target=target,
                at_least=True,
                detail=pairs.describe("tokens/s"),
            )
        )
    return figures


def _rates(rig: Rig, count: int, tokens: int, pairs: int) -> Pairs:
    chats = [
        rig.chat(f"Write a long story about {subject}.", num_predict=tokens)
        for subject in _SUBJECTS[:count]
    ]
    bare = [(rig.bare, to_runner) for to_runner, _ in chats]
    ours = [(rig.target, to_daemon) for _, to_daemon in chats]

    def rate(requests: list[tuple[object, bytes]]) -> Callable[[], float]:
        return lambda: decode_rate(streams(requests, FIRST_CHAT_TOKEN))  # type: ignore[arg-type]

    measure_bare, measure_ours = rate([*bare]), rate([*ours])
    measure_bare()  # the prompts are then in the runner's cache for both sides
    measure_ours()
    return alternate(pairs, measure_bare, measure_ours, disturbed=Neighbours())


def first_token(quick: bool) -> list[Figure]:
    """What the daemon adds to the time to the first token, of a cached prompt."""
    figures = []
    count = 15 if quick else 61
    with loaded(smollm2()) as rig:
        for name, (to_runner, to_daemon), marks in (
            (
                "chat",
                rig.chat("Why is the sky blue?", num_predict=2),
                (FIRST_CHAT_TOKEN, FIRST_CHAT_TOKEN),
            ),
            (
                "raw generate",
                rig.raw("The sky is blue because", num_predict=2),
                (b'"content":"', b'"response":"'),
            ),
        ):
            pairs = _first(rig, to_runner, to_daemon, marks, count)
            figures.append(_added(f"time to first token, {name}: added", pairs, 3.0))
    with fake({}, parallel=1) as rig:
        pairs = _first(
            rig, *rig.chat("Why?", num_predict=2), (b'"content": "', b'"content":"'), count
        )
        figures.append(_added("time to first token, fake runner: added", pairs, None))
    return figures


def _first(
    rig: Rig, to_runner: bytes, to_daemon: bytes, marks: tuple[bytes, bytes], count: int
) -> Pairs:
    def bare() -> float:
        return streams([(rig.bare, to_runner)], marks[0])[0].to_first * 1000

    def ours() -> float:
        return streams([(rig.target, to_daemon)], marks[1])[0].to_first * 1000

    for _ in range(3):
        bare()
        ours()
    return alternate(count, bare, ours)


def _added(name: str, pairs: Pairs, target: float | None) -> Figure:
    detail = f"{number(pairs.ours)} / {number(pairs.bare)} ms, median of {len(pairs.rows)} pairs"
    return Figure(name, pairs.added, "ms", target, detail=detail)
