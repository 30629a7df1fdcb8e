"""``push``."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from scripted_server import Answer, Cli, Script, error, ok, stream
from support.terminal import on_terminal

from ollamad.cli.push import destination, is_ollamas
from ollamad.store.names import Name

DIGEST = f"sha256:abc123456789{'d' * 52}"
PUSHED = stream(
    {"status": "retrieving manifest"},
    {"status": "pushing abc123456789", "digest": DIGEST, "total": 250},
    {"status": "pushing abc123456789", "digest": DIGEST, "total": 250, "completed": 250},
    {"status": "pushing manifest"},
    {"status": "success"},
)
USER = ok({"id": "1", "email": "a@b.c", "name": "me", "plan": "free"})
NOT_YOURS = (
    "you are not authorized to push to this namespace, create the model under a namespace you own"
)


@pytest.fixture
def pushing(server: Script) -> Script:
    server.on("POST /api/me", USER)
    server.on("POST /api/push", PUSHED)
    return server


def pushes(server: Script) -> list[Any]:
    return [request.json for request in server.sent("POST /api/push")]


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("test-model", "https://ollama.com/test-model"),
        ("me/test-model:latest", "https://ollama.com/me/test-model"),
        ("me/x:q4", "https://ollama.com/me/x:q4"),
        ("registry.ollama.ai/me/x", "https://ollama.com/me/x"),
        ("h:5000/ns/m", "h:5000/ns/m:latest"),
        ("localhost:5000/user/m", "localhost:5000/user/m:latest"),
        ("hf.co/u/R:Q4_K_M", "hf.co/u/R:Q4_K_M"),
    ],
)
def test_where_the_model_is(cli: Cli, pushing: Script, model: str, found: str) -> None:
    result = cli("push", model)
    assert result.status == 0
    assert result.out == f"\nYou can find your model at:\n\n\t{found}\n"
    assert destination(Name.parse(model)) == found
    # Only ollama.com is asked who is signed in.
    asked = found.startswith("https://ollama.com/")
    assert len(pushing.sent("POST /api/me")) == asked
    assert pushes(pushing) == [{"model": model, "name": model}]
    assert pushing.requests[0].method == "HEAD"


@pytest.mark.parametrize(
    ("host", "ollamas"),
    [
        ("registry.ollama.ai", True),
        ("x.ollama.com", True),
        ("X.Ollama.COM", True),
        ("ollama.com.example.com", False),
        ("evilollama.com", False),
        ("localhost:5000", False),
    ],
)
def test_whose_registry_it_is(host: str, ollamas: bool) -> None:
    assert is_ollamas(host) is ollamas


def test_bars_stand_at_zero_and_have_the_status_as_label(cli: Cli, pushing: Script) -> None:
    lines = cli("push", "m").err.splitlines()
    assert lines[0] == "retrieving manifest "
    assert lines[1].startswith("pushing abc123456789 100% ▕")
    assert lines[2:] == ["pushing manifest ", "success "]
    event = {"status": "uploading model", "digest": DIGEST, "total": 250}
    pushing.on("POST /api/push", stream(event, {"error": "boom"}))
    line, message = cli("push", "m").err.splitlines()
    assert line.startswith("uploading model   0% ▕ ")
    assert message == "Error: boom"


def test_insecure_is_passed_on(cli: Cli, pushing: Script) -> None:
    cli("push", "h/n/m", "--insecure")
    assert pushes(pushing) == [{"model": "h/n/m", "name": "h/n/m", "insecure": True}]


@pytest.mark.parametrize("url", ["https://ollama.com/connect?name=x&key=y", ""])
def test_who_is_not_signed_in_is_told_so(cli: Cli, pushing: Script, url: str) -> None:
    body = f'{{"error":"unauthorized","signin_url":"{url}"}}'.encode()
    pushing.on("POST /api/me", Answer(body, 401))
    where = f"If your browser did not open, navigate to:\n    {url}\n\n" if url else ""
    assert cli("push", "test-model") == (
        0,
        f"You need to be signed in to push models to ollama.com.\n\n{where}",
        "",
    )
    assert pushes(pushing) == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (error(503, "account unavailable"), "account unavailable"),
        (error(500, "boom"), "boom"),
    ],
)
def test_without_an_answer_about_the_account_nothing_is_pushed(
    cli: Cli, pushing: Script, answer: Answer, message: str
) -> None:
    pushing.on("POST /api/me", answer)
    assert cli("push", "test-model") == (1, "", f"Error: {message}\n")
    assert pushes(pushing) == []


def test_the_account_is_not_waited_for_long(
    cli: Cli, pushing: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def silent(_: object) -> Answer:
        over.wait(30)
        return USER

    pushing.on("POST /api/me", silent)
    monkeypatch.setattr("ollamad.cli.push.ACCOUNT_TIMEOUT", 0.01)
    message = "the server gave no answer within 0.01 seconds"
    assert cli("push", "test-model") == (1, "", f"Error: {message}\n")
    over.set()
    assert pushes(pushing) == []


@pytest.mark.parametrize(
    "answer",
    [
        stream({"status": "retrieving manifest"}, {"error": "unauthorized: access denied"}),
        stream({"error": '403: {"errors":[{"code":"ACCESS DENIED", "message":"access denied"}]}'}),
        stream({"error": "Unauthorized"}),
        stream({"error": 'unknown ollama key "ssh-ed25519 AAAA"'}),
        error(401, "x"),
        error(403, "Access Denied"),
    ],
)
def test_a_namespace_of_somebody_else(cli: Cli, pushing: Script, answer: Answer) -> None:
    pushing.on("POST /api/push", answer)
    result = cli("push", "library/m")
    assert (result.status, result.out) == (1, "")
    assert result.err.splitlines()[-1] == f"Error: {NOT_YOURS}"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (error(403, "denied"), "403 Forbidden: denied"),
        (error(400, "model is required"), "400 Bad Request: model is required"),
        (
            stream({"status": "couldn't retrieve manifest"}, {"error": "unqualified name: m@d"}),
            "unqualified name: m@d",
        ),
        (stream({"error": "500: page"}), "500: page"),
    ],
)
def test_other_errors(cli: Cli, pushing: Script, answer: Answer, message: str) -> None:
    pushing.on("POST /api/push", answer)
    result = cli("push", "h/n/m")
    assert (result.status, result.out) == (1, "")
    assert result.err.splitlines()[-1] == f"Error: {message}"


def test_an_interrupt_says_what_the_next_push_does(server: Script) -> None:
    left = threading.Event()

    def half() -> Iterator[bytes]:
        yield f'{{"status":"","digest":"{DIGEST}","total":100,"completed":50}}\n'.encode()
        left.wait(60)

    server.on("POST /api/push", Answer(half()))
    words = [sys.executable, "-m", "ollamad", "push", "h/n/m"]
    with on_terminal(words, {"OLLAMA_HOST": server.url}) as terminal:
        terminal.until(rb" 50% ")
        terminal.press(b"\x03")
        assert terminal.wait() == -signal.SIGINT
        assert terminal.is_as_before
    left.set()
    assert b"\nInterrupted: 'ollama push h/n/m' sends what the registry does not" in terminal.seen
