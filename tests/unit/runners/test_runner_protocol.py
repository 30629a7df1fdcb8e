"""runners-and-scheduling 8.6: what the runner's JSON means."""

import base64
import json
import struct

import pytest

from ollamad.errors import RunnerError
from ollamad.runners import protocol


def test_completion_event() -> None:
    event = protocol.decode_completion(
        b'{"index":0,"content":" hi","tokens":[29],"stop":false,"id_slot":-1}'
    )
    assert (event.content, event.stop, event.timings) == (" hi", False, None)


def test_final_event_and_metrics() -> None:
    event = protocol.decode_completion(
        b'{"content":"","stop":true,"stop_type":"limit","timings":{"cache_n":12,"prompt_n":5,'
        b'"prompt_ms":10,"predicted_n":2,"predicted_ms":1.5000019}}'
    )
    timings = event.timings
    assert timings is not None
    assert timings.prompt_eval_count == 17
    assert timings.prompt_eval_ns == 10_000_000
    assert timings.eval_count == 2
    assert timings.eval_ns == 1_500_001  # truncated
    assert event.done_reason == "length"


@pytest.mark.parametrize(("stop_type", "reason"), [("eos", "stop"), ("word", "stop")])
def test_done_reasons(stop_type: str, reason: str) -> None:
    event = protocol.decode_completion(b'{"stop":true,"stop_type":"%s"}' % stop_type.encode())
    assert event.done_reason == reason


def test_log_probabilities() -> None:
    event = protocol.decode_completion(
        json.dumps(
            {
                "content": "a",
                "completion_probabilities": [
                    {
                        "token": "a",
                        "logprob": -0.5,
                        "top_logprobs": [{"token": "a", "logprob": -0.5}, {"token": "b"}],
                    },
                    {"token": "c", "prob": 0.25, "top_probs": [{"token": "c", "prob": 0.25}]},
                ],
            }
        ).encode()
    )
    first, second = event.completion_probabilities or []
    assert (first.value, [a.token for a in first.alternatives]) == (-0.5, ["a", "b"])
    assert (second.value, second.alternatives[0].value) == (0.25, 0.25)


def test_chat_event() -> None:
    event = protocol.decode_chat(
        b'{"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null,'
        b'"reasoning_content":"hm","tool_calls":[{"index":1,"id":"x","type":"function",'
        b'"function":{"name":"f","arguments":"{"}}]}}],"created":1}'
    )
    delta = event.choices[0].delta
    assert delta is not None
    assert (delta.content, delta.reasoning_content) == (None, "hm")
    piece = (delta.tool_calls or [])[0]
    assert (piece.index, piece.id) == (1, "x")
    assert piece.function is not None
    assert (piece.function.name, piece.function.arguments) == ("f", "{")
    assert protocol.decode_chat(b'{"choices":[]}').choices == []


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            b"{not json",
            "error unmarshalling llama-server response: invalid character 'n' looking for "
            "beginning of object key string",
        ),
        (
            b"{",
            "error unmarshalling llama-server response: unexpected end of JSON input",
        ),
        (
            b'{"content": x}',
            "error unmarshalling llama-server response: invalid character 'x' looking for "
            "beginning of value",
        ),
        (b'{"error":{"code":500,"message":"boom","type":"server_error"}}', "boom"),
        (b'{"error":"boom"}', "boom"),
    ],
)
def test_bad_completion_events(line: bytes, text: str) -> None:
    with pytest.raises(RunnerError) as caught:
        protocol.decode_completion(line)
    assert str(caught.value) == text


def test_bad_chat_events() -> None:
    with pytest.raises(RunnerError, match=r"^llama-server chat error: boom$"):
        protocol.decode_chat(b'{"error":{"code":500,"message":"boom","type":"server_error"}}')
    for line in (b'{"choices":"x"}', b'{"choices":[{"delta":{"content":"\xff"}}]}'):
        with pytest.raises(RunnerError, match=r"^error unmarshalling llama-server chat response: "):
            protocol.decode_chat(line)


def test_answers_that_are_no_utf8() -> None:
    body = b'{"content":"\xff"}'
    with pytest.raises(RunnerError):
        protocol.decode_completion(body)
    for status in (200, 500):
        with pytest.raises(RunnerError):
            protocol.embeddings_result(status, body)


def test_template_tokens_and_text() -> None:
    assert protocol.template_result(200, b'{"prompt":"p"}') == "p"
    assert protocol.tokenize_result(200, b'{"tokens":[1,2]}') == [1, 2]
    assert protocol.detokenize_result(200, b'{"content":"c"}') == "c"
    assert protocol.input_tokens_result(200, b'{"input_tokens":31,"object":"x"}') == 31
    assert json.loads(protocol.tokenize_request("a")) == {"content": "a"}
    special = protocol.tokenize_request("a", add_special=True)
    assert json.loads(special) == {"content": "a", "add_special": True}


@pytest.mark.parametrize(
    ("call", "status", "text"),
    [
        (
            lambda: protocol.template_result(500, b'{"error": {"message": "bad tmpl"}} '),
            500,
            '{"error": {"message": "bad tmpl"}}',
        ),
        (
            lambda: protocol.template_result(200, b'{"error":"bad tmpl"}'),
            500,
            "llama-server template error: bad tmpl",
        ),
        (lambda: protocol.tokenize_result(500, b"tk"), 500, "tokenize error: tk"),
        (lambda: protocol.detokenize_result(400, b"dt"), 500, "detokenize error: dt"),
    ],
)
def test_refusals(call: object, status: int, text: str) -> None:
    with pytest.raises(RunnerError) as caught:
        call()  # type: ignore[operator]
    assert (caught.value.status, str(caught.value)) == (status, text)


def encoded(*values: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


@pytest.mark.parametrize(
    ("body", "vectors", "tokens"),
    [
        (
            {
                "data": [
                    {"index": 1, "embedding": encoded(3, 4)},
                    {"index": 0, "embedding": encoded(1, 2)},
                ],
                "usage": {"prompt_tokens": 7},
            },
            [[1, 2], [3, 4]],
            7,
        ),
        ({"data": [{"embedding": [0.5, 0.25], "tokens_evaluated": 3}]}, [[0.5, 0.25]], 3),
        ([{"index": 0, "embedding": [[0.5, 0.25, 0.125]]}], [[0.5, 0.25, 0.125]], 0),
        ([{"embedding": [0.5, 0.25, 0.125]}], [[0.5, 0.25, 0.125]], 0),
    ],
)
def test_embeddings(body: object, vectors: list[list[float]], tokens: int) -> None:
    result = protocol.embeddings_result(200, json.dumps(body).encode())
    assert [list(vector) for vector in result.vectors] == vectors
    assert result.prompt_tokens == tokens


@pytest.mark.parametrize("body", [b'{"data":[]}', b"[]", b'{"data":[{"embedding":[]}]}'])
def test_empty_embeddings(body: bytes) -> None:
    with pytest.raises(RunnerError, match=r"^empty embedding response$"):
        protocol.embeddings_result(200, body)


TOO_LONG = "the input length exceeds the context length"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (
            500,
            b"input (103 tokens) is too large to process. increase the physical batch size",
            (400, TOO_LONG),
        ),
        (
            400,
            b'{"error":{"message":"request (302 tokens) exceeds the available context size"}}',
            (400, TOO_LONG),
        ),
        (500, b'{"error":{"message":"backend failed"}}', (500, "backend failed")),
        (500, b'{"error":"backend failed"}', (500, "backend failed")),
        (503, b"plain text", (503, "plain text")),
    ],
)
def test_embedding_errors(status: int, body: bytes, expected: tuple[int, str]) -> None:
    with pytest.raises(RunnerError) as caught:
        protocol.embeddings_result(status, body)
    assert (caught.value.status, str(caught.value)) == expected


def test_raw_embeddings_are_asked_for() -> None:
    assert json.loads(protocol.embeddings_request(["a"], raw=True)) == {
        "input": ["a"],
        "encoding_format": "base64",
        "embd_normalize": -1,
    }


def test_props() -> None:
    props = protocol.props_result(
        200, b'{"total_slots":2,"default_generation_settings":{"n_ctx":512},"media_marker":"<m>"}'
    )
    assert (props.total_slots, props.n_ctx, props.media_marker) == (2, 512, "<m>")
