"""renderers-and-parsers.md 1.2: the JSON dialects and value texts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.conversations import BIG, NUMBERS, WEATHER, WEATHER_SJ, tool

from ollamad.prompting.renderers.forms import (
    arguments_object,
    compact,
    indented,
    property_object,
    property_types,
    spaced,
    spaced_raw,
    tool_object,
    value_text,
    with_sorted_keys,
)
from ollamad.wire import ToolProperty


@pytest.mark.parametrize(
    ("value", "cj", "sj"),
    [
        ({"a": 1, "b": [1, "x"]}, '{"a":1,"b":[1,"x"]}', '{"a": 1, "b": [1, "x"]}'),
        ({}, "{}", "{}"),
        ([], "[]", "[]"),
        ([[], {}], "[[],{}]", "[[], {}]"),
        (None, "null", "null"),
        ([True, False], "[true,false]", "[true, false]"),
        ("a:b,c", '"a:b,c"', '"a:b,c"'),
        ({"a:,": '\\":,'}, '{"a:,":"\\\\\\":,"}', '{"a:,": "\\\\\\":,"}'),
        ("<b> & é", '"\\u003cb\\u003e \\u0026 é"', '"\\u003cb\\u003e \\u0026 é"'),
        ("\n\t\x01\x7f\u2028", '"\\n\\t\\u0001\x7f\\u2028"', '"\\n\\t\\u0001\x7f\\u2028"'),
        ("\ud800", '"\ufffd"', '"\ufffd"'),
        (1.0, "1", "1"),
    ],
)
def test_compact_and_spaced(value: Any, cj: str, sj: str) -> None:
    assert compact(value) == cj
    assert spaced(value) == sj


def test_raw_escapes_no_html_but_line_separators() -> None:
    assert spaced_raw({"<": ["&>\u2029"]}) == '{"<": ["&>\\u2029"]}'


def test_numbers_of_the_json_dialects() -> None:
    texts = [compact(value) for value in NUMBERS.values()]
    assert texts == ["1000000", "2097152", "1234567.5", "100000000000000000000", "0.00001"]
    assert compact(BIG) == "12345678901234567000"
    assert compact(2**53 + 1) == "9007199254740992"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a <b>", "a <b>"),
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (2, "2"),
        (2.0, "2"),
        (1.5, "1.5"),
        (94110, "94110"),
        (BIG, "1.2345678901234567e+19"),
        ([1, "x"], '[1,"x"]'),
        ({"b": 1, "a": "<"}, '{"a":"\\u003c","b":1}'),
        ([{"b": 1, "a": 1000000}], '[{"a":1000000,"b":1}]'),
    ],
)
def test_value_text(value: Any, text: str) -> None:
    assert value_text(value) == text


def test_numbers_as_values() -> None:
    texts = [value_text(value) for value in NUMBERS.values()]
    assert texts == ["1e+06", "2.097152e+06", "1.2345675e+06", "1e+20", "1e-05"]


def test_arguments_keep_their_order_on_top_only() -> None:
    arguments = {"z": {"b": 1, "a": [{"d": 1, "c": 2}]}, "a": 1}
    assert compact(arguments_object(arguments)) == '{"z":{"a":[{"c":2,"d":1}],"b":1},"a":1}'
    assert compact(with_sorted_keys(arguments)) == '{"a":1,"z":{"a":[{"c":2,"d":1}],"b":1}}'


def test_the_tool_of_the_examples() -> None:
    assert spaced(tool_object(WEATHER)) == WEATHER_SJ


def test_a_tool_without_parameters() -> None:
    assert spaced(tool_object(tool("ping", type=""))) == (
        '{"type": "function", "function": {"name": "ping", "parameters": {"type": "", '
        '"properties": null}}}'
    )


def test_all_keys_of_a_tool() -> None:
    whole = tool(
        "f",
        {},
        description="d",
        required=["p"],
        items={"z": 1, "a": 2},
        defs={"b": {"d": 1, "c": 2}},
    )
    whole.items = {"y": 1, "x": 2}
    assert compact(tool_object(whole)) == (
        '{"type":"function","items":{"x":2,"y":1},"function":{"name":"f","description":"d",'
        '"parameters":{"type":"object","$defs":{"b":{"c":2,"d":1}},"items":{"a":2,"z":1},'
        '"required":["p"],"properties":{}}}}'
    )


def test_all_keys_of_a_property() -> None:
    whole = ToolProperty(
        required=["q"],
        properties={"z": ToolProperty(type="string"), "a": ToolProperty()},
        enum=[{"b": 1, "a": 2}, "x"],
        description="d",
        items={"b": 1, "a": None},
        type=["string", "null"],
        anyOf=[ToolProperty(type=["integer"]), ToolProperty()],
    )
    assert compact(property_object(whole)) == (
        '{"anyOf":[{"type":"integer"},{}],"type":["string","null"],"items":{"a":null,"b":1},'
        '"description":"d","enum":[{"a":2,"b":1},"x"],'
        '"properties":{"z":{"type":"string"},"a":{}},"required":["q"]}'
    )


def test_raw_tools_are_escaped_in_properties_only() -> None:
    declared = tool(
        "f<",
        {"p<": ToolProperty(description="a <b>", properties={"q": ToolProperty(description="&")})},
        description="a <b>",
        required=["p<"],
        defs={"<": 1},
    )
    assert spaced_raw(tool_object(declared)) == (
        '{"type": "function", "function": {"name": "f<", "description": "a <b>", "parameters": '
        '{"type": "object", "$defs": {"<": 1}, "required": ["p<"], "properties": '
        '{"p\\u003c": {"description": "a \\u003cb\\u003e", "properties": '
        '{"q": {"description": "\\u0026"}}}}}}}'
    )


def test_indented() -> None:
    assert indented({"a": [1, {"b": "<"}], "c": {}, "d": []}) == (
        '{\n    "a": [\n        1,\n        {\n            "b": "\\u003c"\n        }\n    ],\n'
        '    "c": {},\n    "d": []\n}'
    )


def test_property_types() -> None:
    assert property_types("") == []
    assert property_types("string") == ["string"]
    assert property_types(["string", "null"]) == ["string", "null"]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(json_values)
def test_every_dialect_is_json_of_the_same_value(value: Any) -> None:
    for text in (compact(value), spaced(value), spaced_raw(value), indented(value)):
        assert json.loads(text, parse_int=float) == value
        assert "\u2028" not in text
    assert not set("<>&") & set(compact(value))
