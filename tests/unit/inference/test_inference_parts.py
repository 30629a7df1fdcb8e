"""The pure parts of the services: http-api.md 7.6, 8.6, 6.5 and 11; prompting.md 5.4."""

from __future__ import annotations

from array import array
from types import SimpleNamespace
from typing import Any

import pytest

from ollamad.errors import BadRequest, RunnerError
from ollamad.inference import chat, generate
from ollamad.inference.embed import _unit, checked_input
from ollamad.inference.rendered import without_doubled_bos
from ollamad.inference.services import check_top_logprobs
from ollamad.wire import (
    ChatResponse,
    GenerateResponse,
    Logprob,
    Message,
    ToolCall,
    ToolCallFunction,
)


def said(text: str, **fields: Any) -> GenerateResponse:
    return GenerateResponse(model="m", created_at="t", response=text, done=False, **fields)


def test_one_object_of_many_events() -> None:
    logprob = Logprob(token="a", logprob=-1.0)
    events = [
        said("a", logprobs=[logprob]),
        said("b", thinking="x"),
        said("c", logprobs=[logprob]),
        GenerateResponse(
            model="m", created_at="u", response="", done=True, done_reason="stop", eval_count=3
        ),
    ]
    whole = generate.whole(events)
    assert (whole.response, whole.thinking, whole.created_at) == ("abc", "x", "u")
    assert whole.logprobs == [logprob, logprob]
    assert (whole.done, whole.done_reason, whole.eval_count) == (True, "stop", 3)


def test_one_chat_object_keeps_every_tool_call() -> None:
    def event(content: str, calls: list[ToolCall] | None = None, done: bool = False) -> Any:
        message = Message(role="assistant", content=content, tool_calls=calls)
        return ChatResponse(model="m", created_at="t", message=message, done=done)

    first, second = (
        ToolCall(id=i, function=ToolCallFunction(index=0, name="f", arguments={})) for i in "ab"
    )
    whole = chat.whole([event("x", [first]), event("y"), event("", [second], done=True)])
    assert whole.message.content == "xy"
    assert whole.message.tool_calls == [first, second]


def test_an_answer_without_events_is_an_error() -> None:
    with pytest.raises(RunnerError, match="unexpected EOF"):
        generate.whole([])
    with pytest.raises(RunnerError, match="unexpected EOF"):
        chat.whole([])


@pytest.mark.parametrize("value", [-1, 21])
def test_top_logprobs_range(value: int) -> None:
    with pytest.raises(BadRequest, match="top_logprobs must be between 0 and 20"):
        check_top_logprobs(value)


def test_top_logprobs_bounds_are_allowed() -> None:
    check_top_logprobs(0)
    check_top_logprobs(20)


@pytest.mark.parametrize(
    ("value", "texts"),
    [(None, []), ("", []), ([], []), ("a", ["a"]), ([""], [""]), (["a", "b"], ["a", "b"])],
)
def test_embedding_input(value: Any, texts: list[str]) -> None:
    assert checked_input(value) == texts


@pytest.mark.parametrize("value", [5, True, {}, ["a", 1], [None]])
def test_embedding_input_of_the_wrong_type(value: Any) -> None:
    with pytest.raises(BadRequest, match="invalid input type"):
        checked_input(value)


def test_vectors_get_length_one_and_are_cut_before() -> None:
    vector = array("f", [3, 4, 12])
    assert list(_unit(vector, 0)) == pytest.approx([3 / 13, 4 / 13, 12 / 13])
    assert list(_unit(vector, 2)) == pytest.approx([0.6, 0.8])
    for ignored in (-2, 3, 99):
        assert len(_unit(vector, ignored)) == 3
    assert list(_unit(array("f", [0, 0]), 0)) == [0, 0]


@pytest.mark.parametrize(
    ("adds_bos", "renderer", "prompt", "sent"),
    [
        (True, "", "<bos>hello<bos>", "hello<bos>"),
        (False, "", "<bos>hello", "<bos>hello"),
        (True, "lfm2", "<|startoftext|>hello", "hello"),
        (True, "lfm2", "<bos>hello", "hello"),
        (True, "nobody's", "<bos>hello", "hello"),
    ],
)
def test_only_one_bos_is_stripped_and_only_if_the_tokenizer_adds_one(
    adds_bos: bool, renderer: str, prompt: str, sent: str
) -> None:
    model: Any = SimpleNamespace(
        adds_bos=adds_bos,
        renderer=renderer,
        short_name="m",
        name=SimpleNamespace(full="m"),
        stored=SimpleNamespace(config=SimpleNamespace(model_type="")),
    )
    assert without_doubled_bos(model, prompt) == sent
