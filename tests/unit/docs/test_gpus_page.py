"""The page on GPUs names what there is, and messages as they are."""

import re
from pathlib import Path

import pytest

from ollamad.cli.commands import COMMANDS, find
from ollamad.settings import VARIABLES

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "gpus.md").read_text()
TABLE = PAGE.partition("## When it does not work")[2]
SOURCES = "\n".join(path.read_text() for path in (ROOT / "ollamad").rglob("*.py"))
#: Those that no setting of ours is.
FOREIGN = {"CONFIG_HSA_AMD", "HSA_OVERRIDE_GFX_VERSION_"}


def test_every_message_is_one_of_the_programs() -> None:
    # A text may go over several lines of code.
    code = re.sub(r'"\s*\n\s*f?"', "", SOURCES)
    messages = re.findall(r"^\| `([^`]+)`", TABLE, re.MULTILINE)
    assert len(messages) > 20
    pieces = {piece.strip() for message in messages for piece in message.split("…")}
    assert [piece for piece in sorted(pieces) if piece not in code] == []


def test_commands_exist() -> None:
    named = set(re.findall(r"(?:^|`)ollama ([a-z]+)", PAGE, re.MULTILINE))
    assert {"devices", "ps", "runners"} <= named
    assert [name for name in named if find(name) is None] == []


def test_flags_exist() -> None:
    used = re.findall(r"(?:^|`)ollama ([a-z]+) --([a-z]+)", PAGE, re.MULTILINE)
    assert used
    flags = {(command.name, flag.name) for command in COMMANDS for flag in command.flags}
    assert set(used) <= flags


def test_variables_exist() -> None:
    declared = {variable.name for variable in VARIABLES}
    named = set(re.findall(r"`([A-Z]+_[A-Z_]+)", PAGE))
    assert len(named) > 12
    assert named <= declared | FOREIGN


def test_presets_exist() -> None:
    presets = (ROOT / "runners/native/CMakePresets.json").read_text()
    named = set(re.findall(r"(?:preset `|--preset )([a-z]+)", PAGE))
    assert len(named) > 3
    assert [name for name in named if f'"ollamad-{name}"' not in presets] == []


@pytest.mark.parametrize("page", ["README.md", "docs/cli.md", "docs/settings.md"])
def test_other_pages_lead_here(page: str) -> None:
    assert "gpus.md)" in (ROOT / page).read_text()


def test_links_lead_somewhere() -> None:
    titles = re.findall(r"^##+ (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors
    files = {link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if "://" not in link}
    assert [link for link in files if not (ROOT / "docs" / link).exists()] == []
