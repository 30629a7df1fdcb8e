"""What a client is told when a runner refuses, breaks off or talks nonsense: the contract's cases,
on a running daemon (runners-and-scheduling.md 3.8, 3.14, 8.6)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.daemon import eventually
from support.stage import Stage, staged

BROKEN = "an error was encountered while running the model: "
STOPPED = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an "
    "internal error, check ollama server logs for details"
)
GENERATE = ("/api/generate", {"model": "m", "prompt": "x", "raw": True})
CHAT = ("/api/chat", {"model": "m", "messages": [{"role": "user", "content": "x"}]})
#: The runner's path and the daemon's own request for it.
RUNNER_PATH = {"/api/generate": "/completion", "/api/chat": "/v1/chat/completions"}
BOTH = pytest.mark.parametrize("asked", [GENERATE, CHAT], ids=["generate", "chat"])


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("answers") / "home") as stage:
        stage.add("m", tokenizer__chat_template="{{ messages }}")
        stage.add("other")
        stage.add("embed", "bert", bert__context_length=512, bert__pooling_type=1)
        yield stage


@pytest.fixture
def stage(answering: Stage) -> Iterator[Stage]:
    yield answering
    answering.clear()


def event(text: str, path: str = "/api/generate") -> str:
    """An event with one piece of text."""
    content = (
        {"content": text}
        if path == "/api/generate"
        else {"choices": [{"delta": {"content": text}, "finish_reason": None}]}
    )
    return f"data: {json.dumps(content)}\n\n"


def final(path: str = "/api/generate") -> str:
    timings = {"prompt_n": 5, "predicted_n": 2, "prompt_ms": 1, "predicted_ms": 1}
    content = (
        {"content": "", "stop": True, "stop_type": "eos", "timings": timings}
        if path == "/api/generate"
        else {"choices": [{"delta": {}, "finish_reason": "stop"}], "timings": timings}
    )
    return f"data: {json.dumps(content)}\n\n"


def text_of(answer: dict[str, Any]) -> str:
    text = answer["response"] if "response" in answer else answer["message"]["content"]
    assert isinstance(text, str)
    return text


def whole(stage: Stage, asked: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    path, body = asked
    answer: dict[str, Any] = stage.post(path, {**body, "stream": False})
    return answer


def failure(stage: Stage, asked: tuple[str, dict[str, Any]]) -> tuple[int, str]:
    path, body = asked
    return stage.failure(path, {**body, "stream": False})


def streamed(stage: Stage, asked: tuple[str, dict[str, Any]], **script: Any) -> tuple[str, str]:
    """The text that came, and the error at the end of the stream.

    The runner goes on after the first piece has come.
    """
    gate = stage.gate()
    stage.will(hold=str(gate), **script)
    answer = stage.stream(*asked)
    first = next(answer)
    gate.open()
    *pieces, last = answer
    return "".join(map(text_of, [first, *pieces])), last["error"]


def used_again(stage: Stage) -> bool:
    """Whether the next request gets the same runner."""
    stage.will()
    whole(stage, GENERATE)
    return len(stage.starts()) == 1


# --- a runner that refuses ------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, '{"error": {"code": 400, "message": "nope"}}'),
        (503, "\t busy text\n"),
        (500, '{"error": "x"}'),
    ],
)
def test_refusals(stage: Stage, asked: tuple[str, dict[str, Any]], status: int, body: str) -> None:
    expected = body.strip()
    stage.will(answers={RUNNER_PATH[asked[0]]: [status, body]})
    assert failure(stage, asked) == (status, expected)
    assert stage.failure(*asked) == (status, expected), "nor has a stream begun"
    assert used_again(stage)


# --- a runner that breaks off ---------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("log", ["", "x CUDA error: xyz", "GGML_ASSERT(foo) failed"])
def test_a_runner_that_dies_in_mid_stream(
    stage: Stage, asked: tuple[str, dict[str, Any]], log: str
) -> None:
    said = log.removeprefix("x ") or "unexpected EOF"
    script = {"after": "crash", "after_tokens": 2, "token": "ab"}
    assert streamed(stage, asked, **script, **({"crash_log": log} if log else {})) == (
        "abab",
        BROKEN + said,
    )
    assert failure(stage, asked) == (500, BROKEN + said)
    assert len(stage.starts()) == 2


@BOTH
@pytest.mark.parametrize("log", ["", "CUDA error: xyz"])
def test_a_runner_that_dies_before_it_answers(
    stage: Stage, asked: tuple[str, dict[str, Any]], log: str
) -> None:
    stage.will(crash_on=RUNNER_PATH[asked[0]], **({"crash_log": log} if log else {}))
    assert failure(stage, asked) == (500, f"{STOPPED}: {log}" if log else STOPPED)


@BOTH
@pytest.mark.parametrize("after", ["close", "reset"])
def test_a_runner_that_cuts_the_connection(
    stage: Stage, asked: tuple[str, dict[str, Any]], after: str
) -> None:
    text, error = streamed(stage, asked, after=after, after_tokens=2, token="ab")
    assert error == BROKEN + "unexpected EOF"
    assert text in ("ab", "abab"), "a reset may overtake what was sent"
    assert not used_again(stage), "nobody else gets that runner"
    eventually(lambda: len(stage.runners()) == 1, what="it is stopped")


@BOTH
def test_a_stream_without_an_end(stage: Stage, asked: tuple[str, dict[str, Any]]) -> None:
    path = asked[0]
    events = [event("a", path), event("b", path)]
    assert streamed(stage, asked, events=events) == ("ab", BROKEN + "unexpected EOF")
    assert failure(stage, asked) == (500, BROKEN + "unexpected EOF")


# --- a runner that talks nonsense -----------------------------------------------------------------

BOOM = 'data: {"error": {"code": 500, "message": "boom", "type": "server_error"}}\n\n'
NOT_JSON = "invalid character 'n' looking for beginning of object key string"


@pytest.mark.parametrize(
    ("asked", "nonsense", "expected"),
    [
        (GENERATE, "data: {not json\n\n", f"error unmarshalling llama-server response: {NOT_JSON}"),
        (CHAT, "data: {not json\n\n",
         f"error unmarshalling llama-server chat response: {NOT_JSON}"),
        (GENERATE, BOOM, "boom"),
        (CHAT, BOOM, "llama-server chat error: boom"),
        (CHAT, 'data: {"error": "boom"}\n\n', "llama-server chat error: boom"),
        (GENERATE, event("x" * 8_000_001),
         "llama-server response stream event exceeded 8 MB limit"),
        (CHAT, event("x" * 8_000_001, "/api/chat"),
         "llama-server chat response stream event exceeded 8 MB limit"),
    ],
    ids=["generate: no JSON", "chat: no JSON", "generate: error", "chat: error",
         "chat: plain error", "generate: long", "chat: long"],
)  # fmt: skip
def test_events_that_are_none(
    stage: Stage, asked: tuple[str, dict[str, Any]], nonsense: str, expected: str
) -> None:
    path = asked[0]
    events = [event("a", path), nonsense, event("b", path), final(path)]
    assert streamed(stage, asked, events=events) == ("a", expected)
    stage.will(events=events)
    assert failure(stage, asked) == (500, expected)
    assert used_again(stage)


@BOTH
def test_what_else_may_stand_in_a_stream(stage: Stage, asked: tuple[str, dict[str, Any]]) -> None:
    path = asked[0]
    long = "y" * 525_312
    stage.will(
        events=[
            ": keep-alive\n\n",
            event("a", path).removeprefix("data: "),
            "\n\n",
            event(long, path),
            final(path).replace("\n", "\r\n"),
        ]
    )
    answer = whole(stage, asked)
    assert text_of(answer) == "a" + long
    assert (answer["prompt_eval_count"], answer["eval_count"]) == (5, 2)


@pytest.mark.parametrize(
    ("asked", "times", "count"), [(GENERATE, 31, 31), (GENERATE, 40, 31), (CHAT, 40, 40)]
)
def test_a_model_that_repeats_itself(
    stage: Stage, asked: tuple[str, dict[str, Any]], times: int, count: int
) -> None:
    path = asked[0]
    stage.will(events=[event("x", path)] * times + [final(path)])
    answer = whole(stage, asked)
    assert text_of(answer) == "x" * count
    assert (answer["done"], answer["done_reason"]) == (True, "stop")


# --- the calls around an answer -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "body", "expected"),
    [
        ("/apply-template", 500, '{"error": {"message": "bad tmpl"}}',
         (500, '{"error": {"message": "bad tmpl"}}')),
        ("/apply-template", 200, '{"error":"bad tmpl"}',
         (500, "llama-server template error: bad tmpl")),
        ("/tokenize", 500, "tk", (500, "tokenize error: tk")),
        ("/detokenize", 500, "dt", (500, "detokenize error: dt")),
    ],
)  # fmt: skip
def test_calls_that_fail(
    stage: Stage, path: str, status: int, body: str, expected: tuple[int, str]
) -> None:
    stage.will(answers={path: [status, body]}, tokens=2)
    request = {"model": "m", "prompt": "x", "context": [1]}
    assert failure(stage, ("/api/generate", request)) == expected
    assert used_again(stage)


@pytest.mark.parametrize(
    ("status", "error", "truncate", "expected"),
    [
        (500, "input (103 tokens) is too large to process. increase the physical batch size",
         False, (400, "the input length exceeds the context length")),
        (400, "request (302 tokens) exceeds the available context size (256 tokens)", False,
         (400, "the input length exceeds the context length")),
        (400, "request (302 tokens) exceeds the available context size (256 tokens)", True,
         (400, "input exceeds maximum context length and cannot be truncated further")),
        (500, "backend failed", True, (500, "backend failed")),
    ],
)  # fmt: skip
def test_embeddings_that_fail(
    stage: Stage, status: int, error: str, truncate: bool, expected: tuple[int, str]
) -> None:
    stage.will(answers={"/v1/embeddings": [status, {"error": {"message": error}}]})
    body = {"model": "embed", "input": "x", "truncate": truncate}
    assert stage.failure("/api/embed", body) == expected


# --- memory that runs out (3.14) ------------------------------------------------------------------

ALLOCATING = "ggml_backend: failed to allocate buffer of size 1"


@pytest.mark.parametrize(
    ("crash_log", "expected", "left"),
    [
        (ALLOCATING, BROKEN + ALLOCATING, []),
        ("error: something else", BROKEN + "error: something else", ["other"]),
    ],
)
def test_models_are_unloaded_when_memory_ran_out(
    stage: Stage, crash_log: str, expected: str, left: list[str]
) -> None:
    stage.post("/api/generate", {"model": "other"})
    stage.will(after="crash", after_tokens=1, crash_log=crash_log)
    assert failure(stage, GENERATE) == (500, expected)
    eventually(lambda: stage.loaded() == left, what=f"{left} stays")


def test_what_the_log_says_about_memory_is_told(stage: Stage) -> None:
    """The refusal says less than the log does."""
    whole(stage, GENERATE)
    stage.will(
        answers={"/completion": [500, '{"error":{"message":"fail"}}']}, answer_log=ALLOCATING
    )
    assert failure(stage, GENERATE) == (500, '{"error":{"message":"fail"}}\n' + ALLOCATING)
    eventually(lambda: stage.loaded() == [], what="all are unloaded")


def test_another_line_of_the_log_is_not_told(stage: Stage) -> None:
    whole(stage, GENERATE)
    stage.will(
        answers={"/completion": [500, '{"error":{"message":"fail"}}']}, answer_log="error: else"
    )
    assert failure(stage, GENERATE) == (500, '{"error":{"message":"fail"}}')
    assert stage.loaded() == ["m"]
