"""The kinds of runner that this machine has, best first, and where each was found.

Looking is cheap (files only); asking a program for its version starts it, see
``ollamad.runners.probe``. Spec: runners-and-scheduling 2.1, 2.16.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ollamad.errors import LoadError, UsageError

#: The oldest llama.cpp build that is known to work (2.1); 0 is an unknown build.
OLDEST_BUILD = 10488

_PROGRAM = "llama-server"

#: Presets of the recipe, those that use a GPU first; a build is named for its preset.
_PRESETS = ("cuda", "rocm", "metal", "vulkan", "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerKind:
    """One program that speaks llama-server's flags and HTTP protocol."""

    #: ``configured``, ``native``, ``library``, ``path`` or ``embedded``.
    name: str
    #: Start of the command line; ``program[0]`` is an absolute path.
    program: tuple[str, ...]
    #: Where it was found, in words for people.
    origin: str
    #: True: listens on a UNIX socket when ``--host`` ends in ``.sock`` (2.5).
    unix_socket: bool = True
    version: str = ""
    #: llama.cpp build number; 0 means unknown.
    build: int = 0

    @property
    def embedded(self) -> bool:
        return self.name == "embedded"

    @property
    def path(self) -> str:
        """The file that is the runner: the program, or the embedded launcher's script."""
        return self.program[-1] if self.embedded else self.program[0]


@dataclass(frozen=True, slots=True)
class Found:
    """All kinds on this machine, best first, and every place that was looked at."""

    kinds: tuple[RunnerKind, ...]
    checked: tuple[str, ...]

    def best(self) -> RunnerKind:
        """The kind to use. Raises ``LoadError`` when there is none (2.1)."""
        if self.kinds:
            return self.kinds[0]
        raise LoadError(
            f"llama-server binary not found (checked: {', '.join(self.checked)}). Install the "
            "package xllamacpp, build one with runners/build-llama-server, or name one in "
            "OLLAMAD_LLAMA_SERVER"
        )


def find(
    configured: str = "",
    *,
    environ: Mapping[str, str] | None = None,
    executable: Path | None = None,
    embedded: bool = True,
) -> Found:
    """Every runner that is installed, in the order of preference.

    ``configured`` is the value of ``OLLAMAD_LLAMA_SERVER``. ``embedded`` false leaves the wheel
    out. Raises ``UsageError`` when ``configured`` names no executable file: a user who names a
    program does not want another.
    """
    variables = os.environ if environ is None else environ
    base = Path(executable if executable is not None else sys.executable).resolve().parent
    kinds: list[RunnerKind] = []
    checked: list[str] = []
    if configured:
        path = Path(configured).expanduser()
        if not _is_program(path):
            raise UsageError(f"OLLAMAD_LLAMA_SERVER: not an executable file: {configured}")
        kinds.append(
            RunnerKind(
                name="configured", program=(str(path.absolute()),), origin="OLLAMAD_LLAMA_SERVER"
            )
        )
    places = (
        ("native", "built by the recipe in runners/", native_builds(variables)),
        ("library", "beside the program", library_places(base)),
        ("path", "on PATH", _on_path(variables)),
    )
    for name, origin, paths in places:
        for path in paths:
            checked.append(str(path))
            program = (str(path.absolute()),)
            if _is_program(path) and all(kind.program != program for kind in kinds):
                kinds.append(RunnerKind(name=name, program=program, origin=origin))
    if embedded:
        checked.append("package xllamacpp")
        if importlib.util.find_spec("xllamacpp") is not None:
            kinds.append(embedded_kind())
    return Found(tuple(kinds), tuple(checked))


def embedded_kind() -> RunnerKind:
    """The server inside the wheel ``xllamacpp`` (2.16)."""
    launcher = str(Path(__file__).with_name("embedded.py"))
    return RunnerKind(
        name="embedded", program=(sys.executable, "-P", launcher), origin="package xllamacpp"
    )


def native_directory(environ: Mapping[str, str]) -> Path:
    """Where the recipe in ``runners/`` installs what it builds."""
    data = environ.get("XDG_DATA_HOME", "").strip()
    home = Path(data) if data else Path(environ.get("HOME") or "~").expanduser() / ".local/share"
    return home / "ollamad" / "runners"


def native_builds(environ: Mapping[str, str]) -> Iterator[Path]:
    """Programs that the recipe built: those for a GPU first, then the newest."""
    directory = native_directory(environ)
    builds = [path for path in _entries(directory) if _build_key(path.name) is not None]
    if not builds:
        yield directory / f"b<build>-<preset>/{_PROGRAM}"
    for path in sorted(builds, key=lambda path: _build_key(path.name) or (0, 0)):
        yield path / _PROGRAM


def _build_key(name: str) -> tuple[int, int] | None:
    """Sort key of a directory named ``b11434-cuda``; None for any other name."""
    match = re.fullmatch(r"b(\d+)-(\w+)", name)
    if match is None or match[2] not in _PRESETS:
        return None
    return _PRESETS.index(match[2]), -int(match[1])


def library_places(base: Path) -> Iterator[Path]:
    """Where an installed Ollama, or a build of it, keeps its own llama-server (1.2, 2.1).

    Unlike the reference, not below the current directory: a daemon that is started in somebody
    else's folder must not execute what lies there.
    """
    darwin = sys.platform == "darwin"
    packaged = [base / "../lib/ollama", base / "lib/ollama"]
    if darwin:
        packaged = [base, *reversed(packaged)]
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    system = "darwin" if darwin else "linux"
    development = ["build/lib/ollama", f"dist/{system}-{machine}/lib/ollama"]
    development.append(f"dist/{system}_{machine}/lib/ollama")
    if darwin:
        development.append("dist/darwin")
    for directory in packaged:
        yield Path(os.path.normpath(directory)) / _PROGRAM
    for relative in development:
        yield base / relative / _PROGRAM
    for entry in sorted(_entries(base / "build"), key=_development_rank):
        if entry.name.startswith("llama-server-"):
            yield entry / "bin" / _PROGRAM


def _development_rank(path: Path) -> tuple[bool, str]:
    special = any(word in path.name for word in ("darwin", "cuda", "rocm"))
    return not special, path.name


def _on_path(environ: Mapping[str, str]) -> Iterator[Path]:
    for directory in environ.get("PATH", "").split(os.pathsep):
        # A relative entry would make the answer depend on where the daemon was started.
        if os.path.isabs(directory):  # noqa: PTH117
            yield Path(directory) / _PROGRAM


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
