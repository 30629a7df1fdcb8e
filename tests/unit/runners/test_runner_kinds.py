"""The order of kinds (2.1), version and device texts (1.4, 2.1), and the report."""

import io
import json
from pathlib import Path

import pytest

from ollamad.errors import LoadError, UsageError
from ollamad.runners import kinds, probe, report


def program(path: Path, script: str = "exit 0") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "bin").mkdir()
    return {"HOME": str(tmp_path / "home"), "PATH": f"relative:{tmp_path}/one:{tmp_path}/two"}


def find(tmp_path: Path, environ: dict[str, str], configured: str = "") -> kinds.Found:
    return kinds.find(
        configured, environ=environ, executable=tmp_path / "bin" / "python", embedded=False
    )


def test_the_order(tmp_path: Path, machine: dict[str, str]) -> None:
    builds = tmp_path / "home/.local/share/ollamad/runners"
    mine = program(tmp_path / "mine")
    expected = [
        ("configured", mine),
        ("native", program(builds / "b11434-cuda/llama-server")),
        ("native", program(builds / "b12000-cpu/llama-server")),
        ("native", program(builds / "b11434-cpu/llama-server")),
        ("library", program(tmp_path / "lib/ollama/llama-server")),
        ("path", program(tmp_path / "two/llama-server")),
    ]
    program(builds / "somebody-elses/llama-server")
    found = find(tmp_path, machine, str(mine))
    assert [(kind.name, kind.path) for kind in found.kinds] == [
        (name, str(path)) for name, path in expected
    ]
    assert found.best().name == "configured"


def test_a_named_program_must_be_there(tmp_path: Path, machine: dict[str, str]) -> None:
    program(tmp_path / "two/llama-server")
    plain = tmp_path / "plain"
    plain.write_text("not executable")
    for path in (tmp_path / "none", plain, tmp_path):
        with pytest.raises(UsageError, match="OLLAMAD_LLAMA_SERVER"):
            find(tmp_path, machine, str(path))


def test_nothing_found_names_every_place(tmp_path: Path, machine: dict[str, str]) -> None:
    found = find(tmp_path, machine)
    with pytest.raises(LoadError, match=r"^llama-server binary not found \(checked: ") as caught:
        found.best()
    assert str(tmp_path / "two/llama-server") in str(caught.value)
    assert not any(place.startswith("relative") for place in found.checked)


def test_the_same_program_is_listed_once(tmp_path: Path, machine: dict[str, str]) -> None:
    path = program(tmp_path / "two/llama-server")
    assert len(find(tmp_path, machine, str(path)).kinds) == 1


def test_data_home_is_honoured(tmp_path: Path) -> None:
    environ = {"XDG_DATA_HOME": str(tmp_path / "data"), "HOME": "/nowhere"}
    built = program(tmp_path / "data/ollamad/runners/b11434-vulkan/llama-server")
    assert [kind.path for kind in find(tmp_path, environ).kinds] == [str(built)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version: 11434 (abc1234)\nbuilt with cc\n", ("11434", 11434)),
        ("warning\nversion: 1.2.3 (build 11434, commit abc)\n", ("1.2.3", 11434)),
        ("version: 0.0.0 (build 0, commit unknown)\n", ("0.0.0", 0)),
        ("version: 0 (unknown)\n", ("0", 0)),
        ("what?\n", ("", 0)),
    ],
)
def test_versions(text: str, expected: tuple[str, int]) -> None:
    assert probe.parse_version(text) == expected


def kind(path: Path, build: int = 0) -> kinds.RunnerKind:
    return kinds.RunnerKind(name="path", program=(str(path),), origin="", build=build)


def test_an_unknown_build_is_not_too_old() -> None:
    path = Path("/x")
    assert [probe.too_old(kind(path, build)) for build in (0, 10487, 10488)] == [False, True, False]


def test_devices() -> None:
    text = (
        "Available devices:\n"
        "  CUDA0: NVIDIA GeForce RTX 4060 Ti (16380 MiB, 15000 MiB free)\n"
        "  BLAS: Accelerate (0 MiB, 0 MiB free)\n"
        "  Vulkan0: AMD Radeon (RADV NAVI24) (4096 MiB, 4000 MiB free)\n"
    )
    mib = 1024 * 1024
    assert probe.parse_devices(text) == [
        probe.ListedDevice("CUDA0", "NVIDIA GeForce RTX 4060 Ti", 16380 * mib, 15000 * mib),
        probe.ListedDevice("Vulkan0", "AMD Radeon (RADV NAVI24)", 4096 * mib, 4000 * mib),
    ]
    assert probe.parse_devices("Available devices:\n  (none)\n") == []


def test_a_program_is_asked(tmp_path: Path) -> None:
    path = program(
        tmp_path / "llama-server",
        'if [ "$1" = --version ]; then echo "version: 9000 (abc)" >&2; else\n'
        'echo "Available devices:"; echo "  CUDA0: Card (2 MiB, 1 MiB free)"; fi',
    )
    identified = probe.identify(kind(path))
    assert (identified.version, identified.build) == ("9000", 9000)
    assert [device.name for device in probe.devices(identified)] == ["CUDA0"]
    assert probe.identify(kind(tmp_path / "none")).version == ""


def test_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path / "llama-server", 'echo "version: 9000 (abc)" >&2')
    out = io.StringIO()
    assert report.main(["--json"], str(path), environ={"HOME": "/none"}, out=out) == 0
    first = json.loads(out.getvalue())["runners"][0]
    assert (first["kind"], first["used"], first["build"]) == ("configured", True, 9000)
    assert first["reason"] == "named by OLLAMAD_LLAMA_SERVER"
    assert "older than 10488" in first["warning"]
    out = io.StringIO()
    report.main([], str(path), environ={"HOME": "/none"}, out=out)
    header, row = out.getvalue().splitlines()[:2]
    assert header.split() == ["KIND", "VERSION", "DEVICES", "USED", "PATH"]
    assert row.split() == ["configured", "9000", "CPU", "yes", str(path)]
    with pytest.raises(UsageError, match="--what"):
        report.main(["--what"])


def test_a_report_without_runners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "find", lambda *_, **__: kinds.Found((), ("here",)))
    with pytest.raises(LoadError, match="no runner is installed"):
        report.main([])
    out = io.StringIO()
    assert report.main(["--json"], out=out) == 1
    assert json.loads(out.getvalue()) == {"runners": [], "checked": ["here"]}
