"""The parts of the running daemon, put together: the only place that knows all of them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio
from msgspec.structs import replace

from ollamad.errors import LoadError
from ollamad.hardware.discovery import Hardware, log_fields, why_no_device
from ollamad.hardware.machine import Machine
from ollamad.hardware.memory import SystemMemory
from ollamad.hardware.visible import user_choices
from ollamad.inference.services import Services
from ollamad.launcher import Launcher
from ollamad.log import fields
from ollamad.models.catalog import Catalog
from ollamad.registry.account import Account
from ollamad.registry.cloud import Cloud
from ollamad.registry.details import Details
from ollamad.registry.http import Http
from ollamad.registry.identity import Identity
from ollamad.registry.recommendations import Recommendations
from ollamad.registry.service import Registry
from ollamad.runners import probe
from ollamad.runners.devices import machine_of
from ollamad.runners.environment import child_environment
from ollamad.runners.flash import cache_type
from ollamad.runners.kinds import Found, RunnerKind
from ollamad.runners.process import Runner
from ollamad.runners.rundir import RunDirectory
from ollamad.scheduler.core import Core
from ollamad.scheduler.options import Defaults, context_tier
from ollamad.scheduler.shell import Scheduler
from ollamad.scheduler.sizes_file import SizesFile
from ollamad.scheduler.sizing import Limits, MemoryReading
from ollamad.scheduler.tuning import flash_attention
from ollamad.settings import Settings
from ollamad.store.name_locks import NameLocks
from ollamad.store.store import Store
from ollamad.units import human_gib

logger = logging.getLogger(__name__)

#: Seconds in which a runner must have told its version.
_VERSION_LIMIT = 30.0
#: Seconds in which the process that asks the makers' libraries must be gone.
_CLOSE_LIMIT = 2.0


@asynccontextmanager
async def running_services(
    settings: Settings, store: Store, kinds: Found, rundir: RunDirectory
) -> AsyncIterator[Services]:
    """The services with a scheduler that runs. Leaving stops every runner."""
    nothing_yet = Hardware(SystemMemory())
    # Two nurseries: the scheduler ends first, and needs the runners' tasks to stop them. Transfers
    # end before the connections that they use.
    async with (
        Http.from_environ(os.environ) as http,
        trio.open_nursery() as runners,
        trio.open_nursery() as supervised,
    ):
        launcher = Launcher(runners, rundir, settings, kinds=kinds, derived=store.derived)
        sizes = SizesFile(settings.cache / "launch-sizes.json")
        core = Core(limits(settings, nothing_yet), await trio.to_thread.run_sync(sizes.read))
        machine = machine_of(settings, kinds, os.environ, found=lambda found: use(found))
        scheduler: Scheduler[Runner] = Scheduler(core, launcher, partial(_reading, machine), sizes)
        await supervised.start(scheduler.run)
        supervised.start_soon(log_runner, kinds)
        supervised.start_soon(http.sweep)
        name_locks = NameLocks()
        identity = Identity.of_file(settings.key_path)
        cloud = Cloud(http, identity, settings.cloud_base, disabled=settings.cloud_disabled)
        recommendations = Recommendations(cloud, settings.cache / "model-recommendations.json")
        supervised.start_soon(recommendations.run)
        services = Services(
            settings=settings,
            models=Catalog(store, settings, scheduler.is_loaded),
            scheduler=scheduler,
            defaults=defaults(settings, nothing_yet),
            registry=Registry(store, http, settings, supervised, name_locks),
            cloud=cloud,
            cloud_details=Details(cloud, supervised),
            account=Account(http, identity),
            recommendations=recommendations,
            name_locks=name_locks,
            machine=machine,
        )

        def use(hardware: Hardware) -> None:
            services.defaults = defaults(settings, hardware)
            core.limits = replace(core.limits, device_count=len(hardware.devices))
            log_hardware(hardware, services.defaults.tier)

        supervised.start_soon(_look_for_devices, machine)
        yield services
        supervised.cancel_scope.cancel()


def limits(settings: Settings, hardware: Hardware) -> Limits:
    """The scheduler's part of the settings, without a cache type that would fail every load."""
    # Whether the devices have flash attention is seen when a model is placed on them.
    flash = flash_attention(settings.flash_attention, ())
    kv_cache_type, warning = cache_type(settings.kv_cache_type, flash)
    if warning:
        logger.warning(warning)
    return Limits(
        max_queue=settings.max_queue,
        max_loaded=settings.max_loaded_models,
        parallel=max(1, settings.num_parallel),
        keep_alive=settings.keep_alive,
        memory_guard=sys.platform != "darwin",
        flash_attention=settings.flash_attention,
        kv_cache_type=kv_cache_type,
        device_count=len(hardware.devices),
        spread=settings.sched_spread,
        gpu_overhead=settings.gpu_overhead,
        require_gpu=settings.require_gpu,
        platform=sys.platform,
    )


def defaults(settings: Settings, hardware: Hardware) -> Defaults:
    """Where options start from when neither model nor request says anything."""
    sizes = [device.total_memory for device in hardware.devices]
    return Defaults(
        context_length=settings.context_length, tier=context_tier(sizes, settings.gpu_overhead)
    )


def log_hardware(hardware: Hardware, default_num_ctx: int) -> None:
    """The lines of 1.13, and why GPUs are not used."""
    for line in log_fields(hardware):
        logger.info("inference compute", extra=fields(**line))
    for note in hardware.notes:
        level = logging.WARNING if note.level == "warning" else logging.INFO
        logger.log(level, note.text, extra=fields(hint=note.hint) if note.hint else None)
    total = sum(device.total_memory for device in hardware.devices)
    logger.info(
        "vram-based default context",
        extra=fields(total_vram=human_gib(total), default_num_ctx=default_num_ctx),
    )


async def log_runner(kinds: Found) -> None:
    """Log which runner loads will use, and warn of one that is too old (2.1)."""
    try:
        kind = await _identified(kinds.best())
    except LoadError as error:
        logger.warning("no model can be loaded: %s", error.message)
        return
    told = fields(kind=kind.name, path=kind.path, version=kind.version or "unknown")
    logger.info("runner", extra=told)
    if probe.too_old(kind):
        logger.warning("the runner is older than what is known to work", extra=told)


async def _identified(kind: RunnerKind) -> RunnerKind:
    if kind.embedded:
        return await trio.to_thread.run_sync(probe.identify, kind)
    output = b""
    try:
        with trio.move_on_after(_VERSION_LIMIT):
            result = await trio.run_process(
                [*kind.program, "--version"],
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
                env=child_environment(os.environ, overrides={}),
            )
            output = result.stdout
    except OSError as error:
        logger.warning("the runner cannot be started: %s", error)
    return probe.with_version(kind, output.decode("utf-8", "replace"))


async def _look_for_devices(machine: Machine) -> None:
    """In the background: clients are served meanwhile. Afterwards it keeps what the makers'
    libraries need, until the daemon ends."""
    choices = user_choices(os.environ)
    for name, value in choices:
        logger.warning("user overrode visible devices", extra=fields(**{name: value}))
    if choices:
        logger.warning("if GPUs are not correctly discovered, unset and try again")
    logger.info("discovering available GPUs...")
    try:
        await machine.run()
    finally:
        with trio.move_on_after(_CLOSE_LIMIT, shield=True):
            await machine.aclose()


async def _reading(machine: Machine) -> MemoryReading:
    hardware = await machine.reading()
    memory = hardware.memory
    return MemoryReading(
        total=memory.total,
        free=memory.free,
        swap_free=memory.swap_free,
        devices=hardware.devices,
        no_gpu="" if hardware.devices else why_no_device(hardware),
    )
