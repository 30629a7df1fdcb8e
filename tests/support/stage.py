"""A daemon and runners that play a part: what they were started with, when they get ready, how
they end."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from support.creating import gguf
from support.daemon import eventually
from support.fake import FAKE_RUNNER, FakeDaemon, model_file


@dataclass(frozen=True)
class Start:
    """One start of a runner, whatever became of it."""

    pid: int
    argv: list[str]
    environ: dict[str, str]

    def value(self, flag: str) -> str | None:
        """What follows ``flag``; None when the flag is not there."""
        return self.argv[self.argv.index(flag) + 1] if flag in self.argv else None

    @property
    def model(self) -> str:
        return self.value("--model") or ""


class Gate:
    """A file that runners wait for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def open(self) -> None:
        self.path.touch()


class Stage(FakeDaemon):
    """``will`` tells the runners their part, ``clear`` begins a new act."""

    def __init__(self, home: Path, env: dict[str, str] | None = None) -> None:
        self._journal = home.with_name(f"{home.name}.journal")
        self._journal.touch()
        self._gates = 0
        # With this very interpreter, and without ``site``: every load waits for its start.
        program = home.with_name(f"{home.name}.llama-server")
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {FAKE_RUNNER} "$@"\n')
        program.chmod(0o755)
        super().__init__(home, {"OLLAMAD_LLAMA_SERVER": str(program), **(env or {})})

    def will(self, **script: Any) -> None:
        super().will(journal=str(self._journal), **script)

    def gate(self) -> Gate:
        self._gates += 1
        return Gate(self._journal.with_suffix(f".gate{self._gates}"))

    def clear(self) -> None:
        """Nothing loaded, nothing told, nothing written down."""
        self.will()
        self.forgive()
        eventually(lambda: self.family() == [], what="no runner is left")
        self._journal.write_text("")

    # --- models -----------------------------------------------------------------------------------

    def upload(self, file: Path) -> str:
        """The digest under which ``file`` is stored now."""
        content = file.read_bytes()
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        status, _, answer = self.request("POST", f"/api/blobs/{digest}", content)
        assert status in (200, 201), answer
        return digest

    def compose(self, name: str, main: Path, *others: Path, **fields: Any) -> None:
        """A model of several files; ``fields`` map more names of a create request to files."""
        request: dict[str, Any] = {"files": {f.name: self.upload(f) for f in (main, *others)}}
        for field, value in fields.items():
            is_file = isinstance(value, Path)
            request[field] = {value.name: self.upload(value)} if is_file else value
        answer = self.post("/api/create", {"model": name, "stream": False, **request})
        assert answer == {"status": "success"}

    def file(self, name: str, arch: str = "llama", **keys: Any) -> Path:
        return model_file(self.home, name, arch, **keys)

    def projector(self) -> Path:
        path = self.home / "projector.gguf"
        path.write_bytes(
            gguf(
                "clip",
                {"v.blk.0.weight": 64},
                clip__has_vision_encoder=True,
                clip__projector_type="mlp",
            )
        )
        return path

    def adapter(self) -> Path:
        path = self.home / "adapter.gguf"
        path.write_bytes(gguf(general__type="adapter", adapter__type="lora"))
        return path

    def blob(self, model: str) -> Path:
        """The weights of ``model``."""
        shown = self.post("/api/show", {"model": model})["modelfile"]
        files = [line for line in shown.splitlines() if line.startswith("FROM /")]
        return Path(files[0].removeprefix("FROM "))  # projectors come after it

    # --- what happened ----------------------------------------------------------------------------

    def loaded(self) -> list[str]:
        """Names in ``ps``, as it lists them."""
        return [model["name"].removesuffix(":latest") for model in self.get("/api/ps")["models"]]

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._journal.read_text().splitlines()]

    def starts(self) -> list[Start]:
        """Every start of a runner since ``clear``."""
        return [
            Start(event["pid"], event["argv"], event["environ"])
            for event in self.events()
            if event["event"] == "start"
        ]

    def requests(self, path: str) -> list[Any]:
        """The bodies that runners were sent since ``clear``."""
        return [e["body"] for e in self.events() if e["event"] == "request" and e["path"] == path]

    def failure(self, path: str, body: Any) -> tuple[int, str]:
        """Status and text of an error that comes instead of an answer."""
        status, _, data = self.request("POST", path, body)
        return status, json.loads(data)["error"]


@contextmanager
def staged(home: Path, **env: str) -> Iterator[Stage]:
    """A running Stage; afterwards nothing of it may be left, neither processes nor files."""
    stage = Stage(home, env)
    stage.start()
    try:
        yield stage
    finally:
        assert stage.process is not None
        pid = stage.process.pid
        stage.stop()
    left = [p for p in psutil.process_iter() if belongs_to(p, home) and p.pid != pid]
    assert left == []
    assert list(home.glob("ollamad-*")) == []
    assert "Traceback" not in stage.log


def belongs_to(process: psutil.Process, home: Path) -> bool:
    """Whether the process was started for the daemon with that home."""
    try:
        return process.environ().get("HOME") == str(home)
    except psutil.Error:
        return False
