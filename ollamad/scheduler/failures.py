"""What follows from loads that ran out of memory, and from runners that keep dying.

Contract: ``runners-and-scheduling.md`` 4.6 step 7 (one more try), 8.7 (cases). Pure: the time is an
argument, in nanoseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from ollamad.errors import RunnerKeepsDying
from ollamad.scheduler.options import lower_tier
from ollamad.scheduler.sizing import LaunchPlan
from ollamad.scheduler.spec import ModelSpec

SECOND = 10**9

#: Runners of one model that may die one after the other, without an answer between.
DEATHS = 3
#: A death this long after the one before has nothing to do with it.
DEATHS_WINDOW = 600 * SECOND
#: How long a model is left alone after the last of ``DEATHS``, doubled with each further one.
FIRST_PAUSE = 10 * SECOND
LONGEST_PAUSE = 60 * SECOND
#: A runner has to live so long after an answer for that answer to count: the request that a runner
#: dies of may end just before its death is noticed.
PROVEN_AFTER = SECOND
#: Models whose deaths are remembered.
_REMEMBERED = 256


class Relief(msgspec.Struct, frozen=True, kw_only=True):
    """How a load is made easier after memory ran out.

    ``tries``: loads that failed so. ``alone``: with nothing else loaded. ``smaller``: with a
    smaller context. ``layers``: with no more layers than these on devices. ``how``: for people,
    what is different this time.
    """

    tries: int = 0
    alone: bool = False
    smaller: bool = False
    layers: int | None = None
    how: str = ""


NO_RELIEF = Relief()


class Retry(msgspec.Struct, frozen=True):
    """``num_ctx``: the context for those who leave it to us, None to keep what they have."""

    relief: Relief
    num_ctx: int | None = None


def retry(
    before: Relief, spec: ModelSpec, launch: LaunchPlan, *, others: bool, require_gpu: bool
) -> Retry | None:
    """What to try after ``launch`` of ``spec`` ran out of memory; None to give up.

    ``others``: whether other models are loaded. ``require_gpu``: the CPU is no way out.

    Without devices there is one more try, with all that could help at once. With devices each step
    costs less than the next: a smaller context if it is ours to choose, the other models' places,
    half of the layers, the CPU. Who names a number of layers gets these or an error.
    """
    smaller = lower_tier(spec.options.num_ctx) if spec.auto.num_ctx else None
    tries = before.tries + 1
    if not launch.devices:
        if before.tries or not (smaller or others):
            return None
        how = "with a smaller context" if smaller else "with nothing else loaded"
        return Retry(Relief(tries=tries, alone=True, smaller=bool(smaller), how=how), smaller)

    def eased(**changes: object) -> Relief:
        return msgspec.structs.replace(before, tries=tries, **changes)

    if smaller is not None and not before.smaller:
        return Retry(eased(smaller=True, how=f"with a context of {smaller} tokens"), smaller)
    if others and not before.alone:
        return Retry(eased(alone=True, how="with nothing else loaded"))
    if spec.options.num_gpu >= 0:
        return None
    if before.layers is None and launch.layers > 1:
        layers = launch.layers // 2
        return Retry(eased(layers=layers, how=f"with {layers} layers on devices"))
    if require_gpu:
        return None
    return Retry(eased(layers=0, how="on the CPU"))


@dataclass(slots=True)
class _Loop:
    name: str
    deaths: int = 0
    last: int = 0
    until: int = 0
    error: str = ""


@dataclass(slots=True)
class CrashLoops:
    """The models whose runners die without having answered anything."""

    _loops: dict[str, _Loop] = field(default_factory=dict)

    def died(self, key: str, name: str, error: str, now: int, *, proven: bool) -> None:
        """A runner that was ready has ended by itself. ``proven``: it had served a request."""
        loop = self._loops.pop(key, None)
        if loop is None or proven or now - loop.last > DEATHS_WINDOW:
            loop = _Loop(name)
        self._loops[key] = loop
        loop.deaths += 1
        loop.last, loop.error = now, error
        if loop.deaths >= DEATHS:
            pause = min(FIRST_PAUSE << min(loop.deaths - DEATHS, 30), LONGEST_PAUSE)
            loop.until = now + pause
        if len(self._loops) > _REMEMBERED:
            del self._loops[next(iter(self._loops))]

    def forget(self, key: str) -> None:
        """Somebody asks for a new beginning."""
        self._loops.pop(key, None)

    def refusal(self, key: str, now: int) -> RunnerKeepsDying | None:
        """The error for a request whose model is left alone for now; None if it is not."""
        loop = self._loops.get(key)
        if loop is None or loop.until <= now:
            return None
        seconds = -(-(loop.until - now) // SECOND)
        return RunnerKeepsDying(loop.name, loop.deaths, loop.error, retry_after=seconds)

    def __bool__(self) -> bool:
        return bool(self._loops)
