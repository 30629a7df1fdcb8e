"""Room on the disk for what create writes (4.15). Pure but for ``check_space``."""

from __future__ import annotations

import shutil
from pathlib import Path

from ollamad.errors import OllamadError
from ollamad.units import human_bytes

#: Left free beyond the files that are to be written, in bytes.
MARGIN = 256 * 1024 * 1024


def missing_space(needed: int, free: int) -> str | None:
    """The text of the error, or none if ``needed`` bytes fit into ``free``."""
    if needed + MARGIN <= free:
        return None
    return (
        "not enough disk space to create model: "
        f"need {human_bytes(needed + MARGIN)}, have {human_bytes(free)}"
    )


def check_space(directory: Path, needed: int) -> None:
    """Raise OllamadError (500) unless ``needed`` more bytes fit beside ``directory``."""
    text = missing_space(needed, shutil.disk_usage(directory).free)
    if text is not None:
        raise OllamadError(text)
