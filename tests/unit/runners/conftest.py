"""Runners without a model: the stand-in program, started by the real shim."""

import itertools
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from ollamad.runners.command import Launch
from ollamad.runners.kinds import RunnerKind
from ollamad.runners.process import Runner, start_runner
from ollamad.runners.rundir import RunDirectory

FAKE = Path(__file__).parents[2] / "fake_runner.py"

StartFake = Callable[..., Awaitable[Runner]]


@pytest.fixture
def rundir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunDirectory]:
    directory = RunDirectory.create()
    yield directory
    directory.close()


@pytest.fixture
def fake_kind() -> RunnerKind:
    # The interpreter of the tests: the one that a shebang finds can be any.
    return RunnerKind(name="configured", program=(sys.executable, "-S", str(FAKE)), origin="test")


@pytest.fixture
def start_fake(
    rundir: RunDirectory, fake_kind: RunnerKind, nursery: trio.Nursery, tmp_path: Path
) -> StartFake:
    """``await start_fake(script, load_timeout_ns=..., launch=..., tcp=...)`` gives a runner."""

    numbers = itertools.count()

    async def start(  # the script goes through a file: it may be bigger than an environment
        script: dict[str, Any] | None = None, *, tcp: bool = False, **options: Any
    ) -> Runner:
        file = tmp_path / f"script-{next(numbers)}.json"
        file.write_text(json.dumps(script or {}))
        launch = Launch(
            model_path="/blob",
            model_name="smollm2",
            num_ctx=256,
            environment={"FAKE_RUNNER": f"@{file}"},
            **options.pop("launch", {}),
        )
        kind = fake_kind
        if tcp:
            kind = RunnerKind(
                name=kind.name, program=kind.program, origin="test", unix_socket=False
            )
        options.setdefault("load_timeout_ns", 20 * 10**9)
        return await start_runner(nursery, kind, launch, rundir=rundir, **options)

    return start
