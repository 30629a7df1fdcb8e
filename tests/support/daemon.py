"""The real daemon as a subprocess, with its own home and model directory, on a free port."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil

START_LIMIT = 30.0
STOP_LIMIT = 30.0
_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """In the child: SIGTERM when the tests are killed, for then nobody calls ``stop``."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Daemon:
    """``ollamad serve`` for a test: started by ``start``, always stopped by ``stop``."""

    #: What the interpreter is given.
    program: tuple[str, ...] = ("-m", "ollamad", "serve")

    def __init__(self, home: Path, env: dict[str, str] | None = None) -> None:
        self.home = home
        self.models = home / "models"
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TMPDIR": str(home),
            "OLLAMA_HOST": "127.0.0.1:0",
            "OLLAMA_MODELS": str(self.models),
            "PYTHONUNBUFFERED": "1",
            # Nobody is there: no test asks the real cloud.
            "OLLAMA_CLOUD_BASE_URL": "http://127.0.0.1:1",
            **{name: os.environ[name] for name in ("GOMP_SPINCOUNT",) if name in os.environ},
            **(env or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self._log: list[str] = []
        self._listening = threading.Event()
        self._reader: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return "\n".join(self._log)

    def start(self) -> Daemon:
        self.home.mkdir(parents=True, exist_ok=True)
        self._listening.clear()
        self.process = subprocess.Popen(
            [sys.executable, *self.program],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        if not self._listening.wait(START_LIMIT) or not self.port:
            self.stop()
            raise AssertionError(f"the daemon did not start:\n{self.log}")
        return self

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            self._log.append(line)
            found = re.search(r"Listening on \S*?:(\d+) \(version", line)
            if found:
                self.port = int(found[1])
                self._listening.set()
        self._listening.set()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, limit: float = STOP_LIMIT) -> int:
        assert self.process is not None
        return self.process.wait(limit)

    def stop(self) -> int:
        """Stop it as an operator would; kill it when it does not obey (and fail the test)."""
        process = self.process
        if process is None:
            return 0
        family = self.family()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError(f"the daemon did not stop on SIGTERM:\n{self.log}") from None
            finally:
                for child in family:
                    if alive(child):
                        child.kill()
        if self._reader is not None:
            self._reader.join(5)
        self.process = None
        return process.returncode

    def family(self) -> list[psutil.Process]:
        """All living descendants of the daemon: shims and runners."""
        assert self.process is not None
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [c for c in children if alive(c)]

    def connection(self, timeout: float = 120) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on its own connection: status, lower-case headers, body."""
        connection = self.connection()
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        try:
            connection.request(method, path, data, headers or {})
            response = connection.getresponse()
            return (
                response.status,
                {k.lower(): v for k, v in response.getheaders()},
                response.read(),
            )
        finally:
            connection.close()

    def post(self, path: str, body: Any) -> Any:
        """The decoded answer of a POST; fails the test on an error status."""
        status, _, data = self.request("POST", path, body)
        assert status == 200, f"{path}: {status} {data!r}"
        return json.loads(data) if data else None

    def get(self, path: str) -> Any:
        status, _, data = self.request("GET", path)
        assert status == 200, f"{path}: {status} {data!r}"
        return json.loads(data)

    def stream(self, path: str, body: Any) -> Generator[dict[str, Any], None, None]:
        """The events of a streaming POST as they arrive; closing the iterator disconnects."""
        connection = self.connection()
        try:
            connection.request("POST", path, json.dumps(body).encode())
            response = connection.getresponse()
            assert response.status == 200, f"{path}: {response.status} {response.read()!r}"
            for line in response:
                yield json.loads(line)
        finally:
            connection.close()

    def create(self, name: str, gguf: Path, **fields: Any) -> None:
        """A model from a GGUF file: upload as a client does, then create."""
        import hashlib

        with gguf.open("rb") as file:
            digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        with gguf.open("rb") as file:
            connection = self.connection()
            connection.request("POST", f"/api/blobs/{digest}", file)
            response = connection.getresponse()
            response.read()
            assert response.status in (200, 201)
            connection.close()
        answer = self.post(
            "/api/create",
            {"model": name, "files": {gguf.name: digest}, "stream": False, **fields},
        )
        assert answer == {"status": "success"}


def alive(process: psutil.Process) -> bool:
    """Whether it runs. It may end between psutil's question and the answer."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def eventually(check: Any, limit: float = 10.0, what: str = "condition") -> None:
    """Poll the outside world (processes, files) until ``check()`` holds; fail after ``limit``."""
    end = time.monotonic() + limit
    while not check():
        if time.monotonic() > end:
            raise AssertionError(f"not in {limit} s: {what}")
        time.sleep(0.02)


@contextmanager
def running(home: Path, env: dict[str, str] | None = None) -> Iterator[Daemon]:
    daemon = Daemon(home, env).start()
    try:
        yield daemon
    finally:
        daemon.stop()
