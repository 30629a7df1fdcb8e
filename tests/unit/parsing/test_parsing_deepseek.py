"""deepseek3 and cogito: renderers-and-parsers.md 3.7, 3.8."""

import pytest
from support.answers import events_of, started

from ollamad.parsing.events import Call, Content, Event, Thinking
from ollamad.wire import Message, Think

CALLS, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, SEP, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
OUTPUTS, OUTPUTS_END = "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>"
OUTPUT, OUTPUT_END = "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"
WEATHER_CALL = CALL + "get_weather" + SEP + '{"city":"Paris","days":2}' + CALL_END
FENCED_CALL = CALL + "function" + SEP + 'get_weather\n```json\n{"city":"Paris"}\n```' + CALL_END
PARIS = Call("get_weather", {"city": "Paris", "days": 2})


@pytest.mark.parametrize(
    ("text", "think", "expected"),
    [
        (
            "reasoning</think>\n\nChecking." + CALLS + WEATHER_CALL + CALLS_END + " x",
            True,
            [Thinking("reasoning"), Content("Checking."), PARIS, Content("x")],
        ),
        # By characters too: tags are never content.
        (
            "a</think>" + CALLS + WEATHER_CALL + WEATHER_CALL + CALLS_END,
            True,
            [Thinking("a"), PARIS, PARIS],
        ),
        ("a</think>b", False, [Content("a</think>b")]),
        ("a</think>b", None, [Content("a</think>b")]),
        ("a</think>b", "high", [Thinking("a"), Content("b")]),
        (f"x {OUTPUT} 22C {OUTPUT_END} y", False, [Content("x  22C  y")]),
        # A call that does not parse, text between calls, and a missing end.
        (
            f"{CALLS}{CALL}f{SEP}[1]{CALL_END}{WEATHER_CALL}{CALLS_END}",
            False,
            [Content(f"{CALL}f{SEP}[1]{CALL_END}"), PARIS],
        ),
        (f"{CALLS}so {WEATHER_CALL} ok {CALLS_END}", False, [Content("so"), PARIS, Content("ok")]),
        (
            f"{CALLS}{CALL}f{SEP}{{{CALLS_END} z",
            False,
            [Content(f"{CALL}f{SEP}{{z")],
        ),
        (f"{CALLS}{CALL}f{WEATHER_CALL}", False, [Content(f"{CALL}f"), PARIS]),
        (f"{CALLS}{WEATHER_CALL}{CALL}f{SEP}", False, [PARIS, Content(f"{CALL}f{SEP}")]),
        ("a <｜tool", False, [Content("a <｜tool")]),
    ],
)
def test_deepseek(text: str, think: Think | None, expected: list[Event]) -> None:
    assert events_of("deepseek3", text, think=think) == expected


@pytest.mark.parametrize("name", ["deepseek3", "cogito"])
def test_an_answer_gone_on_with_is_content(name: str) -> None:
    assert events_of(name, "a", last=Message(role="assistant", content="x")) == [Content("a")]
    assert events_of(name, "a", last=Message(role="assistant", content="")) == [Thinking("a")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "why</think>\nx" + CALLS + FENCED_CALL + CALLS_END,
            [Thinking("why"), Content("x"), Call("get_weather", {"city": "Paris"})],
        ),
        (
            f"</think>{CALLS}{FENCED_CALL}\n{FENCED_CALL}{CALLS_END}",
            [Call("get_weather", {"city": "Paris"})] * 2,
        ),
        (f"</think>x {OUTPUTS}{OUTPUT}22C{OUTPUT_END}\n{OUTPUTS_END} y", [Content("x22Cy")]),
        (
            f"</think>{CALLS}{CALL}function{SEP}f\n{{}}{CALL_END}{CALLS_END}",
            [Content(f"{CALL}function{SEP}f\n{{}}{CALL_END}")],
        ),
        (f"</think>{CALLS}{WEATHER_CALL}{CALLS_END}", [PARIS]),
    ],
)
@pytest.mark.parametrize("with_tools", [True, False])
def test_cogito(text: str, expected: list[Event], with_tools: bool) -> None:
    tools = {} if with_tools else {"tools": ()}
    assert events_of("cogito", text, **tools) == expected


def test_thinking_is_streamed() -> None:
    parser = started("deepseek3")
    assert parser.feed("reason") == [Thinking("reason")]
    assert parser.feed("ing</th") == [Thinking("ing")]
    assert parser.feed("ink>") == []
