"""lfm2 and lfm2-thinking: renderers-and-parsers.md 3.12."""

import pytest
from support.answers import events_of, started

from ollamad.parsing.events import Call, Content, Event, Thinking, merged
from ollamad.wire import Message, Think


def block(text: str) -> str:
    return f"<|tool_call_start|>{text}<|tool_call_end|>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Hi " + block("[get_weather(city='Paris', days=2)]") + " bye",
            [Content("Hi"), Call("get_weather", {"city": "Paris", "days": 2}), Content("bye")],
        ),
        (
            block("[f(a=1)]") + block("[g()]") + " y",
            [Call("f", {"a": 1}), Call("g", {}), Content("y")],
        ),
        (block("f(a=1),\n g(b=[1, 'x'])"), [Call("f", {"a": 1}), Call("g", {"b": [1, "x"]})]),
        # Escapes stay, as in the reference, but not inside of JSON.
        (
            block(r"""[f(a='x\'y', b={"c": "d\"e"})]"""),
            [Call("f", {"a": r"x\'y", "b": {"c": 'd"e'}})],
        ),
        (
            block("[f(a=True, b=null, c=1.5, d=bare, e={'k': None})]"),
            [Call("f", {"a": True, "b": None, "c": 1.5, "d": "bare", "e": {"k": None}})],
        ),
        (block("[]"), []),
        # What is no list of calls is content, and what follows is not swallowed.
        ("a " + block("[f(a=1) g()]") + " z", [Content("a " + block("[f(a=1) g()]") + "z")]),
        (block("[f(a=1)] x"), [Content(block("[f(a=1)] x"))]),
        (block("f(a=1),"), [Content(block("f(a=1),"))]),
        (block("junk"), [Content(block("junk"))]),
        ("a <|tool_call_start|>[f(a=", [Content("a <|tool_call_start|>[f(a=")]),
        ("a <|tool", [Content("a <|tool")]),
        ("<think>a</think>b", [Content("<think>a</think>b")]),
    ],
)
def test_lfm2(text: str, expected: list[Event]) -> None:
    assert events_of("lfm2", text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[get_weather(city='Paris')]", [Call("get_weather", {"city": "Paris"})]),
        ("\nget_weather(city='Paris')\n", [Call("get_weather", {"city": "Paris"})]),
        (
            "[get_weather(city='a'), get_weather(city='b')]",
            [Call("get_weather", {"city": "a"}), Call("get_weather", {"city": "b"})],
        ),
        # Not all of it, or not only, a list of declared tools' calls.
        ("[get_weather(city='a'), f()]", [Content("[get_weather(city='a'), f()]")]),
        ("[get_weather(city='a')] is how", [Content("[get_weather(city='a')] is how")]),
        ("[get_weather(city='a'", [Content("[get_weather(city='a'")]),
        ("So: get_weather(city='a')", [Content("So: get_weather(city='a')")]),
        ("[get_weath", [Content("[get_weath")]),
        ("[1]", [Content("[1]")]),
    ],
)
def test_an_answer_that_is_a_list_of_calls(text: str, expected: list[Event]) -> None:
    assert events_of("lfm2", text) == expected
    if expected and isinstance(expected[0], Call):
        assert events_of("lfm2", text, tools=()) == [Content(text.rstrip())]


def test_without_tools_whitespace_after_thinking_is_dropped() -> None:
    text = "<think>a</think>\n\nb"
    assert events_of("lfm2-thinking", text, tools=()) == [Thinking("a"), Content("b")]


def test_prose_that_begins_like_a_call_is_not_held_to_the_end() -> None:
    parser = started("lfm2")
    pieces = ("get_weather(", "city", ") is a", " function", " that tells")
    assert merged(event for piece in pieces for event in parser.feed(piece)) == [
        Content("get_weather(city) is a function that tells")
    ]
    parser = started("lfm2")
    assert parser.feed("get_weather(city) is a function") == [
        Content("get_weather(city) is a function")
    ]


@pytest.mark.parametrize(
    ("text", "think", "expected"),
    [
        ("<think>\n ab </think>\n\nc", True, [Thinking("ab"), Content("c")]),
        (" \n<think>a</think>", "low", [Thinking("a")]),
        ("\n a<think>b", True, [Content("a<think>b")]),
        ("<thi", True, [Content("<thi")]),
        ("<think>a</th", True, [Thinking("a</th")]),
        ("<think>a</think>b", False, [Content("<think>a</think>b")]),
        ("<think>a</think>b", None, [Content("<think>a</think>b")]),
        (
            "<think>a</think>[get_weather(city='x')]",
            True,
            [Thinking("a"), Call("get_weather", {"city": "x"})],
        ),
    ],
)
def test_lfm2_thinking(text: str, think: Think | None, expected: list[Event]) -> None:
    assert events_of("lfm2-thinking", text, think=think) == expected


def test_an_answer_gone_on_with_does_not_think() -> None:
    last = Message(role="assistant", content="x")
    assert events_of("lfm2-thinking", "<think>a", last=last) == [Content("<think>a")]
