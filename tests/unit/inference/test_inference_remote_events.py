"""Events of remote hosts as those of stubs (http-api.md 17.3.4, 17.3.5, case 267; 10.11)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.errors import OllamadError
from ollamad.inference.remote_events import LONGEST_LINE, Lines, Translation, refusal
from ollamad.wire import ChatResponse, GenerateResponse


def translation(type_: type[ChatResponse] | type[GenerateResponse]) -> Translation:
    return Translation(type_, model="m<", remote_model="r", remote_host="https://h:1")


OWN = '"model":"m\\u003c","remote_model":"r","remote_host":"https://h:1"'
CHAT = translation(ChatResponse)
GENERATE = translation(GenerateResponse)


def one(kind: Translation, line: str) -> str:
    events, error = kind.events([line.encode()])
    assert error is None
    return events.decode()


def failed(line: bytes) -> str:
    events, error = CHAT.events([line])
    assert events == b""
    assert error is not None
    assert error.status == 500
    return error.message


def test_an_event_of_chat() -> None:
    line = (
        '{"eval_count":7,"done":true,"extra":{"a":1},"remote_host":"x","created_at":"t",'
        '"message":{"role":"assistant","content":"c","tool_calls":[{"function":{"name":"f",'
        '"arguments":{"z":1,"a":2.50}}}]}, "done_reason":"stop","model":"theirs","logprobs":null}'
    )
    assert one(CHAT, line) == (
        f'{{{OWN},"created_at":"t","message":{{"role":"assistant","content":"c","tool_calls":'
        '[{"function":{"name":"f","arguments":{"z":1,"a":2.50}}}]},"done":true,'
        '"done_reason":"stop","eval_count":7}\n'
    )


def test_an_event_of_generate() -> None:
    line = '{"response":"r","thinking":"t","context":[1,2],"created_at":"t","done":true}'
    assert one(GENERATE, line) == (
        f'{{{OWN},"created_at":"t","response":"r","thinking":"t","done":true,"context":[1,2]}}\n'
    )


def test_what_every_event_has() -> None:
    zero = '"created_at":"0001-01-01T00:00:00Z"'
    assert one(CHAT, '{"message":null}') == (
        f'{{{OWN},{zero},"message":{{"role":"","content":""}},"done":false}}\n'
    )
    assert one(GENERATE, "{}") == f'{{{OWN},{zero},"response":"","done":false}}\n'


def test_an_empty_error_is_none() -> None:
    for empty in ('""', "null"):
        assert one(GENERATE, f'{{"error":{empty},"done":true}}').endswith('"done":true}\n')


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'{"error":"mid-stream error"}', "mid-stream error"),
        (b'{"error":"x","signin_url":"https://evil.test"}', "x"),
        (b'{"error":{"code":5}}', '{"code":5}'),
        (b"plain text \r", "plain text"),
        (b"<html></html>", "<html></html>"),
        (b"[]", "[]"),
        (b'{"done":', '{"done":'),
        (b"\xff", "\ufffd"),
        (b'{"error":"a\xffb"}', "a\ufffdb"),
        (b'{"error":"\\ud800"}', '{"error":"\\ud800"}'),
        (b'{"error":1e999}', "1e999"),
    ],
)
def test_errors_and_what_is_no_event(line: bytes, text: str) -> None:
    assert failed(line) == text


def test_what_is_no_text_is_replaced() -> None:
    """A client's decoder must not stumble over what another server sends."""
    events, error = GENERATE.events([b'{"\xff":1,"response":"a\xffb"}'])
    assert error is None
    assert json.loads(events)["response"] == "a\ufffdb"


def test_what_came_before_an_error_is_kept_and_nothing_after_it() -> None:
    events, error = GENERATE.events([b'{"response":"a"}', b'{"error":"e"}', b'{"response":"b"}'])
    assert [json.loads(line)["response"] for line in events.splitlines()] == ["a"]
    assert error is not None
    assert error.message == "e"


@pytest.mark.parametrize(
    ("status", "body", "members"),
    [
        (529, b'{"error":"over"}', {"StatusCode": 529, "Status": "529 ", "error": "over"}),
        (
            500,
            b"boom",
            {"StatusCode": 500, "Status": "500 Internal Server Error", "error": "boom"},
        ),
        (418, b"{}", {"StatusCode": 418, "Status": "418 I'm a teapot", "error": ""}),
        (404, b'{"error":"x"}\n', {"StatusCode": 404, "Status": "404 Not Found", "error": "x"}),
        (413, b"", {"StatusCode": 413, "Status": "413 Request Entity Too Large", "error": ""}),
        (400, b'{"error":5}', {"StatusCode": 400, "Status": "400 Bad Request", "error": ""}),
        (400, b"[]", {"StatusCode": 400, "Status": "400 Bad Request", "error": ""}),
        (502, b"\xff<b>", {"StatusCode": 502, "Status": "502 Bad Gateway", "error": "\ufffd<b>"}),
    ],
)
def test_an_error_status(status: int, body: bytes, members: dict[str, object]) -> None:
    error = refusal(status, body)
    assert (error.status, error.members) == (status, members)
    assert list(error.members) == ["StatusCode", "Status", "error"]


def test_deep_nesting_is_text() -> None:
    deep = b"[" * 60_000
    assert refusal(500, deep).message == deep.decode()
    assert failed(deep) == deep.decode()


# --- lines ----------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=8)), st.lists(st.integers(0, 40)))
def test_lines_are_the_same_however_they_arrive(pieces: list[bytes], cuts: list[int]) -> None:
    body = b"\n".join(pieces)
    expected = [line for line in body.split(b"\n") if line.strip()]
    lines = Lines()
    found = []
    at = 0
    for cut in sorted(cuts):
        found += lines.feed(body[at:cut])
        at = max(at, cut)
    found += lines.feed(body[at:])
    assert found + lines.end() == expected


def test_a_line_has_a_longest() -> None:
    lines = Lines()
    assert lines.feed(b"x" * LONGEST_LINE) == []
    assert lines.feed(b"\ny") == [b"x" * LONGEST_LINE]
    with pytest.raises(OllamadError, match="8 MB"):
        lines.feed(b"x" * LONGEST_LINE)
    whole = Lines()
    with pytest.raises(OllamadError, match="8 MB"):
        whole.feed(b"x" * (LONGEST_LINE + 1) + b"\n")
