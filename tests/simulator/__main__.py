"""``python -m simulator`` from the folder ``tests``: plays traces and prints what happened.

    python -m simulator [--machine NAME ...] [--trace NAME ...] [--seed N] [--minutes M]
                        [--set NAME=VALUE ...] [--compare NAME=VALUE[,NAME=VALUE] ...]
                        [--faults] [--lies]

``--set`` changes a setting for all, each ``--compare`` adds a column with its own settings beside
the one without. Settings are those of ``scheduler.sizing.Limits``; keep_alive is in seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[2]))

import msgspec

from ollamad.scheduler.sizing import Limits
from simulator.machines import MACHINES, SECOND, lying
from simulator.machines import settings as own
from simulator.report import table
from simulator.traces import TRACES
from simulator.world import NO_FAULTS, SOME_FAULTS, Simulation


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="simulator", description="Plays the scheduler against machines that do not exist."
    )
    parser.add_argument("--machine", nargs="+", default=list(MACHINES), choices=list(MACHINES))
    parser.add_argument("--trace", nargs="+", default=list(TRACES), choices=list(TRACES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30.0, help="simulated")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE")
    parser.add_argument("--compare", nargs="+", default=[], metavar="NAME=VALUE[,NAME=VALUE]")
    parser.add_argument("--faults", action="store_true", help="crashes, leaving clients, pressure")
    parser.add_argument("--lies", action="store_true", help="drivers that tell late what is free")
    arguments = parser.parse_args()
    try:
        common = settings(arguments.set)
        columns = [common] + [common | settings(c.split(",")) for c in arguments.compare]
        for column in columns:
            msgspec.convert(column, Limits)
    except (ValueError, msgspec.ValidationError) as error:
        parser.error(str(error))
    for machine_name in arguments.machine:
        machine = MACHINES[machine_name]
        if arguments.lies:
            machine = lying(machine)
        for trace in arguments.trace:
            begin = time.monotonic()
            reports = [
                Simulation(
                    machine,
                    TRACES[trace],
                    msgspec.convert({**own(machine), **column}, Limits),
                    seed=arguments.seed,
                    seconds=arguments.minutes * 60,
                    faults=SOME_FAULTS if arguments.faults else NO_FAULTS,
                ).run()
                for column in columns
            ]
            if len(reports) == 1:
                print(reports[0].text())
            else:
                names = ["as set", *arguments.compare]
                figures = [report.figures() for report in reports]
                rows = [(f"{machine_name} {trace}", *names)]
                rows += [(name, *(column[name] for column in figures)) for name in figures[0]]
                print(table(rows))
            print(f"  ({time.monotonic() - begin:.1f} s)\n", flush=True)
    return 0


def settings(words: list[str]) -> dict[str, int | bool | str]:
    """Fields of ``Limits``. Raises ValueError for what is none."""
    known = {field.name: field.type for field in msgspec.structs.fields(Limits)}
    found: dict[str, int | bool | str] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in known:
            raise ValueError(f"no such setting: {name} (there are {', '.join(known)})")
        if value in ("true", "false"):
            found[name] = value == "true"
        elif value.lstrip("-").isdecimal():
            found[name] = int(value) * (SECOND if name == "keep_alive" else 1)
        else:
            found[name] = value
    return found


if __name__ == "__main__":
    sys.exit(main())
