"""How the daemon stops, with a stand-in for llama.cpp: runners-and-scheduling.md 2.13 and 5.5."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.creating import gguf
from support.daemon import Daemon, eventually

MakeDaemon = Callable[..., Daemon]
FAKE_RUNNER = str(Path(__file__).parents[1] / "fake_runner.py")
#: Unless its script says otherwise the stand-in goes on until it is cut off.
ENDLESS = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
SHUTTING_DOWN = {"error": "server is shutting down"}


@pytest.fixture
def with_model(make_daemon: MakeDaemon) -> Callable[..., Daemon]:
    """``with_model(script, **env)``: a daemon with the model ``m`` on a runner of that script."""

    def make(script: dict[str, Any] | None = None, **env: str) -> Daemon:
        script = {"interval_us": 5000, "tokens": 10_000_000, **(script or {})}
        daemon = make_daemon(
            OLLAMAD_LLAMA_SERVER=FAKE_RUNNER, FAKE_RUNNER=json.dumps(script), **env
        )
        model = daemon.home / "m.gguf"
        model.write_bytes(gguf(general__file_type=1, tokenizer__chat_template=TEMPLATE))
        daemon.create("m", model)
        return daemon

    return make


class Asking:
    """A request whose answer is read line by line; ``end`` reads the rest."""

    def __init__(self, daemon: Daemon, body: dict[str, Any]) -> None:
        self.connection = HTTPConnection("127.0.0.1", daemon.port, timeout=20)
        self.connection.request("POST", "/api/chat", json.dumps(body).encode())
        self._response: HTTPResponse | None = None

    @property
    def response(self) -> HTTPResponse:
        if self._response is None:
            self._response = self.connection.getresponse()
        return self._response

    def line(self) -> Any:
        return json.loads(self.response.readline())

    def end(self) -> list[Any]:
        return [json.loads(line) for line in self.response]


@contextlib.contextmanager
def asking(daemon: Daemon, body: dict[str, Any]) -> Iterator[Asking]:
    request = Asking(daemon, body)
    try:
        yield request
    finally:
        request.connection.close()


def runner_directories(daemon: Daemon) -> list[Path]:
    return list(daemon.home.glob("ollamad-*"))


def assert_gone(processes: list[psutil.Process], limit: float = 5) -> None:
    def gone() -> bool:
        return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)

    with contextlib.suppress(psutil.NoSuchProcess):
        eventually(gone, limit, f"{processes} are gone")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_an_idle_daemon(with_model: Callable[..., Daemon], number: int) -> None:
    daemon = with_model()
    daemon.post("/api/generate", {"model": "m"})
    # What was asked for its version and its devices at the start may still be on its way out.
    eventually(lambda: len(daemon.family()) == 2, what="a shim and a runner are left")
    runners = daemon.family()
    assert runner_directories(daemon)
    daemon.signal(number)
    assert daemon.wait() == 0
    assert_gone(runners, 0.5)
    assert runner_directories(daemon) == []
    assert (daemon.models / "manifests").is_dir()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", daemon.port))


def test_a_daemon_under_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    ignoring = (
        "import signal, runpy, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
        "sys.argv = ['ollamad', 'serve']; runpy.run_module('ollamad', run_name='__main__')"
    )
    daemon = Daemon(tmp_path / "home")
    with subprocess.Popen(
        [sys.executable, "-c", ignoring], env=daemon.env, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if "inference compute" in line)  # signals are heard
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(30) == 0
    assert "SIGHUP" not in rest


def test_a_signal_before_it_serves(tmp_path: Path) -> None:
    """A fifo in the place of server.json holds up the start until its writer is done."""
    daemon = Daemon(tmp_path / "home")
    (daemon.home / ".ollama").mkdir(parents=True)
    os.mkfifo(daemon.home / ".ollama" / "server.json")
    with subprocess.Popen(
        [sys.executable, "-m", "ollamad", "serve"], env=daemon.env, stderr=subprocess.PIPE
    ) as process:
        with (daemon.home / ".ollama" / "server.json").open("wb"):
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"Traceback" not in errors


def test_requests_end_in_the_time_of_grace(with_model: Callable[..., Daemon]) -> None:
    daemon = with_model({"tokens": 200}, OLLAMAD_SHUTDOWN_GRACE="60")
    with asking(daemon, ENDLESS) as request:
        assert request.line()["done"] is False
        runners = daemon.family()
        daemon.signal(signal.SIGTERM)
        eventually(lambda: "msg=stopping signal=SIGTERM" in daemon.log, what="stopping")
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", daemon.port))
        events = request.end()
    assert events[-1]["done"] is True
    assert events[-1]["eval_count"] == 200
    assert daemon.wait() == 0
    assert_gone(runners, 0.5)


def test_a_stream_that_outlasts_the_grace_ends_with_an_error(
    with_model: Callable[..., Daemon],
) -> None:
    daemon = with_model(OLLAMAD_SHUTDOWN_GRACE="100ms")
    with asking(daemon, ENDLESS) as request:
        assert request.line()["done"] is False
        runners = daemon.family()
        daemon.signal(signal.SIGTERM)
        events = request.end()
    assert events[-1] == SHUTTING_DOWN
    assert daemon.wait() == 0
    assert_gone(runners, 0.5)
    assert runner_directories(daemon) == []


def test_an_answer_that_has_not_begun_is_503(with_model: Callable[..., Daemon]) -> None:
    daemon = with_model(OLLAMAD_SHUTDOWN_GRACE="0")
    with asking(daemon, {**ENDLESS, "stream": False}) as request:
        eventually(lambda: daemon.get("/api/ps")["models"], what="the model is loaded")
        daemon.signal(signal.SIGTERM)
        assert request.response.status == 503
        assert json.loads(request.response.read()) == SHUTTING_DOWN
    assert daemon.wait() == 0


def test_those_who_wait_are_turned_away_at_once(with_model: Callable[..., Daemon]) -> None:
    daemon = with_model(OLLAMAD_SHUTDOWN_GRACE="-1")
    with asking(daemon, ENDLESS) as first:
        first.line()
        with asking(daemon, ENDLESS) as second:
            # The queue cannot be looked into from outside: the daemon has read the request when
            # it has answered a later one on a later connection.
            daemon.get("/api/version")
            daemon.signal(signal.SIGTERM)
            assert second.response.status == 503
            assert json.loads(second.response.read()) == SHUTTING_DOWN
        assert daemon.process is not None
        assert daemon.process.poll() is None, "the first one still runs"
        assert first.line()["done"] is False
    # Its client left: nothing is left to wait for.
    assert daemon.wait() == 0


@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)]
)
def test_a_second_signal_is_immediate(
    with_model: Callable[..., Daemon], first: int, second: int
) -> None:
    daemon = with_model(OLLAMAD_SHUTDOWN_GRACE="-1")
    with asking(daemon, ENDLESS) as request:
        request.line()
        runners = daemon.family()
        assert len(runners) == 2
        daemon.signal(first)
        eventually(lambda: "msg=stopping" in daemon.log, what="stopping")
        daemon.signal(second)
        assert daemon.wait(5) == 128 + second
        assert_gone(runners, 2)


def test_a_load_in_progress_is_given_up(with_model: Callable[..., Daemon]) -> None:
    loading = {"health": [{"status": 503, "body": {"error": {"message": "Loading model"}}}]}
    daemon = with_model(loading, OLLAMAD_SHUTDOWN_GRACE="0")
    with asking(daemon, ENDLESS) as request:
        eventually(lambda: "loading model" in daemon.log, what="the load has begun")
        eventually(lambda: len(daemon.family()) == 2, what="a runner is started")
        runners = daemon.family()
        daemon.signal(signal.SIGTERM)
        assert request.response.status == 503
        request.response.read()
    assert daemon.wait() == 0
    assert_gone(runners, 0.5)


def test_a_runner_that_ignores_sigterm_is_killed(with_model: Callable[..., Daemon]) -> None:
    daemon = with_model({"ignore_term": True})
    daemon.post("/api/generate", {"model": "m"})
    runners = daemon.family()
    assert len(runners) == 2
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert_gone(runners, 0.5)


def test_a_client_that_does_not_read_holds_nobody_up(with_model: Callable[..., Daemon]) -> None:
    daemon = with_model({"interval_us": 0, "token": "x" * 2000}, OLLAMAD_SHUTDOWN_GRACE="0")
    body = json.dumps(ENDLESS).encode()
    with socket.create_connection(("127.0.0.1", daemon.port)) as client:
        client.sendall(
            b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )
        client.recv(1)  # the answer has begun, and nobody will read more of it
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0


def test_an_upload_in_progress_leaves_nothing_behind(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(OLLAMAD_SHUTDOWN_GRACE="0")
    with socket.create_connection(("127.0.0.1", daemon.port)) as client:
        client.sendall(
            b"POST /api/blobs/sha256:%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999\r\n"
            b"\r\nbeginning" % (b"a" * 64)
        )
        blobs = daemon.models / "blobs"
        eventually(lambda: any(blobs.iterdir()), what="the upload has begun")
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0
    assert list(blobs.iterdir()) == []


def test_no_runner_outlives_a_daemon_that_is_killed(with_model: Callable[..., Daemon]) -> None:
    daemon = with_model()
    with asking(daemon, ENDLESS) as request:
        request.line()
        runners = daemon.family()
        assert len(runners) == 2
        daemon.signal(signal.SIGKILL)
        assert daemon.wait() == -signal.SIGKILL
        assert_gone(runners, 2)
    left = runner_directories(daemon)
    assert len(left) == 1
    # The next one clears away what the dead one left, and serves the same store.
    daemon.start()
    assert left[0] not in runner_directories(daemon)
    assert [m["name"] for m in daemon.get("/api/tags")["models"]] == ["m:latest"]
    with asking(daemon, ENDLESS) as request:
        assert request.line()["done"] is False


def test_many_signals_while_clients_come_and_go(with_model: Callable[..., Daemon]) -> None:
    daemon = with_model(OLLAMAD_SHUTDOWN_GRACE="200ms", OLLAMA_NUM_PARALLEL="2")
    outcomes: list[str] = []

    def client() -> None:
        while True:
            try:
                with asking(daemon, ENDLESS) as request:
                    if request.response.status != 200:
                        outcomes.append(f"{request.response.status}")
                        continue
                    outcomes.append(str(request.end()[-1]))
            except OSError:
                return

    threads = [threading.Thread(target=client, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(daemon.family()) == 2, what="a runner is started")
    runners = daemon.family()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert_gone(runners, 0.5)
    assert set(outcomes) <= {"503", str(SHUTTING_DOWN)}
    assert "Traceback" not in daemon.log
