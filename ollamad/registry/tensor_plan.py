"""How models of tensor layers are uploaded: numbers, waits and headers (registry-and-store 4.7).

Pure; chance is an argument. Sizes are bytes, waits seconds. Thousands of small blobs make such a
model, so failures are retried after milliseconds, and the units are binary ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ollamad.registry.parts import Part, cut
from ollamad.registry.urls import BadUrl, parse_url

USER_AGENT = "ollama-transfer/1.0"

_SIGNED = "x-signed-header-"
#: What frames a request is not for the registry to say.
_FRAMING = frozenset(
    (
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorTiming:
    """How much at once, and how often. ``unit`` stretches all waits."""

    heads: int = 128
    blobs: int = 64
    opening_attempts: int = 12
    part_attempts: int = 3
    commit_attempts: int = 6
    blob_attempts: int = 6
    least_part: int = 104_857_600
    most_part: int = 1_048_576_000
    unit: float = 1.0

    def parts(self, size: int) -> list[Part]:
        return cut(size, self.least_part, self.most_part)

    def opening_wait(self, failures: int, chance: float) -> float:
        """Before asking for a session once more; ``chance`` is from 0 to 1."""
        most = min(5 * 2.0 ** (failures - 1), 30.0)
        return self._stretched(min(failures**2 * 0.01, most), chance)

    def wait(self, failures: int, chance: float) -> float:
        """Before the next attempt at a part, a commit or a blob."""
        return self._stretched(min(failures**2 * 0.01, 2 * 2.0 ** (failures - 1)), chance)

    def _stretched(self, seconds: float, chance: float) -> float:
        return self.unit * seconds * (0.5 + chance)


def opening_headers(size: int) -> dict[str, str]:
    return {"X-Redirect-Uploads": "2", "X-Content-Length": str(size)}


@dataclass(frozen=True, slots=True)
class Direct:
    """Where to put a whole blob, and with which headers."""

    url: str
    headers: dict[str, str]


def direct(headers: Mapping[str, str]) -> Direct | None:
    """Direct mode, if an answer to an opening offers it: by an absolute URL."""
    url = headers.get("X-Direct-Upload-URL")
    if not url:
        return None
    try:
        parse_url(url)
    except BadUrl:
        return None
    signed = {
        name[len(_SIGNED) :]: value
        for name, value in headers.items()
        if name.lower().startswith(_SIGNED) and name.lower()[len(_SIGNED) :] not in _FRAMING
    }
    return Direct(url, signed)
