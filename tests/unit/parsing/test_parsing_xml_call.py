import re
from typing import Any

import pytest

from ollamad.parsing.events import Call, Content
from ollamad.parsing.xml_call import read_xml_calls
from ollamad.wire import Tool, ToolFunction, ToolFunctionParameters, ToolProperty

TYPES = {
    "a": "integer",
    "b": "boolean",
    "n": "number",
    "d": "array",
    "c": "object",
    "z": "string",
}
TOOLS = [
    Tool(
        type="function",
        function=ToolFunction(
            name="f",
            parameters=ToolFunctionParameters(
                type="object",
                properties={name: ToolProperty(type=kind) for name, kind in TYPES.items()},
            ),
        ),
    )
]


@pytest.mark.parametrize(
    ("raw", "arguments"),
    [
        ("<function=f>\n<parameter=a>\n5\n</parameter>\n</function>", {"a": 5}),
        (
            '<function=f><parameter=z>&amp; <a href="x"></parameter></function>',
            {"z": '&amp; <a href="x">'},
        ),
        ("<function=f></function>", {}),
        ('<function name="f"><parameter name="a">5</parameter></function>', {"a": 5}),
        ("<function=f><parameter=a>1</parameter><parameter=a>2</parameter></function>", {"a": 2}),
        (
            "<function=f><parameter=b>Yes</parameter><parameter=n>1e3</parameter>"
            "<parameter=d>oops</parameter></function>",
            {"b": False, "n": 1000, "d": "oops"},
        ),
        (
            "<function=f><parameter=a> 5 </parameter><parameter=b>TRUE</parameter></function>",
            {"a": " 5 ", "b": True},
        ),
        ("<function=f><parameter=z>x\r\ny\rz</parameter></function>", {"z": "x\ny\nz"}),
        ('<function=f><parameter=c>{"k": [1]}</parameter></function>', {"c": {"k": [1]}}),
        ("<function=f><parameter=q>5</parameter></function>", {"q": "5"}),
    ],
)
def test_a_call(raw: str, arguments: dict[str, Any]) -> None:
    assert read_xml_calls(raw, TOOLS) == [Call("f", arguments)]


def test_the_order_of_the_arguments_is_the_models() -> None:
    raw = "<function=f><parameter=z>1</parameter><parameter=a>2</parameter></function>"
    (call,) = read_xml_calls(raw, TOOLS)
    assert isinstance(call, Call)
    assert list(call.arguments) == ["z", "a"]


def test_the_name_need_not_be_declared() -> None:
    raw = "<function=g><parameter=a>5</parameter></function>"
    assert read_xml_calls(raw, TOOLS) == [Call("g", {"a": "5"})]


def test_text_beside_a_call_is_content() -> None:
    raw = "noise <function=f><parameter=a>5</parameter></function> trailing"
    assert read_xml_calls(raw, TOOLS) == [
        Content("noise "),
        Call("f", {"a": 5}),
        Content(" trailing"),
    ]
    raw = "<function=f>so <parameter=a>5</parameter></function>\n"
    assert read_xml_calls(raw, TOOLS) == [Content("so "), Call("f", {"a": 5})]


def test_a_value_is_its_parameters_own_text_and_the_nested_text_is_beside_it() -> None:
    raw = "<function=f><parameter=z>a<parameter=y>b</parameter>c</parameter></function>"
    assert read_xml_calls(raw, TOOLS) == [Content("b"), Call("f", {"z": "ac"})]


def test_a_second_function_is_a_second_call_and_a_broken_one_is_text() -> None:
    good = "<function=f><parameter=a>5</parameter></function>"
    assert read_xml_calls(good + "\nthen\n" + good, TOOLS) == [
        Call("f", {"a": 5}),
        Content("\nthen\n"),
        Call("f", {"a": 5}),
    ]
    assert read_xml_calls(good + "<function=f>", TOOLS) == [
        Call("f", {"a": 5}),
        Content("<function=f>"),
    ]


def test_other_markup_in_a_value_is_left_as_it_is() -> None:
    raw = "<function=f><parameter=z>type X<T=any> = a < b && c</parameter></function>"
    assert read_xml_calls(raw, TOOLS) == [Call("f", {"z": "type X<T=any> = a < b && c"})]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ('{"name":"f"}', "EOF"),
        ("", "EOF"),
        ("<function=f>\n<parameter=a>5</parameter>", "XML syntax error on line 2: unexpected EOF"),
        (
            "<function=f><parameter=a>5</function>",
            "XML syntax error on line 1: element <parameter> closed by </function>",
        ),
        (
            "<function=f>\n<parameter=a>\x01</parameter></function>",
            "XML syntax error on line 2: illegal character code U+0001",
        ),
        ("</function>", "XML syntax error on line 1: unexpected end element </function>"),
        ("<parameter=a>5</parameter>", "expected element type <function> but have <parameter>"),
        ("<function></function>", "empty function name"),
    ],
)
def test_what_is_no_call_is_an_error(raw: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_xml_calls(raw, TOOLS)
