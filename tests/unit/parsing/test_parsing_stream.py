"""runners-and-scheduling.md 3.8 to 3.11 and 8.6: llama-server's streams."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ollamad.errors import RunnerError
from ollamad.parsing.stream import ChatStream, CompletionStream, Final, Piece, feed_all


def completion(*events: dict[str, Any]) -> tuple[list[str], Final | None]:
    stream = CompletionStream()
    pieces = [stream.feed(json.dumps(e).encode()) for e in events]
    return [p.content for p in pieces if p is not None], stream.final


def chat(*events: dict[str, Any]) -> tuple[list[Piece], Final | None]:
    stream = ChatStream()
    pieces = [stream.feed(json.dumps(e).encode()) for e in events]
    return [p for p in pieces if p is not None], stream.final


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def test_completion_counts_and_reason() -> None:
    pieces, final = completion(
        {"content": "Hello", "stop": False},
        {"content": " world", "stop": False},
        {
            "content": "",
            "stop": True,
            "stop_type": "eos",
            "timings": {
                "cache_n": 12,
                "prompt_n": 5,
                "prompt_ms": 10,
                "predicted_n": 2,
                "predicted_ms": 0.5,
            },
        },
    )
    assert pieces == ["Hello", " world"]
    assert final == Final(
        "stop",
        prompt_eval_count=17,
        prompt_eval_duration=10_000_000,
        eval_count=2,
        eval_duration=500_000,
    )


def test_limit_is_length() -> None:
    assert completion({"content": "", "stop": True, "stop_type": "limit"})[1] == Final("length")


@pytest.mark.parametrize(("repeats", "delivered", "ended"), [(31, 31, False), (32, 31, True)])
def test_repeats_end_with_a_final_event(repeats: int, delivered: int, ended: bool) -> None:
    pieces, final = completion(*[{"content": "x", "stop": False}] * repeats)
    assert len(pieces) == delivered
    assert final == (Final("stop", eval_count=32) if ended else None)


def test_blank_pieces_count_as_repeats_from_the_start() -> None:
    pieces, final = completion(*[{"content": " ", "stop": False}] * 31)
    assert len(pieces) == 30
    assert final is not None


def test_the_chat_path_has_no_repeat_guard() -> None:
    pieces, final = chat(*[delta(content="x")] * 40)
    assert len(pieces) == 40
    assert final is None


def test_error_events() -> None:
    with pytest.raises(RunnerError, match=r"^boom$"):
        completion({"content": "a"}, {"error": {"code": 500, "message": "boom"}})
    with pytest.raises(RunnerError, match=r"^llama-server chat error: boom mid stream$"):
        chat(delta(content="a"), {"error": {"message": "boom mid stream", "code": 500}})
    with pytest.raises(RunnerError, match=r"^llama-server chat error: plain$"):
        chat({"error": "plain"})


def test_text_before_an_error_in_the_same_read_is_kept() -> None:
    payloads = [b'{"content":"a"}', b'{"error":{"message":"boom"}}', b'{"content":"b"}']
    pieces, error = feed_all(CompletionStream(), payloads)
    assert [p.content for p in pieces] == ["a"]
    assert error is not None
    assert error.message == "boom"


def test_a_final_event_behind_the_repeats_in_the_same_read_changes_nothing() -> None:
    stream = CompletionStream()
    payloads = [b'{"content":"x"}'] * 40 + [b'{"stop":true,"stop_type":"limit"}']
    pieces, error = feed_all(stream, payloads)
    assert len(pieces) == 31
    assert error is None
    assert stream.final == Final("stop", eval_count=32)


def test_what_is_no_json() -> None:
    with pytest.raises(RunnerError, match="error unmarshalling llama-server response: "):
        CompletionStream().feed(b"{not json")
    with pytest.raises(RunnerError, match="error unmarshalling llama-server chat response: "):
        ChatStream().feed(b"{not json")


def test_chat_reasoning_then_content_then_length() -> None:
    pieces, final = chat(
        delta(role="assistant", content=None),
        delta(reasoning_content="hm"),
        delta(content="Hi"),
        delta("length"),
    )
    assert [(p.thinking, p.content) for p in pieces] == [("hm", ""), ("", "Hi")]
    assert final == Final("length")


def test_tool_calls_come_whole_and_in_order() -> None:
    def call(index: int, name: str | None, arguments: str, ident: str | None = None) -> Any:
        return delta(
            tool_calls=[
                {"index": index, "id": ident, "function": {"name": name, "arguments": arguments}}
            ]
        )

    _, final = chat(
        call(1, "f", " "),
        call(0, "ge", "", "id1"),
        call(0, "t", '{"z":1,'),
        call(0, None, '"a":2}'),
        delta("tool_calls"),
    )
    assert final is not None
    assert final.done_reason == "stop"
    assert final.tool_calls is not None
    first, second = final.tool_calls
    assert (first.id, first.function.index, first.function.name) == ("id1", 0, "get")
    assert list(first.function.arguments.items()) == [("z", 1), ("a", 2)]
    assert (second.id, second.function.index, second.function.arguments) == ("", 1, {})


DEEP = '{"a":' + "[" * 100_000


@pytest.mark.parametrize("arguments", ['{"city":', "[1]", '"x"', "{'a': 1}", '{"a":1e999}', DEEP])
@pytest.mark.parametrize(("finish", "reason"), [("length", "length"), ("tool_calls", "stop")])
def test_arguments_that_cannot_be_read_are_text(arguments: str, finish: str, reason: str) -> None:
    """Other calls stay calls, and are counted without it."""

    def call(index: int, name: str, text: str) -> dict[str, Any]:
        return {"index": index, "function": {"name": name, "arguments": text}}

    pieces, final = chat(
        delta(tool_calls=[call(0, "f", arguments)]),
        delta(tool_calls=[call(1, "g", '{"a":1}')]),
        delta(finish),
    )
    assert pieces == [Piece(f"f {arguments}")]
    assert final is not None
    assert final.done_reason == reason
    assert final.tool_calls is not None
    (kept,) = final.tool_calls
    assert (kept.function.index, kept.function.name, kept.function.arguments) == (0, "g", {"a": 1})


@pytest.mark.parametrize(("said", "gap"), [("So:", "\n"), ("So: ", ""), ("So:\n", "")])
def test_the_text_of_calls_that_are_none_stands_apart(said: str, gap: str) -> None:
    calls = [{"index": i, "function": {"name": f"f{i}", "arguments": "{"}} for i in range(2)]
    pieces, final = chat(delta(content=said), delta(tool_calls=calls), delta("length"))
    assert [p.content for p in pieces] == [said, f"{gap}f0 {{\nf1 {{"]
    assert final == Final("length")
    # What comes with the end comes first.
    pieces, _ = chat(delta(tool_calls=calls[:1]), delta("length", content=said))
    assert [p.content for p in pieces] == [f"{said}{gap}f0 {{"]


@pytest.mark.parametrize("top", [0, 2])
def test_logprobs(top: int) -> None:
    stream = CompletionStream(logprobs=True, top_logprobs=top)
    alternatives = [{"token": "Hi", "logprob": -0.5}, {"token": "", "logprob": 0, "prob": 0.25}]
    entry = {"token": "Hi", "logprob": -0.5, "top_logprobs": alternatives}
    piece = stream.feed(json.dumps({"content": "Hi", "completion_probabilities": [entry]}).encode())
    assert piece is not None
    assert piece.logprobs is not None
    (logprob,) = piece.logprobs
    assert (logprob.token, logprob.logprob, logprob.bytes) == ("Hi", -0.5, [72, 105])
    if top == 0:
        assert logprob.top_logprobs is None
    else:
        assert logprob.top_logprobs is not None
        assert [(t.token, t.logprob, t.bytes) for t in logprob.top_logprobs] == [
            ("Hi", -0.5, [72, 105]),
            ("", 0.25, None),
        ]
