"""What a token costs the daemon, without a model: a fake runner emits them.

Processor time is compared with that of a relay that only copies bytes, in the same run and from the
same fake runner.
"""

from __future__ import annotations

from collections.abc import Callable

import psutil

from benchmarks.figures import Figure, Pairs, alternate, number
from benchmarks.load import Target, streams, whole_rate
from benchmarks.rig import FIRST_CHAT_TOKEN, FIRST_FAKE_TOKEN, Neighbours, cpu_during, fake, relay

#: Microseconds between the tokens of one stream.
_INTERVAL_US = 500
#: The least tokens/s through the daemon with 16 streams that are not paced.
_UNPACED = 10_000.0


def cpu(quick: bool) -> list[Figure]:
    """Processor time of a token at one token every 0.5 ms a stream, 1 and 4 streams."""
    figures = []
    with (
        fake({"interval_us": _INTERVAL_US, "slots": 16}, parallel=4) as rig,
        relay(rig.bare) as (relay_process, relayed),
    ):
        rig.check_bodies()
        for count in (1, 4):
            tokens = 2000 if quick else 4000
            to_runner, to_daemon = rig.chat("Say something.", num_predict=tokens)
            bare = _cost(relay_process, relayed, to_runner, FIRST_FAKE_TOKEN, count)
            ours = _cost(rig.process, rig.target, to_daemon, FIRST_CHAT_TOKEN, count)
            pairs = alternate(3 if quick else 7, bare, ours, disturbed=Neighbours())
            figures.append(_ratio(f"CPU per token, {count} paced: daemon / relay", pairs, 2.0))
    return figures


def _cost(
    process: psutil.Process, target: Target, request: bytes, first: bytes, count: int
) -> Callable[[], float]:
    """Measures the microseconds of processor time that a token costs ``process``."""

    def measure() -> float:
        seconds, answers = cpu_during(process, lambda: streams([(target, request)] * count, first))
        return seconds * 1e6 / sum(answer.tokens for answer in answers)

    return measure


def _ratio(name: str, pairs: Pairs, target: float) -> Figure:
    return Figure(name, pairs.ratio, target=target, detail=pairs.describe("µs"))


def unpaced(quick: bool) -> list[Figure]:
    """Tokens a second of 16 streams from a runner that is as fast as it can be."""
    streams_at_once = 16
    with fake({}, parallel=streams_at_once) as rig:
        tokens = 1000 if quick else 3000
        to_runner, to_daemon = rig.chat("Say something.", num_predict=tokens)

        def rate(target: Target, request: bytes, first: bytes) -> Callable[[], float]:
            return lambda: whole_rate(streams([(target, request)] * streams_at_once, first))

        bare = rate(rig.bare, to_runner, FIRST_FAKE_TOKEN)
        ours = rate(rig.target, to_daemon, FIRST_CHAT_TOKEN)
        ours()
        pairs = alternate(3 if quick else 7, bare, ours, disturbed=Neighbours())
    return [
        Figure(
            "unpaced tokens, 16 streams, through the daemon",
            pairs.ours,
            "tokens/s",
            _UNPACED,
            at_least=True,
            detail=f"bare fake runner {number(pairs.bare)} tokens/s",
        )
    ]
