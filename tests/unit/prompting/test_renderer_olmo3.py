"""Olmo 3 (renderers-and-parsers 3.9)."""

from __future__ import annotations

from typing import Any

import pytest
from support.conversations import (
    BIG,
    CW,
    NUMBERS,
    VALUES,
    WEATHER,
    WEATHER_SJ,
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

NONE = "You do not currently have access to any functions. <functions></functions>"
OLMO = (
    "You are Olmo, a helpful AI assistant built by Ai2. Your date cutoff is December 2024, and "
    "your model weights are available at https://huggingface.co/allenai."
)
FUNCTION_CALLING = "You are a helpful function-calling AI assistant. "
GO_ON = "<|im_start|>assistant\n"
EVERY_THINK = pytest.mark.parametrize("think", [None, False, True, "low"])


@EVERY_THINK
def test_worked_example(think: Any) -> None:
    assert prompt("olmo3", CW, tools=[WEATHER], think=think) == example("olmo3")


@EVERY_THINK
@pytest.mark.parametrize(
    ("name", "text", "opening"),
    [
        ("olmo3", FUNCTION_CALLING + NONE, ""),
        ("olmo3.1", f"{OLMO} {NONE}", ""),
        ("olmo3-think", OLMO, "<think>"),
        ("olmo3-32b-think", "You are a helpful AI assistant.", "<think>"),
    ],
)
def test_user_alone(name: str, text: str, opening: str, think: Any) -> None:
    expected = turn("system", text) + turn("user", "Hi") + GO_ON + opening
    assert prompt(name, [user("Hi")], think=think) == expected


def test_tools_without_a_system_message_come_with_instructions() -> None:
    text = prompt("olmo3", [user("Hi")], tools=[WEATHER, tool("ping", type="")])
    assert text == (
        turn(
            "system",
            FUNCTION_CALLING + "You are provided with function signatures within "
            "<functions></functions> XML tags. You may call one or more functions to assist with "
            "the user query. Output any function calls within <function_calls></function_calls> "
            "XML tags. Do not make assumptions about what values to plug into functions."
            f"<functions>[{WEATHER_SJ}, "
            '{"type": "function", "function": {"name": "ping", "parameters": {"type": "", '
            '"properties": null}}}]</functions>',
        )
        + turn("user", "Hi")
        + GO_ON
    )


def test_empty_system_message_is_a_system_text() -> None:
    assert prompt("olmo3", [system(""), user("Hi")]) == turn("system", "") + turn("user", "Hi") + (
        GO_ON
    )
    assert prompt("olmo3-think", [system(""), user("Hi")]).startswith(turn("system", f" {NONE}"))


@pytest.mark.parametrize(
    ("name", "first"), [("olmo3", "S1"), ("olmo3.1", "S1"), ("olmo3-think", f"S1 {NONE}")]
)
def test_first_system_text_counts_wherever_it_stands(name: str, first: str) -> None:
    text = prompt(name, [user("Hi"), system("S1"), user("you"), system("S2")])
    expected = turn("system", first) + turn("user", "Hi") + turn("user", "you") + GO_ON
    assert text.removesuffix("<think>") == expected


def test_calls_have_sorted_keys_and_lines_of_their_own() -> None:
    calls = call("f", {"b": {"y": "<", "x": None}, "a": "q\n"}), call("g")
    text = prompt("olmo3", [user("Hi"), assistant("", *calls)])
    assert text.endswith(
        '<|im_start|>assistant\n<function_calls>f(a="q\\n", b={"x":null,"y":"\\u003c"})\n'
        f"g()</function_calls><|im_end|>\n{GO_ON}"
    )


def test_values_and_numbers() -> None:
    last = [user("Hi"), assistant("", call("f", VALUES), call("g", NUMBERS), call("h", {"a": BIG}))]
    assert (
        'f(f=1.5, l=[1,"x"], n=null, o={"a":"\\u003c","b":1}, t=true)\n'
        "g(a=1000000, b=2097152, c=1234567.5, d=100000000000000000000, e=0.00001)\n"
        "h(a=12345678901234567000)"
    ) in prompt("olmo3", last)


def test_answer_is_continued() -> None:
    text = prompt("olmo3", [user("Hi"), assistant("Par", thinking="gone")])
    assert text.endswith(turn("user", "Hi") + GO_ON + "Par")
    assert prompt("olmo3", [user("Hi"), assistant("Par"), user("x")]).endswith(
        turn("assistant", "Par") + turn("user", "x") + GO_ON
    )


def test_empty_last_answer_is_open_and_no_prefill() -> None:
    assert prompt("olmo3", [user("Hi"), assistant("")]).endswith(turn("user", "Hi") + GO_ON * 2)


def test_system_after_an_answer_does_not_close_it() -> None:
    assert prompt("olmo3", [user("Hi"), assistant("Par"), system("S")]).endswith(GO_ON + "Par")


def test_thinking_models_drop_tools_and_never_continue() -> None:
    messages = [system("S"), user("Hi"), assistant("a", call("f"), thinking="t"), result("r")]
    expected = turn("system", f"S {NONE}") + turn("user", "Hi") + turn("assistant", "a")
    text = prompt("olmo3-32b-think", [*messages, assistant("Par")], tools=[WEATHER])
    assert text == expected + turn("assistant", "Par") + GO_ON + "<think>"


def test_images_leave_no_trace() -> None:
    assert "img" not in prompt("olmo3", [user("Hi", images=1)])
