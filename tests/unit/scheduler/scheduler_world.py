"""A world for the scheduler's core: runners, memory and clients that behave, and a strict observer.

``World`` carries out what the core decides, lets the outcomes come in any order, and checks after
every event what must hold whatever the order. It keeps its own books and trusts none of the core's.

What must hold:

Requests
 1. Each request is granted, refused or cancelled, once; none is lost (``_check``, ``check_empty``).
 2. Each lease is given back; none is lost, none outlives its request.
 3. Equal requests are served in the order of their arrival.
 4. Nobody waits for a slot that is free, or for one that it does not need.
 5. Who waits waits for something that comes: a lease, a load, a runner that stops, a reading.
 6. No more requests wait than the limit says, besides the one for which a model is loaded; nobody
    is refused while there is room.
 7. Each refusal has an error of its own.
Runners
 8. At most so many live as the limit says, one a model, and one of them loads.
 9. Only a ready runner is granted, to requests that its options suit, to so many as it has slots.
10. Only an idle runner is stopped, and for its keep-alive only when that has ended; no idle one
    stays longer.
11. Nobody is condemned for a request that has gone.
Memory
12. What is promised in main memory is never more than there is, with swap.
13. A model that is said to fit on devices does, with all that was promised there to others, and
    only on devices of one library that are there.
Failures
14. A load that runs out of memory is tried again ``MOST_RETRIES`` times at most, on the CPU never
    if a GPU is required or the user named a number of layers.
15. A model whose runners died ``DEATHS`` times in a row is not started before its pause ends; who
    asks meanwhile is refused and told how long that is, and nobody else is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ollamad.errors import (
    LoadError,
    OllamadError,
    RunnerKeepsDying,
    ServerBusy,
    ShuttingDown,
)
from ollamad.hardware.device import Device
from ollamad.scheduler.actions import Abort, Action, Grant, Measure, Reject, Start, Stop
from ollamad.scheduler.core import Core
from ollamad.scheduler.failures import (
    DEATHS,
    DEATHS_WINDOW,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    PROVEN_AFTER,
)
from ollamad.scheduler.options import Auto, RunnerOptions
from ollamad.scheduler.records import State
from ollamad.scheduler.sizing import GIB, MIB, LaunchPlan, Limits, MemoryReading
from ollamad.scheduler.spec import ModelShape, ModelSpec, reload_reason

SECOND = 10**9
#: A smaller context, nothing else loaded, fewer layers, the CPU.
MOST_RETRIES = 4


def spec(
    key: str = "a",
    *,
    num_ctx: int = 4096,
    gib: float = 1,
    auto: Auto | None = None,
    completion: bool = True,
    train: int = 0,
    shape: dict[str, Any] | None = None,
    **options: object,
) -> ModelSpec:
    """A model of ``gib`` GiB whose cache takes nothing; everything automatic unless told."""
    return ModelSpec(
        key=key,
        name=f"model-{key}",
        model_path=Path(key),
        shape=ModelShape(weight_bytes=int(gib * GIB), train_context=train, **(shape or {})),
        is_completion=completion,
        parallel_allowed=completion,
        options=RunnerOptions(num_ctx=num_ctx, draft_num_predict=0, **options),  # type: ignore[arg-type]
        auto=Auto(num_ctx=True, num_batch=True, use_mmap=True) if auto is None else auto,
    )


def card(number: int, gib: float, *, library: str = "CUDA", integrated: bool = False) -> Device:
    """A device of which nothing is used."""
    return Device(
        id=str(number),
        library=library,
        name=f"{library}{number}",
        integrated=integrated,
        total_memory=int(gib * GIB),
        free_memory=int(gib * GIB),
        compute=(8, 9),
    )


class Deaths:
    """The observer's own book on one model's runners."""

    def __init__(self) -> None:
        self.count = 0
        self.last = 0
        self.until = 0

    def add(self, now: int, *, proven: bool) -> None:
        if proven or now - self.last > DEATHS_WINDOW:
            self.count = 0
        self.count += 1
        self.last = now
        if self.count >= DEATHS:
            self.until = now + min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (self.count - DEATHS))


class World:
    """Event methods return the actions; outcomes are up to the test.

    ``cards``: the machine's devices; ``foreign`` is what other programs use of each.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        total: int = 64 * GIB,
        swap: int = 0,
        cards: tuple[Device, ...] = (),
    ) -> None:
        self.limits = limits or Limits()
        self.core = Core(self.limits)
        self.now = 1_000 * SECOND
        self.total = total
        self.swap = swap
        self.cards = cards
        self.foreign: dict[str, int] = {}
        #: What runners really take on devices.
        self.taken: dict[int, dict[str, int]] = {}
        #: What they said that they take, or were thought to take before.
        self.promised: dict[int, dict[str, int]] = {}
        self.deaths: dict[str, Deaths] = {}
        #: Models that were left alone until somebody unloaded them.
        self.forgiven = 0
        #: When a runner had served its first request.
        self.served: dict[int, int] = {}
        self.events = 0
        self.wanted: dict[int, ModelSpec] = {}
        self.slots: dict[int, bool] = {}
        self.waiting: list[int] = []
        self.leases: dict[int, int] = {}
        self.errors: dict[int, OllamadError] = {}
        self.distinct: set[int] = set()
        self.grants: dict[int, Grant] = {}
        self.over: set[int] = set()
        self.alive: dict[int, tuple[ModelSpec, LaunchPlan]] = {}
        self.loading: list[int] = []
        self.ready: list[int] = []
        self.stopping: list[int] = []
        self.aborted: list[int] = []
        self.reasons: dict[int, str] = {}
        self.keep_alive: dict[int, int] = {}
        self.idle_since: dict[int, int] = {}
        self.asked_keep_alive: dict[int, int | None] = {}
        self.measuring = 0
        self.started: list[int] = []

    # --- events ------------------------------------------------------------------------------

    def ask(self, wanted: ModelSpec, keep_alive: int | None = None, slot: bool = True) -> int:
        ticket = self.core._next_ticket
        self.waiting.append(ticket)
        self.wanted[ticket], self.slots[ticket] = wanted, slot
        self.asked_keep_alive[ticket] = keep_alive
        before = len(self.waiting) - 1
        got, actions = self.core.request(wanted, self.now, keep_alive=keep_alive, slot=slot)
        assert got == ticket
        self.did(actions)
        if isinstance(self.errors.get(ticket), ServerBusy):
            assert before >= self.limits.max_queue, "refused although the queue had room"
        return ticket

    def cancel(self, ticket: int) -> None:
        self.waiting.remove(ticket)
        self.over.add(ticket)
        self.did(self.core.cancel(ticket, self.now))

    def release(self, ticket: int, *, served: bool = True) -> None:
        runner = self.leases.pop(ticket)
        self.idle_since[runner] = self.now
        self.over.add(ticket)
        if served and self.slots[ticket] and runner in self.ready:
            self.served.setdefault(runner, self.now)
        self.did(self.core.release(ticket, self.now, served=served))

    def load(self, runner: int, size: int = 0, devices: dict[str, int] | None = None) -> None:
        """``devices``: what it really takes there, as it says."""
        self.loading.remove(runner)
        self.ready.append(runner)
        self.idle_since[runner] = self.now
        if devices is not None:
            self.taken[runner] = self.promised[runner] = devices
        self.did(self.core.loaded(runner, size, self.now, devices=devices))

    def load_after_all(self, runner: int) -> None:
        """The load that was aborted had succeeded in the same moment."""
        self.aborted.remove(runner)
        actions = self.core.loaded(runner, 0, self.now)
        assert [type(action) for action in actions] == [Stop]

    def fail(self, runner: int, error: OllamadError | None = None) -> None:
        self.loading.remove(runner)
        del self.alive[runner]
        self.did(self.core.load_failed(runner, error or LoadError("boom"), self.now))

    def crash(self, runner: int) -> None:
        self.ready.remove(runner)
        self._bury(runner)
        del self.alive[runner]
        self.did(self.core.gone(runner, self.now, error="a crash"))

    def die(self, runner: int) -> None:
        """Its process has ended; ``stopped`` follows when its memory is back."""
        self.ready.remove(runner)
        self.stopping.append(runner)
        self._bury(runner)
        self.did(self.core.died(runner, "a crash", self.now))

    def _bury(self, runner: int) -> None:
        since = self.served.get(runner)
        proven = since is not None and since <= self.now - PROVEN_AFTER
        key = self.alive[runner][0].key
        self.deaths.setdefault(key, Deaths()).add(self.now, proven=proven)

    def stopped(self, runner: int) -> None:
        self.stopping.remove(runner)
        if runner in self.aborted:
            self.aborted.remove(runner)
        del self.alive[runner]
        self.did(self.core.gone(runner, self.now))

    def measured(self) -> None:
        self.measuring -= 1
        used = sum(_host(plan) for _, plan in self.alive.values())
        free = max(1, self.total - used)
        swap = max(0, min(self.swap, self.total + self.swap - used))
        reading = MemoryReading(total=self.total, free=free, swap_free=swap, devices=self.devices())
        self.did(self.core.memory(reading, self.now))

    def devices(self) -> tuple[Device, ...]:
        """With what is free now."""
        used = dict(self.foreign)
        for runner in self.alive:
            for name, size in self.taken[runner].items():
                used[name] = used.get(name, 0) + size
        return tuple(
            msgspec.structs.replace(
                card, free_memory=max(0, card.total_memory - used.get(card.name, 0))
            )
            for card in self.cards
        )

    def expire(self, key: str) -> None:
        forgotten = self.deaths.pop(key, None)
        self.forgiven += forgotten is not None and forgotten.until > 0
        self.did(self.core.expire(key, self.now))

    def expire_all(self) -> None:
        self.did(self.core.expire_all(self.now))

    def condemn(self, ticket: int) -> None:
        self.did(self.core.condemn_leased(ticket, "unfit", self.now))

    def drain(self) -> None:
        self.did(self.core.drain(self.now))

    def pass_time(self, nanoseconds: int) -> None:
        """Time passes, and the timer rings whenever it should."""
        end = self.now + nanoseconds
        while (deadline := self.core.deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.did(self.core.tick(self.now))
            after = self.core.deadline()
            assert after is None or after > self.now, "the timer would ring for ever"
        self.now = end

    def settle(self, *, release: bool = False) -> None:
        """Let everything that is under way succeed; with ``release`` end the requests too."""
        for _ in range(1000 + 20 * len(self.waiting)):
            if self.measuring:
                self.measured()
            elif self.stopping:
                self.stopped(self.stopping[0])
            elif self.loading:
                self.load(self.loading[0])
            elif release and self.leases:
                self.release(next(iter(self.leases)))
            else:
                return
        raise AssertionError("it never comes to rest")

    # --- carrying out and checking ---------------------------------------------------------------

    def did(self, actions: list[Action]) -> None:
        self.events += 1
        for action in actions:
            self._carry_out(action)
        self._check()

    def _carry_out(self, action: Action) -> None:
        match action:
            case Grant(ticket=ticket, runner_id=runner):
                assert runner in self.ready, "granted a runner that is not ready"
                loaded, plan = self.alive[runner]
                wanted = self.wanted[ticket]
                assert reload_reason(loaded, wanted) is None, "granted an unsuitable runner"
                assert action.num_ctx == plan.num_ctx
                assert 0 <= action.loaded_ns <= action.queued_ns
                older = [
                    t
                    for t in self.waiting
                    if t < ticket
                    and self.wanted[t] == wanted
                    and self.slots[t] == self.slots[ticket]
                ]
                assert not older, "overtook an equal request"
                self.waiting.remove(ticket)
                self.leases[ticket] = runner
                if (keep_alive := self.asked_keep_alive[ticket]) is not None:
                    self.keep_alive[runner] = keep_alive
                self.grants[ticket] = action
            case Reject(ticket=ticket, error=error):
                assert id(error) not in self.distinct, "shared error"
                self.distinct.add(id(error))
                self.waiting.remove(ticket)
                self.errors[ticket] = error
                if isinstance(error, RunnerKeepsDying):
                    left = self.deaths[self.wanted[ticket].key].until - self.now
                    assert 0 < left <= error.retry_after * SECOND < left + SECOND
            case Measure():
                self.measuring += 1
            case Start(runner_id=runner, spec=started, plan=plan):
                assert runner not in self.alive
                self._check_start(action)
                self.alive[runner] = (started, plan)
                self.taken[runner] = self.promised[runner] = plan.on_device
                self.keep_alive[runner] = self.limits.keep_alive
                if self.limits.memory_guard:
                    promised = sum(_host(plan) for _, plan in self.alive.values())
                    assert promised <= self.total + self.swap, "promised more than there is"
                self.loading.append(runner)
                self.started.append(runner)
            case Abort(runner_id=runner):
                self.loading.remove(runner)
                self.stopping.append(runner)
                self.aborted.append(runner)
            case Stop(runner_id=runner, reason=reason):
                assert runner not in self.leases.values(), "stopped a busy runner"
                if reason == "keep-alive ended":
                    assert self._due(runner), "unloaded before its time"
                self.ready.remove(runner)
                self.stopping.append(runner)
                self.reasons[runner] = reason

    def _check_start(self, start: Start) -> None:
        plan, started = start.plan, start.spec
        died = self.deaths.get(started.key)
        assert died is None or died.until <= self.now, "started although its pause has not ended"
        assert start.relief.tries <= MOST_RETRIES, "tried again and again"
        if start.relief.layers is not None:
            assert started.options.num_gpu < 0, "the user's layers were changed"
        if self.limits.require_gpu and started.options.num_gpu != 0:
            assert plan.layers > 0, "on the CPU, which nobody wants"
        there = {card.name for card in self.cards}
        assert {device.name for device in plan.devices} <= there
        assert len({device.library for device in plan.devices}) <= 1
        if plan.placed and plan.num_gpu < 0:
            for card in self.cards:
                held = [self.promised[other].get(card.name, 0) for other in self.alive]
                there_then = plan.on_device.get(card.name, 0)
                assert not there_then or sum(held) + there_then <= card.total_memory

    def _check(self) -> None:
        core = self.core
        assert core.waiting == len(self.waiting), "a request was lost"
        assert core.leases == len(self.leases), "a lease was lost"
        assert {r.id for r in core.runners()} == set(self.alive), "a runner was lost"
        assert len(self.alive) <= core.limits.loaded_models
        most = self.limits.max_loaded or 3 * max(1, len(self.cards))
        assert core.limits.loaded_models <= most
        assert len({spec.key for spec, _ in self.alive.values()}) == len(self.alive)
        assert len(self.loading) <= 1
        assert self.measuring <= 1
        # One more may wait: the one for which a model is being loaded.
        assert len(self.waiting) <= self.limits.max_queue + 1
        for runner in core.runners():
            held = [t for t, r in self.leases.items() if r == runner.id]
            assert runner.leases == len(held)
            assert runner.busy == sum(self.slots[t] for t in held) <= runner.plan.parallel
            if runner.state is State.READY and not held:
                assert not self._due(runner.id), "stays beyond its time"
            if (condemned := runner.condemned) is not None and condemned.ticket is not None:
                assert condemned.ticket in self.waiting, "condemned for nobody"
            if runner.state is State.READY and runner.condemned is None:
                self._check_nobody_idles(runner.id, runner.plan.parallel - runner.busy)
        if self.waiting:
            under_way = self.leases or self.loading or self.stopping or self.measuring
            assert under_way, "requests wait for nothing"

        for ticket in self.waiting:
            died = self.deaths.get(self.wanted[ticket].key)
            assert died is None or died.until <= self.now, "waits for what is not started"

    def _due(self, runner: int) -> bool:
        return self.idle_since[runner] + self.keep_alive[runner] <= self.now

    def _check_nobody_idles(self, runner: int, free: int) -> None:
        loaded, _ = self.alive[runner]
        for ticket in self.waiting:
            wanted = self.wanted[ticket]
            if wanted.key == loaded.key and reload_reason(loaded, wanted) is None:
                assert self.slots[ticket], "waits for a slot that it does not need"
                assert free <= 0, "waits although there is a slot"

    def check_empty(self) -> None:
        """After a drain and ``settle(release=True)``: nothing may be left."""
        assert not self.waiting
        assert not self.leases
        assert not self.alive
        assert not self.measuring
        assert all(isinstance(e, OllamadError) for e in self.errors.values())
        answered = self.over | set(self.errors)
        assert answered == set(self.wanted), "a request never got an answer"

    def refused_for_shutdown(self) -> list[int]:
        return [t for t, error in self.errors.items() if isinstance(error, ShuttingDown)]


def _host(plan: LaunchPlan) -> int:
    """Bytes of main memory that a launch takes and does not give back: neither files that it maps
    nor prompts that it keeps."""
    return plan.reserved - plan.cache_ram_mib * MIB
