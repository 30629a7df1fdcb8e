"""Help and suggestions."""

from __future__ import annotations

import pytest
from scripted_server import Cli

from ollamad.cli.commands import COMMANDS, find
from ollamad.cli.usage import command_help, edit_distance, root_help, suggestions
from ollamad.settings import SERVE_HELP


def test_root_help_lists_the_visible_commands_in_order() -> None:
    lines = root_help().splitlines()
    start = lines.index("Available Commands:") + 1
    names = [line[2:14].rstrip() for line in lines[start : lines.index("", start)]]
    assert " ".join(names) == (
        "serve create show run stop pull push signin signout list ps cp rm launch prune disk "
        "devices runners help"
    )
    assert lines[-1] == 'Use "ollama [command] --help" for more information about a command.'
    assert "  -h, --help         help for ollama" in lines


def test_help_of_a_command() -> None:
    command = find("list")
    assert command is not None
    assert command_help(command) == (
        "List models\n\nUsage:\n  ollama list [flags]\n\nAliases:\n  list, ls\n\n"
        "Flags:\n  -h, --help   help for list\n\nEnvironment Variables:\n"
        "      OLLAMA_HOST                   Address the server listens on and clients connect to\n"
    )


def test_an_optional_value_is_shown_with_its_flag() -> None:
    command = find("run")
    assert command is not None
    assert '      --think string[="true"]   Let the model think' in command_help(command)


def test_serve_lists_every_setting() -> None:
    command = find("serve")
    assert command is not None
    text = command_help(command)
    assert SERVE_HELP
    for name, _ in SERVE_HELP:
        assert f"\n      {name:27}   " in text


@pytest.mark.parametrize("command", [c.name for c in COMMANDS])
def test_every_command_has_help_and_a_body(cli: Cli, command: str) -> None:
    found = find(command)
    assert found is not None
    result = cli(command, "--help")
    assert (result.status, result.err) == (0, "")
    assert result.out == command_help(found)
    if command != "serve":
        from importlib import import_module

        module, function = found.target.split(":")
        assert callable(getattr(import_module(f"ollamad.cli.{module}"), function))


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("serv", ["serve"]),
        ("SHOW", ["show", "stop"]),
        ("r", ["run", "ps", "cp", "rm", "runners"]),
        ("xyzzy", []),
        ("logi", []),
    ],
)
def test_suggestions(word: str, names: list[str]) -> None:
    assert suggestions(word) == names


def test_edit_distance() -> None:
    assert edit_distance("show", "stop") == 2
    assert edit_distance("", "abc") == 3
    assert edit_distance("kitten", "sitting") == 3


def test_unknown_command(cli: Cli) -> None:
    result = cli("serv")
    assert result == (
        1,
        "",
        'Error: unknown command "serv" for "ollama"\n\nDid you mean this?\n\tserve\n\n',
    )


def test_help_of_nothing_known(cli: Cli) -> None:
    result = cli("help", "NOPE")
    assert result.status == 0
    assert result.out == ""
    assert result.err.startswith("Unknown help topic [`NOPE`]\nUsage:\n")
    assert "--help  " not in result.err
    assert cli("help", "show", "NOPE").out == cli("show", "--help").out


def test_flags_come_before_help_and_help_before_counts(cli: Cli) -> None:
    assert cli("create", "--help").status == 0
    assert cli("create", "--nope", "--help").err == "Error: unknown flag: --nope\n"
