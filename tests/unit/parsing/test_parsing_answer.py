"""Which parsers read an answer, what leaves together, and where a format begins to apply."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from ollamad.parsing.answer import (
    MAX_PREAMBLE,
    ConstraintPoint,
    Pieces,
    generic_parser,
    named_parser,
)
from ollamad.parsing.events import Call, Content, Event, Thinking, merged
from ollamad.parsing.families.registry import find_parser
from ollamad.parsing.stream import Piece
from ollamad.wire import Logprob, Tool, ToolFunction, ToolFunctionParameters

THINK = ("<think>", "</think>")
CALL = '{"name": "f", "arguments": {"a": 1}}'


def tool(name: str = "f") -> Tool:
    parameters = ToolFunctionParameters(type="object", properties={})
    return Tool(type="function", function=ToolFunction(name=name, parameters=parameters))


def events(
    text: str,
    *,
    prompt: str = "",
    think: bool | None = True,
    tag: str = "<tool_call>",
    tools: Sequence[Tool] = (),
    cut: int = 1,
) -> list[Event]:
    parser = generic_parser(prompt, thinking_tags=THINK, think=think, tool_tag=tag, tools=tools)
    out: list[Event] = []
    for at in range(0, len(text), cut):
        out += parser.feed(text[at : at + cut])
    return merged(out + parser.finish())


@pytest.mark.parametrize("cut", [1, 2, 7, 100])
def test_reasoning_then_text_then_a_call(cut: int) -> None:
    text = f"<think>why</think>Well <tool_call>{CALL}</tool_call>"
    assert events(text, tools=[tool()], cut=cut) == [
        Thinking("why"),
        Content("Well "),
        Call("f", {"a": 1}),
    ]


def test_reasoning_that_the_prompt_has_begun() -> None:
    assert events("why</think>Well", prompt="…<think>\n") == [Thinking("why"), Content("Well")]


@pytest.mark.parametrize("think", [False, None])
def test_reasoning_that_nobody_asked_for_stays_content(think: bool | None) -> None:
    assert events("<think>why</think>", think=think) == [Content("<think>why</think>")]


def test_a_call_needs_tools() -> None:
    text = f"<tool_call>{CALL}</tool_call>"
    assert events(text) == [Content(text)]


def test_a_plain_answer_needs_no_parser() -> None:
    parser = generic_parser("", thinking_tags=("", ""), think=True, tool_tag="{", tools=())
    assert parser.is_plain
    assert parser.preserved_tokens == ()


@pytest.mark.parametrize(
    ("tag", "preserved"),
    [
        ("{", ()),
        ("[", ()),
        ("[TOOL_CALLS] [", ("[TOOL_CALLS]",)),
        ("<tool_call>", ("<tool_call>",)),
        ("<|python_tag|>x", ("<|python_tag|>",)),
        ("functools[", ("functools[",)),
        ("<unclosed", ("<unclosed",)),
    ],
)
def test_tokens_that_the_runner_has_to_keep(tag: str, preserved: tuple[str, ...]) -> None:
    parser = generic_parser("", thinking_tags=("", ""), think=None, tool_tag=tag, tools=[tool()])
    assert parser.preserved_tokens == preserved


def test_a_named_parser() -> None:
    found = find_parser("qwen3-coder")
    assert found is not None
    parser, tools = named_parser(found, [tool()], None, None)
    assert [t.function.name for t in tools] == ["f"]
    assert parser.preserved_tokens == ("<tool_call>", "</tool_call>")
    text = "Well<tool_call><function=f><parameter=a>1</parameter></function></tool_call>"
    got = merged([*parser.feed(text), *parser.finish()])
    assert got == [Content("Well"), Call("f", {"a": "1"})]


def pieces(*batches: list[Event]) -> list[Piece]:
    numbers = itertools.count()
    make = Pieces(lambda: f"id{next(numbers)}")
    return [piece for batch in batches for piece in make.of(batch)]


def test_what_leaves_together() -> None:
    (piece,) = pieces([Thinking("t"), Thinking("u"), Content("c"), Call("f", {}), Call("g", {})])
    assert (piece.thinking, piece.content) == ("tu", "c")
    assert [(c.id, c.function.index, c.function.name) for c in piece.tool_calls or ()] == [
        ("id0", 0, "f"),
        ("id1", 1, "g"),
    ]


def test_the_models_order_is_kept() -> None:
    made = pieces([Call("f", {}), Content("after"), Thinking("again")], [Call("g", {})])
    assert [(p.thinking, p.content, len(p.tool_calls or ())) for p in made] == [
        ("", "", 1),
        ("", "after", 0),
        ("again", "", 0),
        ("", "", 1),
    ]
    assert made[-1].tool_calls is not None
    assert made[-1].tool_calls[0].function.index == 1


def test_log_probabilities_are_never_withheld() -> None:
    entry = Logprob(token="x", logprob=-1.0)
    make = Pieces(str)
    assert make.of([], [entry]) == [Piece(logprobs=[entry])]
    assert make.of([Content("x")], [entry]) == [Piece("x", logprobs=[entry])]
    assert make.of([]) == make.of([Content("")]) == []


def begin(*, tools: Sequence[Tool] = ()) -> ConstraintPoint:
    parser = generic_parser(
        "", thinking_tags=THINK, think=True, tool_tag="<tool_call>", tools=tools
    )
    return ConstraintPoint(parser, may_call=bool(tools))


def test_where_the_answer_begins() -> None:
    point = begin()
    assert merged(point.feed("<think>a")) == [Thinking("a")]
    assert merged(point.feed("b</think>\n\n")) == [Thinking("b")]
    assert point.feed(" ") == []
    assert point.prefix is None
    assert point.feed("Free text") == []
    assert point.prefix == "<think>ab</think>\n\n "


def test_after_a_call_there_is_no_answer_to_wait_for() -> None:
    point = begin(tools=[tool()])
    got = point.feed(f"Well <tool_call>{CALL}</tool_call>tail")
    got += point.finish(stopped=True)
    assert merged(got) == [Content("Well "), Call("f", {"a": 1}), Content("tail")]
    assert (point.called, point.prefix) == (True, None)


def test_text_before_a_call_is_waited_through_for_a_while() -> None:
    point = begin(tools=[tool()])
    for _ in range(MAX_PREAMBLE):
        assert point.feed("word ") == []
    assert point.prefix is None
    assert point.feed("word ") == []
    assert point.prefix == ""


@pytest.mark.parametrize(("stopped", "prefix"), [(True, "<think>a</think>"), (False, None)])
def test_an_answer_that_never_began(stopped: bool, prefix: str | None) -> None:
    point = begin()
    point.feed("<think>a")
    assert point.finish(stopped=stopped) == []
    assert point.prefix == prefix


def test_giving_up_gives_all_that_was_withheld() -> None:
    point = begin(tools=[tool()])
    assert point.feed("Well <tool_call>{") == []
    assert merged(point.give_up()) == [Content("Well <tool_call>{")]
