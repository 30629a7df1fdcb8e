"""harmony: renderers-and-parsers.md 4."""

import pytest
from support.answers import WEATHER, events_of, outcome, started

from ollamad.parsing.events import Call, Content, Event, Thinking
from ollamad.parsing.families.harmony import HarmonyParser, Header, read_header
from ollamad.parsing.families.harmony_names import convert_names
from ollamad.wire import Message, Tool, ToolFunction, ToolFunctionParameters

SAYS = Message(role="assistant", content="pre")
THINKS = Message(role="assistant", content="", thinking="pre")
CALL = "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"


@pytest.mark.parametrize(
    ("text", "last", "expected"),
    [
        (
            "<|channel|>analysis<|message|>Need weather<|end|><|start|>assistant"
            + CALL
            + '{"city":"Paris"}',
            None,
            [Thinking("Need weather"), Call("get_weather", {"city": "Paris"})],
        ),
        ("<|channel|>final<|message|>Hello<|end|>", None, [Content("Hello")]),
        (
            "<|channel|>commentary<|message|>Preamble.<|end|><|start|>assistant<|channel|>final"
            "<|message|>Done",
            None,
            [Content("Preamble.Done")],
        ),
        ("abc", SAYS, [Content("abc")]),
        (
            "abc<|end|><|start|>assistant<|channel|>final<|message|>x",
            THINKS,
            [Thinking("abc"), Content("x")],
        ),
        ("<|message|>no channel", None, [Content("no channel")]),
        ("<|channel|>weird<|message|>z", None, [Content("z")]),
        # A call in the analysis channel, as the built-in tools are called.
        (
            ' to=browser.search<|channel|>analysis<|message|>{"q":"x"}',
            None,
            [Call("browser.search", {"q": "x"})],
        ),
        # The content type of a structured answer is no text.
        ('<|channel|>final <|constrain|>json<|message|>{"a":1}', None, [Content('{"a":1}')]),
        # The kind of content without its tag, as the model often writes it.
        (
            "<|channel|>commentary to=functions.get_weather code<|message|>{}",
            None,
            [Call("get_weather", {})],
        ),
    ],
)
def test_cases(text: str, last: Message | None, expected: list[Event]) -> None:
    assert events_of("harmony", text, last=last) == expected


def test_text_is_streamed_as_it_comes() -> None:
    parser = started("harmony")
    assert parser.feed("<|channel|>analysis<|message|>Need ") == [Thinking("Need ")]
    assert parser.feed("weather<|en") == [Thinking("weather")]
    assert parser.feed("d|><|start|>assistant<|channel|>final<|mess") == []
    assert parser.feed("age|>Hel") == [Content("Hel")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # A broken call, an empty one, and one that ends early.
        (CALL + "{bad", [Content(CALL + "{bad")]),
        (CALL, [Content(CALL)]),
        (CALL + '{"city":<|end|>', [Content(CALL + '{"city":<|end|>')]),
        # Two calls are two, and not one broken one.
        (
            CALL + '{"a":1}<|end|><|start|>assistant' + CALL + '{"b":2}',
            [Call("get_weather", {"a": 1}), Call("get_weather", {"b": 2})],
        ),
        # No message at all.
        ("plain", [Content("plain")]),
        ("plain<|end|><|start|>assistant<|channel|>final<|message|>x", [Content("plainx")]),
        ("plain words<|message|>x", [Content("plain wordsx")]),
        ("<", [Content("<")]),
        # Text between messages.
        ("<|channel|>final<|message|>a<|end|> b <|start|>assistant<|message|>c", [Content("abc")]),
        # A header that breaks off is no text.
        ("<|channel|>fin", []),
        ("<|channel|>final<|mess", []),
        ("<|channel|>final<|message|>a<|end|><|start|>assis", [Content("aassis")]),
        ("<|channel|>final<|message|>a<|end|><|start|>assistant<|chan", [Content("a")]),
    ],
)
def test_what_is_malformed_is_content(text: str, expected: list[Event]) -> None:
    assert events_of("harmony", text) == expected


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("assistant<|channel|>analysis", ("assistant", "analysis", "", "")),
        (
            "assistant<|channel|>commentary to=functions.get_weather <|constrain|>json",
            ("assistant", "commentary", "functions.get_weather", ""),
        ),
        (
            "assistant to=functions.get_weather<|channel|>commentary<|constrain|>json",
            ("assistant", "commentary", "functions.get_weather", ""),
        ),
        ("to=browser.search<|channel|>analysis", ("tool", "analysis", "browser.search", "")),
        (
            "assistant to=functions.get_weather abc<|channel|>analysis",
            ("assistant", "analysis", "functions.get_weather", "abc"),
        ),
        ("", ("", "", "", "")),
    ],
)
def test_headers(text: str, header: tuple[str, str, str, str]) -> None:
    assert read_header(text) == Header(*header)


@pytest.mark.parametrize(
    ("names", "converted"),
    [
        (["get weather"], ["get_weather"]),
        (["get-weather"], ["get_weather"]),
        (["get.weather"], ["get_weather"]),
        (["get weather!"], ["get_weather"]),
        (["a🫠bc"], ["abc"]),
        (["🫠"], ["unnamed"]),
        (["123"], ["_123"]),
        (["$"], ["$"]),
        (["ⓞⓛ123"], ["_123"]),
        (
            ["get weather", "get_weather", "get-weather", "something-different"],
            ["get_weather", "get_weather_2", "get_weather_3", "something_different"],
        ),
        (["a", "a", "b", "a"], ["a", "a_2", "b", "a_3"]),
        (["a_2", "a", "a"], ["a_2", "a", "a_3"]),
        (
            ["browser.open", "python", "browser.not_a_real_built_in"],
            ["browser.open", "python", "browser_not_a_real_built_in"],
        ),
    ],
)
def test_names(names: list[str], converted: list[str]) -> None:
    assert convert_names(names) == converted


def test_the_client_gets_its_own_name_back() -> None:
    tool = Tool(
        type="function",
        function=ToolFunction(
            name="get-weather",
            description="d",
            parameters=ToolFunctionParameters(type="object", properties=None),
        ),
    )
    parser = HarmonyParser()
    rendered = parser.start([tool, WEATHER], None, None)
    assert [tool.function.name for tool in rendered] == ["get_weather", "get_weather_2"]
    assert rendered[0].function.description == "d"
    assert tool.function.name == "get-weather"
    assert outcome(parser, [CALL + "{}"]) == [Call("get-weather", {})]
