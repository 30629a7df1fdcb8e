"""The few file operations that leave no half a file: synced, or replaced at once."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ollamad.store.errors import StoreError, os_error_text


def sync_directory(path: Path) -> None:
    """Make renames and removals in ``path`` last."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directories(path: Path) -> None:
    """Create ``path`` and its missing parents (0755 less the umask) and make them last.

    Raises StoreError with the reference's text when that is impossible.
    """
    try:
        if path.is_dir():
            return
        missing = [path]
        while not missing[-1].parent.is_dir() and missing[-1].parent != missing[-1]:
            missing.append(missing[-1].parent)
        for directory in reversed(missing):
            directory.mkdir(mode=0o755, exist_ok=True)
            sync_directory(directory.parent)
    except FileExistsError as error:
        text = f"mkdir {error.filename}: not a directory"
        raise StoreError(f"{text}: ensure path elements are traversable") from error
    except OSError as error:
        text = os_error_text("mkdir", error)
        raise StoreError(f"{text}: ensure path elements are traversable") from error


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of ``data``; one write call may take only a part of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def replace_file(path: Path, content: bytes) -> None:
    """Make ``content`` the file ``path``, whole or not at all, for this user only.

    Missing directories are made. Not synced: after a crash of the machine the file may be older.
    Raises OSError.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
