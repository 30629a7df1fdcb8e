"""The scheduler against machines that do not exist: all its rules, nobody starves, nothing stays;
and that the simulator would notice if it were otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from simulator import __main__ as command
from simulator.machines import GIB, MACHINES, SECOND, Held, Ledger, OutOfMemory, lying
from simulator.models import MODELS
from simulator.report import Report
from simulator.traces import TRACES
from simulator.watched import Broken, WatchedCore
from simulator.world import SOME_FAULTS, Faults, Simulation

from ollamad.errors import LoadError
from ollamad.scheduler.actions import Action, Grant, Measure, Start, Stop
from ollamad.scheduler.core import Core
from ollamad.scheduler.sizing import Limits, MemoryReading

DAY = 10_000 * SECOND


def play(machine: str, trace: str, *, lies: bool = False, **more: Any) -> Report:
    chosen = MACHINES[machine]
    return Simulation(lying(chosen) if lies else chosen, TRACES[trace], **more).run()


@pytest.mark.parametrize("lies", [False, True])
@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("machine", MACHINES)
def test_every_machine_masters_every_trace(machine: str, trace: str, lies: bool) -> None:
    report = play(machine, trace, seconds=900, seed=1, lies=lies)
    asked = {request.model for request in report.served}
    served = {request.model for request in report.served if request.outcome == "served"}
    assert served == asked, "a model was never served"
    assert report.outcomes()["served"] > len(report.served) / 2


@pytest.mark.parametrize("lies", [False, True])
@pytest.mark.parametrize("machine", MACHINES)
def test_a_bad_day_breaks_no_rule(machine: str, lies: bool) -> None:
    for seed, trace in enumerate(TRACES):
        report = play(machine, trace, seconds=900, seed=seed, faults=SOME_FAULTS, lies=lies)
        assert report.outcomes()["served"] > 0


@pytest.mark.parametrize("parallel", [1, 4])
@pytest.mark.parametrize("machine", ["cpu", "8", "apple-64"])
def test_who_asks_seldom_is_served_in_time(machine: str, parallel: int) -> None:
    """One model is asked for without a pause; the other one needs its place."""
    limits = Limits(device_count=len(MACHINES[machine].gpus), max_loaded=1, parallel=parallel)
    report = play(machine, "rivals", limits=limits, seconds=1800)
    asked = {request.model for request in report.served}
    rare = min(asked, key=lambda model: sum(r.model == model for r in report.served))
    assert len(asked) == 2
    waits = report.waits(rare)
    assert len(waits) >= 3
    # What it waits for: answers under way, and two loads. The others come in all that time.
    answers = sum(r.model != rare for r in report.served)
    assert answers > len(waits)
    assert waits[-1] < 200


def test_chance_is_the_seeds_alone() -> None:
    texts = [play("8", "mix", seconds=600, seed=s, faults=SOME_FAULTS).text() for s in (1, 1, 2)]
    assert texts[0] == texts[1]
    assert texts[0].splitlines()[1:] != texts[2].splitlines()[1:]


def test_a_setting_changes_nothing_about_who_asks() -> None:
    few, many = (
        play("8", "mix", seconds=600, limits=Limits(device_count=1, max_loaded=n)) for n in (1, 3)
    )
    arrivals = [sorted((r.arrived, r.model) for r in report.served) for report in (few, many)]
    assert arrivals[0] == arrivals[1]
    assert few.loads.total() > many.loads.total()


def test_faults_happen() -> None:
    report = play(
        "8", "mix", seconds=1800, faults=Faults(load_crash=0.2, leaves=0.2, run_crash=0.1)
    )
    assert report.failed_loads > 0
    assert report.crashes > 0
    outcomes = report.outcomes()
    assert outcomes["failed"] > 0
    assert outcomes["left"] > 0


def test_impatient_clients_leave_and_are_refused() -> None:
    limits = Limits(device_count=1, max_queue=5)
    outcomes = play("8", "bursts", seconds=900, limits=limits).outcomes()
    assert outcomes["refused"] > 0
    assert outcomes["served"] > 0


# --- memory ---------------------------------------------------------------------------------------


def test_memory_comes_back_late_and_is_told_later() -> None:
    machine = lying(MACHINES["8"], lag=4, release=1.5)
    ledger = Ledger(machine)
    before = ledger.free("CUDA0", 0)
    ledger.take(1, Held(GIB, {"CUDA0": 3 * GIB}), 0)
    assert ledger.free("CUDA0", 0) == ledger.told("CUDA0", 0) == before - 3 * GIB
    ledger.give_back(1, 10 * SECOND)
    assert ledger.free("", 10 * SECOND) == machine.memory - machine.others
    for second, really, told in ((10, 3, 3), (12, 0, 3), (16, 0, 0)):
        now = second * SECOND
        assert before - ledger.free("CUDA0", now) == really * GIB
        assert before - ledger.told("CUDA0", now) == told * GIB
    ledger.settle(16 * SECOND)
    assert ledger.free("CUDA0", 16 * SECOND) == before


def test_nobody_takes_what_is_not_there() -> None:
    ledger = Ledger(MACHINES["8"])
    with pytest.raises(OutOfMemory, match="CUDA0"):
        ledger.take(1, Held(0, {"CUDA0": 8 * GIB}), 0)
    with pytest.raises(OutOfMemory, match="host"):
        ledger.take(1, Held(31 * GIB, {}), 0)
    assert ledger.held == {}
    ledger.pressure["CUDA0"] = 7 * GIB
    with pytest.raises(OutOfMemory):
        ledger.take(1, Held(0, {"CUDA0": GIB}), 0)


def test_unified_memory_is_everybodys() -> None:
    ledger = Ledger(MACHINES["apple-64"])
    ledger.take(1, Held(30 * GIB, {}), 0)
    assert ledger.free("MTL0", 0) == (64 - 6 - 30) * GIB
    ledger.take(2, Held(0, {"MTL0": 20 * GIB}), 0)
    assert ledger.free("", 0) == 8 * GIB
    with pytest.raises(OutOfMemory, match="host"):
        ledger.take(3, Held(5 * GIB, {"MTL0": 4 * GIB}), 0)


# --- would it notice? -----------------------------------------------------------------------------


class Reckless(WatchedCore):
    """A core with a defect: events go to it as they come."""

    def play(self) -> None:
        """Two models, two requests each; then everything ends."""
        now = 0
        pending: list[Action] = []
        for name, num_ctx in (("small", None), ("tiny", None), ("small", 2048), ("tiny", None)):
            pending += self.request(MODELS[name].spec(num_ctx=num_ctx), now)[1]
        for _ in range(100):
            if not pending:
                return
            action = pending.pop(0)
            now += SECOND
            match action:
                case Measure():
                    pending += self.memory(MemoryReading(total=32 * GIB, free=30 * GIB), now)
                case Start():
                    pending += self.loaded(action.runner_id, GIB, now)
                case Grant():
                    pending += self.release(action.ticket, now)
                case Stop():
                    pending += self.gone(action.runner_id, now)


def defect(name: str, change: Callable[[Any], Any]) -> type[Reckless]:
    """A core one of whose methods is what ``change`` makes of it."""
    return type("Defect", (Reckless,), {name: change(getattr(Core, name))})


def always(answer: Any) -> Callable[[Any], Any]:
    return lambda _: lambda *_args, **_more: answer


@pytest.mark.parametrize(
    ("name", "answer", "rule"),
    [
        ("_grant", None, "although there is a slot"),
        ("_load_next", False, "wait for nothing"),
        ("_oldest_unserved", None, "wait for nothing"),
        ("_usable", True, "granted an unsuitable runner"),
    ],
)
def test_a_defect_is_seen(name: str, answer: Any, rule: str) -> None:
    Reckless(Limits()).play()
    with pytest.raises(Broken, match=rule):
        defect(name, always(answer))(Limits()).play()


def test_a_lease_that_is_not_given_back_is_seen() -> None:
    class Leaking(Core):
        def release(self, ticket: int, now: int) -> list[Action]:
            return self.tick(now)

    class Watched(WatchedCore, Leaking):
        play = Reckless.play

    with pytest.raises(Broken, match="a lease was lost"):
        Watched(Limits()).play()


def test_a_busy_runner_that_is_stopped_is_seen() -> None:
    core = WatchedCore(Limits())
    _, actions = core.request(MODELS["tiny"].spec(), 0)
    actions = core.memory(MemoryReading(), 1)
    (start,) = actions
    assert isinstance(start, Start)
    core.loaded(start.runner_id, 0, 2)
    for record in core.runners():
        record.leases = record.busy = 0
    with pytest.raises(Broken, match="stopped a busy runner"):
        core.expire("tiny", 3)


def test_what_is_told_instead_of_raised_goes_on() -> None:
    told: list[str] = []
    core = defect("_grant", always(None))(Limits(), on_broken=told.append)
    core.play()
    assert any("although there is a slot" in text for text in told)


def test_a_load_that_fails_is_no_defect() -> None:
    core = WatchedCore(Limits())
    core.request(MODELS["tiny"].spec(), 0)
    (start,) = core.memory(MemoryReading(), 1)
    assert isinstance(start, Start)
    core.load_failed(start.runner_id, LoadError("no"), 2)
    assert core.waiting == 0


# --- the program ----------------------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["simulator", *arguments])
    return command.main()


def test_it_prints_a_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--machine", "8", "--trace", "habits", "--minutes", "5") == 0
    text = capsys.readouterr().out
    for word in ("machine 8, trace habits, seed 0", "served", "CUDA0", "vision", "wait p95"):
        assert word in text


def test_it_compares_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = "--machine 8 --trace mix --minutes 5 --faults --lies --set parallel=2 --compare"
    assert run(monkeypatch, *arguments.split(), "max_loaded=1", "keep_alive=5,max_queue=9") == 0
    head, *rows, _, _ = capsys.readouterr().out.splitlines()
    assert head.split() == ["8", "mix", "as", "set", "max_loaded=1", "keep_alive=5,max_queue=9"]
    assert {len(row) for row in rows} == {len(head)}


@pytest.mark.parametrize("wrong", ["speed=9", "max_loaded=many"])
def test_a_wrong_setting_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "--set", wrong)
    assert wrong.partition("=")[0] in capsys.readouterr().err


def test_settings_are_those_of_the_scheduler() -> None:
    found = command.settings(["keep_alive=5", "memory_guard=false", "kv_cache_type=q8_0"])
    limits = msgspec.convert(found, Limits)
    assert limits.keep_alive == 5 * SECOND
    assert limits.memory_guard is False
    assert limits.kv_cache_type == "q8_0"
