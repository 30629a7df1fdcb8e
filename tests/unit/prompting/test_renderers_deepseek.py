"""renderers-and-parsers.md 3.7, 3.8 and the Cases: deepseek3.1 and cogito."""

from __future__ import annotations

from typing import Any

import pytest
from support.conversations import (
    BIG,
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

from ollamad.wire import Message, ToolProperty

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
CALLS, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
SEP = "<｜tool▁sep｜>"
OUTPUTS, OUTPUTS_END = "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>"
OUTPUT, OUTPUT_END = "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"
HI = user("Hi")
ODD = Message(role="developer", content="D")

ARGUMENTS = [
    (VALUES, '{"n":null,"f":1.5,"t":true,"l":[1,"x"],"o":{"a":"\\u003c","b":1}}'),
    (NUMBERS, '{"a":1000000,"b":2097152,"c":1234567.5,"d":100000000000000000000,"e":0.00001}'),
    ({"n": BIG}, '{"n":12345678901234567000}'),
    ({}, "{}"),
]


def deepseek(*messages: Message, **kwargs: Any) -> str:
    text = prompt("deepseek3.1", messages, **kwargs)
    assert text.startswith(BOS)
    return text.removeprefix(BOS)


def test_deepseek_joins_all_system_messages() -> None:
    text = deepseek(system("S1"), HI, system("S2"), user("U2"))
    assert text == f"S1\n\nS2{USER}Hi{USER}U2{ASSISTANT}</think>"


def test_deepseek_roles_that_do_not_count() -> None:
    assert deepseek(HI, system("S2")).endswith(f"{USER}Hi{ASSISTANT}</think>")
    assert deepseek(HI, ODD) == f"{USER}Hi{ASSISTANT}</think>"
    assert deepseek(HI, system("S"), assistant("A")).endswith(f"Hi{ASSISTANT}</think>A{EOS}")


def test_deepseek_closes_a_final_answer() -> None:
    assert deepseek(HI, assistant("Par"), think=True) == f"{USER}Hi{ASSISTANT}</think>Par{EOS}"


@pytest.mark.parametrize(
    ("message", "think", "mark"),
    [
        (assistant("A", thinking="T"), True, "<think>"),
        (assistant("A", thinking="T"), "high", "<think>"),
        (assistant("A", thinking="T"), False, "</think>"),
        (assistant("A", thinking="T"), None, "</think>"),
        (assistant("A"), True, "</think>"),
    ],
)
def test_deepseek_opens_answers(message: Message, think: Any, mark: str) -> None:
    assert deepseek(HI, message, think=think) == f"{USER}Hi{ASSISTANT}{mark}A{EOS}"


def test_deepseek_never_writes_thinking_and_opens_old_answers_closed() -> None:
    text = deepseek(HI, assistant("A", thinking="T"), HI, think=True)
    assert text == f"{USER}Hi{ASSISTANT}</think>A{EOS}{USER}Hi{ASSISTANT}<think>"


def test_deepseek_cuts_tagged_reasoning_except_behind_results() -> None:
    tagged = assistant("a</think>b</think>c")
    assert deepseek(HI, tagged).endswith(f"</think>b</think>c{EOS}")
    assert deepseek(HI, tagged).endswith(f"{ASSISTANT}</think>b</think>c{EOS}")
    answer = assistant("", call("f"))
    text = deepseek(HI, answer, result("r"), tagged)
    assert text.endswith(f"{OUTPUT}r{OUTPUT_END}a</think>b</think>c{EOS}")
    assert deepseek(HI, answer, result("r"), tagged, tagged).endswith(f"c{EOS}b</think>c{EOS}")


def test_deepseek_no_generation_prompt_behind_results() -> None:
    text = deepseek(HI, assistant("C", call("f"), call("g")), result("1"), result("2"), think=True)
    assert text == (
        f"{USER}Hi{ASSISTANT}</think>C{CALLS}{CALL}f{SEP}{{}}{CALL_END}{CALL}g{SEP}{{}}{CALL_END}"
        f"{CALLS_END}{EOS}{OUTPUT}1{OUTPUT_END}{OUTPUT}2{OUTPUT_END}"
    )


def test_deepseek_calls_behind_results_have_no_mark() -> None:
    calls = assistant("a</think>b", call("f"))
    text = deepseek(HI, calls, result("1"), calls)
    assert text.endswith(f"{OUTPUT_END}a</think>b{CALLS}{CALL}f{SEP}{{}}{CALL_END}{CALLS_END}{EOS}")


@pytest.mark.parametrize(("arguments", "written"), ARGUMENTS)
def test_deepseek_arguments(arguments: dict[str, Any], written: str) -> None:
    text = deepseek(HI, assistant("", call("f", arguments)))
    assert f"{CALL}f{SEP}{written}{CALL_END}" in text


def test_deepseek_tools() -> None:
    declared = tool("f", {"p": ToolProperty(description="<")}, description="a <b>")
    text = deepseek(HI, tools=[WEATHER, declared])
    assert text.startswith("\n\n## Tools\nYou have access to the following tools:\n\n### get_weath")
    assert (
        '"days":{"type":"integer"}}}\n\n### f\nDescription: a <b>\n\nParameters: '
        '{"type":"object","properties":{"p":{"description":"\\u003c"}}}\n\nIMPORTANT: ALWAYS'
    ) in text
    ping = deepseek(HI, tools=[tool("ping", type="")])
    assert '### ping\nDescription: \n\nParameters: {"type":"","properties":null}\n' in ping


# --- cogito ---------------------------------------------------------------------------------------

DEFAULT = (
    "You are Cogito, an AI assistant created by Deep Cogito, which is an AI research lab based in "
    "San Francisco."
)
DEEP = f"Enable deep thinking subroutine.\n\n{DEFAULT}"


def cogito(*messages: Message, **kwargs: Any) -> str:
    text = prompt("cogito", messages, **kwargs)
    assert text.startswith(BOS)
    return text.removeprefix(BOS)


def test_cogito_system() -> None:
    ending = f"{USER}Hi{ASSISTANT}"
    assert cogito(system("S"), HI) == f"{DEFAULT}\n\nS{ending}"
    assert cogito(system("S"), HI, think=True) == f"{DEEP}\n\nS\n\n{ending}<think>\n"
    assert cogito(system("S"), HI, system("S2")) == f"{DEFAULT}\n\nS{ending}"


def test_cogito_a_last_system_message_changes_nothing() -> None:
    assert cogito(HI, system("S2"), think=False).endswith(f"{USER}Hi{ASSISTANT}")
    assert cogito(HI, ODD) == cogito(HI)


def test_cogito_tools_follow_the_system_text() -> None:
    ping = (
        "\nYou have the following functions available:\n```json\n{\n"
        '    "type": "function",\n    "function": {\n        "name": "ping",\n'
        '        "description": "\\u003c",\n        "parameters": {\n            "type": "",\n'
        '            "properties": null\n        }\n    }\n}\n```\n'
    )
    declared = tool("ping", description="<", type="")
    assert cogito(HI, tools=[declared]) == f"{DEFAULT}{ping}{USER}Hi{ASSISTANT}"
    text = cogito(system("S"), HI, tools=[declared, declared], think=True)
    fence = ping.removeprefix("\nYou have the following functions available:\n")
    assert text == f"{DEEP}\n\nS\n\n{ping}{fence}{USER}Hi{ASSISTANT}<think>\n"


def test_cogito_answers_are_closed_and_lose_their_thinking() -> None:
    text = cogito(HI, assistant("Par", thinking="T"))
    assert text == f"{DEFAULT}{USER}Hi{ASSISTANT}Par{EOS}{ASSISTANT}"
    assert cogito(HI, assistant("Par"), system("S"), think=True).endswith(
        f"Par{EOS}{ASSISTANT}<think>\n"
    )


def test_cogito_calls_and_results() -> None:
    text = cogito(HI, assistant("C", call("f"), call("g")), result("1"), result("2"), HI)
    fence = "```json\n{}\n```"
    assert text == (
        f"{DEFAULT}{USER}Hi{ASSISTANT}C{CALLS}{CALL}function{SEP}f\n{fence}{CALL_END}\n"
        f"{CALL}function{SEP}g\n{fence}{CALL_END}{CALLS_END}{EOS}"
        f"{OUTPUTS}{OUTPUT}1{OUTPUT_END}\n{OUTPUT}2{OUTPUT_END}{OUTPUTS_END}{USER}Hi{ASSISTANT}"
    )


@pytest.mark.parametrize(("arguments", "written"), ARGUMENTS)
def test_cogito_arguments(arguments: dict[str, Any], written: str) -> None:
    text = cogito(HI, assistant("", call("f", arguments)))
    assert f"{CALL}function{SEP}f\n```json\n{written}\n```{CALL_END}" in text
