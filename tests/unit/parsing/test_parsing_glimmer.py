"""glimmer: renderers-and-parsers.md 3.16."""

from typing import Any

import pytest
from support.answers import WEATHER, events_of, started

from ollamad.parsing.events import Call, Content, Event, Thinking
from ollamad.parsing.families.glimmer_call import addressed_tool, read_block
from ollamad.wire import Think, Tool, ToolFunction, ToolFunctionParameters

MAIL = Tool(
    type="function",
    function=ToolFunction(
        name="mail.send", parameters=ToolFunctionParameters(type="object", properties=None)
    ),
)
CITY = '<atem:parameter name="city">Paris</atem:parameter>\n'


def block(parameters: str = CITY, name: str = "get_weather") -> str:
    return (
        f'<atem:function_calls>\n<atem:invoke name="{name}">\n{parameters}</atem:invoke>\n'
        "</atem:function_calls>"
    )


PARIS = Call("get_weather", {"city": "Paris"})
DAYS = '<atem:parameter name="days">2</atem:parameter>\n'


@pytest.mark.parametrize(
    ("text", "think", "expected"),
    [
        (
            " to=self<|message|>plan<|eom|><|start|>assistant to=get_weather<|message|>"
            + block(CITY + DAYS)
            + "<|eot|>",
            True,
            [Thinking("plan"), Call("get_weather", {"city": "Paris", "days": 2})],
        ),
        (" to=user<|message|>Hello<|eot|>", True, [Content("Hello")]),
        # The next header ends a body; one that is none does not.
        (
            " to=self<|message|>a<|start|>assistant to=user<|message|>b<|start|>assistants",
            None,
            [Thinking("a"), Content("b<|start|>assistants")],
        ),
        ("<|message|>a<|start|>assistant<|message|>b", True, [Content("ab")]),
        (
            "<|message|>a<|start|>assistant to=x y<|message|>b",
            True,
            [Content("a<|start|>assistant to=x y<|message|>b")],
        ),
        # Reasoning that is not asked for.
        (
            " to=self<|message|>plan<|eom|><|start|>assistant to=user<|message|>b",
            False,
            [Content("b")],
        ),
        # Recipients.
        (" to=nope<|message|>" + block(), True, [PARIS]),
        (" to=get_weather.get_weather<|message|>" + block(), True, [PARIS]),
        ("get_weather<|message|>" + block(), True, [PARIS]),
        (" to=user<|message|>" + block() + "\n<|eot|>", True, [PARIS]),
        (" to=user<|message|>" + block() + " is how", True, [Content(block() + " is how")]),
        (" to=get_weather<|message|>" + block() + " so", True, [PARIS, Content("so")]),
        (" to=get_weather<|message|>a " + block(), True, [Content("a "), PARIS]),
        # A terminator inside of a value, and a value with newlines.
        (
            " to=get_weather<|message|>"
            + block('<atem:parameter name="city">a<|eot|>b</atem:parameter>')
            + "<|eot|>",
            True,
            [Call("get_weather", {"city": "a<|eot|>b"})],
        ),
        (
            " to=get_weather<|message|>" + block(DAYS.replace("2", "\n5\n")),
            True,
            [Call("get_weather", {"days": "\n5\n"})],
        ),
        # What is no call is content.
        (" to=get_weather<|message|>junk<|eot|>", True, [Content("junk")]),
        (" to=get_weather<|message|>" + block(name="f"), True, [Content(block(name="f"))]),
        (" to=user<|message|>" + block(name="f"), True, [Content(block(name="f"))]),
        (" to=get_weather<|message|>" + block("junk"), True, [Content(block("junk"))]),
        (
            " to=get_weather<|message|><atem:function_calls>x<|eom|><|start|>assistant to=user"
            "<|message|>y",
            True,
            [Content("<atem:function_calls>xy")],
        ),
        # Text where a header belongs.
        ("plain text", True, [Content("plain text")]),
        ("plain text<|message|>a", True, [Content("plain texta")]),
        ("plain<|eot|><|start|>assistant to=user<|message|>a", True, [Content("plaina")]),
        ("plain<|start|>assistant to=user<|message|>a", True, [Content("plaina")]),
        (" to=user<|message|>a<|eom|><|start|>assistant", True, [Content("a")]),
        (" to=user<|message|>a<|eo", True, [Content("a<|eo")]),
    ],
)
def test_cases(text: str, think: Think | None, expected: list[Event]) -> None:
    assert events_of("glimmer", text, think=think) == expected


def test_text_is_streamed() -> None:
    parser = started("glimmer")
    assert parser.feed(" to=user<|message|>Hel") == [Content("Hel")]
    assert parser.feed("lo <|start|>assistant to=") == [Content("lo ")]
    assert parser.feed("get_weather <") == []
    assert parser.feed("b") == [Content("<|start|>assistant to=get_weather <b")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<atem:function_calls>x</atem:function_calls>", "missing ATEM invoke wrapper"),
        (block(name=""), "malformed ATEM invoke name"),
        (block('<atem:parameter name="">x</atem:parameter>'), "malformed ATEM parameter name"),
        (block("junk"), "malformed ATEM parameter"),
        (block('<atem:parameter name="k">x'), 'unterminated ATEM parameter "k"'),
        (block(CITY + CITY), 'repeated ATEM parameter "city"'),
    ],
)
def test_no_block(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as error:
        read_block(text)
    assert str(error.value) == reason


def test_a_message_tag_in_the_invoked_name_is_ignored() -> None:
    assert read_block(block(name="f<|message|>")).name == "f"


@pytest.mark.parametrize(
    ("recipient", "expected"),
    [
        ("get_weather", "get_weather"),
        ("get_weather.get_weather", "get_weather"),
        ("mail.send", "mail.send"),
        ("mail.mail.send", "mail.send"),
        ("mail.get_weather", None),
        ("other", None),
        ("", None),
    ],
)
def test_namespaces(recipient: str, expected: Any) -> None:
    assert addressed_tool(recipient, [WEATHER, MAIL]) == expected


def test_a_message_to_one_tool_does_not_call_another() -> None:
    text = " to=get_weather<|message|>" + block("", name="mail.send")
    assert events_of("glimmer", text, tools=[WEATHER, MAIL]) == [
        Content(block("", name="mail.send"))
    ]
    assert events_of("glimmer", text.replace("get_weather", "mail.mail.send"), tools=[MAIL]) == [
        Call("mail.send", {})
    ]
