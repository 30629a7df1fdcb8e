"""The GPUs of this machine: found in the background, looked for again when that may help, and their
free memory as it is now.

``runners-and-scheduling.md`` 1.3, 1.5 rule 4, 1.10 and 5.1. Nothing here holds up the daemon: every
question has a limit, and whoever needs the answer waits for it, but not for ever.
"""

from __future__ import annotations

import logging
import math
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import trio
from msgspec.structs import replace

from ollamad.hardware import jetson, matching, merge, visible
from ollamad.hardware.device import Device
from ollamad.hardware.discovery import Hardware
from ollamad.hardware.files import gpus_on_bus
from ollamad.hardware.finding import Answer, Backend, Candidate, Outcome, Pass, Rules, RunnerFacts
from ollamad.hardware.listing import (
    ABOUT_GPUS,
    Listed,
    has_backend,
    last_complaint,
    metal_failed,
    parse_architectures,
    parse_listing,
)
from ollamad.hardware.memory import SystemMemory, system_memory
from ollamad.hardware.sources import sources
from ollamad.hardware.vendor import Note, Survey, VendorDevice
from ollamad.log import fields

_log = logging.getLogger(__name__)

#: Seconds that a runner has for its list: a GPU that sleeps takes long to wake (1.3).
LISTING_LIMIT = 90.0 if sys.platform == "win32" else 30.0
#: Seconds for a device that is asked for alone because all together failed.
_ALONE_LIMIT = 10.0
#: Seconds for a word about what it was built for, which touches no device.
_INFO_LIMIT = 5.0
#: Seconds that each of the makers' libraries has, and that it has when there is a device of its.
_SURVEY_LIMIT, _LONG_SURVEY_LIMIT = 1.0, 3.0
#: Seconds that fresh memory figures of one source may take, and those of all: a reading that comes
#: too late for the scheduler is worse than old figures, because then it knows of no device.
_REFRESH_LIMIT, _ALL_REFRESH_LIMIT = 1.0, 4.0
#: Seconds that a reading waits for a look for devices: whoever can wait longer did so before.
_PATIENCE = 5.0
#: Seconds between two attempts to find what was not there.
AGAIN_AFTER = 30.0

#: Vendors of GPUs on the PCI bus by the library that uses them.
_BUS_VENDORS = {"CUDA": "0x10de", "ROCm": "0x1002"}
_INTEL = "0x8086"


#: What Metal may start with when it does not start otherwise (2.15).
_WITHOUT_TENSORS = (("GGML_METAL_TENSOR_DISABLE", "1"),)
_STILL_LOOKING = Note("info", "GPUs are still being looked for", "ask again in a while")


class Lister(Protocol):
    """The chosen runner, asked from outside: `ollamad.runners.devices.RunnerDevices`."""

    def facts(self) -> RunnerFacts | None:
        """Blocks on the disk; None without any runner."""

    async def devices(
        self, backend: Backend, variables: Mapping[str, str], limit: float
    ) -> Answer: ...
    async def system_info(
        self, backend: Backend, variables: Mapping[str, str], limit: float
    ) -> Answer: ...


class Makers(Protocol):
    """The makers' libraries: `ollamad.hardware.monitor.Monitor`."""

    async def survey(self, limit: float = ...) -> Survey: ...
    async def memory(self, limit: float = ...) -> Survey: ...
    async def aclose(self) -> None: ...


class Machine:
    """What there is to run models on.

    ``found`` is called with every result, the first and later ones that differ. ``root`` is where
    ``dev``, ``proc`` and ``sys`` are.
    """

    def __init__(
        self,
        lister: Lister,
        makers: Makers,
        rules: Rules,
        *,
        root: Path = Path("/"),
        found: Callable[[Hardware], None] = lambda _: None,
        read_memory: Callable[[], SystemMemory] = system_memory,
    ) -> None:
        self._lister = lister
        self._makers = makers
        self._rules = rules
        self._root = root
        self._found = found
        self._read_memory = read_memory
        self._done = trio.Event()
        self._lock = trio.Lock()
        self._outcome = Outcome()
        self._memory = SystemMemory()
        self._last = -math.inf
        self._may_come = False
        #: Set when a reading wants another look; and the end of that look, None without one.
        self._wanted = trio.Event()
        self._again: trio.Event | None = None

    @property
    def is_known(self) -> bool:
        """Whether the first discovery is over."""
        return self._done.is_set()

    @property
    def hardware(self) -> Hardware:
        """The last result, with the memory of then; no devices before the first one."""
        if not self.is_known:
            return Hardware(self._memory, notes=(_STILL_LOOKING,))
        return Hardware(self._memory, self._outcome.devices, self._outcome.notes)

    async def known(self, limit: float = math.inf) -> Hardware:
        """``hardware`` after the first discovery, or after ``limit`` seconds without it."""
        with trio.move_on_after(limit):
            await self._done.wait()
        return self.hardware

    async def discover(self) -> Hardware:
        """Look for devices now. Never raises for what is wrong with the machine."""
        async with self._lock:
            before = self._outcome
            first = not self.is_known
            try:
                self._outcome = await self._discovered()
            except Exception as error:  # noqa: BLE001
                # Models run on the processor whatever becomes of this.
                _log.exception("looking for GPUs failed")
                # It may have been a shortage of the moment: without another try there would be no
                # GPU until the daemon is started anew.
                self._may_come = True
                note = Note("warning", f"looking for GPUs failed: {error}", "see the log")
                self._outcome = Outcome(notes=(note,))
            self._memory = await trio.to_thread.run_sync(self._read_memory, abandon_on_cancel=True)
            self._last = trio.current_time()
            self._done.set()
            if first or before != self._outcome:
                self._found(self.hardware)
            return self.hardware

    async def run(self) -> None:
        """Look for devices now, and again whenever a reading finds that due. Ends by cancellation.

        A task of its own: whoever asks has a deadline, and a look that ended with it would begin
        anew each time and never find a GPU that takes long to wake up.
        """
        await self.discover()
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            _log.info("looking for GPUs again: there is one that could not be used")
            await self.discover()
            if self._again is not None:
                self._again.set()
                self._again = None

    async def reading(self) -> Hardware:
        """What is there, with memory as it is now; devices are looked for again if some are due.

        Waits a while for that, as long as ``run`` runs; what is found later is for the next one. A
        device whose driver does not answer keeps its last figure.
        """
        await self.known(_PATIENCE)
        if self._is_due:
            if self._again is None:
                self._again = trio.Event()
                self._wanted.set()
            with trio.move_on_after(_PATIENCE):
                await self._again.wait()
        memory = await trio.to_thread.run_sync(self._read_memory, abandon_on_cancel=True)
        outcome = self._outcome
        if not any(outcome.vendors):
            known = self.hardware
            return Hardware(memory, _shared(known.devices, memory), known.notes)
        fresh = Survey()
        with trio.move_on_after(_ALL_REFRESH_LIMIT):
            fresh = await self._makers.memory(_REFRESH_LIMIT)
        now = {_key(vendor): vendor for vendor in fresh.devices}
        devices = [
            device if vendor is None else _refreshed(device, now.get(_key(vendor)))
            for device, vendor in zip(outcome.devices, outcome.vendors, strict=True)
        ]
        return Hardware(memory, _shared(devices, memory), outcome.notes)

    async def aclose(self) -> None:
        await self._makers.aclose()

    # --- discovery --------------------------------------------------------------------------------

    @property
    def _is_due(self) -> bool:
        """Nothing was found though a device is there, and its driver may have come since."""
        return (
            not self._outcome.devices
            and self._may_come
            and trio.current_time() - self._last >= AGAIN_AFTER
        )

    async def _discovered(self) -> Outcome:
        self._may_come = False
        rules = self._rules
        facts = await trio.to_thread.run_sync(self._lister.facts, abandon_on_cancel=True)
        if facts is None or rules.cpu_only:
            runner = facts or RunnerFacts(title="no runner")
            return merge.chosen([], [], Survey(), rules, runner)
        jetpack, notes = await trio.to_thread.run_sync(self._jetson)
        signs, cards = await trio.to_thread.run_sync(self._signs)
        surveys: list[Survey] = []
        passes: list[Pass] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._survey, surveys)
            if signs or not facts.embedded:
                # One after the other: no GPU is set up twice at a time (1.3).
                for backend in _asked(facts, rules, jetpack):
                    passes.append(await self._pass(backend))
        (survey,) = surveys
        survey = await self._survey_again(survey, passes)
        passes = [await self._one_by_one(each, survey) for each in passes]
        survey = replace(survey, notes=(*survey.notes, *notes))
        if facts.embedded and not any(p.devices or p.error or p.has_backend for p in passes):
            # Its files show nothing of what the package was built with. A backend of GPUs speaks
            # even when the driver is not there yet; without one no device can ever come.
            facts = replace(facts, libraries=frozenset())
        found, said = merge.candidates(passes, survey, rules, facts)
        valid, failed = await self._validated(found)
        outcome = merge.chosen(valid, passes, survey, rules, facts, [*said, *failed])
        usable = facts.libraries is None or bool(facts.libraries & _libraries(signs))
        # Where every GPU is listed all drivers are there: what is not used then, time won't change.
        all_there = not failed and max((len(p.devices) for p in passes), default=0) >= max(1, cards)
        self._may_come = bool(signs) and usable and not all_there
        return outcome

    def _jetson(self) -> tuple[str, tuple[Note, ...]]:
        release = jetson.release(self._root, sys.platform, platform.machine())
        note = jetson.note(release, self._rules.environ)
        return jetson.jetpack(release, self._rules.environ), () if note is None else (note,)

    def _signs(self) -> tuple[frozenset[str], int]:
        """What hints at a GPU: sources that may know one, render nodes, cards on the bus; and the
        number of those."""
        signs = set(sources(self._rules.environ, self._root))
        if any((self._root / "dev/dri").glob("renderD*")):
            signs.add("render node")
        cards = 0
        for library, vendor in _BUS_VENDORS.items():
            if found := gpus_on_bus(self._root, vendor):
                signs.add(library)
                cards += len(found)
        return frozenset(signs), cards + len(gpus_on_bus(self._root, _INTEL))

    async def _survey(self, into: list[Survey]) -> None:
        into.append(await self._makers.survey(_SURVEY_LIMIT))

    async def _survey_again(self, survey: Survey, passes: Sequence[Pass]) -> Survey:
        """With more time when a maker's library says nothing of devices that the runner has.

        It may have been the driver's waking up that took so long, and now it is awake.
        """
        listed = {device.library for p in passes for device in p.devices}
        known = {device.library for device in survey.devices}
        if not (listed - known) & {"CUDA", "ROCm"} or not survey.notes:
            return survey
        return await self._makers.survey(_LONG_SURVEY_LIMIT)

    async def _pass(self, backend: Backend) -> Pass:
        variables = visible.discovery_environment(
            self._rules.environ, rocm=backend.rocm_only, platform=self._rules.platform
        )
        answer = await self._lister.devices(backend, variables, LISTING_LIMIT)
        workaround: tuple[tuple[str, str], ...] = ()
        said = f"{answer.error}\n{answer.output}\n{answer.messages}"
        if self._rules.platform == "darwin" and metal_failed(said):
            again = await self._lister.devices(
                backend, variables | dict(_WITHOUT_TENSORS), LISTING_LIMIT
            )
            if not again.error and parse_listing(again.output):
                answer, workaround = again, _WITHOUT_TENSORS
        if answer.error:
            complaint = last_complaint(answer.messages)
            error = f"{answer.error} ({complaint})" if complaint else answer.error
            return Pass(backend=backend, error=error)
        devices = parse_listing(answer.output, answer.messages)
        architectures: frozenset[str] = frozenset()
        if any(device.library == "CUDA" for device in devices):
            info = await self._lister.system_info(backend, variables, _INFO_LIMIT)
            architectures = parse_architectures(info.output + "\n" + info.messages)
        return Pass(
            backend=backend,
            devices=devices,
            architectures=architectures,
            env=workaround,
            has_backend=has_backend(answer.messages),
            complaint="" if devices else last_complaint(answer.messages, ABOUT_GPUS),
        )

    async def _one_by_one(self, each: Pass, survey: Survey) -> Pass:
        """A list that failed, made of each of NVIDIA's devices alone: one that is ill may be why.

        Those that fail alone as well are missing from it, which then is told.
        """
        nvidia = [device for device in survey.devices if device.library == "CUDA"]
        seen = matching.seen_by_cuda(nvidia, self._rules.environ)
        if not each.error or len(seen) < 2 or not all(device.uuid for device in seen):
            return each
        found: list[Listed] = []
        for ordinal, device in enumerate(seen):
            variables = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", visible.CUDA: device.uuid}
            answer = await self._lister.devices(each.backend, variables, _ALONE_LIMIT)
            listed = parse_listing(answer.output, answer.messages)
            if not answer.error and len(listed) == 1 and listed[0].library == "CUDA":
                found.append(replace(listed[0], name=f"CUDA{ordinal}", ordinal=ordinal))
        return replace(each, devices=tuple(found))

    async def _validated(self, found: Sequence[Candidate]) -> tuple[list[Candidate], list[Note]]:
        """Those of CUDA and ROCm alone, in the way that a runner gets them: a crash drops one."""
        good: set[int] = set()
        notes: dict[int, Note] = {}

        async def check(place: int, candidate: Candidate) -> None:
            device = merge.isolated(candidate, self._rules)
            variables = visible.runner_environment(
                [device], self._rules.environ, self._rules.platform
            )
            variables["GGML_CUDA_INIT"] = "1"
            answer = await self._lister.devices(candidate.backend, variables, LISTING_LIMIT)
            listed = parse_listing(answer.output, answer.messages)
            if any(other.library == device.library for other in listed) and not answer.error:
                good.add(place)
                return
            complaint = answer.error or last_complaint(answer.messages) or "it is not there then"
            notes[place] = Note(
                "warning",
                f"{device.description} ({device.name}"
                f"{', ' + device.pci_id if device.pci_id else ''}) is not used: it cannot be used "
                f"alone: {complaint}",
                "see the log with OLLAMA_DEBUG=1, and the kernel's log",
            )

        async with trio.open_nursery() as nursery:
            for place, candidate in enumerate(found):
                if candidate.device.library in ("CUDA", "ROCm"):
                    nursery.start_soon(check, place, candidate)
                else:
                    good.add(place)
        return (
            [candidate for place, candidate in enumerate(found) if place in good],
            [notes[place] for place in sorted(notes)],
        )


def _asked(facts: RunnerFacts, rules: Rules, jetpack: str) -> list[Backend]:
    by_name = {backend.variant: backend for backend in facts.backends if backend.variant}
    if not by_name:
        return list(facts.backends)
    return [by_name[name] for name in merge.admitted(by_name, rules, jetpack)]


def _libraries(signs: Iterable[str]) -> frozenset[str]:
    """The libraries that signs of a GPU promise a device for."""
    promised = {
        "nvml": {"CUDA", "Vulkan"},
        "cuda": {"CUDA", "Vulkan"},
        "CUDA": {"CUDA", "Vulkan"},
        "amd": {"ROCm", "Vulkan"},
        "ROCm": {"ROCm", "Vulkan"},
        "apple": {"Metal"},
        "render node": {"Vulkan"},
    }
    return frozenset(library for sign in signs for library in promised.get(sign, ()))


def _key(vendor: VendorDevice) -> tuple[str, int, str]:
    return vendor.source, vendor.index, vendor.uuid


def _refreshed(device: Device, now: VendorDevice | None) -> Device:
    if now is None:
        _log.warning(
            "unable to refresh free memory, using old values", extra=fields(device=device.name)
        )
        return device
    if now.total <= 0 or device.integrated:
        return device
    free = merge.free_memory(device.total_memory, device.total_memory, now)
    return replace(device, free_memory=free)


def _shared(devices: Iterable[Device], memory: SystemMemory) -> tuple[Device, ...]:
    """Integrated devices take what the system has; what their driver calls free hardly changes.

    Not Apple's, whose system tells little of what is free (4.7).
    """
    return tuple(
        replace(device, free_memory=min(device.total_memory, memory.free))
        if device.integrated and device.library != "Metal" and memory.free > 0
        else device
        for device in devices
    )
