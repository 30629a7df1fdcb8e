"""``list`` and ``ps`` (``cli.md`` 7.2 and 7.3)."""

from __future__ import annotations

import time
from collections.abc import Iterable

from ollamad.cli.client import Client
from ollamad.cli.commands import Invocation
from ollamad.cli.table import table
from ollamad.cli.times import unix_ns
from ollamad.units import human_bytes, human_time
from ollamad.wire import ListedModel, ListResponse, ProcessResponse, RunningModel


def list_models(invocation: Invocation) -> int:
    """``list [PREFIX]``: the prefix's case does not matter."""
    print_models(invocation.client, invocation.words[0] if invocation.words else "")
    return 0


def print_models(client: Client, prefix: str) -> None:
    models = client.get(ListResponse, "/api/tags").models
    print(models_table(models, prefix, time.time_ns()), end="")


def list_loaded(invocation: Invocation) -> int:
    """``ps [PREFIX]``: here the prefix's case matters."""
    models = invocation.client.get(ProcessResponse, "/api/ps").models
    prefix = invocation.words[0] if invocation.words else ""
    shown = loaded_table_in_full if invocation.parsed.switch("verbose") else loaded_table
    print(shown(models, prefix, time.time_ns()), end="")
    return 0


def models_table(models: Iterable[ListedModel], prefix: str, now: int) -> str:
    """Pure. ``now`` is in Unix nanoseconds."""
    rows = [
        (
            model.name,
            model.digest[:12],
            "-" if model.remote_model else human_bytes(model.size),
            human_time(unix_ns(model.modified_at), now, "Never"),
        )
        for model in models
        if model.name.lower().startswith(prefix.lower())
    ]
    return table(rows, ("NAME", "ID", "SIZE", "MODIFIED"))


def loaded_table(models: Iterable[RunningModel], prefix: str, now: int) -> str:
    """Pure. ``now`` is in Unix nanoseconds."""
    rows = [_loaded_row(model, now) for model in models if model.name.startswith(prefix)]
    return table(rows, _LOADED)


def loaded_table_in_full(models: Iterable[RunningModel], prefix: str, now: int) -> str:
    """With the devices, and why not all of a model is on them. Pure."""
    rows = [
        (*_loaded_row(model, now), _devices(model), model.reason)
        for model in models
        if model.name.startswith(prefix)
    ]
    return table(rows, (*_LOADED, "DEVICES", "REASON"), wrap=_REASON_WIDTH)


_LOADED = ("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL")
#: Wide enough that a reason stays on its line.
_REASON_WIDTH = 1000


def _loaded_row(model: RunningModel, now: int) -> tuple[str, ...]:
    return (
        model.name,
        model.digest[:12],
        human_bytes(model.size),
        processor(model.size, model.size_vram),
        str(model.context_length),
        _until(unix_ns(model.expires_at), now),
    )


def _devices(model: RunningModel) -> str:
    return ", ".join(f"{name} {human_bytes(size)}" for name, size in model.devices.items())


def processor(size: int, vram: int) -> str:
    """Where a loaded model is: ``100% GPU``, ``48%/52% CPU/GPU``."""
    if vram == 0:
        return "100% CPU"
    if vram == size:
        return "100% GPU"
    if vram > size or size == 0:
        return "Unknown"
    # Half a per cent rounds up.
    cpu = (200 * (size - vram) + size) // (2 * size)
    return f"{cpu}%/{100 - cpu}% CPU/GPU"


def _until(expires: int | None, now: int) -> str:
    if expires is None or expires < now:
        return "Stopping..."
    return human_time(expires, now, "")
