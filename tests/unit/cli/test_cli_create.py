"""create: what is sent, uploaded and shown."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from scripted_server import Answer, Cli, Script, error, stream

OLD_SERVER = "path or Modelfile are required"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def creating(server: Script) -> Script:
    server.on("POST /api/create", stream({"status": "creating"}, {"status": "success"}))
    return server


def test_from_a_model(cli: Cli, creating: Script, tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text(
        "FROM foo\nSYSTEM be brief\nPARAMETER temperature 0.7\nPARAMETER stop a\nPARAMETER stop b\n"
    )
    result = cli("create", "NAME")
    assert (result.status, result.out) == (0, "")
    assert result.err == "gathering model components \ncreating \nsuccess \n"
    assert creating.requests[-1].json == {
        "model": "NAME",
        "from": "foo",
        "system": "be brief",
        "parameters": {"temperature": 0.7, "stop": ["a", "b"]},
    }


def test_files_are_uploaded_before_the_request(cli: Cli, creating: Script, tmp_path: Path) -> None:
    content = b"GGUF" + bytes(100)
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "w.gguf").write_bytes(content)
    (folder / "Modelfile").write_text("FROM ./w.gguf\n")
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    creating.on(f"POST /api/blobs/{digest}", Answer(b"", 201))
    result = cli("create", "m", "-f", "models/Modelfile", "-q", "q4_K_M")
    assert result.status == 0
    assert f"copying file {digest} 100%" in result.err
    upload, request = (r for r in creating.requests if r.method == "POST")
    assert upload.body == content
    assert upload.headers["content-type"] == "application/octet-stream"
    assert request.json == {"model": "m", "quantize": "q4_K_M", "files": {"w.gguf": digest}}


def test_an_upload_that_fails_ends_it(cli: Cli, creating: Script, tmp_path: Path) -> None:
    (tmp_path / "w.gguf").write_bytes(b"GGUF")
    (tmp_path / "Modelfile").write_text("FROM ./w.gguf\n")
    digest = "sha256:" + hashlib.sha256(b"GGUF").hexdigest()
    creating.on(f"POST /api/blobs/{digest}", error(500, "no space left on device"))
    result = cli("create", "m")
    assert result.status == 1
    assert result.err.endswith("\nError: no space left on device\n")
    assert not creating.sent("POST /api/create")


@pytest.mark.parametrize(
    ("modelfile", "message"),
    [
        ("SYSTEM x\n", "no FROM line"),
        ("FROM a\nPARAMETER temperature abc\n", "invalid float value [abc]"),
        ("FROM a\nPARAMETER foo 1\n", "unknown parameter 'foo'"),
        ("FROM a\nADAPTER ./nope.gguf\n", "stat {here}/nope.gguf: no such file or directory"),
    ],
)
def test_bad_modelfiles(
    cli: Cli, creating: Script, tmp_path: Path, modelfile: str, message: str
) -> None:
    (tmp_path / "Modelfile").write_text(modelfile)
    result = cli("create", "m")
    assert result.status == 1
    assert result.err.splitlines()[-1] == f"Error: {message.format(here=tmp_path)}"
    assert not creating.sent("POST /api/create")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bad name!"], "invalid model name: bad name!"),
        (["m", "-f", "nope"], "specified Modelfile wasn't found"),
        (["m"], "no Modelfile or safetensors files found"),
        (
            ["m", "--experimental"],
            "--experimental is not supported: this runtime runs GGUF models only",
        ),
        (["-q"], "flag needs an argument: 'q' in -q"),
    ],
)
def test_bad_command_lines(cli: Cli, creating: Script, words: list[str], message: str) -> None:
    result = cli("create", *words)
    assert result.status == 1
    assert result.err.splitlines()[-1] == f"Error: {message}"


def test_deprecated_parameters_are_named_on_stdout(
    cli: Cli, creating: Script, tmp_path: Path
) -> None:
    (tmp_path / "Modelfile").write_text("FROM a\nPARAMETER mirostat 1\n")
    assert cli("create", "m").out == "warning: parameter mirostat is deprecated\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("template error: x", "400 Bad Request: template error: x"),
        (
            OLD_SERVER,
            "the ollama server must be updated to use `ollama create` with this client",
        ),
    ],
)
def test_errors_of_the_server(
    cli: Cli, server: Script, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "Modelfile").write_text("FROM a\n")
    server.on("POST /api/create", error(400, text))
    assert cli("create", "m").err.splitlines()[-1] == f"Error: {message}"
