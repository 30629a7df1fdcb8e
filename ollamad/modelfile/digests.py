"""Hashing the files of a model, several at once."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_BLOCK = 1 << 20


def digests_of(paths: Iterable[Path]) -> dict[Path, str]:
    """``sha256:`` and 64 lower-case hex digits for each file. Raises OSError.

    Hashing releases the interpreter lock, so a thread per core (less one) is worth it. An interrupt
    or an error stops all of them within a block.
    """
    stop = threading.Event()

    def digest(path: Path) -> str:
        state = hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            while not stop.is_set() and (block := file.read(_BLOCK)):
                state.update(block)
        return f"sha256:{state.hexdigest()}"

    unique = list(dict.fromkeys(paths))
    workers = max((os.cpu_count() or 1) - 1, 1)
    with ThreadPoolExecutor(workers, thread_name_prefix="digest") as pool:
        try:
            return dict(zip(unique, pool.map(digest, unique), strict=True))
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
