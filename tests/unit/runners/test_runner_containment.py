"""What goes wrong with one runner stays with it: the nursery that all runners share lives on."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from ollamad.errors import LoadError
from ollamad.runners.address import UnixAddress
from ollamad.runners.command import Launch
from ollamad.runners.kinds import RunnerKind
from ollamad.runners.log import LogReader
from ollamad.runners.process import Runner


async def test_a_failure_in_reading_ends_that_runner_only(
    start_fake: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    feed = LogReader.feed

    def fail(reader: LogReader, data: bytes) -> list[str]:
        if b"poison" in data:
            raise RuntimeError("a bug")
        return feed(reader, data)

    monkeypatch.setattr(LogReader, "feed", fail)
    # On a busy machine it can get ready in the moment before its end.
    told = ""
    try:
        poisoned = await start_fake({"log": ["poison"]})
        await poisoned.exited.wait()
    except LoadError as error:
        told = error.message
    assert not told or "signal: killed" in told
    assert "reading from a runner failed" in caplog.text
    # The fixture's nursery still takes and keeps runners.
    runner = await start_fake()
    assert not runner.exited.is_set()


async def test_a_runner_that_cannot_be_killed_holds_up_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    runner = Runner(
        RunnerKind(name="configured", program=("/none",), origin=""),
        Launch(model_path="/blob", num_ctx=8),
        UnixAddress("/none.sock"),
        "",
        "",
        file_size=0,
        on_exit=None,
    )
    started = trio.current_time()
    await runner.stop()
    assert not runner.exited.is_set()
    assert trio.current_time() - started < 60
