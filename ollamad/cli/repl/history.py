"""Lines typed before, kept in ``~/.ollama/history`` (``cli.md`` 6.8)."""

from __future__ import annotations

import os
from pathlib import Path

LIMIT = 100


class History:
    """The newest `LIMIT` entries, oldest first. Nothing is written while ``saved`` is false."""

    def __init__(self, path: Path, *, saved: bool) -> None:
        self._path = path
        self.saved = saved
        self.entries = _read(path)[-LIMIT:]

    def add(self, entry: str) -> None:
        """Raises OSError when the file cannot be written."""
        if not entry:
            return
        self.entries = [*self.entries, entry][-LIMIT:]
        if self.saved:
            self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        temporary = self._path.with_name(f"{self._path.name}.tmp")
        # What a user asks is private from the first byte on.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(f"{entry}\n" for entry in self.entries)
        temporary.replace(self._path)


def _read(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return []
    return [line.strip() for line in text.split("\n") if line.strip()]
