"""The page on registries names what there is, and messages as they are."""

import re
from pathlib import Path

import pytest

from ollamad.cli.commands import COMMANDS, find
from ollamad.settings import VARIABLES

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "registries.md").read_text()
TABLE = PAGE.partition("## When it does not work")[2]
SOURCES = "\n".join(path.read_text() for path in (ROOT / "ollamad").rglob("*.py"))
#: Texts of the system's libraries.
FOREIGN = {
    "connection refused",
    "certificate verify failed",
    "no such file or directory",
    "no space left on device",
}


def test_every_message_is_one_of_the_programs() -> None:
    # A text may go over several lines of code.
    code = re.sub(r'"\s*\n\s*f?"', "", SOURCES)
    messages = re.findall(r"^\| `([^`]+)`", TABLE, re.MULTILINE)
    assert len(messages) > 15
    pieces = {piece for message in messages for piece in message.split(": ") if piece}
    assert [p for p in sorted(pieces - FOREIGN) if p not in code] == []


def test_commands_exist() -> None:
    named = set(re.findall(r"(?:^|`)ollama ([a-z]+)", PAGE, re.MULTILINE)) - {"cloud"}
    assert {"pull", "push", "run", "prune", "disk", "signin", "signout"} <= named
    assert [name for name in named if find(name) is None] == []


def test_flags_exist() -> None:
    flags = {flag.name for command in COMMANDS for flag in command.flags}
    assert set(re.findall(r"--([a-z]+)", PAGE)) <= flags


def test_variables_exist() -> None:
    declared = {variable.name for variable in VARIABLES} | {"SSL_CERT_FILE", "SSL_CERT_DIR"}
    named = set(re.findall(r"`([A-Z]+_[A-Z_]+)", PAGE))
    assert named <= declared


@pytest.mark.parametrize("page", ["README.md", "docs/cli.md"])
def test_other_pages_lead_here(page: str) -> None:
    assert "registries.md)" in (ROOT / page).read_text()


def test_links_lead_somewhere() -> None:
    titles = re.findall(r"^##+ (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors
