"""Which kind a file is of (3). The first kind that matches counts."""

from __future__ import annotations

from ollamad.gguf.derive import gemma3
from ollamad.gguf.derive.plan import Kind, Plan
from ollamad.gguf.facts import split_number
from ollamad.gguf.file import GGUFFile
from ollamad.gguf.validate import refuse_big_endian

#: Changes whenever a kind would make other files than before (5.1).
VERSION = 1

KINDS: tuple[Kind, ...] = (gemma3.KIND,)

_ARCHS = frozenset(arch for kind in KINDS for arch in kind.archs)


def may_need_plan(arch: str) -> bool:
    """Whether some files of that architecture need one. For all others no header has to be read."""
    return arch in _ARCHS


def find_plan(file: GGUFFile) -> Plan | None:
    """What to make of ``file``; None when llama.cpp is to get it as it is.

    Raises GGUFError for a file that needs a plan for which something is missing or unreadable.
    """
    kind = next((k for k in KINDS if file.arch in k.archs and k.matches(file)), None)
    # One of several parts has only a part of what decides: whole files alone are planned (8).
    if kind is None or (split_number(file, "split.count") or 0) > 1:
        return None
    refuse_big_endian(file)
    return kind.plan(file)
