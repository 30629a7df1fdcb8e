"""laguna and poolside-v1: renderers-and-parsers.md 3.14."""

from typing import Any

import pytest
from support.answers import WEATHER, events_of, started

from ollamad.parsing.events import Call, Content, Event, Thinking, merged
from ollamad.parsing.families.laguna_call import read_laguna_call
from ollamad.wire import Message, Think, Tool, ToolFunction, ToolFunctionParameters

CITY = "<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n"
DAYS = "<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n"
CALL = f"<tool_call>get_weather\n{CITY}{DAYS}</tool_call>"
PARIS = Call("get_weather", {"city": "Paris", "days": 2})
JSON = '{"name":"get_weather","arguments":{"city":"P"}}'
P = Call("get_weather", {"city": "P"})


def tool(name: str) -> Tool:
    return Tool(
        type="function",
        function=ToolFunction(
            name=name, parameters=ToolFunctionParameters(type="object", properties=None)
        ),
    )


@pytest.mark.parametrize("name", ["laguna", "poolside-v1"])
@pytest.mark.parametrize(
    ("text", "think", "expected"),
    [
        (
            f"\nplan\n</think>\nok {CALL}\n",
            True,
            [Thinking("plan"), Content("ok"), PARIS],
        ),
        (f"x <tool_call>{JSON}</tool_call> y", False, [Content("x"), P, Content("y")]),
        ("abc <think> q </think> d", True, [Thinking("abc <think> q"), Content("d")]),
        ("\nhello <think>hidden</think> world\n", False, [Content("hello world")]),
        (" <think>\na</think>b", True, [Thinking("a"), Content("b")]),
        (
            "a</think>b<think>c</think>d",
            True,
            [Thinking("a"), Content("b"), Thinking("c"), Content("d")],
        ),
        # Straight from the thinking to a call, and a tag that closes nothing.
        (f"a {CALL} b", True, [Thinking("a"), PARIS, Content("b")]),
        ("\n</think>\nb</think>c", False, [Content("b</think>c")]),
        (f"<tool_call>{CALL}</tool_call> z", False, [PARIS, Content("z")]),
        # Reasoning that never ends may be prose about the tag.
        ("Use <think> to think", False, [Content("Use <think>to think")]),
        ("a <th", False, [Content("a <th")]),
        ("a \n", True, [Thinking("a")]),
        # Empty calls are dropped, what is no call is content.
        ("a<tool_call>\n</tool_call>b", False, [Content("ab")]),
        ("a <tool_call>{bad}</tool_call>b", False, [Content("a <tool_call>{bad}</tool_call>b")]),
        (
            "<tool_call>f<arg_key>a</tool_call>",
            False,
            [Content("<tool_call>f<arg_key>a</tool_call>")],
        ),
    ],
)
def test_cases(name: str, text: str, think: Think | None, expected: list[Event]) -> None:
    assert events_of(name, text, think=think) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (f"get_weather\n{CITY}", Call("get_weather", {"city": "Paris"})),
        (JSON, P),
        ("get_wea", None),
        ("get_weather", None),
        (f"get_weather\n{CITY}<arg_key>da", None),
        (JSON[:-1], None),
    ],
)
def test_a_call_without_its_end(body: str, expected: Call | None) -> None:
    text = "<tool_call>" + body
    assert events_of("laguna", text, think=False) == [expected or Content(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (JSON, [P]),
        (f"Well.\n{JSON} y", [Content("Well."), P, Content("y")]),
        (f"{JSON}\n{JSON}", [P, P]),
        ('{"arguments":{"city":"P"},"name":"get_weather"}', [P]),
        (f"<user>{JSON}</user> z", [P, Content("z")]),
        (f"<user> get_weather {CITY}</user>", [Call("get_weather", {"city": "Paris"})]),
        # Nothing of this is a declared tool's call.
        ('{"name":"Bob","arguments":{}}', [Content('{"name":"Bob","arguments":{}}')]),
        ('{"name": "Bob"}\nx', [Content('{"name": "Bob"}\nx')]),
        ('{"a":\n{"b":' + JSON + "}}", [Content('{"a":\n{"b":' + JSON + "}}")]),
        (f"see {JSON}", [Content(f"see {JSON}")]),
        ("<user>hello</user>", [Content("<user>hello</user>")]),
        ("<user>get_w</user>", [Content("<user>get_w</user>")]),
        (JSON[:-1], [Content(JSON[:-1])]),
        (f'{{"name": {CALL}', [Content('{"name":'), PARIS]),
        ("<user>get_weather", [Content("<user>get_weather")]),
    ],
)
def test_calls_without_call_tags(text: str, expected: list[Event]) -> None:
    assert without_gaps(events_of("laguna", text, think=False)) == expected
    if P in expected:
        assert not any(
            isinstance(event, Call) for event in events_of("laguna", text, think=False, tools=())
        )


def without_gaps(events: list[Event]) -> list[Event]:
    """Without the whitespace before calls, which may stay or go."""
    return [
        Content(event.text.rstrip()) if isinstance(event, Content) else event for event in events
    ]


def test_what_is_no_call_is_streamed() -> None:
    parser = started("laguna", think=False)
    assert merged(parser.feed("<user>hello")) == [Content("<user>hello")]
    parser = started("laguna", think=False)
    assert merged(parser.feed('{"answer": [1')) == [Content('{"answer": [1')]


def test_an_answer_gone_on_with() -> None:
    last = Message(role="assistant", content="x")
    assert events_of("laguna", "a", last=last) == [Content("a")]
    assert events_of("poolside-v1", "a", last=last) == [Thinking("a")]


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ('get_weather {"city": "a"}', "get_weather", {"city": "a"}),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', "f", {"a": 1}),
        ('{"name": "f"}', "f", {}),
        ("f", "f", {}),
        ("f<arg_key>a</arg_key><arg_value>1</arg_value>", "f", {"a": "1"}),
        ("<tool_call>f<tool_call>{}", "f", {}),
        ("read_file", "read", {}),
        ("write_file", "write_file", {}),
        ('{"name": "web_fetch"}', "webfetch", {}),
    ],
)
def test_call_text(text: str, name: str, arguments: dict[str, Any]) -> None:
    tools = [WEATHER, tool("read"), tool("webfetch"), tool("write"), tool("write_file")]
    assert read_laguna_call(text, tools) == Call(name, arguments)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"name": ""}',
        '{"arguments": {}}',
        '{"name": "f", "arguments": [1]}',
        '{"name": "f", "other": {"a": 1}}',
        "f [1]",
        "f <arg_key>a</arg_key>",
        "f <arg_key>a</arg_key><arg_value>1</arg_value> x",
        "f<arg_key>a</arg_key><arg_value>1</arg_value><arg_key>a</arg_key><arg_value>2</arg_value>",
    ],
)
def test_no_call_text(text: str) -> None:
    with pytest.raises(ValueError):
        read_laguna_call(text, [WEATHER])
