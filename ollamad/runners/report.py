"""What ``ollamad runners`` prints: every runner here, its devices, and which one is used.

Blocking; meant for the command line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from ollamad.errors import LoadError, UsageError
from ollamad.runners import kinds, probe

_COLUMNS = ("KIND", "VERSION", "DEVICES", "USED", "PATH")


def report(configured: str = "", *, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What was found: ``{"runners": [...], "checked": [...]}``, the first one is used.

    A runner has ``kind``, ``version``, ``build`` (0: unknown), ``path``, ``devices`` (name,
    description, total and free bytes), ``used``, ``reason`` and ``warning`` (``""`` for none).
    Raises ``UsageError`` for a bad ``configured``.
    """
    found = kinds.find(configured, environ=environ)
    runners = []
    for position, kind in enumerate(map(probe.identify, found.kinds)):
        runners.append(
            {
                "kind": kind.name,
                "version": kind.version,
                "build": kind.build,
                "path": kind.path,
                "devices": [
                    {
                        "name": device.name,
                        "description": device.description,
                        "total": device.total,
                        "free": device.free,
                    }
                    for device in probe.devices(kind)
                ],
                "used": position == 0,
                "reason": _reason(kind, position, found.kinds),
                "warning": _warning(kind),
            }
        )
    return {"runners": runners, "checked": list(found.checked)}


def _reason(kind: kinds.RunnerKind, position: int, found: tuple[kinds.RunnerKind, ...]) -> str:
    if position > 0:
        return f"{kind.origin}; {found[0].name} comes first"
    if kind.name == "configured":
        return "named by OLLAMAD_LLAMA_SERVER"
    if kind.embedded:
        return "no llama-server is installed"
    return kind.origin


def _warning(kind: kinds.RunnerKind) -> str:
    if probe.too_old(kind):
        return f"build {kind.build} is older than {kinds.OLDEST_BUILD}, the oldest that works"
    if not kind.version:
        return "does not tell its version"
    return ""


def table(content: Mapping[str, Any]) -> str:
    """The report as text for people, with a line end after every line."""
    rows = [_COLUMNS]
    notes = []
    for runner in content["runners"]:
        names = ", ".join(device["name"] for device in runner["devices"]) or "CPU"
        used = "yes" if runner["used"] else "no"
        rows.append((runner["kind"], runner["version"] or "unknown", names, used, runner["path"]))
        notes.append(f"{runner['kind']}: {runner['reason']}")
        if runner["warning"]:
            notes.append(f"{runner['kind']}: warning: {runner['warning']}")
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["   ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, "", *notes, ""])


def main(
    argv: list[str],
    configured: str = "",
    *,
    environ: Mapping[str, str] | None = None,
    out: TextIO | None = None,
) -> int:
    """Prints the report, as JSON with ``--json``; returns the exit status: 1 without any runner.

    Raises ``UsageError`` for an unknown argument or a bad ``configured``, ``LoadError`` when there
    is no runner at all.
    """
    stream = sys.stdout if out is None else out
    unknown = [argument for argument in argv if argument != "--json"]
    if unknown:
        raise UsageError(f"unknown argument: {unknown[0]}")
    content = report(configured, environ=environ)
    if "--json" in argv:
        json.dump(content, stream, indent=2)
        stream.write("\n")
        return 0 if content["runners"] else 1
    if not content["runners"]:
        raise LoadError(
            "no runner is installed: install the package xllamacpp, or build one with "
            "runners/build-llama-server"
        )
    stream.write(table(content))
    return 0
