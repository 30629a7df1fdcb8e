"""runners-and-scheduling.md 3.3 to 3.6, 3.11 and 8.6: what the runner is asked."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from ollamad.errors import OllamadError
from ollamad.prompting.media import media_type
from ollamad.prompting.requests import (
    Format,
    chat_body,
    checked_format,
    completion_body,
    message_for_runner,
    predict_limit,
    template_body,
)
from ollamad.scheduler.options import Options
from ollamad.wire import (
    Message,
    Tool,
    ToolCall,
    ToolCallFunction,
    ToolFunction,
    ToolFunctionParameters,
    ToolProperty,
)

OPTIONS = Options(num_ctx=2048)

GUIDANCE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": True,
    "coerce_one_of": True,
}


def completion(options: Options = OPTIONS, **kwargs: Any) -> dict[str, Any]:
    kwargs = {"num_ctx": 2048, "fmt": None, **kwargs}
    decoded: dict[str, Any] = json.loads(completion_body("hi there", options, **kwargs))
    return decoded


def chat(options: Options = OPTIONS, **kwargs: Any) -> dict[str, Any]:
    kwargs = {"num_ctx": 2048, "think": None, **kwargs}
    messages = kwargs.pop("messages", [Message(role="user", content="hi")])
    decoded: dict[str, Any] = json.loads(chat_body(messages, options, **kwargs))
    return decoded


@pytest.mark.parametrize(
    ("num_predict", "num_ctx", "sent"),
    [(-1, 2048, 20480), (100, 2048, 100), (30000, 2048, 20480), (0, 2048, 20480), (-1, 0, -1)],
)
def test_predict_limit(num_predict: int, num_ctx: int, sent: int) -> None:
    assert predict_limit(num_predict, num_ctx) == sent


def test_the_whole_completion_body() -> None:
    options = Options(num_ctx=2048, stop=("<|im_start|>", "<|im_end|>"))
    assert completion(options) == {
        "prompt": "hi there",
        "stream": True,
        "cache_prompt": True,
        "n_predict": 20480,
        "n_keep": 4,
        "temperature": 0.8,
        "top_k": 40,
        "top_p": 0.9,
        "min_p": 0,
        "stop": ["<|im_start|>", "<|im_end|>"],
        "repeat_penalty": 1,
        "repeat_last_n": 64,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "typical_p": 1,
        "seed": -1,
    }


@pytest.mark.parametrize(("given", "sent"), [(0, 0), (-1, 2048), (-2, 0), (64, 64)])
def test_repeat_last_n_is_translated(given: int, sent: int) -> None:
    assert completion(Options(num_ctx=2048, repeat_last_n=given))["repeat_last_n"] == sent


def test_num_keep_below_all_is_all() -> None:
    assert completion(Options(num_ctx=2048, num_keep=-2))["n_keep"] == -1


def test_no_stop_no_field() -> None:
    assert "stop" not in completion()


@pytest.mark.parametrize("raw", [None, b"null", b'""', b" null "])
def test_no_format(raw: bytes | None) -> None:
    assert checked_format(None if raw is None else msgspec.Raw(raw)) is None


@pytest.mark.parametrize(
    ("raw", "shown"),
    [('"xml"', r"\"xml\""), ("5", "5"), ("[1]", "[1]"), ("true", "true"), ("[]", "[]")],
)
def test_invalid_format(raw: str, shown: str) -> None:
    with pytest.raises(OllamadError) as error:
        checked_format(msgspec.Raw(raw.encode()))
    assert error.value.status == 500
    assert error.value.message == (
        f'invalid format: "{shown}"; expected "json" or a valid JSON Schema object'
    )


def test_format_json() -> None:
    fmt = checked_format(msgspec.Raw(b'"json"'))
    assert fmt == Format(None)
    schema = {"type": "object", "x-guidance": GUIDANCE}
    assert completion(fmt=fmt)["json_schema"] == schema
    assert chat(fmt=fmt)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "schema", "schema": schema},
    }


def test_a_schema_keeps_its_key_order() -> None:
    raw = b'{"type":"object","properties":{"z":{},"a":{}}}'
    fmt = checked_format(msgspec.Raw(raw))
    assert raw[:-1] in completion_body("p", OPTIONS, num_ctx=8, fmt=fmt)
    body = chat_body([], OPTIONS, num_ctx=8, think=None, fmt=fmt)
    assert b'"json_schema":{"name":"schema","schema":' + raw[:-1] in body


@pytest.mark.parametrize("raw", ["{}", " { } ", '{"type":"object"}', '{"a":{}}\n'])
def test_blanks_between_tokens_are_not_left_to_the_model(raw: str) -> None:
    sent = completion(fmt=checked_format(msgspec.Raw(raw.encode())))["json_schema"]
    assert sent == {**(json.loads(raw) or {"type": "object"}), "x-guidance": GUIDANCE}


def test_spacing_of_the_clients_own_is_kept() -> None:
    raw = b'{"type":"object","x-guidance":{"whitespace_flexible":true}}'
    assert completion(fmt=checked_format(msgspec.Raw(raw)))["json_schema"] == json.loads(raw)


def test_media_take_the_runners_marker() -> None:
    body = completion_body(
        "look [img-0] now",
        OPTIONS,
        num_ctx=8,
        fmt=None,
        media=[b"media-bytes"],
        media_marker="<marker>",
    )
    assert json.loads(body)["prompt"] == {
        "prompt_string": "look <marker> now",
        "multimodal_data": ["bWVkaWEtYnl0ZXM="],
    }


def test_logprobs_ask_for_at_least_one() -> None:
    assert completion(logprobs=True)["n_probs"] == 1
    assert completion(logprobs=True, top_logprobs=3)["n_probs"] == 3
    assert "n_probs" not in completion(top_logprobs=3)
    body = chat(logprobs=True)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 1)


@pytest.mark.parametrize(
    ("think", "kwargs"),
    [
        (None, None),
        (False, {"enable_thinking": False}),
        (True, {"enable_thinking": True}),
        ("high", {"enable_thinking": True, "reasoning_effort": "high"}),
    ],
)
def test_think(think: Any, kwargs: Any) -> None:
    assert chat(think=think).get("chat_template_kwargs") == kwargs
    body = json.loads(template_body([], think=think))
    assert body.get("chat_template_kwargs") == kwargs


def test_a_message_with_everything() -> None:
    message = Message(
        role="assistant",
        content="c",
        thinking="t",
        tool_calls=[
            ToolCall(
                id="i", function=ToolCallFunction(index=0, name="f", arguments={"z": 1, "a": "é"})
            )
        ],
    )
    assert message_for_runner(message) == {
        "role": "assistant",
        "content": "c",
        "reasoning_content": "t",
        "tool_calls": [
            {
                "id": "i",
                "index": 0,
                "type": "function",
                "function": {"name": "f", "arguments": '{"z":1,"a":"é"}'},
            }
        ],
    }


def test_a_tool_result() -> None:
    message = Message(role="tool", content="11", tool_name="f", tool_call_id="i")
    assert message_for_runner(message) == {
        "role": "tool",
        "content": "11",
        "name": "f",
        "tool_call_id": "i",
    }


def test_media_in_a_message() -> None:
    message = Message(role="user", content="", images=[b"\x89PNG\r\n\x1a\n", b"RIFF....WAVE"])
    assert message_for_runner(message)["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        {"type": "input_audio", "input_audio": {"data": "UklGRi4uLi5XQVZF", "format": "wav"}},
    ]


def test_tools_keep_the_order_of_their_properties() -> None:
    tool = Tool(
        type="function",
        function=ToolFunction(
            name="f",
            parameters=ToolFunctionParameters(
                type="object",
                properties={"z": ToolProperty(type=["string"]), "a": ToolProperty()},
            ),
        ),
    )
    bare = Tool(
        type="function",
        function=ToolFunction(
            name="g", parameters=ToolFunctionParameters(type="", properties=None)
        ),
    )
    text = chat_body([], OPTIONS, num_ctx=8, think=None, tools=[tool, bare]).decode()
    assert '"properties":{"z":{"type":' in text
    assert '"parameters":{"type":"","properties":null}' in text


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"RIFF1234WAVE", "wav"),
        (b"RIFF1234WEBP", "image/webp"),
        (b"ID3", "mp3"),
        (b"\xff\xfb\x90", "mp3"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"?", "image/jpeg"),
        (b"", "image/jpeg"),
    ],
)
def test_media_types(data: bytes, kind: str) -> None:
    assert media_type(data) == kind
