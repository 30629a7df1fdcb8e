"""The small commands, errors and exit codes, as users and scripts see them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest
from scripted_server import Answer, Cli, Script, error, ok, stream

from ollamad.cli.answers import decode
from ollamad.cli.load import connection_text
from ollamad.version import API_VERSION
from ollamad.wire import ShowResponse

SHOWN = {"details": {}, "model_info": {}}
LOADED = stream({"done": True})


def test_list(cli: Cli, server: Script) -> None:
    server.on("GET /api/tags", ok({"models": [{"name": "m:latest", "digest": "a" * 64}]}))
    result = cli("ls")
    assert result.status == 0
    assert result.out.splitlines()[1] == "m:latest    aaaaaaaaaaaa    0 B     Never       "
    assert [r.method for r in server.requests] == ["HEAD", "GET"]


def test_list_of_a_server_without_models(cli: Cli, server: Script) -> None:
    server.on("GET /api/tags", ok({"models": None}))
    assert cli("list", "a", "b").out == "NAME    ID    SIZE    MODIFIED \n"


def test_ps(cli: Cli, server: Script) -> None:
    model = {"name": "m", "size": 10, "size_vram": 0, "context_length": 8, "new_field": 1}
    server.on("GET /api/ps", ok({"models": [model]}))
    assert "100% CPU" in cli("ps").out
    assert cli("ps", "M").out.count("\n") == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(b"server error", 500), "server error"),
        (error(500, "boom"), "boom"),
        (
            Answer(b"", 502),
            "something went wrong, please see the ollama server logs for details",
        ),
        (
            error(401, "unauthorized"),
            "something went wrong, please see the ollama server logs for details",
        ),
    ],
)
def test_errors_of_the_server(cli: Cli, server: Script, answer: Answer, message: str) -> None:
    server.on("GET /api/tags", answer)
    assert cli("list") == (1, "", f"Error: {message}\n")


def test_an_answer_that_is_no_json_is_an_error(cli: Cli, server: Script) -> None:
    server.on("GET /api/tags", Answer(b"<html>"))
    result = cli("list")
    assert result.status == 1
    assert result.err.startswith("Error: cannot read the server's answer: ")
    server.on("GET /api/tags", ok({"models": "none"}))
    assert cli("list").err.startswith("Error: cannot read the server's answer: ")


@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_that_is_no_utf8_is_an_error(cli: Cli, server: Script, status: int) -> None:
    server.on("GET /api/tags", Answer(b'{"error":"\xff"}', status))
    result = cli("list")
    assert result.status == 1
    assert result.err.startswith("Error: ")
    server.on("POST /api/generate", Answer(b'{"error":"\xff"}\n', status))
    server.on("POST /api/show", ok({}))
    result = cli("run", "m", "hello")
    assert result.status == 1
    assert "Error: " in result.err


def test_no_server(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        environ = {"OLLAMA_HOST": f"127.0.0.1:{listener.getsockname()[1]}"}
    message = "Error: could not connect to ollama server, run 'ollama serve' to start it\n"
    for words in (["list"], ["run", "x", "y"], ["create", "x"], ["rm", "x"]):
        assert cli(*words, environ=environ) == (1, "", message)
    assert cli(environ=environ) == (0, "", message)
    assert cli("-v", environ=environ) == (
        0,
        "Warning: could not connect to a running Ollama instance\n"
        f"Warning: client version is {API_VERSION}\n",
        "",
    )


def test_versions(cli: Cli, server: Script) -> None:
    server.on("GET /api/version", ok({"version": API_VERSION}))
    assert cli("-v").out == f"ollama version is {API_VERSION}\n"
    server.on("GET /api/version", ok({"version": "9.9"}))
    assert cli("--version").out == (
        f"ollama version is 9.9\nWarning: client version is {API_VERSION}\n"
    )
    assert not [r for r in server.requests if r.method == "HEAD"]


def test_cp(cli: Cli, server: Script) -> None:
    server.on("POST /api/copy", Answer())
    assert cli("cp", "a", "b") == (0, "copied 'a' to 'b'\n", "")
    assert server.requests[-1].json == {"source": "a", "destination": "b"}
    server.on("POST /api/copy", error(404, 'model "nope" not found'))
    assert cli("cp", "nope", "x") == (1, "", 'Error: model "nope" not found\n')


def test_stop(cli: Cli, server: Script) -> None:
    server.on("POST /api/show", ok(SHOWN))
    server.on("POST /api/generate", LOADED)
    assert cli("stop", "m") == (0, "", "")
    assert server.requests[-1].json == {"model": "m", "keep_alive": "0s"}
    server.on("POST /api/show", error(404, "model 'm' not found"))
    assert cli("stop", "m") == (1, "", 'Error: couldn\'t find model "m" to stop\n')


@pytest.mark.parametrize(
    ("model", "remote_host", "asked"),
    [
        ("m", "https://ollama.com:443", True),
        ("m", "https://ollama.com", True),
        ("m", "https://example.com", False),
        ("x:cloud", "", True),
        ("x:latest-cloud", "", True),
        ("x:cloud", "https://example.com", True),
    ],
)
def test_a_model_that_runs_elsewhere_is_not_loaded(
    cli: Cli, server: Script, model: str, remote_host: str, asked: bool
) -> None:
    server.on("POST /api/show", ok({**SHOWN, "remote_host": remote_host}))
    server.on("POST /api/me", ok({"name": "me"}))
    assert cli("stop", model) == (0, "", "")
    assert not server.sent("POST /api/generate")
    assert len(server.sent("POST /api/me")) == asked


def test_a_name_that_only_sounds_like_the_cloud_is_loaded_here(cli: Cli, server: Script) -> None:
    server.on("POST /api/show", ok(SHOWN))
    server.on("POST /api/generate", LOADED)
    assert cli("stop", "test-cloud-model").status == 0
    assert len(server.sent("POST /api/generate")) == 1


def test_who_is_not_signed_in_cannot_stop_a_cloud_model(cli: Cli, server: Script) -> None:
    server.on("POST /api/show", ok(SHOWN))
    server.on("POST /api/me", error(401, "unauthorized"))
    message = "something went wrong, please see the ollama server logs for details"
    assert cli("stop", "x:cloud") == (1, "", f"Error: {message}\n")


@pytest.mark.parametrize(
    ("remote_model", "remote_host", "text"),
    [
        ("gpt-oss:120b", "https://ollama.com:443", "'gpt-oss:120b' on 'ollama.com' ⚡"),
        ("", "https://ollama.com", "'m' on 'ollama.com' ⚡"),
        ("", "", "'m' on 'ollama.com' ⚡"),
        ("r", "https://example.com", "'r' on 'https://example.com'"),
    ],
)
def test_where_a_model_runs(remote_model: str, remote_host: str, text: str) -> None:
    shown = decode(
        ShowResponse,
        json.dumps({"remote_model": remote_model, "remote_host": remote_host}).encode(),
    )
    assert connection_text(shown, "m") == f"Connecting to {text}"


def test_rm_unloads_and_deletes_until_the_first_failure(cli: Cli, server: Script) -> None:
    server.on("POST /api/show", ok(SHOWN), error(404, "model 'missing' not found"))
    server.on("POST /api/generate", LOADED)
    server.on("DELETE /api/delete", Answer(), error(404, "model 'missing' not found"))
    assert cli("rm", "a", "missing", "b") == (
        1,
        "deleted 'a'\n",
        "Error: model 'missing' not found\n",
    )
    paths = [r.path for r in server.requests if r.method != "HEAD"]
    assert paths[:3] == ["/api/show", "/api/generate", "/api/delete"]
    assert server.sent("DELETE /api/delete")[0].json == {"model": "a", "name": "a"}
    assert len(server.sent("DELETE /api/delete")) == 2


def test_rm_goes_on_when_the_model_cannot_be_stopped(cli: Cli, server: Script) -> None:
    server.on("POST /api/show", error(500, "boom"))
    server.on("DELETE /api/delete", Answer())
    assert cli("rm", "m") == (0, "deleted 'm'\n", "Warning: unable to stop model 'm'\n")


def test_what_is_not_there_yet_says_so(cli: Cli) -> None:
    result = cli("launch", "claude")
    assert result.status == 1
    assert result.err.endswith(" is not available in ollamad yet\n")


def test_an_argument_that_is_no_utf8_is_an_error(cli: Cli) -> None:
    assert cli("cp", "\udcff", "b").err == "Error: an argument is not valid UTF-8\n"


def test_bare_ollama_tells_what_can_be_typed(cli: Cli) -> None:
    result = cli()
    assert result.status == 0
    assert "Available Commands:" in result.out


def test_list_imports_nothing_heavy(server: Script) -> None:
    server.on("GET /api/tags", ok({"models": []}))
    code = "import sys; from ollamad.cli.main import run; run(['list']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"OLLAMA_HOST": server.url},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    table, modules = done.stdout.splitlines()
    assert table == "NAME    ID    SIZE    MODIFIED "
    heavy = {"argparse", "asyncio", "email", "httpx", "quart", "ssl", "trio", "logging"}
    heavy |= {
        "cryptography",
        "httpx",
        "ollamad.registry",
        "ollamad.store.names",
        "subprocess",
        "urllib.request",
        "encodings.idna",
        "ollamad.settings",
        "ollamad.cli.proxy",
        "pathlib",
    }
    assert heavy & set(modules.split()) == set()


def test_a_reader_that_leaves_ends_the_program_quietly(server: Script) -> None:
    models = [{"name": f"model{n}" * 100} for n in range(2000)]
    server.on("GET /api/tags", ok({"models": models}))
    process = subprocess.Popen(
        [sys.executable, "-m", "ollamad", "list"],
        env={"OLLAMA_HOST": server.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert err == b""
    assert process.returncode == -13


def test_output_is_utf8_whatever_the_locale_says(server: Script) -> None:
    server.on("GET /api/tags", ok({"models": [{"name": "モデル"}]}))
    done = subprocess.run(
        [sys.executable, "-m", "ollamad", "list"],
        env={
            "OLLAMA_HOST": server.url,
            "LC_ALL": "C",
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
        },
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert "モデル" in done.stdout.decode("utf-8")
