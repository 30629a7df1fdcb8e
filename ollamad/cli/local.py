"""The commands that work on this machine instead of asking a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ollamad.cli.commands import Invocation

if TYPE_CHECKING:  # the daemon's start waits for what is imported here
    from collections.abc import Mapping

    from ollamad.cli.devices import Found


def serve(invocation: Invocation) -> int:
    """``serve``: become the daemon."""
    from ollamad.daemon import serve_main  # noqa: PLC0415 - the daemon's imports are many

    return serve_main([])


def runners(invocation: Invocation) -> int:
    """``runners``: what llama.cpp there is and which of it is used."""
    from ollamad.runners.report import main  # noqa: PLC0415
    from ollamad.settings import Settings  # noqa: PLC0415

    environ = invocation.client.environ
    arguments = ["--json"] if invocation.parsed.switch("json") else []
    configured = str(Settings.from_environ(environ).llama_server or "")
    return main(arguments, configured, environ=environ)


def devices_here(environ: Mapping[str, str]) -> Found:
    """What a server started in this environment would find. Seconds at worst."""
    import trio  # noqa: PLC0415 - a third of a second, which only this needs

    from ollamad.cli.devices import Found  # noqa: PLC0415
    from ollamad.hardware.report import device_status, note_status  # noqa: PLC0415
    from ollamad.runners.devices import machine_of  # noqa: PLC0415
    from ollamad.runners.kinds import find  # noqa: PLC0415
    from ollamad.settings import Settings  # noqa: PLC0415

    settings = Settings.load(environ)
    kinds = find(str(settings.llama_server or ""), environ=environ)

    async def look() -> Found:
        machine = machine_of(settings, kinds, environ)
        try:
            hardware = await machine.discover()
        finally:
            await machine.aclose()
        return Found(
            discovered=True,
            devices=[device_status(device) for device in hardware.devices],
            notes=[note_status(note) for note in hardware.notes],
        )

    return trio.run(look)
