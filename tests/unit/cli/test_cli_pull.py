"""``pull``, and the pull that ``run`` and ``/load`` do by themselves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Answer, Cli, Request, Script, error, ok, stream
from support.daemon import eventually
from support.terminal import Terminal, on_terminal, screen

DIGEST = f"sha256:667b0c1932bc{'a' * 52}"
SHOWN = {"details": {}, "model_info": {}, "capabilities": ["completion"]}
PULLED = stream(
    {"status": "pulling manifest"},
    {"status": "pulling 667b0c1932bc", "digest": DIGEST, "total": 4_900_000_000},
    {
        "status": "pulling 667b0c1932bc",
        "digest": DIGEST,
        "total": 4_900_000_000,
        "completed": 4_900_000_000,
    },
    {"status": "verifying sha256 digest"},
    {"status": "writing manifest"},
    {"status": "success"},
)
NO_MODEL = "pull model manifest: file does not exist"
UNKNOWN = stream({"status": "pulling manifest"}, {"error": NO_MODEL})
MISSING = error(404, "model 'm' not found")
TAKE_CLOUD = '"{0}:cloud" is available as a cloud model. Try:\n  ollama {1} {0}:cloud'


def pulls(server: Script) -> list[Any]:
    return [request.json for request in server.sent("POST /api/pull")]


def test_a_pull_writes_a_line_for_everything_that_happened(cli: Cli, server: Script) -> None:
    server.on("POST /api/pull", PULLED)
    result = cli("pull", "m")
    assert (result.status, result.out) == (0, "")
    assert result.err.splitlines() == [
        "pulling manifest ",
        f"pulling 667b0c1932bc: 100% ▕{'█' * 18}▏ 4.9 GB{' ' * 25}",
        "verifying sha256 digest ",
        "writing manifest ",
        "success ",
    ]
    assert [f"{r.method} {r.path}" for r in server.requests] == ["HEAD /", "POST /api/pull"]
    # ``name`` is for very old servers.
    assert pulls(server) == [{"model": "m", "name": "m"}]
    assert server.requests[-1].headers["accept"] == "application/x-ndjson"


def test_insecure_is_passed_on(cli: Cli, server: Script) -> None:
    server.on("POST /api/pull", PULLED)
    cli("pull", "--insecure", "h:1/n/m")
    assert pulls(server) == [{"model": "h:1/n/m", "name": "h:1/n/m", "insecure": True}]


@pytest.mark.parametrize("words", [[], ["a", "b"]])
def test_one_model_at_a_time(cli: Cli, server: Script, words: list[str]) -> None:
    message = f"Error: accepts 1 arg(s), received {len(words)}\n"
    assert cli("pull", *words) == cli("push", *words) == (1, "", message)
    assert server.requests == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (error(400, "invalid model name"), "400 Bad Request: invalid model name"),
        (
            error(400, 'use either :local or :cloud, not both: "m:cloud:local"'),
            '400 Bad Request: use either :local or :cloud, not both: "m:cloud:local"',
        ),
        (error(500, "insecure protocol http"), "500 Internal Server Error: insecure protocol http"),
        # No network, no permission, a full disk: what the server says, as it says it.
        (
            stream({"error": 'pull model manifest: Get "https://r/": dial tcp: lookup r: no'}),
            'pull model manifest: Get "https://r/": dial tcp: lookup r: no',
        ),
        (
            stream({"error": "pull model manifest: unauthorized: access denied"}),
            "pull model manifest: unauthorized: access denied",
        ),
        (
            stream({"error": "write /b/sha256-x-partial: no space left on device"}),
            "write /b/sha256-x-partial: no space left on device",
        ),
        (
            stream({"error": "max retries exceeded: unexpected EOF"}),
            "max retries exceeded: unexpected EOF",
        ),
        (Answer(b"<html>"), "<html>"),
        (error(401, "x"), "401 Unauthorized"),
    ],
)
def test_errors(cli: Cli, server: Script, answer: Answer, message: str) -> None:
    server.on("POST /api/pull", answer)
    result = cli("pull", "m")
    assert (result.status, result.out) == (1, "")
    assert result.err.splitlines()[-1] == f"Error: {message}"
    assert not server.sent("POST /api/show")


def test_an_error_after_progress_is_seen(cli: Cli, server: Script) -> None:
    event = {"status": "", "digest": DIGEST, "total": 4_900_000_000, "completed": 2_450_000_000}
    server.on("POST /api/pull", stream(event, {"error": "mid-stream error"}))
    assert cli("pull", "m") == (
        1,
        "",
        f"pulling 667b0c1932bc:  50% ▕█████████         ▏ 2.5 GB/4.9 GB{' ' * 18}\n"
        "Error: mid-stream error\n",
    )


def test_what_a_registry_says_does_not_steer_the_terminal(cli: Cli, server: Script) -> None:
    server.on("POST /api/pull", stream({"error": "500: \x1b]0;title\x07\r\nline\ttwo"}))
    assert cli("pull", "m").err == "Error: 500: \\x1b]0;title\\x07\\x0d\nline\ttwo\n"


@pytest.mark.parametrize("words", [["pull", "m"], ["push", "h/n/m"]])
def test_a_server_that_dies_meanwhile(cli: Cli, server: Script, words: list[str]) -> None:
    def dying() -> Iterator[bytes]:
        yield b'{"status":"pulling manifest"}\n'
        raise ConnectionError

    server.on(f"POST /api/{words[0]}", Answer(dying()))
    result = cli(*words)
    assert (result.status, result.out) == (1, "")
    last = result.err.splitlines()[-1]
    assert last.startswith(f"Error: lost the connection to the server during the {words[0]}: ")
    assert "unexpected EOF" in last
    assert f"'ollama {words[0]} {words[1]}'" in last


# --- the cloud's model of the same name (16.6) ----------------------------------------------------


@pytest.mark.parametrize("model", ["some-model", "user/some-model"])
def test_the_cloud_is_named_where_nobody_can_be_asked(cli: Cli, server: Script, model: str) -> None:
    server.on("POST /api/pull", UNKNOWN)
    server.on("POST /api/show", ok(SHOWN))
    result = cli("pull", model)
    assert result == (
        1,
        "",
        f"pulling manifest \nError: {NO_MODEL}\n\n{TAKE_CLOUD.format(model, 'pull')}\n",
    )
    assert [r.json["model"] for r in server.sent("POST /api/show")] == [f"{model}:cloud"]
    assert len(pulls(server)) == 1


def test_run_names_itself(cli: Cli, server: Script) -> None:
    server.on("POST /api/pull", UNKNOWN)
    server.on("POST /api/show", MISSING, ok(SHOWN))
    assert cli("run", "m", "hi").err.endswith(
        f"Error: {NO_MODEL}\n\n{TAKE_CLOUD.format('m', 'run')}\n"
    )
    assert not server.sent("POST /api/generate")


def test_an_error_with_a_status_is_as_good(cli: Cli, server: Script) -> None:
    server.on("POST /api/pull", error(500, NO_MODEL))
    server.on("POST /api/show", ok(SHOWN))
    assert cli("pull", "m").err.endswith(TAKE_CLOUD.format("m", "pull") + "\n")


@pytest.mark.parametrize("answer", [MISSING, error(500, "x"), error(401, "unauthorized")])
def test_without_such_a_model_in_the_cloud(cli: Cli, server: Script, answer: Answer) -> None:
    server.on("POST /api/pull", UNKNOWN)
    server.on("POST /api/show", answer)
    assert cli("pull", "some-model").err == f"pulling manifest \nError: {NO_MODEL}\n"
    assert len(server.sent("POST /api/show")) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["some-model:9b"],
        ["some-model:latest"],
        ["some-model:cloud"],
        ["some-model:9b-cloud"],
        ["some-model:local"],
        ["some-model", "--insecure"],
        ["registry.example.com/ns/some-model"],
        ["registry.example.com:5000/ns/some-model"],
    ],
)
def test_names_that_the_cloud_is_not_asked_for(cli: Cli, server: Script, words: list[str]) -> None:
    server.on("POST /api/pull", UNKNOWN)
    server.on("POST /api/show", ok(SHOWN))
    assert cli("pull", *words).err == f"pulling manifest \nError: {NO_MODEL}\n"
    assert not server.sent("POST /api/show")


def test_the_cloud_is_no_answer_to_other_errors(cli: Cli, server: Script) -> None:
    server.on("POST /api/pull", stream({"error": "pull model manifest: 500: boom"}))
    assert cli("pull", "some-model").err == "Error: pull model manifest: 500: boom\n"
    assert not server.sent("POST /api/show")


# --- run ------------------------------------------------------------------------------------------


def test_run_pulls_what_is_missing(cli: Cli, server: Script) -> None:
    server.on("POST /api/show", MISSING, ok(SHOWN))
    server.on("POST /api/pull", PULLED)
    server.on("POST /api/generate", stream({"response": "ab"}, {"response": "", "done": True}))
    result = cli("run", "--insecure", "m", "hi")
    assert (result.status, result.out) == (0, "ab\n\n")
    assert pulls(server) == [{"model": "m", "name": "m", "insecure": True}]
    paths = [r.path for r in server.requests]
    assert paths == ["/", "/api/show", "/api/pull", "/api/show", "/api/generate"]


def test_run_pulls_no_cloud_model(cli: Cli, server: Script) -> None:
    server.on("POST /api/show", error(404, "model 'm:cloud' not found"))
    assert cli("run", "m:cloud", "hi") == (1, "", "Error: model 'm:cloud' not found\n")
    assert not pulls(server)


# --- /load ----------------------------------------------------------------------------------------


@pytest.fixture
def talk(server: Script, tmp_path: Path) -> Iterator[Terminal]:
    """A conversation with ``m`` at its prompt."""

    def show(request: Request) -> Answer:
        stored = request.json["model"] == "m" or server.sent("POST /api/pull")
        return ok(SHOWN) if stored else error(404, "model 'other' not found")

    server.on("POST /api/show", show)
    server.on("POST /api/generate", stream({"done": True}))
    server.on("POST /api/chat", stream({"message": {"content": "hello"}, "done": True}))
    with _ollama(server, tmp_path, "run", "m") as terminal:
        terminal.until(rb">>> ")
        yield terminal


def _ollama(server: Script, home: Path, *words: str, **options: Any) -> Any:
    env = {"OLLAMA_HOST": server.url, "HOME": str(home)}
    return on_terminal([sys.executable, "-m", "ollamad", *words], env, **options)


def test_load_pulls_what_is_missing(server: Script, talk: Terminal) -> None:
    server.on("POST /api/pull", PULLED)
    talk.press(b"/load other\r")
    talk.until(rb"Loading model 'other'.*success.*>>> ")
    talk.press(b"hi\r")
    talk.until(rb"hello.*>>> ")
    assert server.sent("POST /api/chat")[0].json["model"] == "other"


@pytest.mark.parametrize("reason", [NO_MODEL, "no network"])
def test_load_of_what_no_registry_has(server: Script, talk: Terminal, reason: str) -> None:
    server.on("POST /api/show", error(404, "model 'other' not found"))
    server.on("POST /api/pull", stream({"error": reason}))
    talk.press(b"/load other\r")
    shown = talk.until(rb"Loading.*Couldn't find model 'other'.*>>> ")
    assert (b"error: " in shown) == (b"error: no network" in shown) == (reason == "no network")
    talk.press(b"hi\r")
    talk.until(rb"hello.*>>> ")
    assert server.sent("POST /api/chat")[0].json["model"] == "m"


def test_load_can_be_interrupted(server: Script, talk: Terminal) -> None:
    left = threading.Event()
    server.on("POST /api/pull", Answer(_half_and_no_more(left)))
    talk.press(b"/load other\r")
    talk.until(rb" 50% ")
    talk.press(b"\x03")
    talk.until(rb"Interrupted: 'ollama run other' goes on from here.*>>> ")
    talk.press(b"hi\r")
    talk.until(rb"hello.*>>> ")
    assert server.sent("POST /api/chat")[0].json["model"] == "m"
    left.set()


# --- on a terminal --------------------------------------------------------------------------------


def _half_and_no_more(left: threading.Event) -> Iterator[bytes]:
    """Events up to the middle, and then none until ``left`` or the client goes away."""
    event = {"status": "", "digest": DIGEST, "total": 4_900_000_000, "completed": 2_450_000_000}
    yield b'{"status":"pulling manifest"}\n' + json.dumps(event).encode() + b"\n"
    left.wait(60)


def test_bars_on_a_terminal(server: Script, tmp_path: Path) -> None:
    server.on("POST /api/pull", PULLED)
    with _ollama(server, tmp_path, "pull", "m") as terminal:
        assert terminal.wait() == 0
        assert terminal.is_as_before
    assert screen(terminal.seen) == [
        "pulling manifest",
        f"pulling 667b0c1932bc: 100% ▕{'█' * 18}▏ 4.9 GB",
        "verifying sha256 digest",
        "writing manifest",
        "success",
        "",
    ]
    # It ends with a frame and a line end, and the cursor is there.
    assert terminal.seen.endswith(b"\x1b[K\x1b[1G\x1b[?25h\x1b[?2026l\r\n")


@pytest.mark.parametrize("columns", [8, 20, 40, 60, 79, 200])
def test_no_line_wraps(server: Script, tmp_path: Path, columns: int) -> None:
    server.on("POST /api/pull", PULLED)
    with _ollama(server, tmp_path, "pull", "m", columns=columns) as terminal:
        assert terminal.wait() == 0
    lines = screen(terminal.seen, columns)
    assert len(lines) == 6
    assert lines[0] == "pulling manifest"[: columns - 1].rstrip()


def test_an_interrupt_ends_the_pull_at_once(server: Script, tmp_path: Path) -> None:
    left = threading.Event()
    server.on("POST /api/pull", Answer(_half_and_no_more(left)))
    with _ollama(server, tmp_path, "pull", "m") as terminal:
        terminal.until(rb" 50% ")
        terminal.press(b"\x03")
        # By the signal itself, as a shell wants to see it.
        assert terminal.wait() == -signal.SIGINT
        assert terminal.is_as_before
    left.set()
    bar, note, end = screen(terminal.seen)[-3:]
    assert bar.startswith("pulling 667b0c1932bc:  50% ▕")
    assert note == "Interrupted: 'ollama pull m' goes on from here"
    assert end == ""
    assert terminal.seen.count(b"\x1b[?25l") == terminal.seen.count(b"\x1b[?25h")
    assert b"Traceback" not in terminal.seen


def test_an_interrupt_before_anything_was_downloaded(server: Script, tmp_path: Path) -> None:
    left = threading.Event()

    def waiting() -> Iterator[bytes]:
        yield b'{"status":"pulling manifest"}\n'
        left.wait(60)

    server.on("POST /api/pull", Answer(waiting()))
    with _ollama(server, tmp_path, "pull", "m") as terminal:
        terminal.until(rb"pulling manifest")
        terminal.press(b"\x03")
        assert terminal.wait() == -signal.SIGINT
    left.set()
    assert b"Interrupted" not in terminal.seen


def test_the_server_sees_an_interrupted_pull_leave(server: Script) -> None:
    gone = threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield b'{"status":"pulling manifest"}\n'
        finally:
            gone.set()

    server.on("POST /api/pull", Answer(endless()))
    process = subprocess.Popen(
        [sys.executable, "-m", "ollamad", "pull", "m"],
        env={"OLLAMA_HOST": server.url},
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    eventually(lambda: server.sent("POST /api/pull"), what="the pull has begun")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert gone.wait(30)


# --- the question (16.6) --------------------------------------------------------------------------


@pytest.fixture
def only_cloud(server: Script) -> Script:
    """A server whose registry has ``some-model:cloud`` only."""

    def pull(request: Request) -> Answer:
        return PULLED if request.json["model"].endswith(":cloud") else UNKNOWN

    def show(request: Request) -> Answer:
        return ok(SHOWN) if request.json["model"].endswith(":cloud") else MISSING

    server.on("POST /api/pull", pull)
    server.on("POST /api/show", show)
    server.on("GET /api/tags", ok({"models": [{"name": "some-model:cloud"}]}))
    server.on("POST /api/generate", stream({"response": "ab"}, {"response": "", "done": True}))
    return server


def test_yes_pulls_from_the_cloud(only_cloud: Script, tmp_path: Path) -> None:
    with _ollama(only_cloud, tmp_path, "pull", "some-model") as terminal:
        terminal.until(rb'Did you mean "some-model:cloud"\?.*esc cancel')
        terminal.press(b"\r")
        assert terminal.wait() == 0
        assert terminal.is_as_before
    assert [p["model"] for p in pulls(only_cloud)] == ["some-model", "some-model:cloud"]
    # The display of the pull that failed is gone, and so is the question.
    lines = screen(terminal.seen)
    assert lines.count("pulling manifest") == 1
    assert lines[-2:] == ["success", ""]


def test_yes_lets_run_go_on_with_the_cloud(only_cloud: Script, tmp_path: Path) -> None:
    with _ollama(only_cloud, tmp_path, "run", "some-model", "hi") as terminal:
        terminal.until(rb"esc cancel")
        terminal.press(b"\r")
        terminal.until(rb"ab")
        assert terminal.wait() == 0
    assert only_cloud.sent("POST /api/generate")[0].json["model"] == "some-model:cloud"
    assert [p["model"] for p in pulls(only_cloud)] == ["some-model", "some-model:cloud"]


@pytest.mark.parametrize("key", [b"\x1b[C\r", b"\x1b", b"\x03"])
def test_no_and_cancel_leave_the_error(only_cloud: Script, tmp_path: Path, key: bytes) -> None:
    with _ollama(only_cloud, tmp_path, "pull", "some-model") as terminal:
        terminal.until(rb"esc cancel")
        terminal.press(key)
        assert terminal.wait() == 1
        assert terminal.is_as_before
    assert screen(terminal.seen) == [f"Error: {NO_MODEL}", ""]
    assert len(pulls(only_cloud)) == 1


@pytest.mark.parametrize("stream_name", ["stdin", "stdout"])
def test_both_ends_have_to_be_a_terminal(
    only_cloud: Script, tmp_path: Path, stream_name: str
) -> None:
    redirect = {stream_name: subprocess.DEVNULL}
    with _ollama(only_cloud, tmp_path, "pull", "some-model", redirect=redirect) as terminal:
        assert terminal.wait() == 1
    # Here the display stays.
    assert screen(terminal.seen) == [
        "pulling manifest",
        f"Error: {NO_MODEL}",
        "",
        *TAKE_CLOUD.format("some-model", "pull").splitlines(),
        "",
    ]
