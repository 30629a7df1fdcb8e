"""One-shot answers and vectors."""

from __future__ import annotations

import base64
import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from scripted_server import Answer, Cli, Request, Script, error, ok, stream

from ollamad.cli.main import run

SHOWN = {"details": {}, "model_info": {}, "capabilities": ["completion"]}
NOT_SUPPORTED = '"m" does not support thinking'


@pytest.fixture
def model(server: Script) -> Script:
    """A server with the model ``m`` that says ``ab``."""
    server.on("POST /api/show", ok(SHOWN))
    server.on(
        "POST /api/generate",
        stream(
            {"response": "a", "done": False},
            {"response": "b", "done": False},
            {"response": "", "done": True, "total_duration": 1500, "eval_count": 2},
        ),
    )
    return server


def test_a_prompt_is_answered(cli: Cli, model: Script) -> None:
    assert cli("run", "m", "hello", "there") == (0, "ab\n\n", "")
    assert model.requests[-1].json == {"model": "m", "prompt": "hello there", "options": {}}
    assert model.requests[-1].headers["accept"] == "application/x-ndjson"


def test_stdin_comes_first(cli: Cli, model: Script) -> None:
    cli("run", "m", "there", stdin=b"hi\n")
    assert model.requests[-1].json["prompt"] == "hi\n there"
    cli("run", "m", stdin=b"\xff")
    assert model.requests[-1].json["prompt"] == "\ufffd"


def test_nothing_to_say_preloads(cli: Cli, model: Script) -> None:
    model.on("POST /api/generate", stream({"response": "", "done": True}))
    assert cli("run", "m", "") == (0, "", "")
    assert cli("run", "m") == (0, "", "")
    assert len(model.sent("POST /api/generate")) == 2


def test_all_flags_reach_the_request(cli: Cli, model: Script) -> None:
    cli("run", "--keepalive=5m", "m", "--format", '{"type":  "object"}', "hi", "--think=high")
    assert model.requests[-1].json == {
        "model": "m",
        "prompt": "hi",
        "options": {},
        "keep_alive": "5m0s",
        "format": {"type": "object"},
        "think": "high",
    }
    assert b'{"type":  "object"}' in model.requests[-1].body
    cli("run", "m", "hi", "--format", "json", "--keepalive", "-1s", "--think=false")
    last = model.requests[-1].json
    assert (last["format"], last["keep_alive"], last["think"]) == ("json", -1, False)


def test_think_does_not_eat_the_next_word(cli: Cli, model: Script) -> None:
    cli("run", "m", "--think", "high")
    assert model.requests[-1].json["prompt"] == "high"
    assert model.requests[-1].json["think"] is True


def test_a_model_that_can_think_does(cli: Cli, model: Script) -> None:
    model.on("POST /api/show", ok({**SHOWN, "capabilities": ["thinking"]}))
    cli("run", "m", "hi")
    assert model.requests[-1].json["think"] is True


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--think=off"],
            'invalid value for --think: "off" (must be true, false, high, medium, low, or max)',
        ),
        (["--keepalive", "10"], 'time: missing unit in duration "10"'),
        (["--keepalive", "abc"], 'time: invalid duration "abc"'),
        (
            ["--dimensions", "x"],
            'invalid argument "x" for "--dimensions" flag: strconv.ParseInt: parsing "x": '
            "invalid syntax",
        ),
    ],
)
def test_bad_flags(cli: Cli, model: Script, flags: list[str], message: str) -> None:
    assert cli("run", "m", "hi", *flags) == (1, "", f"Error: {message}\n")
    assert not model.sent("POST /api/show")


def test_a_format_that_is_no_json_is_an_error_before_any_request(cli: Cli, model: Script) -> None:
    result = cli("run", "m", "hi", "--format", "xyz")
    assert result.status == 1
    assert result.err.startswith("Error: --format must be json or a JSON schema: ")
    assert not model.sent("POST /api/show")


def test_verbose_shows_timings_on_stderr(cli: Cli, model: Script) -> None:
    assert cli("run", "m", "hi", "--verbose") == (
        0,
        "ab\n\n",
        "total duration:       1.5µs\neval count:           2 token(s)\n",
    )


def test_a_stream_that_never_says_done_has_no_timings(cli: Cli, model: Script) -> None:
    model.on("POST /api/generate", stream({"response": "a", "eval_count": 1}))
    assert cli("run", "m", "hi", "--verbose") == (0, "a\n\n", "")


def test_thinking_is_shown_or_hidden(cli: Cli, model: Script) -> None:
    events = stream({"thinking": "a"}, {"thinking": "b\n"}, {"response": "X"})
    model.on("POST /api/generate", events)
    assert cli("run", "m", "hi").out == "Thinking...\nab\n...done thinking.\n\nX\n\n"
    assert cli("run", "m", "hi", "--hidethinking").out == "X\n\n"


def test_tool_calls_are_told(cli: Cli, model: Script) -> None:
    calls = [
        {"function": {"name": "f", "arguments": {"b": 1, "a": "x"}}},
        {"function": {"name": "g", "arguments": {}}},
    ]
    model.on("POST /api/generate", stream({"tool_calls": calls}))
    assert cli("run", "m", "hi").out == (
        '  Model called a non-existent function \'f()\' with arguments: {"b":1,"a":"x"}\n'
        "  Model called a non-existent function 'g()' with arguments: {}\n\n"
    )


@pytest.mark.parametrize(
    ("answer", "out", "message"),
    [
        (error(400, NOT_SUPPORTED), "", f"400 Bad Request: {NOT_SUPPORTED}"),
        (error(500, "boom"), "", "500 Internal Server Error: boom"),
        (Answer(b"TEXT", 500), "", "500 Internal Server Error: TEXT"),
        (Answer(b"", 500), "", "500 Internal Server Error"),
        (Answer(b"{}", 404, ""), "", "404 Not Found"),
        (Answer(b"not json"), "", "not json"),
        (stream({"response": "a"}, {"error": "boom"}), "a", "boom"),
        # An answer may well speak of errors.
        (stream({"response": '"error"'}, {"error": "boom"}), '"error"', "boom"),
    ],
)
def test_errors(cli: Cli, model: Script, answer: Answer, out: str, message: str) -> None:
    model.on("POST /api/generate", answer)
    assert cli("run", "m", "hi") == (1, out, f"Error: {message}\n")


@pytest.mark.parametrize("status", [400, 403, 500])
def test_only_a_missing_model_is_pulled(cli: Cli, server: Script, status: int) -> None:
    server.on("POST /api/show", error(status, "invalid model name"))
    assert cli("run", "bad name!", "hi") == (1, "", "Error: invalid model name\n")
    assert not server.sent("POST /api/pull")


@pytest.mark.parametrize("route", ["POST /api/show", "POST /api/generate"])
def test_who_is_not_signed_in_is_told_how(cli: Cli, model: Script, route: str) -> None:
    body = b'{"error":"unauthorized","signin_url":"https://example.com/x"}'
    model.on(route, Answer(body, 401))
    assert cli("run", "m", "hi") == (
        0,
        "You need to be signed in to Ollama to run Cloud models.\n\n"
        "If your browser did not open, navigate to:\n    https://example.com/x\n\n",
        "",
    )


# --- cloud models ---------------------------------------------------------------------------------


@pytest.mark.parametrize("listed", [{"name": "gpt-oss:20b-cloud"}, {"model": "GPT-OSS:20b:cloud"}])
def test_a_listed_cloud_model_is_not_pulled(cli: Cli, model: Script, listed: object) -> None:
    model.on("GET /api/tags", ok({"models": [{"name": "other"}, listed]}))
    assert cli("run", "gpt-oss:20b:cloud", "hi") == (0, "ab\n\n", "")
    assert not model.sent("POST /api/pull")
    assert model.sent("POST /api/generate")[0].json["model"] == "gpt-oss:20b:cloud"


@pytest.mark.parametrize(
    "answer", [stream({"status": "success"}), stream({"error": "boom"}), error(500, "boom")]
)
def test_an_unlisted_cloud_model_is_pulled_silently(
    cli: Cli, model: Script, answer: Answer
) -> None:
    model.on("GET /api/tags", ok({"models": []}))
    model.on("POST /api/pull", answer)
    assert cli("run", "gpt-oss:20b:cloud", "hi") == (0, "ab\n\n", "")
    assert [r.json["model"] for r in model.sent("POST /api/pull")] == ["gpt-oss:20b-cloud"]


def test_a_cloud_model_runs_where_nothing_can_be_listed(cli: Cli, model: Script) -> None:
    model.on("GET /api/tags", error(500, "boom"))
    assert cli("run", "x:cloud", "hi") == (0, "ab\n\n", "")
    assert not model.sent("POST /api/pull")


def test_models_of_this_machine_are_not_looked_up(cli: Cli, model: Script) -> None:
    cli("run", "my-cloud-model", "hi")
    assert [r.path for r in model.requests] == ["/", "/api/show", "/api/generate"]


@pytest.fixture
def embedder(server: Script) -> Script:
    server.on("POST /api/show", ok({**SHOWN, "capabilities": ["embedding"]}))
    server.on("POST /api/embed", ok({"embeddings": [[0.1, 0.2, 0.3]]}))
    return server


def test_an_embedding(cli: Cli, embedder: Script) -> None:
    assert cli("run", "m", "hello", "world") == (0, "[0.1,0.2,0.3]\n", "")
    assert embedder.requests[-1].json == {"model": "m", "input": "hello world"}


def test_flags_of_embeddings(cli: Cli, embedder: Script) -> None:
    flags = ["--truncate", "--dimensions", "2", "--keepalive", "5m"]
    cli("run", "m", "additional args", *flags, stdin=b"piped text")
    assert embedder.requests[-1].json == {
        "model": "m",
        "input": "piped text additional args",
        "truncate": True,
        "dimensions": 2,
        "keep_alive": "5m0s",
    }
    cli("run", "m", "x", "--truncate=false")
    assert embedder.requests[-1].json["truncate"] is False


def test_numbers_of_a_vector_are_short(cli: Cli, embedder: Script) -> None:
    embedder.on("POST /api/embed", Answer(b'{"embeddings":[[1e-9,1.0,-0.5,123456789.123]]}'))
    assert cli("run", "m", "x").out == "[1e-9,1,-0.5,123456790]\n"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b'{"embeddings":[]}', "no embeddings returned"),
        (b'{"embeddings":null}', "no embeddings returned"),
        (b"{}", "cannot read the server's answer: \"'embeddings'\""),
    ],
)
def test_answers_without_a_vector(cli: Cli, embedder: Script, answer: bytes, message: str) -> None:
    embedder.on("POST /api/embed", Answer(answer))
    assert cli("run", "m", "x") == (1, "", f"Error: {message}\n")


def test_an_embedding_needs_text(cli: Cli, embedder: Script) -> None:
    assert cli("run", "m").err == (
        'Error: embedding models require input text. Usage: ollama run m "your text here"\n'
    )


def test_files_go_along_with_the_prompt(cli: Cli, model: Script, tmp_path: Path) -> None:
    image = b"\x89PNG\r\n\x1a\nrest"
    path = tmp_path / "i.png"
    path.write_bytes(image)
    model.on("POST /api/show", ok({**SHOWN, "capabilities": ["vision"]}))
    result = cli("run", "m", f"before {path} after")
    assert result.err == f"Added image '{path}'\n"
    assert model.requests[-1].json["prompt"] == "before  after"
    assert model.requests[-1].json["images"] == [base64.b64encode(image).decode()]


def test_a_model_without_eyes_gets_the_path(cli: Cli, model: Script, tmp_path: Path) -> None:
    path = tmp_path / "i.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    cli("run", "m", str(path))
    assert model.requests[-1].json["prompt"] == str(path)


def test_an_interrupt_cancels_the_request_and_is_no_failure(
    model: Script, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted = threading.Event()

    def generate(_: Request) -> Answer:
        # To the main thread, as a terminal would.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        interrupted.wait(10)
        return Answer()

    model.on("POST /api/generate", generate)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert run(["run", "m", "hi"], {"OLLAMA_HOST": model.url}) == 0
    interrupted.set()
    assert capsys.readouterr().out == ""


def test_an_answer_on_a_terminal_is_wrapped_and_the_spinner_erased(model: Script) -> None:
    model.on("POST /api/generate", stream({"thinking": "hmm"}, {"response": "X", "done": True}))
    parent, child = os.openpty()
    with os.fdopen(parent, "rb", buffering=0) as terminal:
        process = subprocess.Popen(
            [sys.executable, "-m", "ollamad", "run", "m", "hi"],
            env={"OLLAMA_HOST": model.url},
            stdin=subprocess.DEVNULL,
            stdout=child,
            stderr=subprocess.PIPE,
        )
        os.close(child)
        _, err = process.communicate(timeout=60)
        written = terminal.read(1 << 16)
    assert (process.returncode, err) == (0, b"")
    assert written == (
        b"\x1b[38;5;245m\x1b[1mThinking...\r\n\x1b[0m\x1b[38;5;245mhmm\r\n"
        b"\x1b[38;5;245m\x1b[1m...done thinking.\r\n\r\n\x1b[0mX\r\n\r\n"
    )
