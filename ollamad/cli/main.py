"""From the words of a command line to a command and an exit status (``cli.md`` 1)."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import cast

from ollamad.cli import flags
from ollamad.cli.commands import COMMANDS, ROOT_FLAGS, Command, Invocation, check_count, find
from ollamad.cli.flags import Parsed
from ollamad.errors import OllamadError


def run(words: Sequence[str], environ: Mapping[str, str] | None = None) -> int:
    """Run the command that ``words`` (without the program's name) ask for; the exit status.

    Errors become one line on stderr and status 1. KeyboardInterrupt and a closed stdout
    (BrokenPipeError) pass through.
    """
    environ = os.environ if environ is None else environ
    try:
        return _run(words, environ)
    except BrokenPipeError:
        raise
    except OllamadError as error:
        message = error.message
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    from ollamad.cli.width import harmless  # noqa: PLC0415 - for errors only

    _flush_stdout()
    print(f"Error: {harmless(message)}", file=sys.stderr)
    return 1


def _run(words: Sequence[str], environ: Mapping[str, str]) -> int:
    position = flags.command_position(ROOT_FLAGS, words)
    if position is None:
        return _run_root(flags.parse(ROOT_FLAGS, words), environ)
    command = find(words[position])
    if command is None:
        from ollamad.cli.usage import unknown_command  # noqa: PLC0415

        raise unknown_command(words[position])
    rest = [*words[:position], *words[position + 1 :]]
    parsed = flags.parse(command.flags, rest)
    if parsed.switch("help"):
        from ollamad.cli.usage import command_help  # noqa: PLC0415

        print(command_help(command), end="")
        return 0
    check_count(command, len(parsed.words))
    return _call(command, parsed, environ)


def _call(command: Command, parsed: Parsed, environ: Mapping[str, str]) -> int:
    from ollamad.cli.client import Client  # noqa: PLC0415 - not needed for errors above

    with Client.from_environ(environ) as client:
        if command.heartbeat:
            client.heartbeat()
        module, function = command.target.split(":")
        body = getattr(import_module(f"ollamad.cli.{module}"), function)
        status = cast(int, body(Invocation(parsed, client)))
    _flush_stdout()
    return status


def _run_root(parsed: Parsed, environ: Mapping[str, str]) -> int:
    """``ollama`` without a command: versions, or help."""
    from ollamad.cli import usage  # noqa: PLC0415
    from ollamad.cli.client import Client  # noqa: PLC0415

    if parsed.words:
        raise usage.unknown_command(parsed.words[0])
    if parsed.switch("help"):
        print(usage.root_help(), end="")
        return 0
    with Client.from_environ(environ) as client:
        if parsed.switch("version"):
            from ollamad.cli.small import print_versions  # noqa: PLC0415

            print_versions(client)
            return 0
        try:
            client.heartbeat()
        except OllamadError as error:
            # The menu's failures are no failures of the program (1.2).
            print(f"Error: {error.message}", file=sys.stderr)
            return 0
    # The menu comes later; until then, what can be typed.
    print(usage.root_help(), end="")
    return 0


def _flush_stdout() -> None:
    """Bring what was printed before what follows on stderr, and meet a closed pipe here."""
    sys.stdout.flush()


__all__ = ["COMMANDS", "run"]
