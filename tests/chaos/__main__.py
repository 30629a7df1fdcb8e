"""``python -m chaos`` from the folder ``tests``: one run, and what was wrong.

    python -m chaos [--minutes M] [--seed N] [--scripted] [--log FILE]

The same seed asks the same things and breaks the same things in the same order; when exactly,
the machine decides. Exit status 1 when anything was wrong.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[2]))

# See tests/conftest.py.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from chaos.stage import run


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="chaos", description="A real daemon on a very bad day: what is left of it?"
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scripted", action="store_true", help="runners that play a part")
    parser.add_argument("--log", type=Path, help="write the daemon's log to this file")
    arguments = parser.parse_args()
    # Whatever ends this, the daemon ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found = run(seed=arguments.seed, seconds=arguments.minutes * 60, scripted=arguments.scripted)
    print(found.text())
    if arguments.log is not None:
        arguments.log.write_text(found.log)
    return int(bool(found.complaints()))


if __name__ == "__main__":
    sys.exit(main())
