"""Scheduler meets runners: how a launch plan becomes a process.

The scheduler knows models and memory, the runners know flags and processes; only this module knows
both.
"""

from __future__ import annotations

from typing import Literal, cast

import trio

from ollamad.runners.command import Launch
from ollamad.runners.kinds import Found
from ollamad.runners.process import Runner, start_runner
from ollamad.runners.rundir import RunDirectory
from ollamad.scheduler.sizing import LaunchPlan
from ollamad.scheduler.spec import ModelSpec
from ollamad.settings import Settings


def launch_of(spec: ModelSpec, plan: LaunchPlan) -> Launch:
    """The launch that ``plan`` decided for ``spec``. Pure."""
    return Launch(
        model_path=str(spec.model_path),
        model_name=spec.name,
        arch=spec.shape.arch,
        num_ctx=plan.num_ctx,
        train_ctx=spec.shape.train_context,
        parallel=plan.parallel,
        kv_unified=plan.kv_unified,
        kv_pool=plan.context_total if plan.kv_unified else 0,
        adapters=tuple(map(str, spec.adapters)),
        projector=str(spec.projectors[0]) if spec.projectors else None,
        embedding=not spec.is_completion,
        num_batch=plan.num_batch,
        num_gpu=plan.num_gpu,
        num_thread=plan.num_thread,
        main_gpu=plan.main_gpu,
        use_mmap=plan.use_mmap,
        flash_attention=cast(Literal["on", "off", "auto"], plan.flash_attention),
        kv_cache_type=plan.kv_cache_type,
        context_shift=spec.context_shift,
        num_keep=spec.num_keep,
        cache_ram_mib=plan.cache_ram_mib,
        jinja=spec.jinja,
        fit=plan.fit,
        draft_path=str(spec.draft) if spec.draft else None,
        draft_max=plan.draft_num_predict,
    )


class Launcher:
    """Starts runners for the scheduler: its ``StartRunner``.

    ``nursery`` is where the runners live. The kind of runner is looked for when the first model is
    loaded, so that a daemon without one still serves everything else.
    """

    def __init__(
        self, nursery: trio.Nursery, rundir: RunDirectory, settings: Settings, *, kinds: Found
    ) -> None:
        self._nursery = nursery
        self._rundir = rundir
        self._load_timeout_ns = settings.load_timeout
        self._kinds = kinds

    async def __call__(self, spec: ModelSpec, plan: LaunchPlan) -> Runner:
        """Raises LoadError."""
        return await start_runner(
            self._nursery,
            self._kinds.best(),
            launch_of(spec, plan),
            rundir=self._rundir,
            load_timeout_ns=self._load_timeout_ns,
        )
