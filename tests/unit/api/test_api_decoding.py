"""Body decoding by the tables of http-api.md 3.1, C3, C4 and C11."""

import base64
import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad import wire
from ollamad.api.decoding import decode
from ollamad.errors import BadRequest
from ollamad.wire import ChatRequest, CreateRequest, EmbedRequest, GenerateRequest

G, C = GenerateRequest, ChatRequest
NO_OBJECT = "Value looks like object, but can't find closing '}' symbol"
THINK = '"high", "medium", "low", "max", true, or false'


def into(kind: str, field: str, go_type: str) -> str:
    return f"json: cannot unmarshal {kind} into Go struct field {field} of type {go_type}"


def tool(inside: str) -> str:
    return f'{{"tools":[{{"function":{{"parameters":{{{inside}}}}}}}]}}'


def call(arguments: str) -> str:
    return f'{{"messages":[{{"tool_calls":[{{"function":{{"arguments":{arguments}}}}}]}}]}}'


PARAMETERS = "ToolFunctionParameters.tools.function.parameters"

ERRORS: list[tuple[type[Any], str, str]] = [
    (G, "", "missing request body"),
    (G, " \n\t", "missing request body"),
    (G, "{", "unexpected EOF"),
    (G, '{"model":', "unexpected EOF"),
    (G, '{"model":"a",}', "invalid character '}' looking for beginning of object key string"),
    (G, "nope", "invalid character 'o' in literal null (expecting 'u')"),
    (G, "{'model':1}", r"invalid character '\'' looking for beginning of object key string"),
    (G, '{"a":"\t"}', r"invalid character '\t' in string literal"),
    (G, r'"\x"', "invalid character 'x' in string escape code"),
    (G, '{"a":NaN}', "invalid character 'N' looking for beginning of value"),
    (G, "\ufeff{}", "invalid character 'ï' looking for beginning of value"),
    (G, '{"a":01}', "invalid character '1' after object key:value pair"),
    (G, '{"a":1.}', "invalid character '}' after decimal point in numeric literal"),
    (G, '{"model" 1}', "invalid character '1' after object key"),
    (G, '{"model":"a" "b"}', "invalid character '\"' after object key:value pair"),
    (G, f'{{"a":{"[" * 10001}{"]" * 10001}}}', "invalid character '[' exceeded max depth"),
    (G, "[]", "json: cannot unmarshal array into Go value of type api.GenerateRequest"),
    (C, '"x"', "json: cannot unmarshal string into Go value of type api.ChatRequest"),
    (C, "5", "json: cannot unmarshal number into Go value of type api.ChatRequest"),
    (C, "true", "json: cannot unmarshal bool into Go value of type api.ChatRequest"),
    (G, '{"model":1}', into("number", "GenerateRequest.model", "string")),
    (G, '{"model":1,"prompt":2}', into("number", "GenerateRequest.model", "string")),
    (G, '{"MODEL":true}', into("bool", "GenerateRequest.model", "string")),
    (G, '{"stream":"true"}', into("string", "GenerateRequest.stream", "bool")),
    (G, '{"raw":1}', into("number", "GenerateRequest.raw", "bool")),
    (G, '{"top_logprobs":1.5}', into("number 1.5", "GenerateRequest.top_logprobs", "int")),
    (G, '{"top_logprobs":1e1}', into("number 1e1", "GenerateRequest.top_logprobs", "int")),
    (G, '{"top_logprobs":true}', into("bool", "GenerateRequest.top_logprobs", "int")),
    (
        G,
        '{"top_logprobs":99999999999999999999}',
        into("number 99999999999999999999", "GenerateRequest.top_logprobs", "int"),
    ),
    (G, '{"context":"x"}', into("string", "GenerateRequest.context", "[]int")),
    (G, '{"context":[1.0]}', into("number 1.0", "GenerateRequest.context", "int")),
    (G, '{"options":[]}', into("array", "GenerateRequest.options", "map[string]interface {}")),
    (G, '{"options":{"x":1e999}}', into("number 1e999", "GenerateRequest.options", "float64")),
    (G, '{"images":"x"}', into("string", "GenerateRequest.images", "[]api.ImageData")),
    (G, '{"images":[5]}', into("number", "GenerateRequest.images", "api.ImageData")),
    (G, '{"images":[[1.5]]}', into("number 1.5", "GenerateRequest.images", "uint8")),
    (G, '{"images":[[256]]}', into("number 256", "GenerateRequest.images", "uint8")),
    (G, '{"images":["data:image/png;base64,AAAA"]}', "illegal base64 data at input byte 4"),
    (G, '{"images":["AAA"]}', "illegal base64 data at input byte 0"),
    (G, '{"images":["AAAAAA="]}', "illegal base64 data at input byte 7"),
    (G, '{"images":["AAAA AAAA"]}', "illegal base64 data at input byte 4"),
    (G, '{"images":["AA_A"]}', "illegal base64 data at input byte 2"),
    (G, '{"images":["AAA=x"]}', "illegal base64 data at input byte 4"),
    (C, '{"messages":"x"}', into("string", "ChatRequest.messages", "[]api.Message")),
    (C, '{"messages":["x"]}', into("string", "ChatRequest.messages", "api.Alias")),
    (
        C,
        '{"messages":[{"role":"user","content":["a"]}]}',
        into("array", "ChatRequest.messages.content", "string"),
    ),
    (
        C,
        '{"messages":[{"tool_calls":[{"function":{"name":1}}]}]}',
        into("number", "ChatRequest.messages.tool_calls.function.name", "string"),
    ),
    (CreateRequest, '{"messages":[5]}', into("number", "CreateRequest.messages", "api.Alias")),
    (CreateRequest, '{"files":{"a":5}}', into("number", "CreateRequest.files", "string")),
    (
        CreateRequest,
        '{"files":[]}',
        into("array", "CreateRequest.files", "map[string]string"),
    ),
    (C, call('"{}"'), NO_OBJECT),
    (C, call("[]"), NO_OBJECT),
    (C, call("1"), NO_OBJECT),
    (C, tool('"properties":[]'), NO_OBJECT),
    (C, '{"tools":{}}', into("object", "ChatRequest.tools", "api.Tools")),
    (C, '{"tools":[1]}', into("number", "ChatRequest.tools", "api.Tool")),
    (C, '{"tools":[{"type":1}]}', into("number", "Tool.tools.type", "string")),
    (C, '{"tools":[{"function":[]}]}', into("array", "Tool.tools.function", "api.ToolFunction")),
    (C, tool('"type":["object"]'), into("array", f"{PARAMETERS}.type", "string")),
    (
        C,
        tool('"properties":{"a":5}'),
        into("number", f"{PARAMETERS}.properties", "api.ToolProperty"),
    ),
    (
        C,
        tool('"properties":{"a":{"type":5}}'),
        into("number", f"{PARAMETERS}.properties.type", "[]string"),
    ),
    (G, '{"keep_alive":"10"}', 'time: missing unit in duration "10"'),
    (G, '{"keep_alive":"-1"}', 'time: missing unit in duration "-1"'),
    (G, '{"keep_alive":""}', 'time: invalid duration ""'),
    (G, '{"keep_alive":"5x"}', 'time: unknown unit "x" in duration "5x"'),
    (G, '{"keep_alive":true}', "Unsupported type: 'bool'"),
    (G, '{"keep_alive":[]}', "Unsupported type: '[]interface {}'"),
    (G, '{"keep_alive":{}}', "Unsupported type: 'map[string]interface {}'"),
    (G, '{"think":"invalid"}', f'invalid think value: "invalid" (must be {THINK})'),
    (G, '{"think":"true"}', f'invalid think value: "true" (must be {THINK})'),
    (G, '{"think":1}', f"think must be a boolean or string ({THINK})"),
    (G, '{"think":{}}', f"think must be a boolean or string ({THINK})"),
]


@pytest.mark.parametrize(
    ("type_", "body", "text"),
    ERRORS,
    ids=[f"{i} {body[:30]}" for i, (_, body, _) in enumerate(ERRORS)],
)
def test_error_texts(type_: type[Any], body: str, text: str) -> None:
    with pytest.raises(BadRequest) as raised:
        decode(type_, body.encode())
    assert raised.value.message == text


@pytest.mark.parametrize("type_", [G, C, EmbedRequest, CreateRequest, wire.CopyRequest])
def test_null_and_an_empty_object_are_all_defaults(type_: type[Any]) -> None:
    assert decode(type_, b"null") == decode(type_, b"{}") == type_()


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        ('{"MODEL":"test","Prompt":""} junk', "model", "test"),
        ('{"model":"test"}}', "model", "test"),
        ('{"model":"x","model":"test"}', "model", "test"),
        ('{"model":"test","model":null}', "model", "test"),
        ('{"stream":true,"stream":null}', "stream", None),
        ('{"stream":null}', "stream", None),
        ('{"stream":false}', "stream", False),
        ('{"nonsense":{"a":[1]},"model":"m"}', "model", "m"),
        ('{"options":{"a":1,"b":1},"options":{"b":2}}', "options", {"a": 1, "b": 2}),
        ('{"options":{"A":1,"a":null,"f":1.5}}', "options", {"A": 1, "a": None, "f": 1.5}),
        ('{"options":{},"options":null}', "options", None),
        ('{"context":[1,2,-3]}', "context", [1, 2, -3]),
        ('{"context":[]}', "context", []),
        ('{"images":[null,"AA==","AAA\\n=",[1,2]]}', "images", [b"", b"\0", b"\0\0", b"\1\2"]),
        ('{"model":"\\ud800x\\ud83d\\ude00"}', "model", "\ufffdx\U0001f600"),
        ('{"_debug_render_only":true}', "debug_render_only", True),
        ('{"keep_alive":42}', "keep_alive", 42_000_000_000),
        ('{"keep_alive":42.5}', "keep_alive", 42_500_000_000),
        ('{"keep_alive":"42m"}', "keep_alive", 42 * 60 * 10**9),
        ('{"keep_alive":-1}', "keep_alive", wire.FOREVER),
        ('{"keep_alive":-3.14}', "keep_alive", wire.FOREVER),
        ('{"keep_alive":"-1m"}', "keep_alive", wire.FOREVER),
        ('{"keep_alive":1e10}', "keep_alive", wire.FOREVER),
        ('{"keep_alive":0}', "keep_alive", 0),
        ('{"keep_alive":"0"}', "keep_alive", 0),
        ('{"keep_alive":null}', "keep_alive", None),
        ('{"think":"high"}', "think", "high"),
        ('{"think":false}', "think", False),
        ('{"think":null}', "think", None),
        (f'{{"a":{"[" * 9000}{"]" * 9000},"model":"m"}}', "model", "m"),
        (f'{{"a":{"9" * 5000},"model":"m"}}', "model", "m"),
        ('{"a":1e999,"model":"m"}', "model", "m"),
    ],
)
def test_accepted(body: str, field: str, value: Any) -> None:
    decoded = getattr(decode(G, body.encode()), field)
    assert decoded == value
    assert type(decoded) is type(value)


def test_invalid_utf8_is_replaced() -> None:
    assert decode(G, b'{"model":"a\xff"}').model == "a\ufffd"


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ('{"format": {"b": 1.0,  "a":2}} junk', b'{"b": 1.0,  "a":2}'),
        ('{"FORMAT":"json"}', b'"json"'),
        ('{"format":"x","format":[1, 2]}', b"[1, 2]"),
        ('{"format":{"\\ud800":1.5}}', '{"\ufffd":1.5}'.encode()),
    ],
)
def test_format_keeps_the_clients_text(body: str, kept: bytes) -> None:
    decoded = decode(G, body.encode()).format
    assert decoded is not None
    assert json.loads(bytes(decoded)) == json.loads(kept)
    if b"\xef" not in kept:
        assert bytes(decoded) == kept


@pytest.mark.parametrize("body", ['{"format":null}', "{}", '{"format":"x","format":null}'])
def test_null_format_is_absent(body: str) -> None:
    assert decode(G, body.encode()).format is None


def test_messages() -> None:
    body = """{"messages":[{"Role":"TOOl","content":null,"tool_name":"f"},null,{},
        {"role":"assistant","tool_calls":[{"function":{"name":"f","index":2,
        "arguments":{"z":1,"a":{"y":1,"b":2.0}}}},{"function":{"arguments":null}}]}]}"""
    messages = decode(C, body.encode()).messages
    assert messages is not None
    assert [(m.role, m.content, m.tool_name) for m in messages] == [
        ("tool", "", "f"),
        ("", "", ""),
        ("", "", ""),
        ("assistant", "", ""),
    ]
    calls = messages[3].tool_calls
    assert calls is not None
    assert list(calls[0].function.arguments) == ["z", "a"]
    assert list(calls[0].function.arguments["a"]) == ["b", "y"]
    assert calls[0].function.index == 2
    assert calls[1].function.arguments == {}


def test_tools_keep_what_the_contract_names() -> None:
    body = """{"tools":[{"function":{"name":"x"}},{"type":"function","x":1,"function":{
        "name":"f","strict":true,"parameters":{"type":"object","additionalProperties":false,
        "$defs":{"b":1,"a":2},"required":["q"],"properties":{
            "q":{"type":"string","title":"t","enum":["a",1,null]},
            "n":{"type":["integer","null"],"items":{"z":1,"a":2}},
            "d":{"anyOf":[{"type":["string"],"required":[]}],"properties":{"i":{"description":"in"}}}}}}}]}"""
    tools = decode(C, body.encode()).tools
    assert tools is not None
    encoded = [json.loads(msgspec.json.encode(tool)) for tool in tools]
    assert encoded[0]["function"]["parameters"] == {"type": "", "properties": None}
    parameters = encoded[1]["function"]["parameters"]
    assert list(parameters) == ["type", "$defs", "required", "properties"]
    assert list(parameters["$defs"]) == ["a", "b"]
    assert parameters["properties"] == {
        "q": {"type": "string", "enum": ["a", 1, None]},
        "n": {"type": ["integer", "null"], "items": {"a": 2, "z": 1}},
        "d": {"anyOf": [{"type": "string"}], "properties": {"i": {"description": "in"}}},
    }
    assert list(parameters["properties"]) == ["q", "n", "d"]


def test_deep_values_of_free_form_fields_are_cut_off() -> None:
    body = f'{{"options":{{"x":{"[" * 950}1{"]" * 950}}},"model":"m"}}'
    assert decode(G, body.encode()).model == "m"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["model", "options", "stream", "x", "context"]), json_values)
)
def test_agrees_with_a_strict_decoder_on_what_that_accepts(value: dict[str, Any]) -> None:
    body = msgspec.json.encode(value)
    try:
        strict = msgspec.json.decode(body, type=G)
    except msgspec.ValidationError:
        return
    assert decode(G, body) == strict


@given(st.binary(max_size=40) | st.text('{}[]",:tfn0e.-\\u \n').map(str.encode))
def test_nothing_but_bad_request_escapes(body: bytes) -> None:
    for type_ in (G, C):
        with suppress(BadRequest):
            decode(type_, body)


@given(st.binary(max_size=30))
def test_base64_round_trip(data: bytes) -> None:
    text = base64.encodebytes(data).decode()
    body = json.dumps({"images": [text]}).encode()
    assert decode(G, body).images == [data]
