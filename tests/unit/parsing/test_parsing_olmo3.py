"""olmo3 and olmo3-think: renderers-and-parsers.md 3.9, and the calls that olmo3 and lfm2 share."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.answers import events_of, started

from ollamad.parsing.events import Call, Content, Event, Thinking
from ollamad.parsing.python_call import UnfinishedError, read_call
from ollamad.wire import Message, Think


def block(text: str) -> str:
    return f"<function_calls>{text}</function_calls>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Let me " + block('get_weather(city="Paris", days=2)\nf()') + " after",
            [
                Content("Let me "),
                Call("get_weather", {"city": "Paris", "days": 2}),
                Call("f", {}),
                Content(" after"),
            ],
        ),
        (block("\n  f(a=1)  \n\n g()\n"), [Call("f", {"a": 1}), Call("g", {})]),
        (
            block('f(a="x, y", d=1.50, e=-2, f=(1,2), g=)\n\ng()'),
            [
                Call("f", {"a": "x, y", "d": 1.5, "e": -2, "f": "(1,2)", "g": ""}),
                Call("g", {}),
            ],
        ),
        # A quoted argument of several lines.
        (block('f(a="x\ny)")'), [Call("f", {"a": "x\ny)"})]),
        # What is no call stays text, with its tags.
        (block("ns.f(a=1)"), [Content(block("ns.f(a=1)"))]),
        (block("f(a=1)\nbad") + "z", [Content(block("f(a=1)\nbad") + "z")]),
        (block("f() g()"), [Content(block("f() g()"))]),
        (block("f(1)"), [Content(block("f(1)"))]),
        (block("f(a=1, a=2)"), [Content(block("f(a=1, a=2)"))]),
        ("x <function_calls>f(a=", [Content("x <function_calls>f(a=")]),
        ("x <function_", [Content("x <function_")]),
    ],
)
def test_olmo3(text: str, expected: list[Event]) -> None:
    assert events_of("olmo3", text) == expected


@pytest.mark.parametrize("think", [True, False, None])
def test_olmo3_think_always_thinks(think: Think | None) -> None:
    assert events_of("olmo3-think", "\na \n</think>\n\nb\n", think=think) == [
        Thinking("\na"),
        Content("b\n"),
    ]
    assert events_of(
        "olmo3-think", "a</think>b", think=think, last=Message(role="assistant", content="x")
    ) == [Content("a</think>b")]


def test_content_waits_for_nothing_but_tags() -> None:
    parser = started("olmo3")
    assert parser.feed("Let me  <func") == [Content("Let me  ")]
    assert parser.feed("y ") == [Content("<funcy ")]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"'it\'s'", "it's"),
        (r'"a\"b\\c\n\t\r\'\q"', "a\"b\\c\n\t\r'\\q"),
        ("None", None),
        ("null", None),
        ("nil", None),
        ("True", True),
        ("false", False),
        ("[1,'x']", [1, "x"]),
        ('{"k": 1.5}', {"k": 1.5}),
        ("{k: [True, None], 'l': {}}", {"k": [True, None], "l": {}}),
        ("bare", "bare"),
        ("it's", "it's"),
        ("1e3", 1000),
        ("99999999999999999999", 1e20),
        ("1e400", "1e400"),
        ("nan", "nan"),
        ("'a' 'b'", "'a' 'b'"),
        ("[1, 2", None),
    ],
)
def test_values(text: str, value: Any) -> None:
    if text == "[1, 2":
        with pytest.raises(UnfinishedError):
            read_call(f"f(a={text}", 0, escapes=True)
        return
    call, end = read_call(f"f(a={text}, b=1)", 0, escapes=True)
    assert call.arguments == {"a": value, "b": 1}
    assert type(call.arguments["a"]) is type(value)
    assert end == len(f"f(a={text}, b=1)")


@pytest.mark.parametrize("text", ["", "f", "f(", "f(a", "f(a='x", "f(a=[1)]"])
def test_what_more_text_can_repair(text: str) -> None:
    with pytest.raises(ValueError) as error:
        read_call(text, 0, escapes=True)
    assert isinstance(error.value, UnfinishedError) == (text not in ("", "f(a=[1)]"))


@given(st.text("f(),=[]{}:'\"\\ a1", max_size=40))
def test_only_value_errors(text: str) -> None:
    try:
        call, end = read_call(text, 0, escapes=True)
    except ValueError:
        return
    assert text[end - 1] == ")"
    assert text.startswith(call.name)


def test_deep_nesting_ends_as_text() -> None:
    value: Any = read_call("f(" + "a={" + "a:{" * 2999 + "}" * 3000 + ")", 0, escapes=True).call
    value, depth = value.arguments["a"], 0
    while isinstance(value, dict):
        value, depth = value["a"], depth + 1
    assert depth == 100
    assert value == "{a:" * 2899 + "{" + "}" * 2900
