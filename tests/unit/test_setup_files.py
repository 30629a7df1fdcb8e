"""What sets everything up: lock files that fit, scripts that parse, pages that lead somewhere."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
LOCKS = sorted(BUILD.glob("*.lock"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

EXTRAS = PROJECT["project"]["optional-dependencies"]
DECLARED = {
    "requirements.lock": [
        *PROJECT["project"]["dependencies"],
        *PROJECT["build-system"]["requires"],
    ],
    "requirements-test.lock": [
        *PROJECT["project"]["dependencies"],
        *EXTRAS["test"],
        *EXTRAS["dev"],
        *PROJECT["build-system"]["requires"],
    ],
}

# The machines that the locked versions have wheels for.
PLATFORMS = [
    {"sys_platform": "linux", "platform_machine": "x86_64"},
    {"sys_platform": "linux", "platform_machine": "aarch64"},
    {"sys_platform": "darwin", "platform_machine": "arm64"},
]


def locked(path: Path) -> list[tuple[Requirement, str]]:
    """Each requirement of a lock file with its hashes."""
    text = re.sub(r"^\s*#.*$", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.partition("--hash") for line in text.splitlines() if line.strip()]
    return [(Requirement(head), mark + rest) for head, mark, rest in lines]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_everything_locked_has_one_version_and_its_hashes(path: Path) -> None:
    for requirement, hashes in locked(path):
        assert [s.operator for s in requirement.specifier] == ["=="], requirement
        assert re.fullmatch(r"(--hash=sha256:[0-9a-f]{64}\s*)+", hashes), requirement


@pytest.mark.parametrize("name", DECLARED)
@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda p: "-".join(p.values()))
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_what_the_project_declares_is_locked(
    name: str, platform: dict[str, str], python: str
) -> None:
    place = {**default_environment(), **platform}
    place |= {"python_version": python, "python_full_version": f"{python}.1"}
    versions = {
        canonicalize_name(each.name): next(iter(each.specifier)).version
        for each, _ in locked(BUILD / name)
        if each.marker is None or each.marker.evaluate(place)
    }
    for text in DECLARED[name]:
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate(place):
            version = versions.get(canonicalize_name(wanted.name))
            assert version, f"{wanted} is not locked: run build/lock"
            assert wanted.specifier.contains(version), f"{wanted} is locked at {version}"


def test_tests_run_with_the_versions_that_users_get() -> None:
    with_tests = {str(requirement) for requirement, _ in locked(BUILD / "requirements-test.lock")}
    for requirement, _ in locked(BUILD / "requirements.lock"):
        # A tool of the tests may widen a marker, but not choose another version.
        plain = f"{requirement.name}{requirement.specifier}"
        assert any(each.partition(";")[0].strip() == plain for each in with_tests), plain


def test_the_build_backend_is_locked_as_declared() -> None:
    assert PROJECT["dependency-groups"]["build"] == PROJECT["build-system"]["requires"]


SCRIPTS = [BUILD / name for name in ("quickstart", "test", "lock", "environment.sh")]
SCRIPTS.append(ROOT / ".ci" / "run")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_parses(script: Path) -> None:
    shebang = script.read_text().splitlines()[0]
    shell = "bash" if "bash" in shebang else "sh"
    subprocess.run([shell, "-n", str(script)], check=True)
    assert os.access(script, os.X_OK) or not shebang.startswith("#!")


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / folder / "README.md" for folder in ("runners", "systemd", "tests/benchmarks")]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_names_files_that_exist(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    named = re.findall(r"`((?:build|docs|runners|systemd|tests)/[\w./-]*)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []
