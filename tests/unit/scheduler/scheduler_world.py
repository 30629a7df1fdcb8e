"""A world for the scheduler's core: runners, memory and clients that behave, and a strict observer.

``World`` carries out what the core decides, lets the outcomes come in any order, and checks after
every event what must hold whatever the order. It keeps its own books and trusts none of the core's.
"""

from __future__ import annotations

from pathlib import Path

from ollamad.errors import LoadError, OllamadError, ServerBusy, ShuttingDown
from ollamad.scheduler.actions import Abort, Action, Grant, Measure, Reject, Start, Stop
from ollamad.scheduler.core import Core
from ollamad.scheduler.options import Auto, RunnerOptions
from ollamad.scheduler.records import State
from ollamad.scheduler.sizing import GIB, LaunchPlan, Limits, MemoryReading
from ollamad.scheduler.spec import ModelShape, ModelSpec, reload_reason

SECOND = 10**9


def spec(
    key: str = "a",
    *,
    num_ctx: int = 4096,
    gib: float = 1,
    auto: Auto | None = None,
    completion: bool = True,
    train: int = 0,
    **options: object,
) -> ModelSpec:
    """A model of ``gib`` GiB whose cache takes nothing; everything automatic unless told."""
    return ModelSpec(
        key=key,
        name=f"model-{key}",
        model_path=Path(key),
        shape=ModelShape(weight_bytes=int(gib * GIB), train_context=train),
        is_completion=completion,
        parallel_allowed=completion,
        options=RunnerOptions(num_ctx=num_ctx, draft_num_predict=0, **options),  # type: ignore[arg-type]
        auto=Auto(num_ctx=True, num_batch=True, use_mmap=True) if auto is None else auto,
    )


class World:
    """Event methods return the actions; outcomes are up to the test."""

    def __init__(
        self, limits: Limits | None = None, *, total: int = 64 * GIB, swap: int = 0
    ) -> None:
        self.limits = limits or Limits()
        self.core = Core(self.limits)
        self.now = 1_000 * SECOND
        self.total = total
        self.swap = swap
        self.events = 0
        self.wanted: dict[int, ModelSpec] = {}
        self.slots: dict[int, bool] = {}
        self.waiting: list[int] = []
        self.leases: dict[int, int] = {}
        self.errors: dict[int, OllamadError] = {}
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

    def release(self, ticket: int) -> None:
        self.idle_since[self.leases.pop(ticket)] = self.now
        self.over.add(ticket)
        self.did(self.core.release(ticket, self.now))

    def load(self, runner: int, size: int = 0) -> None:
        self.loading.remove(runner)
        self.ready.append(runner)
        self.idle_since[runner] = self.now
        self.did(self.core.loaded(runner, size, self.now))

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
        del self.alive[runner]
        self.did(self.core.gone(runner, self.now))

    def stopped(self, runner: int) -> None:
        self.stopping.remove(runner)
        if runner in self.aborted:
            self.aborted.remove(runner)
        del self.alive[runner]
        self.did(self.core.gone(runner, self.now))

    def measured(self) -> None:
        self.measuring -= 1
        used = sum(plan.predicted for _, plan in self.alive.values())
        free = max(1, self.total - used)
        swap = max(0, min(self.swap, self.total + self.swap - used))
        reading = MemoryReading(total=self.total, free=free, swap_free=swap)
        self.did(self.core.memory(reading, self.now))

    def expire(self, key: str) -> None:
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
                assert all(error is not other for other in self.errors.values()), "shared error"
                self.waiting.remove(ticket)
                self.errors[ticket] = error
            case Measure():
                self.measuring += 1
            case Start(runner_id=runner, spec=started, plan=plan):
                assert runner not in self.alive
                self.alive[runner] = (started, plan)
                self.keep_alive[runner] = self.limits.keep_alive
                if self.limits.memory_guard:
                    promised = sum(plan.predicted for _, plan in self.alive.values())
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

    def _check(self) -> None:
        core = self.core
        assert core.waiting == len(self.waiting), "a request was lost"
        assert core.leases == len(self.leases), "a lease was lost"
        assert {r.id for r in core.runners()} == set(self.alive), "a runner was lost"
        assert len(self.alive) <= self.limits.loaded_models
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
