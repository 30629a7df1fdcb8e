"""What the scheduler needs from a runner process, so that it depends on no particular one."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import trio

from ollamad.scheduler.sizing import LaunchPlan, MemoryReading
from ollamad.scheduler.spec import ModelSpec
from ollamad.scheduler.whereabouts import MemoryUse


class Runner(Protocol):
    """A loaded runner. ``exited`` is set once its process is gone, for whatever reason."""

    @property
    def client(self) -> Any: ...
    @property
    def exited(self) -> trio.Event: ...
    def memory(self) -> MemoryUse: ...
    def termination_text(self) -> str:
        """Why it has ended, for people; to be asked once it has."""

    async def check(self) -> None:
        """Return when it can take a request.

        Raises RunnerUnfit when it has to be replaced, RunnerError when it is only not ready now.
        """

    async def stop(self) -> None:
        """End the process and return when it is gone. Called once, and not after it exited."""


R = TypeVar("R", bound=Runner)
R_co = TypeVar("R_co", bound=Runner, covariant=True)


class StartRunner(Protocol[R_co]):
    async def __call__(self, spec: ModelSpec, plan: LaunchPlan) -> R_co:
        """Start a runner for ``spec`` as ``plan`` says and return when it is ready.

        Raises LoadError (or another OllamadError, or OSError when the file is missing). Leaves no
        process behind when it raises or is cancelled.
        """


class ReadMemory(Protocol):
    async def __call__(self) -> MemoryReading:
        """The machine's memory now. May take as long as asking the drivers takes."""
