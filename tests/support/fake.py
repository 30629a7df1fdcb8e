"""A daemon whose runners are stand-ins: what they do is told by the test, what they are asked
can be read (``tests/fake_runner.py``)."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from support.creating import gguf
from support.daemon import Daemon

FAKE_RUNNER = Path(__file__).parents[1] / "fake_runner.py"

#: A chat template that says that the model calls tools and thinks.
JINJA = "{% for m in messages %}{{ m.content }}{% endfor %}{% if tools %}<think></think>{% endif %}"


def model_file(folder: Path, name: str, arch: str = "llama", **keys: Any) -> Path:
    """A little GGUF with what a daemon looks at before it loads one; no two are the same."""
    path = folder / f"{name}.gguf"
    sizes = {"context_length": 8192, "block_count": 1, "embedding_length": 8}
    metadata = {f"{arch}__{key}": value for key, value in sizes.items()}
    path.write_bytes(
        gguf(arch, **{**metadata, "general__file_type": 1, "general__basename": name, **keys})
    )
    return path


class FakeDaemon(Daemon):
    """A daemon on stand-in runners."""

    def __init__(self, home: Path, env: dict[str, str] | None = None) -> None:
        self._script = home.with_name(f"{home.name}.script.json")
        self.will()
        super().__init__(
            home,
            {
                "OLLAMAD_LLAMA_SERVER": str(FAKE_RUNNER),
                "FAKE_RUNNER": f"@{self._script}",
                **(env or {}),
            },
        )

    def will(self, **script: Any) -> None:
        """What all runners do from now on."""
        new = self._script.with_suffix(".new")
        new.write_text(json.dumps(script))
        new.replace(self._script)

    def forgive(self) -> None:
        """Unload everything, so that runners that died often may be started again at once."""
        for model in self.get("/api/tags")["models"]:
            self.request("POST", "/api/generate", {"model": model["name"], "keep_alive": 0})

    def add(self, name: str, arch: str = "llama", **keys: Any) -> None:
        """A model of that name; ``keys`` go into its file."""
        self.create(name, model_file(self.home, name.replace("/", "-"), arch, **keys))

    def runners(self) -> list[psutil.Process]:
        """The stand-ins themselves, without the shims that watch them."""
        assert self.process is not None
        return [p for p in self.family() if p.ppid() != self.process.pid]

    def asked(self, path: str, since: float = 0) -> list[Any]:
        """The bodies of the requests to ``path`` that the living runners got, in order;
        ``since``: those after this time of `time.time`."""
        found = [
            request
            for runner in self.runners()
            for request in _requests(runner)
            if request["path"] == path and request["time"] >= since
        ]
        return [request["body"] for request in sorted(found, key=lambda r: r["time"])]


def _requests(runner: psutil.Process) -> Any:
    line = runner.cmdline()
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(line[line.index("--host") + 1])
    key = runner.environ()["LLAMA_API_KEY"]
    connection.request("GET", "/fake/requests", headers={"Authorization": f"Bearer {key}"})
    try:
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


@contextmanager
def running_fake(home: Path, **env: str) -> Iterator[FakeDaemon]:
    daemon = FakeDaemon(home, env)
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.stop()
