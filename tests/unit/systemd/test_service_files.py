"""The service files say what the daemon relies on."""

import configparser
import plistlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ollamad.settings import VARIABLES

FOLDER = Path(__file__).parents[3] / "systemd"
UNITS = (FOLDER / "ollamad.service", FOLDER / "user" / "ollamad.service")
#: Each of these makes systemd set NoNewPrivileges for a service with a user of its own.
IMPLY_NO_NEW_PRIVILEGES = {
    "NoNewPrivileges",
    "DynamicUser",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "PrivateDevices",
    "ProtectClock",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "RestrictAddressFamilies",
    "RestrictNamespaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "SystemCallArchitectures",
    "SystemCallFilter",
    "SystemCallLog",
}


def settings(unit: Path) -> dict[str, list[tuple[str, str]]]:
    sections: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for line in unit.read_text().splitlines():
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            key, separator, value = line.partition("=")
            assert separator, line
            current.append((key, value))
    return sections


def grace_seconds() -> int:
    (default,) = (v.default for v in VARIABLES if v.name == "OLLAMAD_SHUTDOWN_GRACE")
    return int(default.removesuffix("s"))


@pytest.mark.parametrize("unit", UNITS, ids=["system", "user"])
def test_only_the_daemon_is_told_to_stop_and_it_gets_the_time(unit: Path) -> None:
    service = dict(settings(unit)["Service"])
    assert service["Type"] == "notify"
    assert service["ExecStart"].endswith("/ollamad serve")
    assert service["KillMode"] == "mixed", "else runners would die under the last requests"
    # The grace, the time for the rest (daemon.STOP_LIMIT) and some.
    assert int(service["TimeoutStopSec"]) >= grace_seconds() + 15 + 5
    assert (service["Restart"], service["RestartSec"]) == ("always", "3")


def test_the_system_unit_lets_drivers_start_their_helpers() -> None:
    service = settings(UNITS[0])["Service"]
    assert {key for key, _ in service} & IMPLY_NO_NEW_PRIVILEGES == set()
    assert ("User", "ollama") in service
    assert ("Environment", "XDG_RUNTIME_DIR=/run/ollamad") in service
    assert ("RuntimeDirectory", "ollamad") in service


@pytest.mark.parametrize("unit", UNITS, ids=["system", "user"])
def test_systemd_understands_the_unit(unit: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        # Not everywhere; then at least the form is right.
        configparser.ConfigParser(strict=False, interpolation=None).read(unit)
        return
    copy = tmp_path / "ollamad.service"
    # The program need not be installed where the unit expects it.
    text = unit.read_text()
    for program in ("/usr/local/bin/ollamad", "%h/.local/bin/ollamad"):
        text = text.replace(program, "/bin/true")
    copy.write_text(text)
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if str(copy) in line]
    assert complaints == []


def test_the_agent_for_macos() -> None:
    agent: Any = plistlib.loads((FOLDER / "ollamad.plist").read_bytes())
    assert agent["ProgramArguments"][1:] == ["serve"]
    assert agent["KeepAlive"] is agent["RunAtLoad"] is True
    assert agent["ExitTimeOut"] >= grace_seconds() + 15 + 5
    assert agent["StandardErrorPath"].endswith("/.ollama/logs/server.log")


def test_every_file_is_in_the_readme() -> None:
    readme = (FOLDER / "README.md").read_text()
    for path in FOLDER.rglob("*"):
        if path.is_file() and path.name != "README.md":
            assert f"`{path.relative_to(FOLDER)}`" in readme
