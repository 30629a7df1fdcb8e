"""Every command is documented, with every flag as its help tells it."""

import re
from pathlib import Path
from typing import get_args

import pytest

from ollamad.cli.commands import COMMANDS, ROOT_FLAGS, Command
from ollamad.cli.flags import Flag
from ollamad.cli.repl import help as conversation
from ollamad.modelfile.parser import Keyword

PAGE = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
TITLE = r"^###? (.+?)\n"
SECTIONS = dict(re.findall(TITLE + r"(.*?)(?=^###? |\Z)", PAGE, re.MULTILINE | re.DOTALL))
#: What is no command.
OTHERS = {"Conversations", "Modelfiles", "Not in this version"}


def row(flag: Flag) -> str:
    short = f"`-{flag.short}`, " if flag.short else ""
    kind = "" if flag.kind == "bool" else f" {flag.kind}"
    alone = f", alone: {flag.optional}" if flag.optional else ""
    return f"| {short}`--{flag.name}`{kind}{alone} | {flag.help} |"


def named(title: str) -> list[str]:
    """The commands that a title is about: ``run`` of ``run MODEL``, both of ``signin, signout``."""
    return [re.split(r"[ \[]", part)[0] for part in title.split(", ")]


def section(command: Command) -> str:
    for title, text in SECTIONS.items():
        if title not in OTHERS and command.name in named(title):
            return text
    raise AssertionError(f"docs/cli.md has no section on {command.use}")


VISIBLE = [command for command in COMMANDS if not command.hidden]


@pytest.mark.parametrize("command", VISIBLE, ids=lambda command: command.name)
def test_a_command_has_its_section(command: Command) -> None:
    text = section(command)
    lines = text.splitlines()
    for flag in command.flags:
        assert row(flag) in lines, f"docs/cli.md lacks: {row(flag)}"
    documented = re.findall(r"`--([a-z-]+)`", text)
    assert sorted(documented) == sorted(flag.name for flag in command.flags)
    for alias in command.aliases:
        assert f"(also: `{alias}`)" in text


def test_words_of_a_command_are_named_as_its_help_does() -> None:
    titles = {title for title in SECTIONS if title not in OTHERS}
    with_words = {c.use for c in VISIBLE if c.name != "help" and " " in c.use}
    assert with_words <= titles


def test_no_section_is_about_a_command_that_does_not_exist() -> None:
    documented = [name for title in SECTIONS if title not in OTHERS for name in named(title)]
    assert sorted(documented) == sorted(command.name for command in VISIBLE)


def test_hidden_commands_are_mentioned() -> None:
    for command in COMMANDS:
        assert f"`{command.name}`" in PAGE or not command.hidden


@pytest.mark.parametrize("flag", ROOT_FLAGS, ids=lambda flag: flag.name)
def test_a_flag_of_the_program_has_its_row(flag: Flag) -> None:
    introduction = PAGE.partition("\n## ")[0]
    assert row(flag) in introduction.splitlines()


def test_every_command_of_a_conversation_is_named() -> None:
    shown = conversation.general(False) + conversation.SET + conversation.SHOW
    commands = re.findall(r"^  (/\w+(?: [a-z]+)?)", shown, re.MULTILINE)
    assert len(commands) > 20
    text = SECTIONS["Conversations"]
    assert [command for command in commands if f"`{command}" not in text] == []


def test_every_command_of_modelfiles_is_named() -> None:
    named_there = set(re.findall(r"`([A-Z]+)`", SECTIONS["Modelfiles"]))
    assert named_there == {keyword.upper() for keyword in get_args(Keyword)}
