"""The world around a scheduler core: runners that load, clients that ask, memory that comes and
goes. Events in the order of their time; no clock, and no chance but the seed's."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from ollamad.errors import LoadError, ServerBusy
from ollamad.scheduler import recovery
from ollamad.scheduler.actions import Abort, Action, Grant, Measure, Reject, Start, Stop
from ollamad.scheduler.sizing import Limits, MemoryReading
from simulator.launch import Launched, launched, reading, token_time
from simulator.machines import GIB, SECOND, Ledger, Machine, OutOfMemory, settings
from simulator.models import MODELS, Model
from simulator.report import Report, Served
from simulator.traces import Ask, Client, Sleep, Trace
from simulator.watched import WatchedCore

_MS = 10**6


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What goes wrong. Parts of all loads that crash, of all answers whose client leaves in the
    middle or whose runner dies; seconds between two programs that want device memory."""

    load_crash: float = 0.0
    leaves: float = 0.0
    run_crash: float = 0.0
    pressure_every: float = 0.0
    measure_fails: float = 0.0


NO_FAULTS = Faults()
#: A bad day.
SOME_FAULTS = Faults(
    load_crash=0.05, leaves=0.1, run_crash=0.01, pressure_every=240.0, measure_fails=0.02
)


@dataclass
class _Request:
    ask: Ask
    client: Client | None
    arrived: int
    granted: int = 0
    runner: int = 0
    outcome: str = ""


@dataclass
class _Runner:
    start: Start
    model: Model
    began: int
    state: str = "loading"
    what: Launched | None = None
    token: int = 0
    requests: set[int] = field(default_factory=set)


class Simulation:
    """``run`` plays a trace to its end, and on until nothing waits, works or is loaded."""

    def __init__(
        self,
        machine: Machine,
        trace: Trace,
        limits: Limits | None = None,
        *,
        seed: int = 0,
        seconds: float = 1800.0,
        faults: Faults = NO_FAULTS,
        models: Mapping[str, Model] = MODELS,
    ) -> None:
        self.limits = limits or msgspec.convert(settings(machine), Limits)
        self.core = WatchedCore(self.limits)
        self.now = 0
        self.ledger = Ledger(machine)
        self.models = models
        self.faults = faults
        self.seconds = seconds
        # Chance of its own for each, so that a setting does not change who asks for what.
        self._luck = random.Random(f"luck {seed}")
        clients = trace.clients(random.Random(f"clients {seed}"), machine)
        self.report = Report(machine, trace.name, seed, seconds)
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._alarm: int | None = None
        self._requests: dict[int, _Request] = {}
        self._runners: dict[int, _Runner] = {}
        self._read_once: set[str] = set()
        for client in clients:
            self._after(0, lambda client=client: self._resume(client, None))
        if faults.pressure_every:
            self._after(int(faults.pressure_every * SECOND), self._press)

    def run(self) -> Report:
        """Raises ``watched.Broken`` when the core breaks a rule, and AssertionError when something
        is left at the end."""
        while self._events:
            self.now, _, event = heapq.heappop(self._events)
            event()
        if self._runners:  # those that stay for ever
            self._perform(self.core.drain(self.now))
            while self._events:
                self.now, _, event = heapq.heappop(self._events)
                event()
        self.report.finish(self.now, self.core.events)
        assert not self._requests, "requests never ended"
        assert not self._runners, "runners never ended"
        assert not self.ledger.held, "memory is held by nobody"
        assert self.core.waiting == 0
        assert self.core.leases == 0
        return self.report

    # --- time -------------------------------------------------------------------------------------

    def _after(self, nanoseconds: int, event: Callable[[], None]) -> None:
        at = self.now + max(0, nanoseconds)
        heapq.heappush(self._events, (at, next(self._order), event))

    def _ring(self) -> None:
        self._alarm = None
        self._perform(self.core.tick(self.now))

    # --- clients ----------------------------------------------------------------------------------

    def _resume(self, client: Client, outcome: str | None) -> None:
        while True:
            try:
                wish = next(client) if outcome is None else client.send(outcome)
            except StopIteration:
                return
            if isinstance(wish, Sleep):
                self._after(int(wish.seconds * SECOND), lambda: self._resume(client, None))
                return
            if self.now > self.seconds * SECOND:
                return  # its time is over
            self._ask(wish, client if wish.wait else None)
            if wish.wait:
                return
            outcome = None

    def _ask(self, ask: Ask, client: Client | None) -> None:
        model = self.models[ask.model]
        spec = model.spec(num_ctx=ask.num_ctx, num_gpu=ask.num_gpu)
        request = _Request(ask, client, self.now)
        ticket, actions = self.core.request(spec, self.now, keep_alive=ask.keep_alive)
        self._requests[ticket] = request
        self._after(int(ask.patience * SECOND), lambda: self._lose_patience(ticket))
        self._perform(actions)

    def _lose_patience(self, ticket: int) -> None:
        request = self._requests.get(ticket)
        if request is not None and not request.runner:
            self._over(ticket, "left")
            self._perform(self.core.cancel(ticket, self.now))

    def _over(self, ticket: int, outcome: str, error: Exception | None = None) -> None:
        request = self._requests.pop(ticket)
        waited = (request.granted if request.runner else self.now) - request.arrived
        self.report.served.append(
            Served(request.ask.model, request.arrived, waited, outcome, str(error or ""))
        )
        if request.client is not None:
            client = request.client
            # Programs try again at once, people do not: a pause keeps both in bounds.
            pause = 0 if outcome == "served" else SECOND
            self._after(pause, lambda: self._resume(client, outcome))

    # --- what the core wants ----------------------------------------------------------------------

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Grant():
                    self._grant(action)
                case Reject():
                    busy = isinstance(action.error, ServerBusy)
                    outcome = "refused" if busy else "failed"
                    self._over(action.ticket, outcome, action.error)
                case Measure():
                    self._after(20 * _MS, self._measured)
                case Start():
                    self._start(action)
                case Abort():
                    self._end(action.runner_id, 50 * _MS)
                case Stop():
                    self._stop(action)
        deadline = self.core.deadline()
        if deadline is not None and (self._alarm is None or deadline < self._alarm):
            self._alarm = deadline
            self._after(deadline - self.now, self._ring)

    def _measured(self) -> None:
        self.ledger.settle(self.now)
        seen = reading(self.ledger, self.now)
        if self._luck.random() < self.faults.measure_fails:
            seen = MemoryReading()
        self._perform(self.core.memory(seen, self.now))

    def _grant(self, grant: Grant) -> None:
        request = self._requests[grant.ticket]
        runner = self._runners[grant.runner_id]
        request.granted, request.runner = self.now, grant.runner_id
        runner.requests.add(grant.ticket)
        ask = request.ask
        steps = 1 + ask.prompt / 30 + ask.tokens
        busy = 1 + 0.25 * (len(runner.requests) - 1)
        time = int(steps * runner.token * busy)
        if self._luck.random() < self.faults.leaves:
            time //= 2
            self._after(time, lambda: self._release(grant.ticket, "left"))
        elif self._luck.random() < self.faults.run_crash:
            self._after(time // 2, lambda: self._crash(grant.runner_id))
        else:
            self._after(time, lambda: self._release(grant.ticket, "served"))

    def _release(self, ticket: int, outcome: str) -> None:
        request = self._requests.get(ticket)
        if request is None:  # its runner died meanwhile
            return
        runner = self._runners.get(request.runner)
        if runner is not None:
            runner.requests.discard(ticket)
            self.report.worked(runner.what, request.granted, self.now)
        self._over(ticket, outcome)
        self._perform(self.core.release(ticket, self.now, served=outcome == "served"))

    # --- runners ----------------------------------------------------------------------------------

    def _start(self, start: Start) -> None:
        model = self.models[start.spec.name]
        runner = self._runners[start.runner_id] = _Runner(start, model, self.now)
        # The page cache holds what was read once, as long as there is room for it.
        cached = model.name in self._read_once and model.weights < self.ledger.free("", self.now)
        self._read_once.add(model.name)
        reading_time = model.weights * SECOND // (self.ledger.machine.disk * (4 if cached else 1))
        self.report.starts(start, self.now)
        self._after(SECOND // 2 + reading_time // 4, lambda: self._allocate(runner))
        self._after(SECOND + reading_time, lambda: self._ready(runner))

    def _allocate(self, runner: _Runner) -> None:
        if runner.state != "loading":
            return
        crashes = self._luck.random() < self.faults.load_crash
        try:
            what = launched(runner.model, runner.start.plan, self.ledger, self.now)
            self.ledger.take(runner.start.runner_id, what.held, self.now)
        except OutOfMemory as error:
            message = f"memory of {error} ran out"
            self._load_failed(runner, LoadError(message, out_of_memory=True))
            return
        self._look()
        if crashes:
            self._load_failed(runner, LoadError("the runner died"))
            return
        runner.what = what
        runner.token = token_time(runner.model, what, self.ledger)
        self.report.places(runner.start, what, self.ledger, self.now)

    def _load_failed(self, runner: _Runner, error: LoadError) -> None:
        runner.state = "dead"
        self._free(runner.start.runner_id)
        self.report.load_fails(runner.start, error.out_of_memory)
        self._perform(self.core.load_failed(runner.start.runner_id, error, self.now))

    def _ready(self, runner: _Runner) -> None:
        if runner.state != "loading" or runner.what is None:
            return
        runner.state = "ready"
        told = runner.what.told
        self._perform(
            self.core.loaded(runner.start.runner_id, told.total, self.now, devices=told.devices)
        )

    def _crash(self, runner_id: int) -> None:
        runner = self._runners.get(runner_id)
        if runner is None or runner.state != "ready":
            return
        runner.state = "dead"
        self.report.crashes += 1
        self._perform(self.core.died(runner_id, "it had enough", self.now))
        for ticket in sorted(runner.requests):
            self._over(ticket, "failed", LoadError("the runner died"))
            self._perform(self.core.release(ticket, self.now, served=False))
        self._end(runner_id, 0, recovery.LIMIT_AFTER_DEATH)

    def _stop(self, stop: Stop) -> None:
        runner = self._runners[stop.runner_id]
        alive = len(self._runners)
        self.report.stops(
            runner.start, stop.reason, self.now, at_limit=alive >= self.limits.loaded_models
        )
        self._end(stop.runner_id, 200 * _MS)

    def _end(self, runner_id: int, after: int, limit: float = recovery.LIMIT) -> None:
        """As the scheduler's shell does: end the process, wait for its memory, say so."""
        runner = self._runners[runner_id]
        runner.state = "ending"
        names = recovery.discrete(runner.start.plan.devices)
        told = {} if runner.what is None else runner.what.told.devices
        size = recovery.held_on(told, names)
        before = recovery.free_on(reading(self.ledger, self.now), names) or 0

        def ended() -> None:
            self.ledger.give_back(runner_id, self.now)
            self._look()
            gives_up = self.now + int(limit * SECOND)
            look(gives_up)

        def look(gives_up: int) -> None:
            free = recovery.free_on(reading(self.ledger, self.now), names) or 0
            if size and free - before <= recovery.SHARE * size and self.now < gives_up:
                self._after(int(recovery.STEP * SECOND), lambda: look(gives_up))
                return
            del self._runners[runner_id]
            self._perform(self.core.gone(runner_id, self.now))

        self._after(after, ended)

    def _free(self, runner_id: int) -> None:
        del self._runners[runner_id]
        self.ledger.give_back(runner_id, self.now)
        self._look()

    def _look(self) -> None:
        self.report.looks(self.ledger, self.now)

    # --- others -----------------------------------------------------------------------------------

    def _press(self) -> None:
        """Somebody starts a game on one of the devices, or fills main memory."""
        if self.now > self.seconds * SECOND:
            return
        device = self._luck.choice([*self.ledger.gpus, ""])
        free = self.ledger.free(device, self.now)
        wanted = min(int(self._luck.uniform(0.1, 0.6) * max(0, free)), 40 * GIB)
        self.ledger.pressure[device] = self.ledger.pressure.get(device, 0) + wanted
        self._look()

        def over() -> None:
            self.ledger.pressure[device] -= wanted
            self._look()

        self._after(int(self._luck.uniform(20, 120) * SECOND), over)
        self._after(int(self.faults.pressure_every * SECOND), self._press)
