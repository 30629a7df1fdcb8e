"""How ``serve`` starts, and how it refuses to: runners-and-scheduling.md 5.1 to 5.5."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon

MakeDaemon = Callable[..., Daemon]


def refused(home: Path, **env: str) -> str:
    """The one line with which ``serve`` refuses to start; anything else fails the test."""
    done = subprocess.run(
        [sys.executable, "-m", "ollamad", "serve"],
        env={**Daemon(home).env, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if not line.startswith("time=")]
    assert len(errors) == 1, done.stderr
    return errors[0]


def test_first_start_makes_a_key_and_says_so(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    home = tmp_path / "home"
    daemon = make_daemon(home)
    key = home / ".ollama" / "id_ed25519"
    public = key.with_suffix(".pub").read_text()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert f"Couldn't find '{key}'. Generating new private key." in daemon.log
    lines = daemon.log.splitlines()  # without blanks at the end
    start = lines.index("Your new public key is:")
    assert lines[start + 1 : start + 4] == ["", public.rstrip(), ""]
    assert daemon.get("/api/version")["version"]
    daemon.stop()

    before = key.read_bytes()
    again = make_daemon(home)
    assert "Generating" not in again.log
    assert key.read_bytes() == before


def test_the_cheap_endpoints_answer(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    status, _, body = daemon.request("GET", "/")
    assert (status, body) == (200, b"Ollama is running")
    assert daemon.get("/api/tags") == {"models": []}
    assert daemon.get("/api/ps") == {"models": []}
    assert daemon.models.is_dir()


def test_what_the_log_says_at_start(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(
        OLLAMA_MAX_QUEUE="many", OLLAMA_NO_CLOUD="1", OLLAMA_API_KEY="s3cret-key", TZ="UTC"
    )
    daemon.get("/api/status")  # answered when GPUs have been looked for
    daemon.stop()
    lines = [line for line in daemon.log.splitlines() if line.startswith("time=")]
    for line in lines:
        assert re.match(
            r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=\w+ source=\w+\.py:\d+ msg=", line
        ), line
    log = "\n".join(lines)
    (warning,) = (line for line in lines if "level=WARN" in line)
    assert warning.endswith(
        'msg="invalid environment variable, using default" key=OLLAMA_MAX_QUEUE value=many '
        "default=512"
    )
    assert 'msg="server config" env="map[CUDA_VISIBLE_DEVICES:' in log
    assert "OLLAMA_MAX_QUEUE:512" in log
    assert 'msg="Ollama cloud disabled: true"' in log
    assert 'msg="inference compute" id=cpu library=cpu compute="" name=cpu' in log
    assert 'msg="vram-based default context" total_vram="0 B" default_num_ctx=4096' in log
    assert "s3cret-key" not in daemon.log


def test_a_log_as_json(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(OLLAMAD_LOG_FORMAT="json", OLLAMA_DEBUG="1")
    daemon.stop()
    records = [json.loads(line) for line in daemon.log.splitlines() if line.startswith("{")]
    assert any(record["msg"].startswith("Listening on 127.0.0.1:") for record in records)
    assert {"time", "level", "source", "msg"} <= records[0].keys()
    others = [line for line in daemon.log.splitlines() if not line.startswith("{")]
    assert [line for line in others if "time=" in line] == []


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert (
            refused(tmp_path, OLLAMA_HOST=f"127.0.0.1:{port}")
            == f"Error: listen tcp 127.0.0.1:{port}: bind: address already in use"
        )


def test_a_second_daemon_leaves_the_first_alone(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    daemon = make_daemon()
    line = refused(tmp_path / "second", OLLAMA_HOST=f"127.0.0.1:{daemon.port}")
    assert line.endswith("bind: address already in use")
    assert daemon.get("/api/version")["version"]


def test_a_model_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = refused(tmp_path, OLLAMA_MODELS=str(tmp_path / "file" / "models"))
    assert line.startswith("Error: ")
    assert "not a directory" in line


def test_a_model_directory_without_permission(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        models = Path("/proc/models")  # where not even root may
    else:
        models = tmp_path / "models"
        models.mkdir(mode=0o500)
    line = refused(tmp_path, OLLAMA_MODELS=str(models))
    assert line.startswith("Error: ")
    assert str(models) in line


def test_a_home_that_cannot_hold_the_key(tmp_path: Path) -> None:
    (tmp_path / "home").symlink_to(tmp_path / "missing" / "home")
    line = refused(tmp_path / "other", HOME=str(tmp_path / "home"))
    assert line.startswith("Error: ")
    assert str(tmp_path / "home") in line


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("OLLAMA_ORIGINS", "example.com", "bad origin: origins must contain '*' or include"),
        ("OLLAMA_ORIGINS", "http://a, https://b", "bad origin: "),
        ("OLLAMA_ORIGINS", "http://*.a.*", "only one * is allowed"),
        ("OLLAMAD_LLAMA_SERVER", "/no/such/program", "/no/such/program"),
        ("OLLAMAD_LOG_FORMAT", "xml", 'must be "text" or "json"'),
        ("OLLAMA_HOST", "no-such-host.invalid", "lookup no-such-host.invalid: no such host"),
    ],
)
def test_values_that_make_no_sense(tmp_path: Path, variable: str, value: str, text: str) -> None:
    assert text in refused(tmp_path, **{variable: value})


def test_arguments_are_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ollamad", "serve", "now"],
        env=Daemon(tmp_path).env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")


def test_the_store_is_put_in_order(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    home = tmp_path / "home"
    blobs = home / "models" / "blobs"
    blobs.mkdir(parents=True)
    old, orphan, young, partial = (
        blobs / f"sha256:{'a' * 64}",
        blobs / f"sha256-{'b' * 64}",
        blobs / f"sha256-{'c' * 64}",
        blobs / f"sha256-{'d' * 64}-partial",
    )
    two_hours_ago = time.time() - 7200
    for path in (old, orphan, young, partial):
        path.touch()
        if path != young:
            os.utime(path, (two_hours_ago, two_hours_ago))
    make_daemon(home, OLLAMA_NOPRUNE="1").stop()
    assert {p.name[:8] for p in blobs.iterdir()} == {"sha256-a", "sha256-b", "sha256-c", "sha256-d"}
    make_daemon(home).stop()
    assert [p.name for p in blobs.iterdir()] == [young.name]


def test_systemd_is_told(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.settimeout(20)
        supervisor.bind(address)
        daemon = make_daemon(NOTIFY_SOCKET=address)
        assert supervisor.recv(100) == b"READY=1"
        assert daemon.get("/api/version")
        assert daemon.stop() == 0
        assert supervisor.recv(100) == b"STOPPING=1"


def test_requests_are_logged_and_on_demand_stored(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(OLLAMA_DEBUG_LOG_REQUESTS="1")
    body = b'{"model": "no-such-model", "prompt": "pr0mpt"}'
    status, _, _ = daemon.request("POST", "/api/generate?token=t0ken", body)
    assert status == 404
    assert daemon.stop() == 0
    (directory,) = daemon.home.glob("ollama-request-logs-*")
    stored, script = sorted(directory.iterdir())
    assert stored.read_bytes() == body
    assert f"url=${{1:-http://127.0.0.1:{daemon.port}}}" in script.read_text()
    assert re.search(
        r'msg=request status=404 duration=[\d.]+.?s client="?127.0.0.1"? method=POST '
        r"path=/api/generate$",
        daemon.log,
        re.MULTILINE,
    )
    assert "pr0mpt" not in daemon.log
    assert "t0ken" not in daemon.log
