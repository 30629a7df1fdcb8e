"""Tool calls behind a template's tag: the cases of prompting.md 8.5 and what models get wrong."""

import itertools
import re
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ollamad.parsing.events import Call, Content, Event, Thinking, merged
from ollamad.parsing.tool_calls import ToolCallParser
from ollamad.wire import Tool, ToolFunction, ToolFunctionParameters

NAMES = (
    "get_temperature",
    "get_conditions",
    "say_hello",
    "say_hello_world",
    "get_address",
    "add",
)
TAG = "<tool_call>"
DEEPSEEK = "<|tool▁calls▁begin|>"


def tool(name: str) -> Tool:
    parameters = ToolFunctionParameters(type="object", properties={})
    return Tool(type="function", function=ToolFunction(name=name, parameters=parameters))


TOOLS = [tool(name) for name in NAMES]


def fed(tag: str, chunks: list[str], tools: list[Tool] = TOOLS) -> list[Event]:
    parser = ToolCallParser(tag, tools)
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return merged(events + parser.finish())


def content(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Content))


def calls(events: list[Event]) -> list[Call]:
    return [event for event in events if isinstance(event, Call)]


Expected = list[tuple[str, dict[str, Any]]]
TOKYO = ("get_conditions", {"location": "Tokyo"})
LONDON = ("get_temperature", {"city": "London"})


@pytest.mark.parametrize(
    ("tag", "chunks", "text", "called"),
    [
        (TAG, ["Hello, how can I help you today?"], "Hello, how can I help you today?", []),
        (
            TAG,
            [
                'Let me check. <tool_call>{"name": "get_temperature", '
                '"arguments": {"city": "New York"}}</tool_call>'
            ],
            "Let me check. ",
            [("get_temperature", {"city": "New York"})],
        ),
        (
            TAG,
            [
                'Okay! <tool_call>{"name": "get_temperature", "arguments": {"city": "London"}}'
                '</tool_call><tool_call>{"name": "get_conditions", '
                '"arguments": {"location": "Tokyo"}}</tool_call>'
            ],
            "Okay! ",
            [LONDON, TOKYO],
        ),
        (TAG, ["I'll use the say_hello tool. "], "I'll use the say_hello tool. ", []),
        (
            TAG,
            ['<tool_call>{"arguments": {"a": "5", "b": "10"}, "name": "add"}</tool_call>'],
            "",
            [("add", {"a": "5", "b": "10"})],
        ),
        (
            TAG,
            ["<tool_call>", "{", '"name": "say_hello', '_world",', '"arguments": {}}', "}"],
            "",
            [("say_hello_world", {})],
        ),
        (
            TAG,
            [r'<tool_call>{"name":"add","arguments":"{\"a\":\"1\"}"}</tool_call>'],
            "",
            [("add", {"a": "1"})],
        ),
        (
            TAG,
            ['<tool_call>{"get_address":{"location":"P"}}</tool_call>'],
            "",
            [("get_address", {"location": "P"})],
        ),
        (TAG, ['<tool_call>add({"a":"1"})</tool_call>'], "", [("add", {"a": "1"})]),
        (
            "[TOOL_CALLS] [",
            [
                '[TOOL_CALLS] [{"name": "get_temperature", "arguments": {"city": "London"}}, '
                '{"name": "get_conditions", "arguments": {"location": "Tokyo"}}][/TOOL_CALLS]'
            ],
            "",
            [LONDON, TOKYO],
        ),
        (
            DEEPSEEK,
            [
                "<think>Wait",
                "…</think><|too",
                "l▁calls▁begin",
                "|>",
                "<|tool▁call▁begin|>function<|tool▁sep|>get_temperature\n",
                "```json\n",
                '{"city": "Tokyo"}\n',
                "```<|tool▁call▁end|>",
                "<|tool▁calls▁end|>",
            ],
            "<think>Wait…</think>",
            [("get_temperature", {"city": "Tokyo"})],
        ),
        (
            "{",
            ["{", '"name": "get_temperature",', '"arguments": {', '"city": "Tokyo"', "}", "}"],
            "",
            [("get_temperature", {"city": "Tokyo"})],
        ),
        (
            "{",
            ['{"name": "search", ', '"arguments": {"query": "x"}', "}"],
            '{"name": "search", "arguments": {"query": "x"}}',
            [],
        ),
        (
            "{",
            ['{"name": "jeff"}', '{"name": "get_conditions", "arguments": {"location": "P"}}'],
            '{"name": "jeff"}{"name": "get_conditions", "arguments": {"location": "P"}}',
            [],
        ),
        ("{", ['for { fmt.Println("hello") }'], 'for { fmt.Println("hello") }', []),
        (
            "{",
            [
                '{"name":"get_conditions","arguments":{"location":"P"}}; '
                '{"name":"add","arguments":{"a":2}}'
            ],
            "",
            [("get_conditions", {"location": "P"}), ("add", {"a": 2})],
        ),
        (
            "[",
            ['[{"name": "get_conditions", "arguments": {"location": "Tokyo"}}'],
            "",
            [TOKYO],
        ),
        ("[", ["[special", " del", "ivery]"], "[special delivery]", []),
        (
            "[",
            ["[", '{"name": "search", "arguments": {"query": "x"}}'],
            '[{"name": "search", "arguments": {"query": "x"}}',
            [],
        ),
    ],
)
def test_the_cases_of_the_contract(
    tag: str, chunks: list[str], text: str, called: Expected
) -> None:
    events = fed(tag, chunks)
    assert content(events) == text
    assert calls(events) == [Call(name, arguments) for name, arguments in called]


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "say_hello',
        '<tool_call>{"name":"get_conditions"}</tool_call>',
        '<tool_call>unknown({"a":"1"})</tool_call>tail',
        '<tool_call>{"name":"add","arguments":"none"}</tool_call>',
        '<tool_call>{"name":"add","arguments":[1]} </tool_call> and more',
        "Use <tool_call> for that.",
        "<tool_call>{'name': 'add'}</tool_call>",
        '<tool_call>{"name": "add", "arguments": {"a": NaN}}</tool_call>',
        "<tool_",
        "<tool_call>{" + "[" * 2000,
    ],
)
def test_what_is_no_call_stays_in_the_answer_as_it_was_written(text: str) -> None:
    """The reference drops these: "text around a tool call vanishes"."""
    assert fed(TAG, [text]) == [Content(text)]


CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
ADD = Call("add", {"a": 1})


@pytest.mark.parametrize(
    ("text", "events"),
    [
        (f"Hi {CALL}", [Content("Hi "), ADD]),
        (f"{CALL}\n\nDone.", [ADD, Content("Done.")]),
        (f"Hi {CALL}\nDone.", [Content("Hi "), ADD, Content("\nDone.")]),
        (f"{CALL}\n{CALL}\n", [ADD, ADD]),
        (f"{CALL} and then\n{CALL}", [ADD, Content("and then\n"), ADD]),
        (f"{CALL}<b>bold</b> text", [ADD, Content("<b>bold</b> text")]),
        (f"{CALL}```python\nx```", [ADD, Content("```python\nx```")]),
        (CALL + "} }</tool_call", [ADD]),
        (f"{CALL}\n```\n", [ADD]),
        (f"{CALL}\n```", [ADD]),
        (r'<tool_call>{"name": "add", "arguments": {"a": "\"}\\"}}', [Call("add", {"a": '"}\\'})]),
        (f"{CALL}<tool_c", [ADD, Content("<tool_c")]),
        (f"{CALL} ad", [ADD, Content("ad")]),
        (f"{CALL} add up", [ADD, Content("add up")]),
        (f"{CALL}, say_hello({{}})", [ADD, Call("say_hello", {})]),
        (f"The <tool_call> tag: {CALL}", [Content("The <tool_call> tag: "), ADD]),
        (f"<tool_call>{{bad}}</tool_call>{CALL}", [Content("<tool_call>{bad}</tool_call>"), ADD]),
        (
            f'<tool_call>{{"name": "add", "arguments": {{"a": 1}}</tool_call>{CALL}',
            [Content('<tool_call>{"name": "add", "arguments": {"a": 1}</tool_call>'), ADD],
        ),
        (
            '<tool_call>I will now call it: {"name": "add", "arguments": {"a": 1}}',
            [Content("I will now call it: "), ADD],
        ),
        (
            '<tool_call>{"name": "add", "arguments": {"a": "x\ny</tool_call> {"}}',
            [Call("add", {"a": "x\ny</tool_call> {"})],
        ),
        (
            "<tool_call>" + "long " * 120 + CALL,
            [Content("<tool_call>" + "long " * 120), ADD],
        ),
    ],
)
def test_text_around_calls_is_kept_in_its_order(text: str, events: list[Event]) -> None:
    assert fed(TAG, [text]) == events
    assert fed(TAG, list(text)) == events


def test_text_behind_a_stray_tag_is_not_held_for_long() -> None:
    parser = ToolCallParser(TAG, TOOLS)
    text = "<tool_call> " + "words and words " * 40
    assert content(merged(parser.feed(text))) == text


def test_brackets_that_hold_no_call_are_text_at_once() -> None:
    parser = ToolCallParser("[", TOOLS)
    assert merged([*parser.feed("[special del"), *parser.feed("ivery] of")]) == [
        Content("[special delivery] of")
    ]


def test_two_calls_in_the_way_of_deepseek() -> None:
    header = "<|tool▁call▁begin|>function<|tool▁sep|>"
    text = (
        f'{DEEPSEEK}{header}get_temperature\n```json\n{{"city": "London"}}\n```<|tool▁call▁end|>\n'
        f'{header}get_conditions\n```json\n{{"location": "Tokyo"}}\n```<|tool▁call▁end|>'
        "<|tool▁calls▁end|><|end▁of▁sentence|>"
    )
    assert fed(DEEPSEEK, [text]) == [Call(*LONDON), Call(*TOKYO)]


@pytest.mark.parametrize(
    ("text", "event"),
    [
        # The object's own name counts before a name among the arguments.
        (
            '{"arguments": {"city": "add"}, "name": "get_temperature"}',
            Call("get_temperature", {"city": "add"}),
        ),
        (
            'add {"arguments": {"city": "x"}, "name": "get_temperature"}',
            Call("get_temperature", {"city": "x"}),
        ),
        ('say_hello_world({"a": 1})', Call("say_hello_world", {"a": 1})),
        # A name that is not the tool's is one of the arguments.
        ('add({"name": "Bob", "age": 3})', Call("add", {"name": "Bob", "age": 3})),
        ('add({"user": {"name": "Bob"}})', Call("add", {"user": {"name": "Bob"}})),
        # Names with a prefix, objects inside of others, other keys.
        ('{"name": "functions.add", "parameters": {"a": 1}}', ADD),
        ('{"function": {"name": "add", "arguments": {"a": 1}}}', ADD),
        ('{"calls": [3, {"name": "add", "arguments": {"a": 1}}]}', ADD),
        ('{"tool_name": "add", "parameters": {"a": 1}}', ADD),
        ('{"add": "{\\"a\\": 1}"}', ADD),
        ('{"tool": "add", "b": 2}', Call("add", {"tool": "add", "b": 2})),
        (
            '{"tool": "add", "user": {"name": "Bob"}}',
            Call("add", {"tool": "add", "user": {"name": "Bob"}}),
        ),
        # The order of arguments is the model's.
        ('{"name": "add", "arguments": {"z": 1, "a": 2}}', Call("add", {"z": 1, "a": 2})),
        # Another tool's call is none of ours, whatever its arguments say.
        (
            '{"name": "search", "arguments": {"q": "add"}}',
            Content('<tool_call>{"name": "search", "arguments": {"q": "add"}}'),
        ),
    ],
)
def test_how_a_call_is_read(text: str, event: Event) -> None:
    events = fed(TAG, [f"<tool_call>{text}"])
    assert events == [event]
    if isinstance(event, Call) and isinstance(events[0], Call):
        assert list(events[0].arguments) == list(event.arguments)


def test_a_tool_whose_name_begins_anothers() -> None:
    tools = [tool("get"), tool("get_weather")]
    events = fed("{", list('{"name":"get_weather","arguments":{}}'), tools)
    assert events == [Call("get_weather", {})]


def test_without_tools_everything_is_content() -> None:
    assert fed(TAG, [CALL], []) == [Content(CALL)]


FRAGMENTS = [
    TAG,
    "</tool_call>",
    "<tool_",
    "call>",
    "[",
    "]",
    "{",
    "}",
    '{"name": "add", "arguments": {"a": 1}}',
    '{"name": "add", "arguments"',
    ': {"b": "\\"}"}}',
    "add",
    "say_hello",
    "_world",
    '({"a": 1})',
    "unknown",
    " ",
    "\n",
    "```",
    "```json\n",
    '"',
    "\\",
    "text",
    "é",
    "<|end|>",
    "<|begin|>",
    "[/TOOL_CALLS]",
    "[TOOL_CALLS] [",
    DEEPSEEK,
    ";",
    "<b",
    ">",
    "x" * 300,
]
TAGS = [TAG, "{", "[", "[TOOL_CALLS] [", DEEPSEEK, "```json", "add"]


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(TAGS),
    st.lists(st.sampled_from(FRAGMENTS), max_size=12),
    st.lists(st.integers(0, 200), max_size=6),
)
@example(TAG, [TAG, "x" * 300, "x" * 300, TAG, '{"name": "add", "arguments": {"a": 1}}'], [520])
def test_the_events_are_the_same_however_the_text_is_cut(
    tag: str, parts: list[str], places: list[int]
) -> None:
    text = "".join(parts)
    whole = fed(tag, [text])
    assert fed(tag, list(text)) == whole
    edges = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    assert fed(tag, [text[a:b] for a, b in itertools.pairwise(edges)]) == whole


def test_ten_thousand_ways_to_cut() -> None:
    random = Random(4)
    called = 0
    for _ in range(1000):
        tag = random.choice(TAGS)
        whole_call = tag * (tag != "{") + '{"name": "add", "arguments": {"a": 1}}'
        text = "".join(random.choices([*FRAGMENTS, *[whole_call] * 4], k=random.randint(1, 10)))
        whole = fed(tag, [text])
        called += len(calls(whole))
        for _ in range(10):
            places = random.choices(range(len(text) + 1), k=random.randint(1, 8))
            edges = [0, *sorted(places), len(text)]
            pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
            assert fed(tag, pieces) == whole, (tag, pieces)
    assert called > 200


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(TAGS), st.lists(st.sampled_from(FRAGMENTS), max_size=12))
def test_nothing_is_lost_where_nothing_is_called(tag: str, parts: list[str]) -> None:
    text = "".join(parts)
    events = fed(tag, [text])
    assert not any(isinstance(event, Thinking) for event in events)
    if not calls(events):
        assert content(events) == text


WORDS = ["tail", "Möwe", "3.14", "done.", "(see", "page", "-"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(WORDS), max_size=6),
    st.lists(st.sampled_from(WORDS), max_size=6),
    st.integers(1, 3),
)
def test_words_around_calls_come_out(before: list[str], after: list[str], count: int) -> None:
    text = " ".join(before) + CALL * count + " ".join(after)
    events = fed(TAG, [text])
    assert calls(events) == [ADD] * count
    assert re.sub(r"\s", "", content(events)) == "".join(before + after)
