"""Help texts and suggestions (``cli.md`` 1.1 and 2.2)."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from ollamad.cli.commands import COMMANDS, ROOT_FLAGS, Command, Invocation, find
from ollamad.cli.flags import Flag
from ollamad.errors import UsageError, quoted

_ROOT_LONG = "Run large language models on your own machine"
#: As wide as the longest registered name of the reference.
_NAME_WIDTH = 12


def help_command(invocation: Invocation) -> int:
    """``help [command]``. Further words are ignored."""
    if not invocation.words:
        print(root_help(), end="")
        return 0
    command = find(invocation.words[0])
    if command is None:
        topics = " ".join(f"`{word}`" for word in invocation.words)
        print(f"Unknown help topic [{topics}]", file=sys.stderr)
        print(root_usage(with_help_flag=False), end="", file=sys.stderr)
        return 0
    print(command_help(command), end="")
    return 0


def root_help() -> str:
    return f"{_ROOT_LONG}\n\n{root_usage()}"


def root_usage(*, with_help_flag: bool = True) -> str:
    lines = ["Usage:", "  ollama [flags]", "  ollama [command]", "", "Available Commands:"]
    lines += [f"  {c.name:{_NAME_WIDTH}} {c.short}" for c in COMMANDS if not c.hidden]
    flags = list(ROOT_FLAGS)
    if with_help_flag:
        flags.append(_help_flag("ollama"))
    lines += ["", "Flags:", *_flag_lines(flags)]
    lines += ["", 'Use "ollama [command] --help" for more information about a command.']
    return "\n".join(lines) + "\n"


def command_help(command: Command) -> str:
    lines = [command.long or command.short, "", "Usage:", f"  ollama {command.use} [flags]"]
    if command.aliases:
        lines += ["", "Aliases:", "  " + ", ".join((command.name, *command.aliases))]
    lines += ["", "Flags:", *_flag_lines((*command.flags, _help_flag(command.name)))]
    variables = _variables(command)
    if variables:
        lines += ["", "Environment Variables:"]
        lines += [f"      {name:27}   {text}" for name, text in variables]
    return "\n".join(lines) + "\n"


def _help_flag(name: str) -> Flag:
    return Flag("help", f"help for {name}", short="h")


def _flag_lines(flags: Iterable[Flag]) -> list[str]:
    columns = []
    for flag in sorted(flags):
        short = f"  -{flag.short}, " if flag.short else " " * 6
        kind = "" if flag.kind == "bool" else f" {flag.kind}"
        optional = f'[="{flag.optional}"]' if flag.optional else ""
        columns.append((f"{short}--{flag.name}{kind}{optional}", flag.help))
    width = max(len(left) for left, _ in columns)
    return [f"{left:{width}}   {text}" for left, text in columns]


def _variables(command: Command) -> list[tuple[str, str]]:
    if command.variables == ():
        return []
    # The settings are many and no other help needs them.
    from ollamad.settings import SERVE_HELP, VARIABLES  # noqa: PLC0415

    if command.variables is None:
        return list(SERVE_HELP)
    texts = {variable.name: variable.help for variable in VARIABLES}
    return [(name, texts[name]) for name in command.variables]


def unknown_command(word: str) -> UsageError:
    """The error for a word that is no command, with what may have been meant."""
    message = f'unknown command {quoted(word)} for "ollama"'
    names = suggestions(word)
    if names:
        message += "\n\nDid you mean this?\n" + "".join(f"\t{name}\n" for name in names)
    return UsageError(message)


def suggestions(word: str) -> list[str]:
    """Names of visible commands that start with ``word`` or are at most two edits away."""
    lower = word.lower()
    return [
        command.name
        for command in COMMANDS
        if not command.hidden
        and command.name != "help"
        and (command.name.startswith(lower) or edit_distance(lower, command.name) <= 2)
    ]


def edit_distance(left: str, right: str) -> int:
    """Insertions, deletions and replacements that make ``left`` into ``right``."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]
