"""The environment of a runner's process: the daemon's own, less what is not the runner's business.

Pure. Spec: runners-and-scheduling 2.6; cases at the end of 8.3.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence

#: Names that end up as flags of llama-server and would break our control of it.
_STRIPPED = frozenset(
    {
        "LLAMA_API_KEY",
        "LLAMA_ARG_API_KEY_FILE",
        "LLAMA_ARG_HOST",
        "LLAMA_ARG_PORT",
        "LLAMA_ARG_API_PREFIX",
        "LLAMA_SERVER_ROUTER_PORT",
        # A runner that inherits them could tell systemd that the daemon is ready, or dead.
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
    }
)
_STRIPPED_PREFIXES = ("LLAMA_ARG_SSL_", "LLAMA_ARG_MODELS_", "LLAMA_ARG_LOG_")

#: A variable with one of these words in its name is taken for a secret …
_SECRET_WORDS = frozenset({"KEY", "PASS", "AUTH", "PAT", "PWD", "DSN"})
#: … and so is one with any of these anywhere: PGPASSWORD, AUTHTOKEN.
_SECRET_PARTS = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "APIKEY")
#: The shell's own, which only sound like it.
_HARMLESS = frozenset({"PWD"})
#: A user and a password in a URL.
_PASSWORD_IN_URL = re.compile(r"://[^/\s:@]*:[^/\s@]+@")

#: Settings of llama.cpp and of the GPU libraries: never secrets, whatever their names hold.
_BACKEND_PREFIXES = ("LLAMA_ARG_", "GGML_", "CUDA_", "ROCR_", "ROCM_", "HIP_", "HSA_")

#: How often a thread of a runner built with GNU OpenMP looks for work before it sleeps, beside
#: another runner. By default it looks 300,000 times, a millisecond: of two runners that compute at
#: once each then waits for the time slices in which the other only looks, and both are five to ten
#: times slower. One that gives way is enough, and so few cost it nothing when it computes alone.
_FEW_SPINS = "300"

_LOGGED_PREFIXES = ("CUDA_", "ROCR_", "ROCM_", "HIP_", "HSA_", "GGML_", "GOMP_", "OMP_")
_LOGGED = frozenset({"PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"})
_REDACTED_PARTS = ("API", "KEY", "TOKEN", "SECRET", "PASSWORD", "PASS", "CREDENTIAL", "AUTH")


def child_environment(
    base: Mapping[str, str],
    *,
    overrides: Mapping[str, str],
    library_dirs: Sequence[str] = (),
    api_key: str = "",
    media_marker: str = "",
    reads_media: bool = False,
    backend: str = "",
    platform: str = sys.platform,
) -> dict[str, str]:
    """``base`` without secrets and server settings, plus what this runner needs.

    ``library_dirs``: the program's directory, then those of its backends. ``overrides``: the
    variables of the launch (devices, fit target); they win over everything but the key.
    ``reads_media``: it has a projector. ``backend``
    is the backend library to load (``GGML_BACKEND_PATH``).
    """
    environment = {
        name: value
        for name, value in base.items()
        if not is_stripped(name) and not _PASSWORD_IN_URL.search(value)
    }
    if library_dirs:
        variable = _library_variable(platform)
        inherited = _pop(environment, variable)
        directories = [*library_dirs, *inherited.split(os.pathsep)]
        _set(environment, variable, os.pathsep.join(dict.fromkeys(filter(None, directories))))
    if backend:
        _set(environment, "GGML_BACKEND_PATH", backend)
    if media_marker:
        _set(environment, "LLAMA_MEDIA_MARKER", media_marker)
    if reads_media:
        # A picture that llama.cpp cannot read it hands to ffprobe, as a video. Strangers' bytes are
        # not for a program that follows the names of files and hosts in them.
        environment.setdefault("LLAMA_ARG_VIDEO_FFMPEG_DIR", os.devnull)
    for name, value in overrides.items():
        _set(environment, name, value)
    if api_key:
        _set(environment, "LLAMA_API_KEY", api_key)
    return environment


def waiting_environment(beside_others: bool, inherited: Mapping[str, str]) -> dict[str, str]:
    """How the threads of a runner wait for each other when it may have to share the cores.

    A user who set a variable of OpenMP for that knows better.
    """
    if not beside_others or "GOMP_SPINCOUNT" in inherited or "OMP_WAIT_POLICY" in inherited:
        return {}
    return {"GOMP_SPINCOUNT": _FEW_SPINS}


def is_stripped(name: str) -> bool:
    """Whether a runner must not inherit the variable ``name``."""
    upper = name.upper()
    if upper in _STRIPPED or upper.startswith(_STRIPPED_PREFIXES):
        return True
    if upper.startswith(_BACKEND_PREFIXES) or upper in _HARMLESS:
        return False
    if any(part in upper for part in _SECRET_PARTS):
        return True
    return not _SECRET_WORDS.isdisjoint(upper.split("_"))


def pick_backend(files: Sequence[str]) -> str:
    """The backend library among a variant directory's file names, ``""`` for none (2.6)."""
    for name in sorted(files):
        library = name.startswith("libggml-") and (
            ".so" in name or name.endswith((".dylib", ".dll"))
        )
        if not (library or (name.startswith("ggml-") and name.endswith(".dll"))):
            continue
        if "ggml-base" in name or "ggml-cpu" in name:
            continue
        return name
    return ""


def loggable(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a debug log may show, secrets redacted."""
    out = {}
    for name, value in sorted(environment.items()):
        upper = name.upper()
        if not (upper.startswith(_LOGGED_PREFIXES) or upper in _LOGGED):
            continue
        out[name] = "[redacted]" if any(part in upper for part in _REDACTED_PARTS) else value
    return out


def _library_variable(platform: str) -> str:
    if platform == "darwin":
        return "DYLD_LIBRARY_PATH"
    return "PATH" if platform == "win32" else "LD_LIBRARY_PATH"


def _pop(environment: dict[str, str], name: str) -> str:
    """Removes ``name`` in any spelling of case and returns its value, ``""`` for none."""
    value = ""
    for key in [key for key in environment if key.upper() == name.upper()]:
        value = environment.pop(key)
    return value


def _set(environment: dict[str, str], name: str, value: str) -> None:
    _pop(environment, name)
    environment[name] = value
