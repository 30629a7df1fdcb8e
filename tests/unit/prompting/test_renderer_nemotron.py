"""Nemotron 3 (renderers-and-parsers 3.10)."""

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

V3, V35 = "nemotron-3-nano", "nemotron-3.5-nano"
BOTH = pytest.mark.parametrize("name", [V3, V35])
ON, OFF = "<|im_start|>assistant\n<think>\n", "<|im_start|>assistant\n<think></think>"
NO_SYSTEM = turn("system", "")


def flow(name: str, *messages: Message, **more: Any) -> str:
    """The prompt between an empty system turn and the opening of the answer."""
    text = prompt(name, messages, think=True, **more)
    return text.removeprefix(NO_SYSTEM).removesuffix(ON)


def test_worked_example() -> None:
    assert prompt(V3, CW, tools=[WEATHER], think=True) == example(V3)


def test_version_3_5_writes_no_newlines_around_the_closing_tag() -> None:
    expected = example(V3).replace("tool.\n</think>\nCheck", "tool.</think>Check")
    assert prompt(V35, CW, tools=[WEATHER], think=True) == expected


@BOTH
@pytest.mark.parametrize(
    ("think", "opening"), [(None, ON), (False, OFF), (True, ON), ("low", ON), ("high", ON)]
)
def test_user_alone(name: str, think: Any, opening: str) -> None:
    assert prompt(name, [user("Hi")], think=think) == NO_SYSTEM + turn("user", "Hi") + opening


# --- switches -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "think", "opening"),
    [
        (["x /no_think"], True, OFF),
        (["x /no_think"], None, OFF),
        (["x /think"], False, ON),
        (["/no_think", "/think"], False, ON),
        (["/think", "/no_think"], True, OFF),
        (["/no_think /think"], False, ON),
        (["/no_think", "no marker"], True, OFF),
        (["a</think>b"], False, OFF),
        (["a</think>/no_think"], True, OFF),
    ],
)
def test_last_switch_wins(texts: list[str], think: bool | None, opening: str) -> None:
    text = prompt(V3, [user(t) for t in texts], think=think)
    assert text.endswith("<|im_end|>\n" + opening)


def test_switches_are_taken_out_and_texts_trimmed() -> None:
    messages = (
        system(" S /no_think "),
        user("x /no_think"),
        system(" /think T "),
        user(" a</think>b "),
    )
    assert prompt(V3, messages) == (
        turn("system", " S  ")
        + turn("user", "x")
        + turn("system", "T")
        + turn("user", "a</think>b")
        + ON
    )


def test_switches_in_answers_and_results_are_text() -> None:
    text = prompt(V3, [user("x"), assistant("/no_think"), result("/no_think")])
    assert text == (
        NO_SYSTEM
        + turn("user", "x")
        + turn("assistant", "<think></think>/no_think")
        + turn("user", "<tool_response>\n/no_think\n</tool_response>\n")
        + ON
    )


def test_version_3_5_knows_no_switches_and_trims_nothing() -> None:
    messages = system(" S "), user(" x /no_think "), system(" T ")
    expected = turn("system", " S ") + turn("user", " x /no_think ") + turn("system", " T ") + ON
    assert prompt(V35, messages) == expected


@pytest.mark.parametrize(
    ("name", "think", "last"),
    [
        (V35, "medium", "b\n\n{reasoning effort: efficient}"),
        (V35, "low", "b"),
        (V35, True, "b"),
        (V3, "medium", "b"),
    ],
)
def test_medium_effort_marks_the_last_user_message(name: str, think: Any, last: str) -> None:
    messages = user("a"), user("b"), assistant("c")
    assert prompt(name, messages, think=think) == (
        NO_SYSTEM
        + turn("user", "a")
        + turn("user", last)
        + turn("assistant", "<think></think>c")
        + ON
    )


def test_medium_effort_marks_an_only_user_message_and_nothing_else() -> None:
    marked = turn("user", "b\n\n{reasoning effort: efficient}")
    assert prompt(V35, [user("b")], think="medium") == NO_SYSTEM + marked + ON
    answer = turn("assistant", "<think></think>c")
    assert prompt(V35, [assistant("c")], think="medium") == NO_SYSTEM + answer + ON


# --- system turn and tools ------------------------------------------------------------------------


@BOTH
def test_first_system_text_keeps_its_blanks(name: str) -> None:
    text = prompt(name, [system("  pad \n"), user("Hi")], tools=[WEATHER])
    assert text.startswith("<|im_start|>system\n  pad \n\n\n# Tools\n\nYou have access")


@BOTH
def test_tools_without_text(name: str) -> None:
    text = prompt(name, [user("Hi")], tools=[WEATHER])
    assert text.startswith("<|im_start|>system\n# Tools\n\nYou have access")
    text = prompt(name, [system(""), user("Hi")], tools=[WEATHER])
    assert text.startswith("<|im_start|>system\n# Tools\n\nYou have access")


@BOTH
def test_only_a_system_message_in_front_is_the_system_turn(name: str) -> None:
    text = prompt(name, [user("Hi"), system("S")])
    assert text == NO_SYSTEM + turn("user", "Hi") + turn("system", "S") + ON


@BOTH
def test_every_key_of_a_tool(name: str) -> None:
    declared = ToolProperty(
        type=["string", "null"],
        description=" <d> ",
        enum=["<", {"b": 1, "a": 2}],
        anyOf=[ToolProperty(type="string"), ToolProperty(type="array", items={"type": "number"})],
        items={"type": "string", "minimum": 0},
        properties={"p": ToolProperty(type="integer")},
        required=["p", "q"],
    )
    function = tool(
        "f",
        {"a": declared, "b": ToolProperty()},
        description="  what  ",
        required=["a", "b"],
        defs={"y": 1, "x": "<"},
        items=[1],
    )
    text = prompt(name, [user("Hi")], tools=[function, tool("ping", type="")])
    tools = text.partition("<tools>\n")[2].partition("\n</tools>")[0]
    assert (
        tools
        == """\
<function>
<name>f</name>
<description>what</description>
<parameters>
<parameter>
<name>a</name>
<type>['string', 'null']</type>
<description><d></description>
<enum>["<", {"a": 2, "b": 1}]</enum>
<anyOf>[{"type": "string"}, {"type": "array", "items": {"type": "number"}}]</anyOf>
<items>{"minimum": 0, "type": "string"}</items>
<properties>{"p": {"type": "integer"}}</properties>
<required>["p", "q"]</required>
</parameter>
<parameter>
<name>b</name>
</parameter>
<$defs>{"x": "<", "y": 1}</$defs>
<items>[1]</items>
<required>["a", "b"]</required>
</parameters>
</function>
<function>
<name>ping</name>
<parameters>
</parameters>
</function>"""
    )


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "thinking", "old", "new"),
    [
        ("a</think>b", "", "a</think>b", "a</think>b"),
        ("c", "", "<think></think>c", "<think></think>c"),
        ("", "", "<think></think>", "<think></think>"),
        (" c ", "t", "<think></think>\n c", "<think>\nt\n</think>\n c"),
        ("<think>t</think>\nc", "", "<think></think>\nc", "<think>t</think>\nc"),
        ("<think>open", "", "<think>open", "<think>open"),
        ("<think>a</think>b</think>c ", "", "<think></think>c", "<think>a</think>b</think>c"),
    ],
)
def test_answers_lose_their_reasoning_when_the_user_goes_on(
    content: str, thinking: str, old: str, new: str
) -> None:
    answer = assistant(content, thinking=thinking)
    assert flow(V3, answer, user("x")) == turn("assistant", old) + turn("user", "x")
    assert flow(V3, user("x"), answer) == turn("user", "x") + turn("assistant", new)


@BOTH
@pytest.mark.parametrize(
    ("content", "thinking", "old"),
    [
        (" c ", "t", "<think></think>c"),
        (" a</think> b ", "", "<think></think>b"),
        (" a <think> b ", "", "<think></think>a"),
        (" c ", "", "<think></think>c"),
        ("", "", "<think></think>"),
    ],
)
def test_old_answers_with_calls(name: str, content: str, thinking: str, old: str) -> None:
    answer = assistant(content, call("f"), thinking=thinking)
    expected = turn("assistant", old + "\n<tool_call>\n<function=f>\n</function>\n</tool_call>\n")
    assert flow(name, answer, user("x")) == expected + turn("user", "x")


def test_recent_answers_with_calls_keep_their_text() -> None:
    answer = assistant(" a <think> b ", call("f"), call("g"))
    one = "\n<tool_call>\n<function=f>\n</function>\n</tool_call>"
    expected = "a <think> b" + one + one.replace("=f", "=g") + "\n"
    assert flow(V3, user("x"), answer) == turn("user", "x") + turn("assistant", expected)


def test_values_and_numbers() -> None:
    text = prompt(
        V3, [user("x"), assistant("", call("f", VALUES | NUMBERS | {"h": BIG, "s": "<"}))]
    )
    pieces = text.partition("<function=f>\n")[2].partition("</function>")[0].split("</parameter>\n")
    assert [piece.partition(">\n")[2].removesuffix("\n") for piece in pieces[:-1]] == [
        "None",
        "1.5",
        "True",
        '[1, "x"]',
        '{"a": "<", "b": 1}',
        *("1e+06", "2.097152e+06", "1.2345675e+06", "1e+20", "1e-05", "1.2345678901234567e+19"),
        "<",
    ]


# --- other turns ----------------------------------------------------------------------------------


def test_results_in_a_row_share_a_turn() -> None:
    answers = "<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response>\n"
    text = flow(V3, user("x"), result("1"), result("2"), user("y"))
    assert text == turn("user", "x") + turn("user", answers) + turn("user", "y")


def test_result_as_the_very_first_message_opens_no_turn() -> None:
    expected = "<tool_response>\n1\n</tool_response>\n<|im_end|>\n"
    assert flow(V3, result("1")) == expected
    assert flow(V3, result("1"), user("x")) == expected + turn("user", "x")


@BOTH
def test_other_roles_are_turns_of_their_own_and_untouched(name: str) -> None:
    message = Message(role="developer", content=" /no_think ")
    assert flow(name, message, user("x")) == turn("developer", " /no_think ") + turn("user", "x")


@BOTH
def test_no_prefill(name: str) -> None:
    text = prompt(name, [user("Hi"), assistant("Par")])
    assert text.endswith(turn("assistant", "<think></think>Par") + ON)


@BOTH
def test_images_are_numbered_over_all_messages(name: str) -> None:
    reply = Message(role="tool", content="r", images=[b"x"])
    messages = system("S"), user("a", images=2), assistant("b"), reply, user("see [img]", images=1)
    text = prompt(name, messages)
    assert "user\n[img-0][img-1] a<" in text
    assert "\n[img-2] r\n" in text
    assert "user\nsee [img-3]<" in text
    assert "[img-" not in prompt(name, messages, tag_images=False)
