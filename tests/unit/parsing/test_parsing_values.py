from typing import Any

import pytest

from ollamad.parsing.values import coerce, property_types, read_json, read_number
from ollamad.wire import Tool, ToolFunction, ToolFunctionParameters, ToolProperty

CASES = [
    (("integer",), ["5", "+5", "5\n", "\n5"], 5),
    (("integer",), ["-0"], 0),
    (("integer",), [" 5", "5.0", "1e3", "0x10", "99999999999999999999", ""], ...),
    (("integer",), ["9223372036854775807"], 2**63 - 1),
    (("integer",), ["-9223372036854775808"], -(2**63)),
    (("integer",), ["9223372036854775808", "٣", "9" * 5000], ...),
    (("integer",), ["null", "NULL"], None),
    (("boolean",), ["true", "TRUE"], True),
    (("boolean",), ["yes", "1", "", "False"], False),
    (("number",), ["1e3", "1_000"], 1000),
    (("number",), ["5", "5."], 5),
    (("number",), [".5"], 0.5),
    (("number",), ["0x1p4"], 16),
    (("number",), ["1e400", "abc", "nan", "Inf", "+Inf", " 5", "_1", "0x1p9999", "9" * 500], ...),
    (("number",), ["1e20"], 1e20),
    (("array",), ['[1, "x"]'], [1, "x"]),
    (("array",), ["[1,]", "{}", "", "[NaN]", "[" * 5000, "[" * 200 + "]" * 200], ...),
    (("object",), ['{"a":1}'], {"a": 1}),
    (("object",), ["[]", "{"], ...),
    (("string",), ["5", "true", " x ", "<b>&amp;"], ...),
    (("string",), ["\n\nx\n\n"], "\nx\n"),
    (("string",), ["null", "\nNull\n"], None),
    (("integer", "string"), ["5"], 5),
    (("integer", "string"), ["5.5"], ...),
    (("boolean", "null"), ["x"], ...),
    (("integer", "boolean"), ["true"], True),
    (("integer", "boolean"), ["x"], ...),
    ((), ["5", "true"], ...),
    ((), ["null"], None),
]


@pytest.mark.parametrize(
    ("types", "text", "value"),
    [(types, text, value) for types, texts, value in CASES for text in texts],
)
def test_coerce_follows_the_table(types: tuple[str, ...], text: str, value: Any) -> None:
    expected = text if value is ... else value
    result = coerce(text, types)
    assert result == expected
    assert type(result) is type(expected)


def test_line_ends_can_be_kept() -> None:
    assert coerce("\n5\n", ("string",), keep_line_ends=True) == "\n5\n"
    assert coerce("\n5\n", ("integer",), keep_line_ends=True) == "\n5\n"


def test_an_integral_number_is_an_integer_and_minus_nothing_is_nothing() -> None:
    assert str(read_number("1e3")) == "1000"
    assert str(read_number("-0.0")) == "0"


def tool(name: str, **properties: ToolProperty) -> Tool:
    parameters = ToolFunctionParameters(type="object", properties=properties or None)
    return Tool(type="function", function=ToolFunction(name=name, parameters=parameters))


def test_property_types_are_those_of_the_alternatives_or_its_own() -> None:
    tools = [
        tool("g"),
        tool(
            "f",
            a=ToolProperty(type="integer"),
            b=ToolProperty(type=["boolean", "null"]),
            c=ToolProperty(
                type="string", anyOf=[ToolProperty(type="integer"), ToolProperty(type=["boolean"])]
            ),
            d=ToolProperty(),
        ),
    ]
    assert property_types(tools, "f", "a") == ("integer",)
    assert property_types(tools, "f", "b") == ("boolean", "null")
    assert property_types(tools, "f", "c") == ("integer", "boolean")
    assert property_types(tools, "f", "d") == ()
    assert property_types(tools, "f", "x") == ()
    assert property_types(tools, "g", "a") == ()
    assert property_types(tools, "h", "a") == ()


def test_read_json_takes_line_breaks_in_strings() -> None:
    assert read_json(' {"a": "x\n\ty", "b": [1, 2.5, null]} ') == {
        "a": "x\n\ty",
        "b": [1, 2.5, None],
    }


def test_read_json_gives_only_what_can_be_written_again() -> None:
    number = read_json("12345678901234567890")
    assert number == 12345678901234567890.0
    assert isinstance(number, float)
    assert read_json('{"\\ud800": "\\udc00x"}') == {"\ufffd": "\ufffdx"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{} x",
        "NaN",
        "-Infinity",
        "1e999",
        "9" * 5000,
        "[" * 10**5,
        "[" * 101 + "]" * 101,
        "{'a': 1}",
        '["a",]',
    ],
)
def test_read_json_refuses_the_rest(text: str) -> None:
    with pytest.raises(ValueError):
        read_json(text)
