"""The daemon as it is, but watched, and with a memory that the test decides about.

    CHAOS_ROOT=<folder> python -m chaos.daemon serve

The daemon itself has no switch for this: what is only for tests stays outside of it. Its
scheduler's core is replaced by the one that checks every rule after every event, and the system's
memory is read below ``CHAOS_ROOT`` instead of ``/``. A broken rule is one line of the log that
begins with ``BROKEN``; the last line tells what the core holds when the daemon has ended.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

BROKEN = "BROKEN RULE: "
LAST = "the scheduler's core at the end: "

_cores: list[Any] = []


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _change() -> None:
    """Raises whatever says that the daemon is not made as this expects."""
    from simulator.watched import WatchedCore

    from ollamad import assembly
    from ollamad.hardware import memory

    def watched(*args: Any, **kwargs: Any) -> WatchedCore:
        core = WatchedCore(*args, on_broken=lambda text: _tell(BROKEN + text), **kwargs)
        _cores.append(core)
        return core

    assert assembly.Core is WatchedCore.__base__
    assembly.Core = watched  # type: ignore[misc, assignment]
    assert memory.system_memory.__defaults__ == (Path("/"),)
    memory.system_memory.__defaults__ = (Path(os.environ["CHAOS_ROOT"]),)


def main() -> int:
    from ollamad.__main__ import main as ollamad

    _change()
    try:
        return ollamad()
    finally:
        for core in _cores:
            runners = len(list(core.runners()))
            _tell(
                f"{LAST}events={core.events} waiting={core.waiting} leases={core.leases} "
                f"runners={runners}"
            )


if __name__ == "__main__":
    sys.exit(main())
