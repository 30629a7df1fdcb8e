"""Open a page in the user's browser: best effort, never waiting, never through a shell."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress


def opener(url: str, platform: str, environ: Mapping[str, str]) -> list[str] | None:
    """The command that opens ``url``, or None where there is no browser. Pure (``cli.md`` 11.6).

    ``url`` comes from a server: only pages of the web are opened, no files and no programs.
    """
    if not url.lower().startswith(("https://", "http://")) or not url.isprintable() or " " in url:
        return None
    if platform == "darwin":
        return ["open", url]
    if platform == "win32":
        return ["rundll32", "url.dll,FileProtocolHandler", url]
    if environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"):
        return ["xdg-open", url]
    return None


def open_page(url: str, environ: Mapping[str, str]) -> None:
    """Start a browser on ``url`` if there is one; the user is shown the URL in any case."""
    command = opener(url, sys.platform, environ)
    if command is None:
        return
    import subprocess  # noqa: PLC0415 - only to sign in

    quiet = subprocess.DEVNULL
    with suppress(OSError):
        process = subprocess.Popen(
            command,
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
            env=dict(environ),
            # The terminal's Ctrl-C is not for the browser.
            start_new_session=True,
        )
        # It goes on without us.
        process.returncode = 0
