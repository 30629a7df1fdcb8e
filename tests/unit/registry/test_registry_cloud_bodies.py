"""What is sent to the cloud (http-api.md 17.1.2, 8.2, case 52; compat-apis.md 2.3, X1, X2, X9)."""

import json
from typing import Any

import pytest

from ollamad.api.decoding import decode
from ollamad.errors import BadRequest
from ollamad.registry.cloud_bodies import (
    cloud_body,
    cloud_model_in,
    compact,
    keep_alive_value,
    with_model,
)
from ollamad.wire import (
    FOREVER,
    ChatRequest,
    EmbeddingRequest,
    EmbedRequest,
    GenerateRequest,
    ShowRequest,
)


def again(type_: type[Any], text: str, model: str = "k") -> str:
    return cloud_body(decode(type_, text.encode()), model).decode()


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        (
            GenerateRequest,
            '{"model":"k","prompt":"","suffix":"","system":"","template":"","options":null}',
        ),
        (ChatRequest, '{"model":"k","messages":null,"options":null}'),
        (EmbedRequest, '{"model":"k","input":null,"options":null}'),
        (EmbeddingRequest, '{"model":"k","prompt":"","options":null}'),
        (
            ShowRequest,
            '{"model":"k","system":"","template":"","verbose":false,"options":null,"name":""}',
        ),
    ],
)
def test_what_a_request_without_anything_becomes(type_: type[Any], expected: str) -> None:
    assert again(type_, '{"model":"k:cloud"}') == expected


def test_everything_of_a_generate_request_in_the_order_of_the_reference() -> None:
    sent = again(
        GenerateRequest,
        """{"top_logprobs":3,"logprobs":true,"_debug_render_only":true,"shift":false,
        "truncate":false,"think":"high","options":{"z":1,"a":{"y":2,"b":1.5}},"images":["aGk="],
        "keep_alive":"90s","format":{ "type" : "object" },"raw":true,"stream":false,
        "context":[1,2],"template":"t","system":"s","suffix":"x","prompt":"p","model":"k:cloud",
        "unknown":1}""",
    )
    assert sent == (
        '{"model":"k","prompt":"p","suffix":"x","system":"s","template":"t","context":[1,2],'
        '"stream":false,"raw":true,"format":{"type":"object"},"keep_alive":"1m30s",'
        '"images":["aGk="],"options":{"a":{"b":1.5,"y":2},"z":1},"think":"high","truncate":false,'
        '"shift":false,"logprobs":true,"top_logprobs":3,"_debug_render_only":true}'
    )


@pytest.mark.parametrize("given", ["true", "false"])
def test_switches_are_sent_only_when_the_client_sent_them(given: str) -> None:
    names = ("stream", "think", "truncate", "shift")
    text = ",".join(f'"{name}":{given}' for name in names)
    sent = json.loads(again(ChatRequest, f"{{{text}}}"))
    assert [sent[name] for name in names] == [given == "true"] * 4
    assert not set(names) & json.loads(again(ChatRequest, "{}")).keys()


def test_empty_lists_and_plain_falses_are_left_out() -> None:
    sent = again(
        GenerateRequest, '{"context":[],"images":[],"raw":false,"logprobs":false,"top_logprobs":0}'
    )
    assert sent == again(GenerateRequest, "{}")
    assert json.loads(again(ChatRequest, '{"tools":[],"messages":[],"options":{}}')) == {
        "model": "k",
        "messages": [],
        "options": {},
    }


def test_messages_and_tools_are_written_as_they_were_read() -> None:
    sent = again(
        ChatRequest,
        """{"messages":[{"content":"a <b> & \u2028","role":"USER","images":["aGk="]},
        {"role":"assistant","tool_calls":[{"function":{"arguments":{"z":1,"a":2},"name":"f"}}]}],
        "tools":[{"function":{"name":"g"},"type":"function","strict":true},
        {"type":"function","function":{"name":"h","parameters":{"type":"object","properties":
        {"q":{"type":["string"],"default":1},"b":{"type":["null","string"]}}}}}]}""",
    )
    assert sent == (
        '{"model":"k","messages":[{"role":"user","content":"a \\u003cb\\u003e \\u0026 \\u2028",'
        '"images":["aGk="]},{"role":"assistant","content":"","tool_calls":[{"function":{"index":0,'
        '"name":"f","arguments":{"z":1,"a":2}}}]}],"tools":[{"type":"function","function":'
        '{"name":"g","parameters":{"type":"","properties":null}}},{"type":"function","function":'
        '{"name":"h","parameters":{"type":"object","properties":{"q":{"type":"string"},'
        '"b":{"type":["null","string"]}}}}}],"options":null}'
    )


@pytest.mark.parametrize("value", ['["a","b"]', '"a"', "5", "null"])
def test_any_input_of_embed_goes_to_the_cloud(value: str) -> None:
    assert f'"input":{value}' in again(EmbedRequest, f'{{"input":{value}}}')


def test_the_alias_of_show_is_not_sent_beside_the_name() -> None:
    sent = json.loads(again(ShowRequest, '{"name":"k:cloud","verbose":true,"system":"s"}'))
    assert (sent["model"], sent["name"], sent["verbose"], sent["system"]) == ("k", "", True, "s")


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("42", '"42s"'),
        ("42.5", '"42.5s"'),
        ("0", '"0s"'),
        ('"500ms"', '"500ms"'),
        ('"5m"', '"5m0s"'),
        ("-1", '"2562047h47m16.854775807s"'),
        ('"-1m"', '"2562047h47m16.854775807s"'),
    ],
)
def test_keep_alive_is_written_again(given: str, sent: str) -> None:
    assert f'"keep_alive":{sent}' in again(ChatRequest, f'{{"keep_alive":{given}}}')


def test_case_52() -> None:
    values = [keep_alive_value(n) for n in (42 * 10**9, FOREVER, -1)]
    assert values == ["42s", "2562047h47m16.854775807s", -1]


def test_compact_leaves_what_it_cannot_read() -> None:
    assert compact(b'{ "a" : [ 1 , 2 ] }') == b'{"a":[1,2]}'
    assert compact(b'{ "a": "\\ud800" }') == b'{ "a": "\\ud800" }'
    deep = b" [" * 100_000 + b"]" * 100_000
    assert compact(deep) == deep


# --- raw bodies -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "model"),
    [
        ('{"model":"kimi-k2.5:cloud"}', "kimi-k2.5"),
        ('{"model":"gpt-oss:120b:cloud"}', "gpt-oss:120b"),
        ('{"model":"gpt-oss:120b-cloud"}', "gpt-oss:120b"),
        ('{"model":"kimi-k2.5:latest-cloud"}', "kimi-k2.5:latest"),
        ('{"model":" k : CLOUD "}', "k "),
        ('{"model":"a","model":"k:cloud"}', "k"),
        ('{"messages":"\\ud83d","model":"k:cloud"}', "k"),
        ('{"model":"notreallycloud"}', None),
        ('{"model":"my-cloud-model"}', None),
        ('{"model":"k:local"}', None),
        ('{"model":"kimi:cloud:local"}', None),
        ('{"model":""}', None),
        ('{"model":"  "}', None),
        ('{"model":5}', None),
        ('{"Model":"k:cloud"}', None),
        ("{}", None),
        ('["k:cloud"]', None),
        ('"k:cloud"', None),
        ('{"model":"k:cloud"', None),
        ('{"model":"k:cloud"} junk', None),
        ('{"model":"k:cloud","x":NaN}', None),
        ("", None),
    ],
)
def test_which_raw_bodies_are_for_the_cloud(body: str, model: str | None) -> None:
    assert cloud_model_in(body.encode()) == model


def test_a_raw_body_that_is_no_text_is_none_of_the_clouds_business_but_no_accident() -> None:
    assert cloud_model_in(b'{"model":"\xff:cloud"}') == "\ufffd"
    assert cloud_model_in(b'{"\xff":1,"model":"k:cloud"}') == "k"
    assert with_model(b'{"\xff":1}', "k") == '{"model":"k","\ufffd":1}'.encode()


def test_a_raw_body_keeps_everything_but_the_model() -> None:
    body = b'{"zz": 1, "model":"k:cloud", "messages":[ {"b":1, "a":[2.50, 1e3]} ], "\xc3\xa9":null}'
    assert with_model(body, "k") == (
        b'{"messages":[{"b":1,"a":[2.50,1e3]}],"model":"k","zz":1,"\xc3\xa9":null}'
    )


def test_half_a_surrogate_pair_in_a_raw_body_survives() -> None:
    body = b'{"model":"k:cloud", "messages":[{"b":"\\ud83d", "a": 1}]}'
    assert with_model(body, "k") == b'{"messages":[{"b":"\\ud83d","a":1}],"model":"k"}'


@pytest.mark.parametrize("body", [b"[]", b"{", b"", b'{"a":' + b"[" * 100_000])
def test_only_objects_have_a_model(body: bytes) -> None:
    with pytest.raises(BadRequest):
        with_model(body, "k")
