#!/usr/bin/env python3
"""Runs the benchmarks and prints their figures beside the targets.

    python tests/benchmarks/run.py [name ...] [--quick] [--blob MB] [--json FILE]

Exit status 0 when everything could be measured: a missed target is marked, not an error.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    # ``benchmarks`` and ``support`` are packages of the folder above, ``ollamad`` of the next.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    sys.path.append(str(Path(__file__).resolve().parents[2]))

import pytest

from benchmarks import decode, per_token, prompts, pull, requests, starting
from benchmarks.figures import Figure, table
from benchmarks.rig import cpu_count

BENCHMARKS: dict[str, Callable[[bool], list[Figure]]] = {
    "decode": decode.throughput,
    "first-token": decode.first_token,
    "cpu": per_token.cpu,
    "unpaced": per_token.unpaced,
    "requests": requests.rates,
    "embeddings": requests.embeddings,
    "prompts": prompts.prompts,
    "parsers": prompts.parsers,
    "load": starting.cold_load,
    "daemon": starting.daemon,
    "cli": starting.command_line,
    "pull": pull.throughput,
}


def main() -> int:
    parser = argparse.ArgumentParser(description="What the daemon costs beside the bare runner.")
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: a rough look")
    parser.add_argument("--blob", type=float, metavar="MB", help="size of what pull pulls")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    blob = None if arguments.blob is None else int(arguments.blob * 1e6)
    benchmarks = BENCHMARKS | {"pull": partial(pull.throughput, size=blob)}
    # Whatever ends this, the daemons that it started end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(
        f"Python {platform.python_version()}, {platform.machine()}, {cpu_count()} processors"
        f"{', quick' if arguments.quick else ''}"
    )
    figures: list[Figure] = []
    failed = False
    for name in arguments.names or benchmarks:
        begin = time.monotonic()
        try:
            found = benchmarks[name](arguments.quick)
            report = table(found)
            figures += found
        except pytest.skip.Exception as missing:
            report = f"skipped, {missing}"
        except (OSError, RuntimeError, AssertionError) as error:
            failed = True
            report = f"FAILED, {error}"
        print(f"\n{name} ({time.monotonic() - begin:.0f} s)\n{report}", flush=True)
    missed = [figure.name for figure in figures if figure.met is False]
    print(f"\n{len(missed)} missed" + "".join(f"\n  {name}" for name in missed))
    if arguments.json is not None:
        rows = [
            {"name": f.name, "value": f.value, "unit": f.unit, "target": f.target, "met": f.met}
            for f in figures
        ]
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
