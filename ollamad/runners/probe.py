"""Asks an installed runner for its version and its devices; blocking, seconds at worst.

Spec: runners-and-scheduling 2.1 (version), 1.3 and 1.4 (device list), 2.16.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import re
import subprocess
import sys
from dataclasses import dataclass

from ollamad.runners.environment import child_environment
from ollamad.runners.kinds import OLDEST_BUILD, RunnerKind

_LIMIT_S = 30.0

_VERSION = re.compile(r"^version: *(?P<first>\S+) *\((?P<rest>[^)]*)\)", re.MULTILINE)
_BUILD = re.compile(r"\bbuild (\d+)")
_DEVICE = re.compile(r"^ +(?P<name>.+?): (?P<text>.*) \((?P<total>\d+) MiB, (?P<free>\d+) MiB free")


@dataclass(frozen=True, slots=True)
class ListedDevice:
    """One line of ``--list-devices``; memory in bytes."""

    name: str
    description: str
    total: int
    free: int


def identify(kind: RunnerKind) -> RunnerKind:
    """``kind`` with its version and build; both stay unknown when the program does not tell."""
    if kind.embedded:
        try:
            version = importlib.metadata.version("xllamacpp")
        except importlib.metadata.PackageNotFoundError:
            return kind
        # The wheel's version ends in the number of the llama.cpp build inside.
        last = version.split("+")[0].rpartition(".")[2]
        return dataclasses.replace(kind, version=version, build=int(last) if last.isdigit() else 0)
    return with_version(kind, _output(kind, "--version", errors=True))


def with_version(kind: RunnerKind, output: str) -> RunnerKind:
    """``kind`` with what its program printed for ``--version``."""
    version, build = parse_version(output)
    return dataclasses.replace(kind, version=version, build=build)


def devices(kind: RunnerKind) -> list[ListedDevice]:
    """The GPUs that this kind can use; asked in a process of its own, as drivers can crash."""
    # ``--list-devices`` ends the parsing of arguments: what is to count stands before it.
    return parse_devices(_output(kind, "--offline", "--list-devices"))


def parse_version(text: str) -> tuple[str, int]:
    """Version and build number from ``--version``'s output: ``("", 0)`` when it tells nothing.

    Release builds say ``version: 11434 (abc)``, newer ones ``version: 1.2.3 (build 11434, commit
    abc)``; a build made outside a git checkout has build 0, which means unknown.
    """
    match = _VERSION.search(text)
    if match is None:
        return "", 0
    if (build := _BUILD.search(match["rest"])) is not None:
        return match["first"], int(build[1])
    first = match["first"]
    return first, int(first) if first.isdigit() else 0


def too_old(kind: RunnerKind) -> bool:
    """Whether the build is known and older than what works."""
    return 0 < kind.build < OLDEST_BUILD


def parse_devices(text: str) -> list[ListedDevice]:
    """Devices with memory of their own; pseudo-devices such as BLAS have none (1.4)."""
    found = []
    for line in text.splitlines():
        match = _DEVICE.match(line)
        if match is not None and int(match["total"]) > 0:
            total, free = int(match["total"]) << 20, int(match["free"]) << 20
            found.append(ListedDevice(match["name"].strip(), match["text"], total, free))
    return found


def _output(kind: RunnerKind, *arguments: str, errors: bool = False) -> str:
    program = kind.program
    if kind.embedded:
        program = (sys.executable, "-P", kind.path)
    try:
        result = subprocess.run(
            [*program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LIMIT_S,
            env=child_environment(os.environ, overrides={}),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (result.stderr + result.stdout if errors else result.stdout).decode("utf-8", "replace")
