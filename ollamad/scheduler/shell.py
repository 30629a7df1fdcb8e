"""The scheduler under trio: it feeds events to the core and carries out what the core decides.

Everything here runs in one thread and touches the core only between two awaits, so there are no
locks. A request waits for one event; each runner has one task that loads it, watches it and stops
it; one more task sleeps until the next keep-alive ends.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Generic

import msgspec
import trio

from ollamad.errors import LoadError, NotFound, OllamadError, RunnerUnfit, ShuttingDown, quoted
from ollamad.log import fields
from ollamad.scheduler import recovery
from ollamad.scheduler.actions import Abort, Action, Grant, Measure, Reject, Start, Stop
from ollamad.scheduler.core import Core
from ollamad.scheduler.lease import Lease, LoadedModel
from ollamad.scheduler.records import RunnerRecord
from ollamad.scheduler.runner import R, ReadMemory, StartRunner
from ollamad.scheduler.sizes_file import SizesFile
from ollamad.scheduler.sizing import LaunchPlan, MemoryReading
from ollamad.scheduler.spec import ModelSpec
from ollamad.scheduler.whereabouts import why_not_on_devices
from ollamad.units import human_gib

log = logging.getLogger(__name__)

#: Seconds in which a runner must be gone after it was told to stop: longer than killing one takes.
#: One that is stuck in the kernel beyond that shall not hold up the queue.
STOP_DEADLINE = 15.0
#: Seconds that reading the machine's memory may take before a load goes on without knowing.
MEASURE_DEADLINE = 10.0
#: The same before a runner is stopped, which then goes on without knowing.
LOOK_DEADLINE = 1.0


class Scheduler(Generic[R]):
    """Hands out leases on runners, which it starts with ``start_runner`` and stops.

    ``run`` must be running for as long as leases are asked for; before and after, asking raises
    ShuttingDown. ``sizes``: where to keep what launches were seen to take.
    """

    def __init__(
        self,
        core: Core,
        start_runner: StartRunner[R],
        read_memory: ReadMemory,
        sizes: SizesFile | None = None,
    ) -> None:
        self._core = core
        self._sizes = sizes
        self._kept = core.sizes
        self._start_runner = start_runner
        self._read_memory = read_memory
        #: What is used when the memory cannot be read.
        self._instead = MemoryReading()
        self._nursery: trio.Nursery | None = None
        #: Requests that wait for the core's answer, by ticket.
        self._requests: dict[int, LeaseRequest[R]] = {}
        #: Runners from Start until their process is gone, by id.
        self._processes: dict[int, _Process[R]] = {}
        #: When the timer task wakes (nanoseconds), and what wakes it before that.
        self._alarm: int | None = None
        self._alarm_changed = trio.Event()
        #: Set when the last lease is back; there while ``drain`` waits for that.
        self._drained: trio.Event | None = None

    # --- for the daemon --------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. When this returns no runner is left, and no request waits."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                try:
                    await self._keep_time()
                finally:
                    self._perform(self._core.drain(_now()))
        finally:
            self._nursery = None

    async def drain(self, grace: float) -> bool:
        """Take no new requests, turn away those that wait, let those that run go on.

        Returns True when the last lease is back, or False after ``grace`` seconds.
        """
        self._drained = trio.Event()
        self._perform(self._core.drain(_now()))
        if self._core.leases:
            with trio.move_on_after(grace):
                await self._drained.wait()
        return self._core.leases == 0

    # --- for requests ----------------------------------------------------------------------------

    def lease(
        self, spec: ModelSpec, keep_alive: int | None = None, slot: bool = True
    ) -> LeaseRequest[R]:
        """``async with scheduler.lease(spec) as lease``: a runner of that model, loaded if need be.

        ``keep_alive`` (nanoseconds) stays in force for the model; None changes nothing. ``slot``
        False only loads the model and takes none of its places. Entering raises ServerBusy,
        ShuttingDown, LoadError, NotFound, RunnerError or another OllamadError.

        A runner is checked before it is handed out. One that is unfit is replaced, unless it was
        loaded for this very request: then a new one would be no better.
        """
        return LeaseRequest(self, spec, keep_alive, slot)

    def loaded(self) -> list[LoadedModel]:
        """The models in memory; the last to expire come first. One that loads is not yet there."""
        now = _now()
        models = [
            self._loaded_model(record, process.runner, now)
            for record in self._core.runners()
            if (process := self._processes.get(record.id)) is not None
            and process.runner is not None
        ]
        return sorted(models, key=lambda model: -(model.expires_in // 10**9))

    @property
    def waiting(self) -> int:
        """Requests that wait for a load or a slot."""
        return self._core.waiting

    @property
    def running(self) -> int:
        """Requests that have a runner."""
        return self._core.leases

    def is_loaded(self, key: str) -> bool:
        """Whether a runner has loaded the model of that key."""
        return any(
            record.spec.key == key and self._processes[record.id].runner is not None
            for record in self._core.runners()
        )

    def expire(self, key_or_name: str) -> bool:
        """Unload a model when the requests that it has are served. False if it is not loaded."""
        runners = self._core.runners()
        keys = [r.spec.key for r in runners if key_or_name in (r.spec.key, r.spec.name)]
        for key in keys or [key_or_name]:
            self._perform(self._core.expire(key, _now()))
        return bool(keys)

    def expire_all(self, reason: str = "a runner ran out of memory") -> None:
        """Unload all models in the same way."""
        self._perform(self._core.expire_all(_now(), reason=reason))

    # --- what a LeaseRequest does ----------------------------------------------------------------

    def _ask(self, request: LeaseRequest[R]) -> int:
        if self._nursery is None:
            raise ShuttingDown
        ticket, actions = self._core.request(
            request.spec, _now(), keep_alive=request.keep_alive, slot=request.slot
        )
        self._requests[ticket] = request
        self._perform(actions)
        return ticket

    def _cancel(self, ticket: int) -> None:
        del self._requests[ticket]
        self._perform(self._core.cancel(ticket, _now()))

    def _release(self, ticket: int, *, served: bool = False) -> None:
        self._perform(self._core.release(ticket, _now(), served=served))
        if self._drained is not None and not self._core.leases:
            self._drained.set()

    def _condemn(self, ticket: int, reason: str) -> None:
        self._perform(self._core.condemn_leased(ticket, reason, _now()))

    # --- carrying out what the core decided ------------------------------------------------------

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Grant():
                    self._requests.pop(action.ticket).answer(self._granted(action))
                case Reject():
                    self._requests.pop(action.ticket).answer(action.error)
                case Measure():
                    self._tasks().start_soon(self._measure)
                case Start():
                    _log_retry(action)
                    self._processes[action.runner_id] = process = _Process[R](action)
                    self._tasks().start_soon(self._live, process)
                case Abort():
                    self._processes[action.runner_id].loading.cancel()
                case Stop():
                    process = self._processes[action.runner_id]
                    log.info("unloading %s: %s", process.start.spec.name, action.reason)
                    process.stopping.set()
        # Only an earlier alarm has to wake the timer: a later one it finds when it rings.
        deadline = self._core.deadline()
        if deadline is not None and (self._alarm is None or deadline < self._alarm):
            self._alarm = deadline
            self._alarm_changed.set()

    def _tasks(self) -> trio.Nursery:
        assert self._nursery is not None, "the core acts only while run() runs"
        return self._nursery

    def _granted(self, grant: Grant) -> Lease[R]:
        runner = self._processes[grant.runner_id].runner
        assert runner is not None, "the core grants only what is loaded"
        return Lease(
            runner,
            ticket=grant.ticket,
            num_ctx=grant.num_ctx,
            queued_ns=grant.queued_ns,
            loaded_ns=grant.loaded_ns,
            condemn=self._condemn,
        )

    def _loaded_model(self, record: RunnerRecord, runner: R, now: int) -> LoadedModel:
        memory = runner.memory()
        return LoadedModel(
            key=record.spec.key,
            name=record.spec.name,
            digest=record.spec.digest,
            info=record.spec.info,
            size=memory.total,
            size_vram=memory.vram,
            num_ctx=record.plan.num_ctx,
            expires_in=record.expires_in(now),
            leases=record.leases,
            devices=dict(memory.per_device),
            reason=why_not_on_devices(record.plan, memory),
        )

    # --- tasks -----------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        while True:
            self._alarm = alarm = self._core.deadline()
            self._alarm_changed = trio.Event()
            # A microsecond later, or rounding could wake us before the deadline, over and over.
            with trio.move_on_at(float("inf") if alarm is None else alarm / 1e9 + 1e-6):
                await self._alarm_changed.wait()
            self._perform(self._core.tick(_now()))

    async def _measure(self) -> None:
        reading = self._instead
        try:
            with trio.move_on_after(MEASURE_DEADLINE) as scope:
                reading = await self._read_memory()
                self._instead = _without_figures(reading)
        except OSError as error:
            log.warning("cannot read the machine's memory: %s", error)
        else:
            if scope.cancelled_caught:
                log.warning("reading the machine's memory took too long")
        self._perform(self._core.memory(reading, _now()))

    async def _live(self, process: _Process[R]) -> None:
        """The life of one runner: load, serve, stop. Cancelled, it stops the runner first."""
        runner_id = process.start.runner_id
        failure: OllamadError | None = None
        try:
            with process.loading:
                process.runner, failure = await self._load(process.start)
            if (runner := process.runner) is not None:
                use = runner.memory()
                self._perform(
                    self._core.loaded(runner_id, use.total, _now(), devices=use.per_device)
                )
                self._keep_sizes()
                await process.until_over(runner)
                await self._end(process, runner)
            elif failure is None or (isinstance(failure, LoadError) and failure.out_of_memory):
                await self._until_load_is_back(process.start.plan)
        finally:
            if process.runner is not None and not process.runner.exited.is_set():
                await self._stop(process.runner, process.start.spec.name)
            del self._processes[runner_id]
            self._perform(
                self._core.gone(runner_id, _now())
                if failure is None
                else self._core.load_failed(runner_id, failure, _now())
            )

    async def _end(self, process: _Process[R], runner: R) -> None:
        """Stop a runner unless it has ended by itself. Returns when its memory is back."""
        names = recovery.discrete(process.start.plan.devices)
        size = recovery.held_on(runner.memory().per_device, names)
        died = runner.exited.is_set() and not process.stopping.is_set()
        if died:
            process.runner = None
            error = runner.termination_text()
            self._perform(self._core.died(process.start.runner_id, error, _now()))
        before = None
        if size:
            with trio.move_on_after(LOOK_DEADLINE):
                reading = await self._reading()
                before = recovery.shown_on(reading, process.start.plan.devices, names)
        if not runner.exited.is_set():
            await self._stop(runner, process.start.spec.name)
        process.runner = None
        limit = recovery.LIMIT_AFTER_DEATH if died else recovery.LIMIT
        await recovery.until_back(self._reading, names, size, before, limit)

    async def _until_load_is_back(self, plan: LaunchPlan) -> None:
        """Return when the memory that a load took before it ended is free as it was before."""
        names = recovery.discrete(plan.devices)
        size = recovery.held_on(plan.on_device, names)
        free = sum(device.free_memory for device in plan.devices if device.name in names)
        limit = recovery.LIMIT_AFTER_DEATH
        await recovery.until_back(self._reading, names, size, free - size, limit)

    async def _reading(self) -> MemoryReading | None:
        try:
            return await self._read_memory()
        except OSError as error:
            log.warning("cannot read the machine's memory: %s", error)
            return None

    def _keep_sizes(self) -> None:
        sizes = self._core.sizes
        if self._sizes is not None and sizes != self._kept:
            self._kept = sizes
            self._tasks().start_soon(trio.to_thread.run_sync, self._sizes.write, dict(sizes))

    async def _load(self, start: Start) -> tuple[R | None, OllamadError | None]:
        name = start.spec.name
        try:
            return await self._start_runner(start.spec, start.plan), None
        except OllamadError as error:
            log.warning("loading %s failed: %s", name, error.message)
            return None, error
        except FileNotFoundError as error:
            log.warning("loading %s failed: %s", name, error)
            return None, NotFound(f"model {quoted(name)} not found, try pulling it first")
        except OSError as error:
            log.warning("loading %s failed: %s", name, error)
            return None, LoadError(str(error))
        except Exception as error:
            log.exception("loading %s failed unexpectedly", name)
            return None, LoadError(f"loading the model failed: {error}")

    async def _stop(self, runner: R, name: str) -> None:
        with trio.move_on_after(STOP_DEADLINE, shield=True) as scope:
            await runner.stop()
        if scope.cancelled_caught:
            log.error("the runner of %s does not end; going on without it", name)


class LeaseRequest(Generic[R]):
    """What ``Scheduler.lease`` returns: entered, it waits for the lease; left, it gives it back."""

    __slots__ = ("_answer", "_scheduler", "_ticket", "_wake", "keep_alive", "slot", "spec")

    def __init__(
        self, scheduler: Scheduler[R], spec: ModelSpec, keep_alive: int | None, slot: bool
    ) -> None:
        self.spec = spec
        self.keep_alive = keep_alive
        self.slot = slot
        self._scheduler = scheduler
        self._ticket = 0
        self._answer: Lease[R] | OllamadError | None = None
        self._wake: trio.Event | None = None

    def answer(self, answer: Lease[R] | OllamadError) -> None:
        """Called by the scheduler, once."""
        self._answer = answer
        if self._wake is not None:
            self._wake.set()

    async def __aenter__(self) -> Lease[R]:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            lease = await self._asked()
            try:
                # Who only loads takes what has just become ready as it is.
                if self.slot or not lease.loaded_ns:
                    await lease.runner.check()
            except RunnerUnfit as error:
                lease.condemn(error.message)
                self._scheduler._release(self._ticket)
                if lease.loaded_ns:
                    raise
            except BaseException:
                self._scheduler._release(self._ticket)
                raise
            else:
                return lease

    async def _asked(self) -> Lease[R]:
        self._answer = None
        self._ticket = self._scheduler._ask(self)
        answer = self._answer if self._answer is not None else await self._answered()
        if isinstance(answer, OllamadError):
            raise answer
        return answer

    async def _answered(self) -> Lease[R] | OllamadError:
        self._wake = trio.Event()
        try:
            await self._wake.wait()
        except trio.Cancelled:
            # The answer may have come in the same moment as the cancellation.
            if self._answer is None:
                self._scheduler._cancel(self._ticket)
            elif isinstance(self._answer, Lease):
                self._scheduler._release(self._ticket)
            raise
        assert self._answer is not None
        return self._answer

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # No await: nothing can come between the end of a request and the return of its lease.
        self._scheduler._release(self._ticket, served=error is None)


class _Process(Generic[R]):
    """What the shell knows about a runner that the core started."""

    __slots__ = ("loading", "runner", "start", "stopping")

    def __init__(self, start: Start) -> None:
        self.start = start
        self.loading = trio.CancelScope()
        self.runner: R | None = None
        self.stopping = trio.Event()

    async def until_over(self, runner: R) -> None:
        """Return when the runner has exited, or shall be stopped."""
        async with trio.open_nursery() as nursery:

            async def until_exit() -> None:
                await runner.exited.wait()
                log.warning("the runner of %s has ended by itself", self.start.spec.name)
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_exit)
            await self.stopping.wait()
            nursery.cancel_scope.cancel()


def _without_figures(reading: MemoryReading) -> MemoryReading:
    """What still holds when a later reading fails: the devices, of which all may be used that no
    runner was promised. Without them a model would silently go to the CPU."""
    devices = (
        msgspec.structs.replace(device, free_memory=device.total_memory)
        for device in reading.devices
    )
    return MemoryReading(devices=tuple(devices), no_gpu=reading.no_gpu)


def _now() -> int:
    """Nanoseconds of trio's clock."""
    return int(trio.current_time() * 1e9)


def _log_retry(start: Start) -> None:
    """Say what is tried after memory ran out, with the figures that it was decided by."""
    plan, relief = start.plan, start.relief
    if not relief.tries:
        return
    log.warning(
        "loading %s again %s",
        start.spec.name,
        relief.how,
        extra=fields(
            retry=relief.tries,
            where=plan.reason,
            num_ctx=plan.num_ctx,
            num_batch=plan.num_batch,
            predicted=human_gib(plan.predicted),
            room_on_devices=human_gib(plan.room_on_devices),
            available=human_gib(plan.available),
        ),
    )
