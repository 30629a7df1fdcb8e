"""Work on the disk for tasks: in a worker thread, its errors as clients know them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar, TypeVarTuple

import trio

from ollamad.errors import OllamadError
from ollamad.store.errors import os_error_text

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def in_thread(function: Callable[[*Ts], T], *arguments: *Ts) -> T:
    """``function`` in a worker thread; the system's errors come as OllamadError (500)."""
    try:
        return await trio.to_thread.run_sync(partial(function, *arguments))
    except OSError as error:
        # What fails on an open file names none.
        operation = "write" if error.filename is None else "open"
        raise OllamadError(os_error_text(operation, error)) from error
