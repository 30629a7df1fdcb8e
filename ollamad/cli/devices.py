"""``devices``: the GPUs that models can run on, and why others are not used. Ours."""

from __future__ import annotations

import json

import msgspec

from ollamad.cli.commands import Invocation
from ollamad.cli.errors import ConnectionFailed, ServerError
from ollamad.cli.prune import printable
from ollamad.cli.table import table
from ollamad.units import human_gib
from ollamad.wire import DeviceStatus, NoteStatus

_WIDE = 10_000
_HEADER = ("ID", "LIBRARY", "NAME", "COMPUTE", "DRIVER", "PCI ID", "TYPE", "TOTAL", "FREE")


class Found(msgspec.Struct, kw_only=True):
    """What the command reads of ``GET /api/status``; ``discovered`` is None of other servers."""

    discovered: bool | None = None
    devices: list[DeviceStatus] = msgspec.field(default_factory=list)
    notes: list[NoteStatus] = msgspec.field(default_factory=list)


def devices(invocation: Invocation) -> int:
    """``devices``: what the server found or, when none is there, what one started here would."""
    found = _of_server(invocation)
    source = "server"
    if found is None:
        from ollamad.cli.local import devices_here  # noqa: PLC0415 - only when it is needed

        found = devices_here(invocation.client.environ)
        source = "this machine"
    if invocation.parsed.switch("json"):
        content = {"source": source, "devices": found.devices, "notes": found.notes}
        print(json.dumps(msgspec.to_builtins(content), indent=2))
    else:
        print(report(found, here=source != "server"), end="")
    return 0


def report(found: Found, *, here: bool) -> str:
    """The devices, then the notes with what to do. Pure.

    ``here``: no server was asked.
    """
    rows = [
        (
            device.id,
            printable(device.library),
            printable(device.description or device.name),
            device.compute,
            device.driver,
            device.pci_id,
            device.type,
            human_gib(device.total),
            human_gib(device.free),
        )
        for device in found.devices
    ]
    text = "No server is running; one started here would find this:\n\n" if here else ""
    text += table(rows, _HEADER, _WIDE) if rows else "No GPU is used: models run on the CPU.\n"
    for note in found.notes:
        text += f"\n{note.level}: {printable(note.text)}\n"
        if note.hint:
            text += f"  {printable(note.hint)}\n"
    return text


def _of_server(invocation: Invocation) -> Found | None:
    """None when there is no server, or one that does not know of devices, such as Ollama's."""
    try:
        found = invocation.client.get(Found, "/api/status")
    except ConnectionFailed as error:
        if not error.refused:
            raise
        return None
    except ServerError:
        return None
    return found if found.discovered is not None else None
