"""The worked examples of the Qwen and Nemotron parsers (3.1 to 3.4, 3.10) and their cases."""

import pytest
from support.answers import events_of, outcome, started

from ollamad.parsing.events import Call, Content, Event, Thinking
from ollamad.parsing.families.registry import find_parser
from ollamad.wire import Message, Think

PARIS = Call("get_weather", {"city": "Paris", "days": 2})
XML_CALL = (
    "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n"
    "<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>"
)
JSON_CALL = (
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}\n</tool_call>'
)
PREFILL = Message(role="assistant", content="Par")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "qwen3-coder",
            f"Let me see.\n\n{XML_CALL}",
            [Content("Let me see."), PARIS],
        ),
        (
            "qwen3-thinking",
            '<think>\nhm</think>\n\nok  <tool_call>\n{"name":"x","arguments":{"b":1,"a":2}}\n'
            "</tool_call>\n z",
            [Thinking("hm"), Content("ok"), Call("x", {"b": 1, "a": 2}), Content("z")],
        ),
        ("qwen3-thinking", "<think>\nhm</think>\n\nok", [Thinking("hm"), Content("ok")]),
        ("qwen3-thinking", "</think> \nh", [Content("h")]),
        ("qwen3", f"ok {JSON_CALL}\n z", [Content("ok"), PARIS, Content("z")]),
        (
            "qwen3-vl-thinking",
            f"Let me</think>\n\nHello {JSON_CALL}",
            [Thinking("Let me"), Content("Hello"), PARIS],
        ),
        (
            "qwen3.5",
            f"plan\n</think>\n\nI'll check.\n\n{XML_CALL}",
            [Thinking("plan"), Content("I'll check."), PARIS],
        ),
        ("qwen3.5", f"plan {XML_CALL}", [Thinking("plan"), PARIS]),
        ("qwen3.5", f" \n{XML_CALL}", [PARIS]),
        (
            "nemotron-3-nano",
            f"<think>\nplan</think>\n\nok {XML_CALL}\n",
            [Thinking("plan"), Content("ok"), PARIS],
        ),
        ("nemotron-3-nano", f"plan {XML_CALL}", [Thinking("plan"), PARIS]),
        ("nemotron-3-nano", "\nab", [Thinking("ab")]),
        ("nemotron-3.5-nano", " \n<think> \nab", [Thinking("ab")]),
    ],
)
def test_worked_examples(name: str, text: str, expected: list[Event]) -> None:
    assert events_of(name, text) == expected


@pytest.mark.parametrize(
    ("name", "think", "last", "expected"),
    [
        ("qwen3", True, None, [Content("ab")]),
        ("qwen3-thinking", None, None, [Thinking("ab")]),
        ("qwen3-thinking", "low", None, [Thinking("ab")]),
        ("qwen3-thinking", False, None, [Content("ab")]),
        ("qwen3-thinking", True, PREFILL, [Thinking("ab")]),
        ("qwen3-vl-instruct", True, None, [Content("ab")]),
        ("qwen3-vl-thinking", None, None, [Thinking("ab")]),
        ("qwen3-vl-thinking", False, None, [Content("ab")]),  # the reference: thinking
        ("qwen3-vl-thinking", True, PREFILL, [Content("ab")]),
        ("qwen3-coder", True, None, [Content("ab")]),
        ("qwen3.5", None, None, [Thinking("ab")]),
        ("qwen3.5", "max", Message(role="assistant", content=""), [Thinking("ab")]),
        ("qwen3.5", False, None, [Content("ab")]),
        ("qwen3.5", True, PREFILL, [Content("ab")]),
        ("ornith", True, Message(role="user", content="Hi"), [Thinking("ab")]),
        ("nemotron-3-nano", None, None, [Thinking("ab")]),
        ("nemotron-3-nano", False, None, [Content("ab")]),
        ("nemotron-3.5-nano", True, PREFILL, [Content("ab")]),
    ],
)
def test_how_an_answer_begins(
    name: str, think: Think | None, last: Message | None, expected: list[Event]
) -> None:
    assert events_of(name, "ab", think=think, last=last) == expected


def test_the_opening_tag_is_text_where_the_prompt_does_not_think() -> None:
    for name in ("qwen3", "qwen3-vl-instruct", "qwen3-coder"):
        assert events_of(name, "<think>a</think>b") == [Content("<think>a</think>b")]
    assert events_of("qwen3.5", "<think>a", think=False) == [Content("<think>a")]
    assert events_of("qwen3-vl-thinking", "<think>a</think>b") == [
        Thinking("<think>a"),
        Content("b"),
    ]


def test_an_opening_tag_later_in_the_reasoning_is_text() -> None:
    assert events_of("qwen3.5", "a <think> b</think>c") == [Thinking("a <think> b"), Content("c")]


def test_text_is_given_before_its_end_is_known() -> None:
    parser = started("qwen3.5")
    assert parser.feed("plan ") == [Thinking("plan")]
    assert parser.feed("more</th") == [Thinking(" more")]
    assert parser.feed("ink> a <") == [Content("a")]
    assert parser.feed(" b") == [Content(" < b")]
    assert parser.finish() == []


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("qwen3-coder", "a <tool_c", [Content("a <tool_c")]),
        ("qwen3.5", "a </thi", [Thinking("a </thi")]),
        ("qwen3.5", "<thi", [Thinking("<thi")]),
        ("qwen3.5", "a \n", [Thinking("a")]),
        ("qwen3", 'a\n<tool_call>\n{"name": "f"', [Content('a\n<tool_call>\n{"name": "f"')]),
        ("qwen3", "a <tool_call> ", [Content("a <tool_call>")]),
    ],
)
def test_an_end_that_was_withheld_is_text(name: str, text: str, expected: list[Event]) -> None:
    assert events_of(name, text) == expected


@pytest.mark.parametrize(
    "call",
    [
        "",
        "{bad",
        '{"name": ""}',
        '{"arguments": {}}',
        '{"name": 5, "arguments": {}}',
        '{"name": "f", "arguments": []}',
        '{"name": "f", "arguments": "x"}',
        '["f"]',
        '{"name": "f"} x',
        '{"name": "f", "argument": {"a": 1}}',
    ],
)
def test_a_json_call_that_cannot_be_read_is_text_as_it_stands(call: str) -> None:
    text = f"a <tool_call>{call}</tool_call> b"
    for name in ("qwen3", "qwen3-vl-instruct"):
        assert events_of(name, text) == [Content(text)]


def test_an_xml_call_that_cannot_be_read_is_text_as_it_stands() -> None:
    text = "a <tool_call>\n<function=f><parameter=a>5</function>\n</tool_call>\nb"
    for name in ("qwen3-coder", "nemotron-3-nano"):
        assert events_of(name, text, think=False) == [Content(text)]


def test_calls_without_arguments_and_with_line_breaks_in_them() -> None:
    assert events_of("qwen3", '<tool_call>{"name": "f"}</tool_call>') == [Call("f", {})]
    assert events_of("qwen3", '<tool_call>{"name": "f", "arguments": null}</tool_call>') == [
        Call("f", {})
    ]
    text = '<tool_call>{"name": "f", "arguments": {"code": "a\n\tb"}}</tool_call>'
    assert events_of("qwen3", text) == [Call("f", {"code": "a\n\tb"})]
    text = '<tool_call>{"id": 1, "name": "f", "parameters": {"a": 1}}</tool_call>'
    assert events_of("qwen3", text) == [Call("f", {"a": 1})]


def test_several_calls() -> None:
    assert events_of("qwen3", f"{JSON_CALL}\n{JSON_CALL} and {JSON_CALL}") == [
        PARIS,
        PARIS,
        Content("and"),
        PARIS,
    ]


def test_the_order_of_arguments_is_the_models() -> None:
    parser = started("qwen3")
    text = '<tool_call>{"name": "f", "arguments": {"b": 1, "a": {"d": 1, "c": 2}}}</tool_call>'
    (call,) = outcome(parser, [text])
    assert isinstance(call, Call)
    assert str(call.arguments) == "{'b': 1, 'a': {'d': 1, 'c': 2}}"


@pytest.mark.parametrize(
    ("name", "thinks", "tokens"),
    [
        ("qwen3", False, ("<think>", "</think>", "<tool_call>", "</tool_call>")),
        ("qwen3-thinking", True, ("<think>", "</think>", "<tool_call>", "</tool_call>")),
        ("qwen3-coder", False, ("<tool_call>", "</tool_call>")),
        ("qwen3-vl-instruct", False, ("</think>", "<tool_call>", "</tool_call>")),
        ("qwen3-vl-thinking", True, ("</think>", "<tool_call>", "</tool_call>")),
        ("qwen3.5", True, ("<think>", "</think>", "<tool_call>", "</tool_call>")),
        ("ornith", True, ("<think>", "</think>", "<tool_call>", "</tool_call>")),
        ("nemotron-3-nano", True, ("<think>", "</think>", "<tool_call>", "</tool_call>")),
        ("nemotron-3.5-nano", True, ("<think>", "</think>", "<tool_call>", "</tool_call>")),
    ],
)
def test_what_the_parsers_can_do(name: str, thinks: bool, tokens: tuple[str, ...]) -> None:
    parser = find_parser(name)
    assert parser is not None
    assert parser.has_tools
    assert parser.has_thinking is thinks
    assert parser.preserved_tokens == tokens
