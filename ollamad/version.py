"""Version numbers: ours, and the one of the API that clients ask for."""

from __future__ import annotations

import os
import sys

__version__ = "0.1.0"

#: What ``GET /api/version`` answers: the version of Ollama's API that this program speaks.
#: Clients compare it with the version that a feature or a model requires.
API_VERSION = "0.33.0"

_ARCHITECTURES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64"}


def user_agent() -> str:
    """``ollama/VERSION (ARCH OS) Python/X.Y.Z``, the form that servers know."""
    machine = os.uname().machine if hasattr(os, "uname") else "amd64"
    system = {"win32": "windows"}.get(sys.platform, sys.platform)
    python = ".".join(map(str, sys.version_info[:3]))
    return f"ollama/{API_VERSION} ({_ARCHITECTURES.get(machine, machine)} {system}) Python/{python}"
