"""Worked examples and cases of renderers-and-parsers.md word for word; 2.1 for every parser.

Where an event differs from the text's, a comment says why; the families' own tests have more.
"""

from __future__ import annotations

import pytest
from support.answers import WEATHER, events_of

from ollamad.parsing.events import Call, Content, Event, Thinking
from ollamad.parsing.families.registry import parser_names
from ollamad.wire import Think

XML_CALL = (
    "<tool_call>\n<function=get_weather>\n<parameter=city>\n{}\n</parameter>\n"
    "<parameter=days>\n{}\n</parameter>\n</function>\n</tool_call>"
)
CITY_CALL = (
    "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n"
    "</tool_call>\n"
)
PARIS = Call("get_weather", {"city": "Paris", "days": 2})
CITY = Call("get_weather", {"city": "Paris"})
HARMONY_CALL = "<|channel|>commentary to=functions.get_weather<|message|>"
DEEPSEEK_CALLS = (
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
    '{"city":"Paris","days":2}<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
)
GLM_DAYS = "<arg_key>days</arg_key><arg_value>2</arg_value>"


@pytest.mark.parametrize(
    ("name", "think", "text", "expected"),
    [
        (
            "qwen3-coder",
            True,
            "Let me see.\n\n" + XML_CALL.format("Rome", 3),
            [Content("Let me see."), Call("get_weather", {"city": "Rome", "days": 3})],
        ),
        (
            "ornith",
            True,
            "plan\n</think>\n\nI'll check.\n\n" + XML_CALL.format("Paris", 2),
            [Thinking("plan"), Content("I'll check."), PARIS],
        ),
        # The tag counts at once, also at the end of a piece; a call that has no end is text.
        ("qwen3.5", True, " \n<tool_call><", [Content("<tool_call><")]),
        # Space behind a call goes, however it comes.
        (
            "qwen3",
            True,
            'ok <tool_call>\n{"name":"x","arguments":{"a":2}}\n</tool_call>\n z',
            [Content("ok"), Call("x", {"a": 2}), Content("z")],
        ),
        (
            "nemotron-3-nano",
            True,
            f"<think>\nplan</think>\n\nok {CITY_CALL}",
            [Thinking("plan"), Content("ok"), CITY],
        ),
        (
            "nemotron-3.5-nano",
            True,
            f"<think>\nplan</think>\n\nok {CITY_CALL}",
            [Thinking("plan"), Content("ok"), CITY],
        ),
        ("nemotron-3.5-nano", True, f"plan {CITY_CALL}", [Thinking("plan"), CITY]),
        # No tag of a call is text, also when it comes in pieces.
        ("deepseek3", True, f"a</think>{DEEPSEEK_CALLS}", [Thinking("a"), PARIS]),
        (
            "olmo3",
            True,
            "<function_calls>"
            r"f(a='it\'s', b=None, c=True, d=[1,'x'], e={"
            '"k": 1.5}, g=bare, h=1e3)</function_calls>',
            [
                Call(
                    "f",
                    {
                        **{"a": "it's", "b": None, "c": True, "d": [1, "x"]},
                        **{"e": {"k": 1.5}, "g": "bare", "h": 1000},
                    },
                )
            ],
        ),
        (
            "ministral",
            True,
            'Hi [TOOL_CALLS]get_weather[ARGS]{"city":"Paris"}'
            '[TOOL_CALLS]get_weather[ARGS]{"city":"Rome"}',
            [Content("Hi"), CITY, Call("get_weather", {"city": "Rome"})],
        ),
        (
            "laguna",
            True,
            "\nplan\n</think>\nok <tool_call>get_weather\n<arg_key>city</arg_key>\n"
            "<arg_value>Paris</arg_value>\n</tool_call>",
            [Thinking("plan"), Content("ok"), CITY],
        ),
        (
            "cohere",
            True,
            'r<|END_THINKING|><|START_ACTION|>[\n {"tool_call_id": "0", "tool_name": '
            '"get_weather", "parameters": {"city": "Paris"}}\n]<|END_ACTION|>',
            [Thinking("r"), CITY],
        ),
    ],
)
def test_what_is_read(name: str, think: Think | None, text: str, expected: list[Event]) -> None:
    assert events_of(name, text, think=think) == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("glm-4.7", f"<tool_call>get_weather{GLM_DAYS}</tool_ca"),
        ("glm-4.7", f"<tool_call>x{GLM_DAYS}"),
        ("ministral", '[TOOL_CALLS]nope[ARGS]{"a":1}'),
        ("harmony", HARMONY_CALL + "{bad"),
        ("passthrough", " <think>a</think> \n"),
    ],
)
def test_what_the_reference_ends_in_an_error_is_text(name: str, text: str) -> None:
    assert events_of(name, text, think=False) == [Content(text)]


#: Which values of think let an answer begin in the reasoning.
Values = tuple[Think | None, ...]
ALL: Values = (None, False, True, "low")
ON: Values = (True, "low")
NOT_OFF: Values = (None, True, "low")
BEGINS_IN_THINKING: dict[str, Values] = {
    "qwen3": (),
    "qwen3-thinking": NOT_OFF,
    "qwen3-coder": (),
    "qwen3-vl-instruct": (),
    "qwen3-vl-thinking": NOT_OFF,  # the reference: ALL
    "qwen3.5": NOT_OFF,
    "ornith": NOT_OFF,
    "gemma4": (),
    "gemma4-no-thinking": (),
    "functiongemma": (),
    "deepseek3": ON,
    "cogito": ON,  # the reference: without tools only
    "olmo3": (),
    "olmo3-think": ALL,
    "nemotron-3-nano": NOT_OFF,
    "nemotron-3.5-nano": NOT_OFF,
    "glm-4.7": NOT_OFF,
    "glm-ocr": (),
    "lfm2": (),
    "lfm2-thinking": (),
    "ministral": (),
    "laguna": ON,
    "poolside-v1": ON,
    "cohere": NOT_OFF,
    "glimmer": (),
    "harmony": (),
    "passthrough": (),
}


@pytest.mark.parametrize("name", sorted(parser_names()))
@pytest.mark.parametrize("think", ALL)
@pytest.mark.parametrize("with_tools", [True, False])
def test_how_an_answer_begins(name: str, think: Think | None, with_tools: bool) -> None:
    expected = Thinking("ab") if think in BEGINS_IN_THINKING[name] else Content("ab")
    assert events_of(name, "ab", think=think, tools=[WEATHER] * with_tools) == [expected]
