"""Reading at positions: from a file on disk or from bytes in memory."""

from __future__ import annotations

import os
import stat
import weakref
from pathlib import Path

from ollamad.gguf.errors import GGUFError


class BytesSource:
    """A file that is in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, count: int, offset: int) -> bytes:
        return self._data[offset : offset + count]

    def close(self) -> None:
        pass


class FileSource:
    """A regular file on disk, open until ``close`` or until nobody refers to it.

    ``size`` is that at opening: what is appended later does not exist for the reader.

    Raises FileNotFoundError; GGUFError for anything else that keeps it from being read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # A FIFO in place of a blob must not make the open wait for a writer.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _io_error("open", path, error) from error
        self._descriptor = descriptor
        self._finalizer = weakref.finalize(self, os.close, descriptor)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            what = "is a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise GGUFError(f"read {path}: {what}")
        self.size = status.st_size

    def read(self, count: int, offset: int) -> bytes:
        if not self._finalizer.alive:
            raise ValueError(f"{self._path} is closed")
        count = min(count, self.size - offset)
        if count <= 0:
            return b""
        try:
            piece = os.pread(self._descriptor, count, offset)
            if len(piece) == count:
                return piece
            # One read returns at most 2 GiB, and signals or network file systems may cut it short.
            pieces = [piece]
            while piece and (count := count - len(piece)):
                offset += len(piece)
                piece = os.pread(self._descriptor, count, offset)
                pieces.append(piece)
        except OSError as error:
            raise _io_error("read", self._path, error) from error
        return b"".join(pieces)

    def close(self) -> None:
        """Close the file; again does nothing."""
        self._finalizer()


def _io_error(action: str, path: Path, error: OSError) -> GGUFError:
    return GGUFError(f"{action} {path}: {(error.strerror or str(error)).lower()}")
