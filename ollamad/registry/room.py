"""Room on the disk for what a pull will write. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ollamad.errors import OllamadError
from ollamad.units import human_bytes

#: Left free for the rest of the system, in bytes.
MARGIN = 16_000_000


def check_room(missing: Iterable[int], free: int, directory: Path) -> None:
    """Raise OllamadError (500) unless ``missing``, sizes in bytes, fit into ``free``."""
    needed = sum(size for size in missing if size > 0)
    if needed and needed + MARGIN > free:
        raise OllamadError(
            f"not enough disk space to pull model: need {human_bytes(needed)} ({needed} bytes) "
            f"and {human_bytes(MARGIN)} to spare, "
            f"have {human_bytes(free)} ({free} bytes) in {directory}"
        )
