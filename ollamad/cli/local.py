"""The commands that work on this machine instead of asking a server."""

from __future__ import annotations

from ollamad.cli.commands import Invocation


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
