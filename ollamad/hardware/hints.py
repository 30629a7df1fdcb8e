"""What the system's files tell about GPUs that no source lists: missing drivers, modules, rights.

Nothing is loaded and no device is opened: a few hundred small files are read, in milliseconds. It
comes last, because asking CUDA may itself load a module whose absence would be told here.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ollamad.hardware import amd, nvidia_files
from ollamad.hardware.vendor import Note, Survey


def hints(survey: Survey, root: Path = Path("/"), system: str = sys.platform) -> tuple[Note, ...]:
    """Notes to add to those of ``survey``, which has what all sources listed. Raises nothing."""
    if system != "linux":
        return ()
    nvidia = any(device.library == "CUDA" for device in survey.devices)
    return (*nvidia_files.notes(root, found=nvidia), *amd.driver_notes(root))
