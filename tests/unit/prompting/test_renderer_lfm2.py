"""LFM2 (renderers-and-parsers 3.12)."""

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
    turn,
    user,
)
from support.renderer_examples import example

from ollamad.wire import Message, ToolProperty

BOS, GO_ON = "<|startoftext|>", "<|im_start|>assistant\n"
BOTH = pytest.mark.parametrize("name", ["lfm2", "lfm2-thinking"])


@pytest.mark.parametrize("think", [None, False, True, "low"])
def test_worked_example(think: Any) -> None:
    text = prompt("lfm2-thinking", CW, tools=[WEATHER], think=think)
    assert text == example("lfm2-thinking")
    without = example("lfm2-thinking").replace("<think>Need the tool.</think>", "")
    assert prompt("lfm2", CW, tools=[WEATHER], think=think) == without


@BOTH
@pytest.mark.parametrize("think", [None, False, True])
def test_user_alone(name: str, think: bool | None) -> None:
    assert prompt(name, [user("Hi")], think=think) == BOS + turn("user", "Hi") + GO_ON


@BOTH
def test_tools_without_a_system_text(name: str) -> None:
    listed = (
        'List of tools: <|tool_list_start|>[{"name": "ping", "parameters": {"type": "", '
        '"properties": null}}, {"name": "f", "description": "a <b>", "parameters": {"type": '
        '"object", "properties": {"<n>": {"description": "a <b>"}}}}]<|tool_list_end|>'
    ).replace(
        '{"<n>": {"description": "a <b>"}}',
        r'{"\u003cn\u003e": {"description": "a \u003cb\u003e"}}',
    )
    tools = [
        tool("ping", type=""),
        tool("f", {"<n>": ToolProperty(description="a <b>")}, description="a <b>"),
    ]
    expected = BOS + turn("system", listed) + turn("user", "Hi") + GO_ON
    assert prompt(name, [user("Hi")], tools=tools) == expected
    assert prompt(name, [system(""), user("Hi")], tools=tools) == expected


@BOTH
def test_empty_system_text_gives_no_turn(name: str) -> None:
    assert prompt(name, [system(""), user("Hi")]) == BOS + turn("user", "Hi") + GO_ON


@BOTH
def test_later_system_messages_and_other_roles_are_turns(name: str) -> None:
    messages = system("S1"), user("Hi"), system("S2"), Message(role="developer", content="D")
    assert prompt(name, messages) == (
        BOS
        + turn("system", "S1")
        + turn("user", "Hi")
        + turn("system", "S2")
        + turn("developer", "D")
        + GO_ON
    )


@BOTH
def test_answer_is_continued(name: str) -> None:
    text = prompt(name, [user("Hi"), assistant("Par")])
    assert text == BOS + turn("user", "Hi") + GO_ON + "Par"


@BOTH
def test_nothing_but_tools_or_nothing_at_all(name: str) -> None:
    assert prompt(name, []) == BOS + GO_ON
    assert prompt(name, [], tools=[WEATHER]).endswith("<|tool_list_end|><|im_end|>\n" + GO_ON)


@BOTH
def test_calls_stand_before_content(name: str) -> None:
    calls = call("f", {"b": 2, "a": "x"}), call("g")
    answer = '<|tool_call_start|>[f(a="x",b=2),g()]<|tool_call_end|>'
    for content, expected in (("c", f"{answer}\nc"), (" \n", answer), ("", answer)):
        text = prompt(name, [assistant(content, *calls), user("x")])
        assert text == BOS + turn("assistant", expected) + turn("user", "x") + GO_ON


@BOTH
def test_calls_that_the_content_has_are_not_repeated(name: str) -> None:
    content = "<|tool_call_start|>[h()]<|tool_call_end|>"
    text = prompt(name, [assistant(content, call("f")), user("x")])
    assert text == BOS + turn("assistant", content) + turn("user", "x") + GO_ON


def test_values_and_numbers() -> None:
    calls = call("f", VALUES), call("g", NUMBERS), call("h", {"a": BIG})
    assert (
        '[f(f=1.5,l=[1, "x"],n=null,o={"a": "<", "b": 1},t=true),'
        "g(a=1000000,b=2097152,c=1234567.5,d=100000000000000000000,e=0.00001),"
        "h(a=12345678901234567000)]"
    ) in prompt("lfm2", [user("x"), assistant("", *calls), result("r")])


# --- reasoning ------------------------------------------------------------------------------------

CUT, KEPT = " b ", " a </think> b "


@pytest.mark.parametrize(
    ("name", "think", "old"),
    [
        ("lfm2", None, "b"),
        ("lfm2", True, "b"),
        ("lfm2-thinking", None, "b"),
        ("lfm2-thinking", False, "b"),
        ("lfm2-thinking", True, KEPT),
        ("lfm2-thinking", "high", KEPT),
    ],
)
def test_reasoning_in_content_is_cut_in_all_but_the_last_answer(
    name: str, think: Any, old: str
) -> None:
    messages = assistant(f"x</think>{KEPT}"), user("u"), assistant(KEPT), user("v")
    expected = old if old == "b" else f"x</think>{KEPT}"
    assert prompt(name, messages, think=think) == (
        BOS
        + turn("assistant", expected)
        + turn("user", "u")
        + turn("assistant", KEPT)
        + turn("user", "v")
        + GO_ON
    )


@pytest.mark.parametrize(
    ("name", "think", "old", "new"),
    [
        ("lfm2", True, " a ", " b "),
        ("lfm2-thinking", True, "<think> t </think> a ", "<think> t </think> b "),
        ("lfm2-thinking", False, "a", "<think> t </think> b "),
    ],
)
def test_reasoning_beside_content(name: str, think: Any, old: str, new: str) -> None:
    messages = assistant(" a ", thinking=" t "), user("u"), assistant(" b ", thinking=" t ")
    expected = BOS + turn("assistant", old) + turn("user", "u") + GO_ON + new
    assert prompt(name, messages, think=think) == expected


def test_content_with_reasoning_gets_no_second_one() -> None:
    text = prompt("lfm2-thinking", [user("x"), assistant("a</think>b", thinking="t")])
    assert text.endswith(GO_ON + "a</think>b")


def test_calls_survive_the_cut() -> None:
    messages = assistant("a</think> b", call("f")), user("u"), assistant("c")
    expected = "<|tool_call_start|>[f()]<|tool_call_end|>\nb"
    assert prompt("lfm2", messages).startswith(BOS + turn("assistant", expected))


def test_plain_model_leaves_thinking_out() -> None:
    text = prompt("lfm2", [user("x"), assistant("b", thinking="t"), user("y")], think=True)
    assert text == BOS + turn("user", "x") + turn("assistant", "b") + turn("user", "y") + GO_ON


@BOTH
def test_images(name: str) -> None:
    messages = (
        user("a", images=1),
        assistant("b"),
        Message(role="tool", content="r", images=[b"x"]),
        user("[img] and", images=2),
    )
    text = prompt(name, messages)
    assert turn("user", "[img-0] a") in text
    assert turn("tool", "<|tool_response_start|>[img-1] r<|tool_response_end|>") in text
    assert turn("user", "[img-3] [img-2] and") in text
    assert "[img-" not in prompt(name, messages, tag_images=False)
