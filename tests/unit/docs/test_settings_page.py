"""Every setting is documented, as it is."""

import re
from pathlib import Path

import pytest

from ollamad.environment import Variable
from ollamad.settings import VARIABLES

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "settings.md").read_text()


def row(variable: Variable) -> str:
    default = f"`{variable.shown_default}`" if variable.shown_default else ""
    return f"| `{variable.name}` | {variable.kind} | {default} | {variable.help} |"


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda variable: variable.name)
def test_a_variable_has_its_row(variable: Variable) -> None:
    assert row(variable) in PAGE.splitlines(), f"docs/settings.md lacks: {row(variable)}"


def test_no_row_is_about_a_variable_that_does_not_exist() -> None:
    documented = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert sorted(documented) == sorted(variable.name for variable in VARIABLES)


def test_every_kind_is_explained() -> None:
    explained = set(re.findall(r"\*\*([a-z ]+)\*\*", PAGE))
    assert {v.kind for v in VARIABLES if v.field} - explained <= {"text", "path", "log format"}


def test_no_module_reads_a_variable_that_is_not_declared() -> None:
    declared = {variable.name for variable in VARIABLES}
    for source in (ROOT / "ollamad").rglob("*.py"):
        named = set(re.findall(r"\bOLLAMAD?_[A-Z_]+\b", source.read_text()))
        assert named <= declared, source
