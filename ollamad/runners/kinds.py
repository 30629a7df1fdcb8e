"""The kinds of runner that this machine has, best first, and why one is chosen.

Spec: runners-and-scheduling 2.1 and 2.16. Looking is cheap (files only); asking a program for its
version starts it and is left to ``ollamad.runners.probe``.
"""

from __future__ import annotations

from dataclasses import dataclass


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
