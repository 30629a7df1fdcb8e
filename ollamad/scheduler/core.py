"""Which request gets which runner, what is loaded next, and what has to go: the decisions.

Contract: ``runners-and-scheduling.md`` 4, ``http-api.md`` 18. No I/O, no clock, no tasks: events
come in as method calls that carry the time (nanoseconds of any steady clock), actions go out as a
list that the caller carries out. The rules that keep it so, and keep it right:

- All mutable state is named in ``Core.__init__`` and in the records it holds (``records``).
  Nothing else remembers anything.
- An event method notes what happened and then returns ``self._decide(now)``. Only ``_decide`` and
  the steps it is made of look at everything and choose.
- A runner is LOADING, then READY, then STOPPING, then gone; it never goes back.
- Only an idle runner is stopped. Who wants a busy one gone *condemns* it: requests that came
  before still get it, requests that came after do not, so that it becomes idle in finite time.
- Requests are served in order, save that one which a ready runner can serve now never waits for
  another model's load.
- At most one model is being loaded, and only the oldest request that no ready runner serves may
  cause a load or condemn a runner.
- Everything that waits waits for an event that must come: a lease that ends, a load that ends, a
  runner that stops, a memory reading. The caller owes each of them a deadline.
- What a runner was promised stays promised, on each device and in main memory, until it is gone.
- A load that ran out of memory is tried again a few times, each time with less (``failures``). A
  model whose runners keep dying is left alone for a while; who asks for it is told at once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import msgspec

from ollamad.errors import LoadError, OllamadError, ServerBusy, ShuttingDown
from ollamad.scheduler.actions import Abort, Action, Grant, Measure, Reject, Start, Stop
from ollamad.scheduler.failures import PROVEN_AFTER, CrashLoops, Retry, retry
from ollamad.scheduler.ledger import Sizes, planner, settle
from ollamad.scheduler.records import Condemned, HeldLease, RunnerRecord, State, WaitingRequest
from ollamad.scheduler.room import victim, victim_in_memory, victim_on_devices
from ollamad.scheduler.sizing import (
    LaunchPlan,
    Limits,
    MemoryReading,
    Seen,
    SizeKey,
    Verdict,
    no_gpu,
    too_large,
)
from ollamad.scheduler.spec import ModelSpec, reload_reason
from ollamad.wire import FOREVER

#: What a client that finds the queue full is asked to wait at most, in seconds.
_LONGEST_RETRY_AFTER = 60


class Core:
    """The scheduler's state and its decisions. Each event returns the actions to carry out."""

    def __init__(self, limits: Limits, sizes: Mapping[SizeKey, Seen] | None = None) -> None:
        #: The number of devices in it rises when more are found.
        self.limits = limits
        #: Requests without a lease, oldest first, by ticket.
        self._waiting: dict[int, WaitingRequest] = {}
        #: Leases that were granted and not yet released, by ticket; their runner may be gone.
        self._leases: dict[int, HeldLease] = {}
        #: Runners that are loading, ready or stopping, by model key: at most one a model.
        self._runners: dict[str, RunnerRecord] = {}
        #: The memory as the oldest unserved request (by ticket) found it, while it still holds.
        self._memory: tuple[int, MemoryReading] | None = None
        #: A reading was asked for and has not come; False in it when it will come too late.
        self._measuring: bool | None = None
        #: What launches were seen to take.
        self._sizes = Sizes(sizes)
        #: Models whose runners die.
        self._loops = CrashLoops()
        #: Mean nanoseconds that a slot is held, for Retry-After.
        self._mean_hold = 0
        self._next_ticket = 1
        self._next_runner = 1
        self._draining = False

    # --- what can be asked -----------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Requests that wait for a load or a slot."""
        return len(self._waiting)

    @property
    def leases(self) -> int:
        """Leases that are held, those on runners that are gone included."""
        return len(self._leases)

    def runners(self) -> Iterator[RunnerRecord]:
        """The runners that live, in no order. To be read, not changed."""
        return iter(self._runners.values())

    @property
    def sizes(self) -> Mapping[SizeKey, Seen]:
        """What launches were seen to take, the latest last."""
        return self._sizes.all()

    def deadline(self) -> int | None:
        """When ``tick`` has to be called next if nothing else happens."""
        ends = [
            runner.idle_since + runner.keep_alive
            for runner in self._runners.values()
            if runner.state is State.READY and not runner.leases and runner.keep_alive < FOREVER
        ]
        return min(ends, default=None)

    # --- events from requests --------------------------------------------------------------------

    def request(
        self, spec: ModelSpec, now: int, *, keep_alive: int | None = None, slot: bool = True
    ) -> tuple[int, list[Action]]:
        """A request wants a runner. Returns its ticket, and the actions.

        It ends in exactly one of: a Grant with its ticket (then ``release`` is due), a Reject, or
        a ``cancel`` by the caller. ``slot`` False: only load the model.
        """
        ticket = self._next_ticket
        self._next_ticket += 1
        if self._draining:
            return ticket, [Reject(ticket=ticket, error=ShuttingDown())]
        self._waiting[ticket] = WaitingRequest(ticket, spec, keep_alive, slot, now)
        actions = self._decide(now)
        if ticket in self._waiting and self._queue_length() > self.limits.max_queue:
            del self._waiting[ticket]
            actions.append(Reject(ticket=ticket, error=ServerBusy(self._retry_after())))
            actions += self._decide(now)
        return ticket, actions

    def cancel(self, ticket: int, now: int) -> list[Action]:
        """The client of a request that still waits has gone away."""
        del self._waiting[ticket]
        return self._decide(now)

    def release(self, ticket: int, now: int, *, served: bool = True) -> list[Action]:
        """A granted request has ended, in whatever way. ``served``: with an answer."""
        lease = self._leases.pop(ticket)
        runner = lease.runner
        if served and lease.slot and runner.state is State.READY:
            runner.served = runner.served or now
        runner.leases -= 1
        runner.busy -= lease.slot
        runner.idle_since = now
        if lease.slot:
            self._mean_hold += (now - lease.granted - self._mean_hold) // 8
        return self._decide(now)

    def condemn_leased(self, ticket: int, reason: str, now: int) -> list[Action]:
        """The holder of a lease found its runner unfit: nobody else shall get it."""
        runner = self._leases[ticket].runner
        if self._runners.get(runner.spec.key) is runner:
            self._condemn(runner, before=0, ticket=None, reason=reason, now=now)
        return self._decide(now)

    # --- events from users and the daemon --------------------------------------------------------

    def expire(self, key: str, now: int, *, reason: str = "unload requested") -> list[Action]:
        """Unload this model once those who asked for it before are served.

        A key that is not loaded is no error. If its runners kept dying, it may be tried again.
        """
        self._loops.forget(key)
        if (runner := self._runners.get(key)) is not None:
            self._condemn(runner, before=self._next_ticket, ticket=None, reason=reason, now=now)
        return self._decide(now)

    def expire_all(self, now: int, *, reason: str = "a runner ran out of memory") -> list[Action]:
        """Unload every ready model in the same way."""
        for runner in self._runners.values():
            if runner.state is State.READY:
                self._condemn(runner, before=self._next_ticket, ticket=None, reason=reason, now=now)
        return self._decide(now)

    def drain(self, now: int) -> list[Action]:
        """Take no more requests, send away those that wait, unload everything that gets idle."""
        self._draining = True
        actions: list[Action] = [Reject(ticket=t, error=ShuttingDown()) for t in self._waiting]
        self._waiting.clear()
        for runner in self._runners.values():
            self._condemn(runner, before=0, ticket=None, reason="shutting down", now=now)
        return actions + self._decide(now)

    def tick(self, now: int) -> list[Action]:
        """Time has passed; see ``deadline``."""
        return self._decide(now)

    # --- events from runners ---------------------------------------------------------------------

    def memory(self, reading: MemoryReading, now: int) -> list[Action]:
        """The answer to Measure."""
        oldest = self._oldest_unserved()
        if self._measuring and oldest is not None:
            self._memory = (oldest.ticket, reading)
        self._measuring = None
        if len(reading.devices) > self.limits.device_count:  # drivers may be late after a boot
            count = len(reading.devices)
            self.limits = msgspec.structs.replace(self.limits, device_count=count)
        return self._decide(now)

    def loaded(
        self, runner_id: int, size: int, now: int, *, devices: Mapping[str, int] | None = None
    ) -> list[Action]:
        """A runner is ready; ``size`` is what it says it takes, in bytes, 0 if it does not tell.

        ``devices``: the part of it on each device, by its name.
        """
        runner = self._by_id(runner_id)
        if runner.state is State.STOPPING:  # the Abort crossed this on its way
            return [Stop(runner_id=runner_id, reason="nobody waits for it any more")]
        runner.state = State.READY
        runner.ready = runner.idle_since = now
        settle(runner, size, devices or {}, self._sizes)
        self._memory_changed()
        return self._decide(now)

    def load_failed(self, runner_id: int, error: OllamadError, now: int) -> list[Action]:
        """A runner did not get ready. It fails those who waited for this load, and nobody else.

        Out of memory is tried again with less (4.6 step 7).
        """
        runner = self._by_id(runner_id)
        joined = [w for w in self._waiting.values() if self._usable(runner, w)]
        self._forget(runner)
        if (again := self._again(runner, error)) is not None:
            for request in joined:
                request.relief = again.relief
                if again.num_ctx is not None and request.spec.auto.num_ctx:
                    request.spec = _with_options(request.spec, num_ctx=again.num_ctx)
            return self._decide(now)
        actions: list[Action] = []
        for request in joined:
            del self._waiting[request.ticket]
            actions.append(Reject(ticket=request.ticket, error=copy.copy(error)))
        return actions + self._decide(now)

    def died(self, runner_id: int, error: str, now: int) -> list[Action]:
        """A runner has ended by itself; ``gone`` follows when its memory is free.

        ``error``: what it printed last. Its leases stay until they are released.
        """
        self._note_death(self._by_id(runner_id), error, now)
        return self._decide(now)

    def gone(self, runner_id: int, now: int, *, error: str = "") -> list[Action]:
        """A runner's process has ended and its memory is free: by itself, or as it was told to.

        Its leases stay until they are released.
        """
        runner = self._by_id(runner_id)
        self._note_death(runner, error, now)
        self._forget(runner)
        return self._decide(now)

    # --- the decision ----------------------------------------------------------------------------

    def _decide(self, now: int) -> list[Action]:
        """Look at everything and do all that can be done now."""
        actions: list[Action] = []
        self._turn_away(now, actions)
        while True:
            self._pardon()
            self._grant(now, actions)
            if not self._load_next(now, actions):
                break  # else a sentence was lifted or the oldest request is gone: look again
        self._retire(now, actions)
        return actions

    def _turn_away(self, now: int, actions: list[Action]) -> None:
        """Nobody waits for a model that is not going to be loaded."""
        if not self._loops:
            return
        for request in list(self._waiting.values()):
            if (error := self._loops.refusal(request.spec.key, now)) is not None:
                del self._waiting[request.ticket]
                actions.append(Reject(ticket=request.ticket, error=error))

    def _pardon(self) -> None:
        """A runner condemned for a request that no longer waits may stay."""
        for runner in self._runners.values():
            condemned = runner.condemned
            if condemned and condemned.ticket is not None and condemned.ticket not in self._waiting:
                runner.condemned = None

    def _grant(self, now: int, actions: list[Action]) -> None:
        """Give ready runners to the requests that can use them, oldest first."""
        for request in list(self._waiting.values()):
            runner = self._runners.get(request.spec.key)
            if runner is None or runner.state is not State.READY:
                continue
            if (request.slot and runner.busy >= runner.plan.parallel) or not self._usable(
                runner, request
            ):
                continue
            del self._waiting[request.ticket]
            self._leases[request.ticket] = HeldLease(runner, request.slot, now)
            runner.leases += 1
            runner.busy += request.slot
            if request.keep_alive is not None:
                runner.keep_alive = request.keep_alive
            actions.append(
                Grant(
                    ticket=request.ticket,
                    runner_id=runner.id,
                    num_ctx=runner.plan.num_ctx,
                    queued_ns=now - request.arrived,
                    loaded_ns=max(0, runner.ready - max(runner.started, request.arrived)),
                )
            )

    def _load_next(self, now: int, actions: list[Action]) -> bool:
        """Start the load that the oldest unserved request needs, or make room for it.

        True when that changed what other requests may hope for.
        """
        if (loading := self._loading()) is not None:
            if not any(self._usable(loading, request) for request in self._waiting.values()):
                loading.state = State.STOPPING
                actions.append(Abort(runner_id=loading.id))
            return False
        if (request := self._oldest_unserved()) is None:
            return False
        if (runner := self._runners.get(request.spec.key)) is not None:
            if runner.state is State.READY:  # else it is stopping: wait
                reason = reload_reason(runner.spec, request.spec)
                self._condemn_for(request, runner, f"reload, {reason} differs", now)
            return False
        if request.relief.alone and self._runners:
            for runner in self._runners.values():
                self._condemn_for(request, runner, "memory ran out", now)
            return False
        if len(self._runners) >= self.limits.loaded_models:
            return self._make_room(request, victim(self._runners.values()), now)
        if self._memory is None or self._memory[0] != request.ticket:
            if self._measuring is None:
                self._measuring = True
                actions.append(Measure())
            return False
        planned_without = planner(
            request.spec,
            request.relief.layers,
            self._runners.values(),
            self._memory[1],
            self.limits,
            self._sizes,
        )
        launch = planned_without(())
        goes = victim_on_devices(self._runners.values(), launch, planned_without)
        # Nobody makes way for a model that would not fit into the empty machine either.
        if goes is None:
            goes = victim_in_memory(self._runners.values(), launch, planned_without)
        if goes is not None:
            return self._make_room(request, goes, now)
        if launch.verdict not in (Verdict.FITS, Verdict.NEEDS_SWAP):
            del self._waiting[request.ticket]
            refuse = no_gpu if launch.verdict is Verdict.NO_GPU else too_large
            actions.append(Reject(ticket=request.ticket, error=refuse(launch)))
            return True
        self._start(request, launch, now, actions)
        return self._lift_sentences(request)

    def _retire(self, now: int, actions: list[Action]) -> None:
        """Stop the idle runners that are condemned or whose keep-alive has ended."""
        for runner in self._runners.values():
            if runner.state is not State.READY or runner.leases:
                continue
            if runner.condemned is not None:
                reason = runner.condemned.reason
            elif runner.keep_alive < FOREVER and runner.idle_since + runner.keep_alive <= now:
                reason = "keep-alive ended"
                self._condemn(runner, before=0, ticket=None, reason=reason, now=now)
            else:
                continue
            runner.state = State.STOPPING
            actions.append(Stop(runner_id=runner.id, reason=reason))

    # --- the parts of a decision -----------------------------------------------------------------

    def _usable(self, runner: RunnerRecord, request: WaitingRequest) -> bool:
        """Whether this runner, now or once it is ready, may serve the request."""
        if runner.spec.key != request.spec.key or runner.state is State.STOPPING:
            return False
        if runner.condemned is not None and request.ticket >= runner.condemned.before:
            return False
        # Options are compared once per request and runner, not at every event.
        if request.judged[0] != runner.id:
            request.judged = (runner.id, reload_reason(runner.spec, request.spec) is None)
        return request.judged[1]

    def _oldest_unserved(self) -> WaitingRequest | None:
        """The oldest request that does not just wait for a slot of a ready runner."""
        for request in self._waiting.values():
            runner = self._runners.get(request.spec.key)
            if (
                runner is None
                or runner.state is not State.READY
                or not self._usable(runner, request)
            ):
                return request
        return None

    def _make_room(self, request: WaitingRequest, goes: RunnerRecord, now: int) -> bool:
        """Have ``goes`` go for ``request``, and nobody else any more. True if one is spared."""
        spared = self._lift_sentences(request, but=goes)
        if goes.state is State.READY:
            self._condemn_for(request, goes, f"makes room for {request.spec.name}", now)
        return spared

    def _lift_sentences(self, request: WaitingRequest, but: RunnerRecord | None = None) -> bool:
        """Spare the runners condemned for ``request``, save one. True if there were any."""
        spared = False
        for runner in self._runners.values():
            condemned = runner.condemned
            if runner is not but and condemned is not None and condemned.ticket == request.ticket:
                runner.condemned = None
                spared = True
        return spared

    def _start(
        self, request: WaitingRequest, launch: LaunchPlan, now: int, actions: list[Action]
    ) -> None:
        spec = _in_force(request.spec, launch)
        runner_id = self._next_runner
        self._next_runner += 1
        self._runners[spec.key] = RunnerRecord(
            id=runner_id,
            spec=spec,
            plan=launch,
            keep_alive=self.limits.keep_alive,
            reserved=launch.reserved,
            started=now,
            relief=request.relief,
            devices=launch.on_device,
        )
        # Whoever caused a load can use it, whatever it was told; else it would reload for ever.
        request.judged = (runner_id, True)
        actions.append(Start(runner_id=runner_id, spec=spec, plan=launch, relief=request.relief))
        self._memory_changed()

    def _again(self, runner: RunnerRecord, error: OllamadError) -> Retry | None:
        """How to try a load again that has failed, if there is a way."""
        if not (isinstance(error, LoadError) and error.out_of_memory):
            return None
        return retry(
            runner.relief,
            runner.spec,
            runner.plan,
            others=bool(self._runners),
            require_gpu=self.limits.require_gpu,
        )

    def _note_death(self, runner: RunnerRecord, error: str, now: int) -> None:
        """A runner that nobody told to end has ended."""
        if runner.state is not State.READY:
            return
        proven = 0 < runner.served <= now - PROVEN_AFTER
        self._loops.died(runner.spec.key, runner.spec.name, error, now, proven=proven)
        runner.state = State.STOPPING

    def _condemn_for(
        self, request: WaitingRequest, runner: RunnerRecord, reason: str, now: int
    ) -> None:
        # Whoever waits by now is still served: else two models that wait alternate load by load.
        if runner.condemned is None:
            runner.condemned = Condemned(self._next_ticket, request.ticket, now, reason)

    def _condemn(
        self, runner: RunnerRecord, *, before: int, ticket: int | None, reason: str, now: int
    ) -> None:
        """Condemn for good; an earlier, stricter sentence keeps its line and its time."""
        if (earlier := runner.condemned) is not None:
            before, now = min(before, earlier.before), min(now, earlier.since)
        runner.condemned = Condemned(before, ticket, now, reason)

    def _loading(self) -> RunnerRecord | None:
        for runner in self._runners.values():
            if runner.state is State.LOADING:
                return runner
        return None

    def _by_id(self, runner_id: int) -> RunnerRecord:
        for runner in self._runners.values():
            if runner.id == runner_id:
                return runner
        raise LookupError(f"no runner has the id {runner_id}")

    def _forget(self, runner: RunnerRecord) -> None:
        del self._runners[runner.spec.key]
        self._memory_changed()

    def _memory_changed(self) -> None:
        """What was read before no longer holds; a reading under way comes too late."""
        self._memory = None
        if self._measuring:
            self._measuring = False

    def _queue_length(self) -> int:
        """Requests that wait, save the one for which a load is being made (4.3)."""
        return len(self._waiting) - (self._oldest_unserved() is not None)

    def _retry_after(self) -> int:
        """Whole seconds after which a place in the queue should be free."""
        slots = sum(runner.plan.parallel for runner in self._runners.values()) or 1
        seconds = self._mean_hold * len(self._waiting) // slots // 10**9
        return min(_LONGEST_RETRY_AFTER, max(1, seconds))


def _in_force(spec: ModelSpec, launch: LaunchPlan) -> ModelSpec:
    """``spec`` with the options that the launch really has, and which of them we chose."""
    chosen = _with_options(
        spec,
        num_ctx=launch.num_ctx,
        num_batch=launch.num_batch,
        use_mmap=launch.use_mmap,
        num_parallel=spec.options.num_parallel or launch.parallel,
    )
    auto = msgspec.structs.replace(spec.auto, use_mmap=spec.options.use_mmap is None)
    return msgspec.structs.replace(chosen, auto=auto)


def _with_options(spec: ModelSpec, **changes: int | bool | None) -> ModelSpec:
    return msgspec.structs.replace(spec, options=msgspec.structs.replace(spec.options, **changes))
