"""Laguna and poolside-v1 (renderers-and-parsers 3.14)."""

from __future__ import annotations

from typing import Any

import pytest
from support.conversations import (
    BIG,
    CW,
    NUMBERS,
    VALUES,
    WEATHER,
    assistant,
    call,
    prompt,
    result,
    system,
    tool,
    user,
)
from support.renderer_examples import example

BOS = "〈|EOS|〉"
DEFAULT = (
    "You are a helpful, conversationally-fluent assistant made by Poolside. You are here to be "
    "helpful to users through natural language conversations."
)
BOTH = pytest.mark.parametrize("name", ["laguna", "poolside-v1"])
HI = "<user>\nHi\n</user>\n"
GO_ON = "<assistant>\n</think>"


def block(text: str) -> str:
    return f"<system>\n\n{text}\n</system>\n"


def test_worked_example() -> None:
    assert prompt("laguna", CW, tools=[WEATHER], think=False) == example("laguna")


def test_worked_example_with_thinking() -> None:
    expected = (
        example("laguna")
        .replace(
            "For each function",
            "Wrap your thinking in '<think>', '</think>' tags, followed by a function call. "
            "For each function",
        )
        .replace("<tool_call>function", "<think> your thoughts here </think>\n<tool_call>function")
    )
    expected = expected.removesuffix("</think>") + "<think>"
    assert prompt("laguna", CW, tools=[WEATHER], think=True) == expected
    assert prompt("laguna", CW, tools=[WEATHER], think="low") == expected


def test_worked_example_of_poolside() -> None:
    tools = example("laguna").partition("### Tools")[2].partition("</available_tools>")[0]
    head = f"{BOS}<system>Be brief.\n\n### Tools{tools}</available_tools></system>\n"
    flow = (
        "<user>Weather in Paris?</user>\n<assistant></think>Checking.<tool_call>get_weather"
        "<arg_key>city</arg_key><arg_value>Paris</arg_value><arg_key>days</arg_key>"
        "<arg_value>2</arg_value></tool_call></assistant>\n<tool_response>22C</tool_response>\n"
        "<assistant></think>"
    )
    assert prompt("poolside-v1", CW, tools=[WEATHER], think=False) == head + flow
    thinking = flow.replace("</think>Checking", "<think>Need the tool.</think>Checking")
    thinking = thinking.removesuffix("</think>") + "<think>"
    assert prompt("poolside-v1", CW, tools=[WEATHER], think=True) == head + thinking


@pytest.mark.parametrize(
    ("think", "tag"),
    [(None, "</think>"), (False, "</think>"), (True, "<think>"), ("high", "<think>")],
)
def test_user_alone(think: Any, tag: str) -> None:
    assert prompt("laguna", [user("Hi")], think=think) == (
        BOS + block(DEFAULT) + HI + "<assistant>\n" + tag
    )
    assert prompt("poolside-v1", [user("Hi")], think=think) == (
        f"{BOS}<system>{DEFAULT}</system>\n<user>Hi</user>\n<assistant>{tag}"
    )


def test_system_text() -> None:
    messages = user("Hi"), system(" S1 \n"), system("S2 ")
    assert prompt("laguna", messages) == (
        BOS + block(" S1") + HI + "<system>\nS2 \n</system>\n" + GO_ON
    )
    assert prompt("poolside-v1", messages) == (
        f"{BOS}<system> S1</system>\n<user>Hi</user>\n<system>S2 </system>\n<assistant></think>"
    )


@pytest.mark.parametrize("blank", ["", " \n"])
def test_blank_system_text(blank: str) -> None:
    messages = system(blank), user("Hi")
    assert prompt("laguna", messages) == BOS + HI + GO_ON
    assert prompt("laguna", messages, think=True) == BOS + HI + "<assistant>\n<think>"
    assert prompt("poolside-v1", messages) == f"{BOS}<user>Hi</user>\n<assistant></think>"
    assert prompt("poolside-v1", messages, think=True) == (
        f"{BOS}<system></system>\n<user>Hi</user>\n<assistant><think>"
    )
    assert prompt("laguna", messages, tools=[WEATHER]).startswith(f"{BOS}<system>\n\n\n### Tools\n")
    assert prompt("poolside-v1", messages, tools=[WEATHER]).startswith(f"{BOS}<system>### Tools\n")


@BOTH
def test_tools_stand_one_on_a_line(name: str) -> None:
    text = prompt(name, [user("Hi")], tools=[WEATHER, tool("ping", type="")])
    assert text.partition("</available_tools>")[0].endswith(
        '{"type": "integer"}}}}}\n{"type": "function", "function": {"name": "ping", "parameters": '
        '{"type": "", "properties": null}}}\n'
    )


@BOTH
def test_values_and_numbers(name: str) -> None:
    arguments = {"s": "<&>"} | VALUES | NUMBERS | {"h": BIG}
    text = prompt(name, [user("a"), assistant("", call("f", arguments)), user("b")])
    values = [part.partition("</arg_value>")[0] for part in text.split("<arg_value>")[1:]]
    assert values == [
        "<&>",
        *("null", "1.5", "true", '[1, "x"]', '{"a": "\\u003c", "b": 1}'),
        *("1000000", "2097152", "1234567.5", "100000000000000000000", "0.00001"),
        "12345678901234567000",
    ]


@pytest.mark.parametrize("think", [False, True])
@pytest.mark.parametrize(
    ("content", "thinking", "expected"),
    [
        (" b\n", " t\n", "<think>\nt\n</think>\nb\n"),
        ("", "t", "<think>\nt\n</think>\n"),
        (" \n", "", "</think>\n"),
        ("b", " ", "</think>\nb\n"),
        ("<think>x<think>\nt\n</think>a</think>\nb", "", "<think>\nt\n</think>\nb\n"),
        ("t</think>b", "field", "<think>\nfield\n</think>\nb\n"),
        ("</think>b", "", "</think>\nb\n"),
        ("<think>b", "", "</think>\n<think>b\n"),
    ],
)
def test_answers_of_laguna(content: str, thinking: str, expected: str, think: bool) -> None:
    text = prompt("laguna", [assistant(content, thinking=thinking), user("Hi")], think=think)
    turn = text.removeprefix(BOS + block(DEFAULT)).partition(HI)[0]
    assert turn == f"<assistant>\n{expected}</assistant>\n"


def test_calls_of_laguna() -> None:
    text = prompt("laguna", [assistant("", call("f", {"k": "v"}), call("g")), user("Hi")])
    assert text.removeprefix(BOS + block(DEFAULT)) == (
        "<assistant>\n</think>\n<tool_call>f\n<arg_key>k</arg_key>\n<arg_value>v</arg_value>\n"
        f"</tool_call>\n<tool_call>g\n</tool_call>\n</assistant>\n{HI}{GO_ON}"
    )


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (assistant("Par"), "</think>\nPar\n"),
        (assistant("", thinking="t"), "<think>\nt\n</think>\n"),
        (assistant("", call("f")), "</think>\n<tool_call>f\n</tool_call>\n"),
        (assistant(""), "</think>\n</assistant>\n"),
    ],
)
def test_laguna_continues_a_last_answer(answer: Any, expected: str) -> None:
    text = prompt("laguna", [user("Hi"), answer], think=True)
    assert text == BOS + block(DEFAULT) + HI + "<assistant>\n" + expected


@pytest.mark.parametrize(
    ("think", "expected"),
    [
        (True, "<assistant><think>  t \n</think>a</think>b</assistant>\n<assistant><think>"),
        (False, "<assistant></think>a</think>b</assistant>\n<assistant></think>"),
    ],
)
def test_poolside_leaves_answers_as_they_are_and_closed(think: bool, expected: str) -> None:
    answer = assistant("a</think>b", thinking="  t \n")
    assert prompt("poolside-v1", [user("Hi"), answer], think=think).endswith(expected)
    empty = prompt("poolside-v1", [user("Hi"), assistant(" c ")], think=True)
    assert empty.endswith("<assistant><think></think> c </assistant>\n<assistant><think>")


def test_each_result_is_an_element() -> None:
    text = prompt("laguna", [user("Hi"), result("1"), result("2")])
    assert text.endswith(
        f"{HI}<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response>\n{GO_ON}"
    )


@BOTH
def test_images_leave_no_trace(name: str) -> None:
    assert "img" not in prompt(name, [user("Hi", images=1)])
