"""A scripted server, and the command line run against it in this process."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import pytest
from scripted_server import Cli, Result, Script, serving

from ollamad.cli.main import run


@pytest.fixture
def server() -> Iterator[Script]:
    with serving() as script:
        yield script


@pytest.fixture
def cli(server: Script, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs one command line. ``stdin`` is what is piped in."""

    def call(*words: str, stdin: bytes = b"", environ: dict[str, str] | None = None) -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = run(words, environ or {"OLLAMA_HOST": server.url})
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return call
