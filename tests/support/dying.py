"""Children that die by SIGKILL just before a chosen call to the file system."""

from __future__ import annotations

import gc
import itertools
import os
import signal
from collections.abc import Callable
from typing import Any

#: Those of ``os`` that change files, and those that let others see the change.
CHANGING_CALLS = (
    *("open", "write", "pwritev", "fsync", "fdatasync", "ftruncate", "fchmod", "close", "utime"),
    *("replace", "rename", "unlink", "mkdir", "rmdir"),
)


def dies(operation: Callable[[], Any], deadly: int) -> bool:
    """Run ``operation`` in a child that dies before call number ``deadly``; whether it died."""
    child = os.fork()
    if child == 0:
        exit_status = 3
        try:
            gc.disable()  # files of earlier deaths would be closed at random moments
            _die_before_call(deadly)
            operation()
            exit_status = 0
        finally:
            os._exit(exit_status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0, "the operation itself failed"
    return False


def _die_before_call(deadly: int) -> None:
    calls = itertools.count(1)

    def deadly_call(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(calls) == deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    for name in CHANGING_CALLS:
        if hasattr(os, name):
            setattr(os, name, deadly_call(getattr(os, name)))
