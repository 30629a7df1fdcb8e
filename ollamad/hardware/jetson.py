"""Which JetPack a Jetson board runs: its CUDA backends are built for one each.

``runners-and-scheduling.md`` 1.9. Pure but for `release`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ollamad.hardware.files import read_if_possible
from ollamad.hardware.vendor import Note
from ollamad.host import unquoted

#: By the number of the release of NVIDIA's Linux; newer boards use the general CUDA backend.
_RELEASES = {"35": "jetpack5", "36": "jetpack6"}


def release(root: Path, system: str, machine: str) -> str | None:
    """The text that tells the board's release; None elsewhere than on Linux on ARM.

    ``system`` as in `sys.platform`, ``machine`` as `platform.machine` gives it.
    """
    if system != "linux" or machine.lower() not in ("aarch64", "arm64"):
        return None
    return read_if_possible(root / "etc/nv_tegra_release")


def jetpack(text: str | None, environ: Mapping[str, str]) -> str:
    """``jetpack6`` or another, by the user's word or by what `release` gave; empty for none."""
    if text is None:
        return ""
    if word := unquoted(environ.get("JETSON_JETPACK", "")):
        chosen = re.match(r"([0-9]{1,3})(\.|$)", word)
        return f"jetpack{chosen[1]}" if chosen else ""
    found = re.search(r" R([0-9]+) ", text)
    return _RELEASES.get(found[1], "") if found else ""


def note(text: str | None, environ: Mapping[str, str]) -> Note | None:
    """What is wrong with the board's own account or the user's, if anything."""
    if text is None:
        return None
    word = unquoted(environ.get("JETSON_JETPACK", ""))
    if word:
        if jetpack(text, environ):
            return None
        return Note("warning", "JETSON_JETPACK is no version", "write it as in 6 or 6.2")
    if not text or re.search(r" R[0-9]+ ", text):
        return None
    # The reference's words, two blanks included.
    message = "Unexpected format for /etc/nv_tegra_release.  Set JETSON_JETPACK to select version"
    return Note("warning", message, "in a container, set JETSON_JETPACK=5 or JETSON_JETPACK=6")
