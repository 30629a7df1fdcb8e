"""ministral: renderers-and-parsers.md 3.13."""

import pytest
from support.answers import events_of, started

from ollamad.parsing.events import Call, Content, Event, Thinking

PARIS = '[TOOL_CALLS]get_weather[ARGS]{"city":"Paris"}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Hi " + PARIS + '[TOOL_CALLS]get_weather[ARGS] {"city":"Rome"}',
            [
                Content("Hi"),
                Call("get_weather", {"city": "Paris"}),
                Call("get_weather", {"city": "Rome"}),
            ],
        ),
        ("a [THINK]b[/THINK] c", [Content("a"), Thinking("b"), Content("c")]),
        ("[THINK] b \n[/THINK]", [Thinking(" b \n")]),
        (PARIS + " c", [Call("get_weather", {"city": "Paris"}), Content(" c")]),
        (
            r'[TOOL_CALLS]get_weather[ARGS]{"city":"}\"{","x":{"y":[{}]}} c',
            [Call("get_weather", {"city": '}"{', "x": {"y": [{}]}}), Content(" c")],
        ),
        # An unknown tool, no object, broken JSON, and ends that are missing.
        (
            'a [TOOL_CALLS]nope[ARGS]{"a":1} b',
            [Content('a [TOOL_CALLS]nope[ARGS]{"a":1} b')],
        ),
        ("[TOOL_CALLS]get_weather[ARGS][1]", [Content("[TOOL_CALLS]get_weather[ARGS][1]")]),
        ("[TOOL_CALLS]get_weather[ARGS]{a}", [Content("[TOOL_CALLS]get_weather[ARGS]{a}")]),
        (
            "[TOOL_CALLS]get_weather[ARGS]junk" + PARIS,
            [
                Content("[TOOL_CALLS]get_weather[ARGS]junk"),
                Call("get_weather", {"city": "Paris"}),
            ],
        ),
        (
            "[TOOL_CALLS]so" + PARIS,
            [Content("[TOOL_CALLS]so"), Call("get_weather", {"city": "Paris"})],
        ),
        (PARIS[:-1], [Content(PARIS[:-1])]),
        ("[TOOL_CALLS]get_wea", [Content("[TOOL_CALLS]get_wea")]),
        ("a [TOOL_", [Content("a [TOOL_")]),
        ("[THINK]a[/THI", [Thinking("a[/THI")]),
    ],
)
def test_cases(text: str, expected: list[Event]) -> None:
    assert events_of("ministral", text) == expected


def test_without_tools_nothing_is_a_call() -> None:
    assert events_of("ministral", PARIS, tools=()) == [Content(PARIS)]


def test_a_call_comes_with_its_last_character() -> None:
    parser = started("ministral")
    assert [event for sign in PARIS[:-1] for event in parser.feed(sign)] == []
    assert parser.feed("}") == [Call("get_weather", {"city": "Paris"})]
