"""cohere: renderers-and-parsers.md 3.15."""

import pytest
from support.answers import events_of, started

from ollamad.parsing.events import Call, Content, Event, Thinking
from ollamad.wire import Message, Think


def action(text: str) -> str:
    return f"<|START_ACTION|>{text}<|END_ACTION|>"


@pytest.mark.parametrize(
    ("text", "think", "expected"),
    [
        (
            "think <|END_THINKING|><|START_TEXT|>Hello<|END_TEXT|><|END_OF_TURN_TOKEN|>",
            True,
            [Thinking("think"), Content("Hello")],
        ),
        (
            "r<|END_THINKING|>"
            + action(
                '[\n {"tool_call_id": "0", "tool_name": "get_weather", '
                '"parameters": {"city": "Paris"}}\n]'
            ),
            None,
            [Thinking("r"), Call("get_weather", {"city": "Paris"})],
        ),
        (
            "x<|END_THINKING|>  hello <|START_TEXT|>w<|END_TEXT|> z",
            True,
            [Thinking("x"), Content("hello wz")],
        ),
        ("<|", False, [Content("<|")]),
        (" <|END_OF_TURN_TOKEN|> <|START_RESPONSE|> a<|END_RESPONSE|>", False, [Content(" a")]),
        ("<|START_TEXT|>a <|END_TE", False, [Content("a <|END_TE")]),
        ("a<|END_THI", True, [Thinking("a<|END_THI")]),
        (
            action('[{"tool_name":"f","parameters":{"a":1}},{bad},{"tool_name":"g"}]'),
            False,
            [Call("f", {"a": 1}), Content("{bad}"), Call("g", {})],
        ),
        # An end that is missing, and lists in which nothing is a call.
        ('<|START_ACTION|>[{"tool_name":"f"}', False, [Call("f", {})]),
        (
            '<|START_ACTION|>[{"tool_name":"f"},{"tool',
            False,
            [Call("f", {}), Content('{"tool')],
        ),
        (action("[1]") + "x", False, [Content(action("[1]") + "x")]),
        (action("[]") + " x", False, [Content("x")]),
        ('<|START_ACTION|>{"', False, [Content('<|START_ACTION|>{"')]),
        (
            action('[{"tool_name":"f","parameters":[1]}]'),
            False,
            [Content(action('[{"tool_name":"f","parameters":[1]}]'))],
        ),
        (
            action('[{"tool_name":"f","arguments":{"a":1}}]'),
            False,
            [Content(action('[{"tool_name":"f","arguments":{"a":1}}]'))],
        ),
        (
            "<|START_TEXT|>a" + action('[{"tool_name":"f"}]'),
            False,
            [Content("a"), Call("f", {})],
        ),
    ],
)
def test_cases(text: str, think: Think | None, expected: list[Event]) -> None:
    assert events_of("cohere", text, think=think) == expected


def test_an_answer_gone_on_with_is_content() -> None:
    last = Message(role="assistant", content="Par")
    assert events_of("cohere", " is<|END_TEXT|>", last=last) == [Content(" is")]


def test_content_is_streamed() -> None:
    parser = started("cohere", think=False)
    assert parser.feed("<|START_TEXT|>a b <|END") == [Content("a b ")]
