"""Scheduler meets runners: how a launch plan becomes a process.

The scheduler knows models and memory, the runners know flags and processes; only this module knows
both. Spec: runners-and-scheduling 2.2 (facts of the files), 2.11 (projectors).
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import trio

from ollamad.errors import LoadError, quoted
from ollamad.gguf.errors import GGUFError
from ollamad.gguf.facts import Facts, cached_facts
from ollamad.gguf.shards import cached_shards
from ollamad.hardware.device import Device
from ollamad.hardware.visible import conflicts, runner_environment
from ollamad.log import fields
from ollamad.runners.command import Launch
from ollamad.runners.environment import waiting_environment
from ollamad.runners.flash import cache_type, driver_warning
from ollamad.runners.kinds import Found
from ollamad.runners.offload import (
    backend_directories,
    fit_environment,
    minimum_memory,
    projector_environment,
    projector_stays,
    reads_past_the_cache,
)
from ollamad.runners.process import Runner, start_runner
from ollamad.runners.rundir import RunDirectory
from ollamad.scheduler.sizing import LaunchPlan
from ollamad.scheduler.spec import ModelSpec
from ollamad.scheduler.whereabouts import why_not_on_devices
from ollamad.settings import Settings
from ollamad.store.derived import Derived, Loadable
from ollamad.store.errors import os_error_text
from ollamad.units import human_gib

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LaunchFacts:
    """What the files of a model say that decides how it is launched (2.2)."""

    #: Bytes of the weights' files.
    model_bytes: int = 0
    #: Blocks and the output layer.
    offloadable_layers: int = 1
    #: Bytes of the projector's tensors, 0 without one.
    projector_bytes: int = 0
    #: ``--spec-type``; "" when there is no draft, or llama-server finds out by itself.
    draft_type: str = ""


def read_launch_facts(spec: ModelSpec) -> LaunchFacts:
    """Blocks on the disk. Raises FileNotFoundError and GGUFError for the weights, LoadError for a
    projector that cannot be read."""
    model = cached_shards(spec.shards) if spec.shards else cached_facts(spec.model_path)
    draft = model if spec.draft is None else _facts_or_none(spec.draft)
    return LaunchFacts(
        model_bytes=model.size,
        offloadable_layers=model.offloadable_layers,
        projector_bytes=_projector_bytes(spec.projectors[0]) if spec.projectors else 0,
        draft_type="" if draft is None else _draft_type(draft),
    )


def _draft_type(draft: Facts) -> str:
    """Of a draft's file, or of a model that brings its own draft."""
    if draft.arch == "dflash":
        return "draft-dflash"
    return "draft-mtp" if draft.has_builtin_draft else ""


def _facts_or_none(path: Path) -> Facts | None:
    try:
        return cached_facts(path)
    except (OSError, GGUFError) as error:
        # The runner may know more about it than we do; else it says what is wrong.
        log.warning("the draft cannot be read: %s", error)
        return None


def _projector_bytes(path: Path) -> int:
    try:
        size = cached_facts(path).tensor_bytes
    except (OSError, GGUFError) as error:
        raise LoadError(f"read mmproj metadata {quoted(str(path))}: {error}") from error
    if size == 0:
        raise LoadError(f"read mmproj metadata {quoted(str(path))}: no projector tensors found")
    return size


def launch_of(
    spec: ModelSpec,
    plan: LaunchPlan,
    facts: LaunchFacts,
    *,
    environ: Mapping[str, str] | None = None,
    overhead: int = 0,
    platform: str = sys.platform,
) -> Launch:
    """The launch that ``plan`` decided for ``spec``. Pure.

    ``environ``: the daemon's own; ``overhead``: bytes to leave free on each device.
    """
    inherited = environ or {}
    environment = runner_environment(plan.devices, inherited, platform)
    if plan.fit:
        environment |= fit_environment(plan.devices, inherited, overhead)
    environment |= projector_environment(
        plan.devices, inherited, has_projector=bool(spec.projectors)
    )
    environment |= waiting_environment(plan.beside_others, inherited)
    stays = projector_stays(
        plan.num_gpu, facts.offloadable_layers, facts.projector_bytes, plan.devices
    )
    return Launch(
        model_path=str(spec.model_path),
        model_bytes=facts.model_bytes,
        model_name=spec.name,
        arch=spec.shape.arch,
        num_ctx=plan.num_ctx,
        train_ctx=spec.shape.train_context,
        parallel=plan.parallel,
        kv_unified=plan.kv_unified,
        kv_pool=plan.context_total if plan.kv_unified else 0,
        adapters=tuple(map(str, spec.adapters)),
        projector=str(spec.projectors[0]) if spec.projectors else None,
        projector_offload=not stays,
        projector_bytes=facts.projector_bytes,
        embedding=not spec.is_completion,
        num_batch=plan.num_batch,
        num_gpu=plan.num_gpu,
        num_thread=plan.num_thread,
        devices=plan.devices,
        main_gpu=plan.main_gpu,
        tensor_split=plan.tensor_split,
        use_mmap=plan.use_mmap,
        direct_io=reads_past_the_cache(plan.devices, platform),
        flash_attention=cast(Literal["on", "off", "auto"], plan.flash_attention),
        kv_cache_type=plan.kv_cache_type,
        context_shift=spec.context_shift,
        num_keep=spec.num_keep,
        cache_ram_mib=plan.cache_ram_mib,
        jinja=spec.jinja,
        fit=plan.fit,
        draft_type=facts.draft_type,
        draft_path=str(spec.draft) if spec.draft else None,
        draft_max=plan.draft_num_predict,
        backend_dirs=backend_directories(plan.devices),
        environment=environment,
    )


class Launcher:
    """Starts runners for the scheduler: its ``StartRunner``.

    ``nursery`` is where the runners live. The kind of runner is looked for when the first model is
    loaded, so that a daemon without one still serves everything else.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        rundir: RunDirectory,
        settings: Settings,
        *,
        kinds: Found,
        derived: Derived,
    ) -> None:
        self._nursery = nursery
        self._rundir = rundir
        self._load_timeout_ns = settings.load_timeout
        self._num_parallel = settings.num_parallel
        self._kv_cache_type = settings.kv_cache_type
        self._overhead = settings.gpu_overhead
        self._require_gpu = settings.require_gpu
        self._kinds = kinds
        self._derived = derived
        #: Held while files are made: two at a time would only be slower.
        self._making = trio.Lock()

    async def __call__(self, spec: ModelSpec, plan: LaunchPlan) -> Runner:
        """Raises LoadError, GGUFError, and FileNotFoundError when the weights are gone.

        Files that llama.cpp cannot load as they are become others first; the load timeout begins
        after that. When memory runs out, a projector that was to go to a device is tried once more
        in main memory (2.11).
        """
        with self._derived.held(spec.model_path, spec.draft):
            spec = await self._loadable(spec)
            with self._linked(spec) as spec:
                return await self._launch(spec, plan)

    @contextmanager
    def _linked(self, spec: ModelSpec) -> Iterator[ModelSpec]:
        """``spec`` with shards where llama.cpp finds them. Raises LoadError."""
        with ExitStack() as links:
            if spec.shards:
                try:
                    first = links.enter_context(self._rundir.linked(spec.shards))
                except OSError as error:
                    raise LoadError(
                        f"preparing the model for llama.cpp failed: {os_error_text('link', error)}"
                    ) from error
                spec = msgspec.structs.replace(spec, model_path=first)
            yield spec

    async def _loadable(self, spec: ModelSpec) -> ModelSpec:
        """``spec`` with the files that llama.cpp gets."""
        found: dict[str, Any] = {}
        if not spec.shards:  # whole files alone become others
            files = await self._files(spec.model_path, projector=not spec.projectors)
            found["model_path"] = files.text
            if files.mmproj is not None:
                found["projectors"] = (files.mmproj,)
        if spec.draft is not None:
            found["draft"] = await self._draft(spec.draft)
        return msgspec.structs.replace(spec, **found)

    async def _draft(self, path: Path) -> Path:
        try:
            return (await self._files(path, projector=False)).text
        except (OSError, GGUFError):
            return path  # ``read_launch_facts`` tells about it

    async def _files(self, path: Path, *, projector: bool) -> Loadable:
        find = partial(self._derived.find, path, projector=projector)
        if files := await trio.to_thread.run_sync(find):
            return files
        async with self._making:
            # Cancelled when nobody waits for the model any more: then what was begun goes.
            check = trio.from_thread.check_cancelled
            make = partial(self._derived.make, path, projector=projector, check=check)
            return await trio.to_thread.run_sync(make)

    async def _launch(self, spec: ModelSpec, plan: LaunchPlan) -> Runner:
        facts = await trio.to_thread.run_sync(read_launch_facts, spec)
        launch = launch_of(spec, plan, facts, environ=os.environ, overhead=self._overhead)
        asked = max(spec.options.num_parallel, self._num_parallel)
        if spec.is_completion and not spec.parallel_allowed and asked > 1:
            log.warning(
                "model architecture does not currently support parallel requests",
                extra={"model": spec.name, "architecture": launch.arch},
            )
        self._tell_plan(spec, plan)
        runner = await self._start_or_retry(spec, launch)
        _tell_outcome(spec, plan, runner)
        if self._require_gpu and _missed_devices(plan, runner):
            await runner.stop(grace=0)
            where = why_not_on_devices(plan, runner.memory())
            raise LoadError(f"OLLAMAD_REQUIRE_GPU is set and the model would run {where}")
        return runner

    def _tell_plan(self, spec: ModelSpec, plan: LaunchPlan) -> None:
        """What is about to happen, for those who wonder later why a model is where it is."""
        for device in plan.devices:
            log.info("gpu memory", extra=fields(**_memory_fields(device, self._overhead)))
        predicted = human_gib(plan.predicted)
        log.info(
            "loading model", extra=fields(model=spec.name, predicted=predicted, where=plan.reason)
        )
        _, warning = cache_type(self._kv_cache_type, plan.flash_attention)
        if plan.devices and warning:
            log.warning(warning, extra=fields(model=spec.name))
        if plan.flash_attention == "auto" and (warning := driver_warning(plan.devices)):
            log.warning(warning)
        count = len(plan.devices)
        if plan.main_gpu is not None and count > 1 and not 0 <= plan.main_gpu < count:
            told = fields(model=spec.name, main_gpu=plan.main_gpu, devices=count)
            log.warning("main_gpu names no GPU that there is", extra=told)
        for name in conflicts(plan.devices):
            log.warning("conflicting device environment override", extra=fields(variable=name))

    async def _start_or_retry(self, spec: ModelSpec, launch: Launch) -> Runner:
        try:
            return await self._start(launch)
        except LoadError as error:
            if not (error.out_of_memory and launch.projector and launch.projector_offload):
                raise
            log.warning("loading %s again with its projector in main memory", spec.name)
        try:
            return await self._start(dataclasses.replace(launch, projector_offload=False))
        except LoadError as error:
            raise LoadError(
                "llama-server startup failed after projector CPU offload retry: " + error.message,
                out_of_memory=error.out_of_memory,
            ) from error

    async def _start(self, launch: Launch) -> Runner:
        return await start_runner(
            self._nursery,
            self._kinds.best(),
            launch,
            rundir=self._rundir,
            load_timeout_ns=self._load_timeout_ns,
        )


def _missed_devices(plan: LaunchPlan, runner: Runner) -> bool:
    """Whether nothing is on devices although the plan was otherwise: a driver that has failed since
    it was asked leaves the runner with the processor, and llama.cpp goes on with that."""
    use = runner.memory()
    return bool(plan.devices) and use.total_layers > 0 and use.gpu_layers == 0 and use.vram == 0


def _memory_fields(device: Device, overhead: int) -> dict[str, str]:
    """Of the line about a device that a model is about to be loaded to (4.6 step 6)."""
    minimum = minimum_memory(device)
    return {
        "id": device.id,
        "library": device.library,
        "available": human_gib(max(0, device.free_memory - overhead - minimum)),
        "free": human_gib(device.free_memory),
        "minimum": human_gib(minimum),
        "overhead": human_gib(overhead),
    }


def _tell_outcome(spec: ModelSpec, plan: LaunchPlan, runner: Runner) -> None:
    """What has become of the plan, and why not all of the model is on devices if it is not."""
    use = runner.memory()
    told = {"model": spec.name, "size": human_gib(use.total), "vram": human_gib(use.vram)}
    if use.per_device:
        sizes = [f"{name} {human_gib(size)}" for name, size in use.per_device.items()]
        told["devices"] = ", ".join(sizes)
    if reason := why_not_on_devices(plan, use):
        told["reason"] = reason
    log.info("model loaded", extra=fields(**told))
