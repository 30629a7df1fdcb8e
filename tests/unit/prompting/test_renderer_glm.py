"""GLM (renderers-and-parsers 3.11)."""

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

START = "[gMASK]<sop>"


def test_worked_example() -> None:
    assert prompt("glm-4.7", CW, tools=[WEATHER], think=True) == example("glm-4.7")


@pytest.mark.parametrize(
    ("name", "think", "expected"),
    [
        ("glm-4.7", None, "<|user|>Hi<|assistant|><think>"),
        ("glm-4.7", False, "<|user|>Hi<|assistant|></think>"),
        ("glm-4.7", True, "<|user|>Hi<|assistant|><think>"),
        ("glm-4.7", "low", "<|user|>Hi<|assistant|><think>"),
        ("glm-ocr", None, "<|user|>\nHi<|assistant|>\n"),
        ("glm-ocr", False, "<|user|>\nHi/nothink<|assistant|>\n<think></think>\n"),
        ("glm-ocr", True, "<|user|>\nHi<|assistant|>\n"),
    ],
)
def test_user_alone(name: str, think: Any, expected: str) -> None:
    assert prompt(name, [user("Hi")], think=think) == START + expected


@pytest.mark.parametrize("name", ["glm-4.7", "glm-ocr"])
def test_tools_stand_one_on_a_line(name: str) -> None:
    head = example("glm-4.7").partition("<|system|>Be brief.")[0]
    ping = (
        '{"type": "function", "function": {"name": "ping", "parameters": '
        '{"type": "", "properties": null}}}\n'
    )
    text = prompt(name, [user("Hi")], tools=[WEATHER, tool("ping", type="")])
    assert text.startswith(head.replace("</tools>\n", f"{ping}</tools>\n") + "<|user|>")


def test_reasoning_is_kept_and_an_answer_is_never_continued() -> None:
    messages = [user("a"), assistant(" b ", thinking=" t "), user("c"), assistant("Par")]
    assert prompt("glm-4.7", messages, think=False) == (
        f"{START}<|user|>a<|assistant|><think> t </think> b <|user|>c<|assistant|></think>Par"
        "<|assistant|></think>"
    )


def test_results_in_a_row_share_an_observation() -> None:
    messages = user("a"), result("1"), result("2"), system("S"), result("3")
    assert prompt("glm-4.7", messages) == (
        f"{START}<|user|>a<|observation|><tool_response>1</tool_response>"
        "<tool_response>2</tool_response><|system|>S<|observation|>"
        "<tool_response>3</tool_response><|assistant|><think>"
    )
    assert prompt("glm-ocr", messages) == (
        f"{START}<|user|>\na<|observation|>\n<tool_response>\n1\n</tool_response>\n"
        "\n<tool_response>\n2\n</tool_response>\n<|system|>\nS\n<|observation|>"
        "\n<tool_response>\n3\n</tool_response>\n<|assistant|>\n"
    )


@pytest.mark.parametrize("name", ["glm-4.7", "glm-ocr"])
def test_values_and_numbers(name: str) -> None:
    arguments = {"s": "<&>"} | VALUES | NUMBERS | {"h": BIG}
    text = prompt(name, [user("a"), assistant("", call("f", arguments))])
    values = [part.partition("</arg_value>")[0] for part in text.split("<arg_value>")[1:]]
    assert values == [
        "<&>",
        *("null", "1.5", "true", '[1,"x"]', '{"a":"\\u003c","b":1}'),
        *("1000000", "2097152", "1234567.5", "100000000000000000000", "0.00001"),
        "12345678901234567000",
    ]
    keys = [part.partition("</arg_key>")[0] for part in text.split("<arg_key>")[1:]]
    assert keys == list(arguments)


def test_glm_ocr_answers() -> None:
    messages = (
        user("a"),
        assistant(" b ", call("f", {"k": "v"}), call("g"), thinking=" t\n"),
        assistant(" "),
    )
    assert prompt("glm-ocr", messages) == (
        f"{START}<|user|>\na<|assistant|>\n<think>t</think>\nb"
        "\n<tool_call>f<arg_key>k</arg_key><arg_value>v</arg_value></tool_call>"
        "\n<tool_call>g</tool_call>\n<|assistant|>\n<think></think>\n<|assistant|>\n"
    )


@pytest.mark.parametrize(
    ("content", "expected"), [("a/nothink", "a/nothink"), ("/nothink a", "/nothink a/nothink")]
)
def test_glm_ocr_is_told_once_not_to_think(content: str, expected: str) -> None:
    text = prompt("glm-ocr", [user(content)], think=False)
    assert text == f"{START}<|user|>\n{expected}<|assistant|>\n<think></think>\n"


def test_images() -> None:
    messages = user("extract text", images=2), assistant("b"), user("and [img]!", images=1)
    text = prompt("glm-ocr", messages)
    assert "<|user|>\n[img-0][img-1] extract text<|" in text
    assert "<|user|>\nand [img-2]!<|" in text
    assert "[img-" not in prompt("glm-ocr", messages, tag_images=False)
    assert "[img-" not in prompt("glm-4.7", messages)
