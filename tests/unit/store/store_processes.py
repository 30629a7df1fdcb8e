"""Another process on the same model directory: a fork of this one, with a store of its own."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from ollamad.store import locks
from ollamad.store.store import Store


@contextmanager
def elsewhere(
    root: Path, work: Callable[[Store], AbstractContextManager[object]], *, killed: bool = False
) -> Iterator[None]:
    """While it lasts, another process is inside ``work``; with ``killed`` it dies there."""
    ready, told = os.pipe()
    waiting, done = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(done)
            with work(_own_store(root)):
                os.write(told, b"x")
                os.read(waiting, 1)
        finally:
            os._exit(0)
    os.close(told)
    os.close(waiting)
    try:
        assert os.read(ready, 1) == b"x", "the other process failed"
        if killed:
            os.kill(child, signal.SIGKILL)
        else:
            yield
    finally:
        os.close(done)
        os.close(ready)
        os.waitpid(child, 0)
    if killed:
        yield


def in_another_process(root: Path, work: Callable[[Store], object]) -> str:
    """What ``work`` returns there, or the error that it raises, as text."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            try:
                text = str(work(_own_store(root)))
            except Exception as error:  # noqa: BLE001 - which one, the test says
                text = repr(error)
            os.write(told, text.encode())
        finally:
            os._exit(0)
    os.close(told)
    with os.fdopen(ready) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


def _own_store(root: Path) -> Store:
    """Locks are not inherited, but our notion of them is; and closing files would free them."""
    gc.disable()
    locks._locks.clear()
    return Store(root)
