"""Cohere (renderers-and-parsers 3.15)."""

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

from ollamad.wire import Message

NO_TOOLS = "# Available Tools\n```json\n[\n\n\n\n]\n```"
CHATBOT = "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
GO_ON = f"{CHATBOT}<|START_THINKING|>"


def turn(speaker: str, text: str) -> str:
    return (
        f"<|START_OF_TURN_TOKEN|><|{speaker}_TOKEN|><|START_TEXT|>{text}<|END_TEXT|>"
        "<|END_OF_TURN_TOKEN|>"
    )


PLATFORM, HI = turn("SYSTEM", NO_TOOLS), turn("USER", "Hi")


def action(*entries: str, thinking: str = "") -> str:
    """An assistant turn with calls."""
    listed = ",".join(f"\n\n    {entry}" for entry in entries)
    return (
        f"{CHATBOT}\n            \n                {thinking}<|START_ACTION|>[{listed}\n\n]"
        "<|END_ACTION|><|END_OF_TURN_TOKEN|>"
    )


def test_worked_example() -> None:
    assert prompt("cohere", CW, tools=[WEATHER], think=True) == example("cohere")


@pytest.mark.parametrize(
    ("think", "end"), [(None, ""), (False, "<|END_THINKING|>"), (True, ""), ("low", "")]
)
def test_user_alone(think: Any, end: str) -> None:
    assert prompt("cohere", [user("Hi")], think=think) == PLATFORM + HI + GO_ON + end


def test_tools() -> None:
    text = prompt(
        "cohere", [user("Hi")], tools=[tool("ping", type=""), tool("f", {}, description="<")]
    )
    assert text == (
        turn(
            "SYSTEM",
            "# Available Tools\n```json\n[\n"
            '\n    {"name": "ping", "description": "", "parameters": {"type": "", "properties": '
            'null}, "responses": null},\n\n'
            '\n    {"name": "f", "description": "\\u003c", "parameters": {"type": "object", '
            '"properties": {}}, "responses": null}\n\n'
            "\n]\n```",
        )
        + HI
        + GO_ON
    )


@pytest.mark.parametrize("role", ["system", "System"])
def test_first_system_text_goes_in_front(role: str) -> None:
    messages = user("Hi"), Message(role=role, content="S1"), Message(role=role, content="S2")
    expected = turn("SYSTEM", f"S1\n\n\n\n{NO_TOOLS}") + HI + turn("SYSTEM", "S2") + GO_ON
    assert prompt("cohere", messages) == expected
    assert prompt("cohere", [system(""), user("Hi")]) == PLATFORM + HI + GO_ON


@pytest.mark.parametrize("role", ["assistant", "chatbot"])
def test_answers(role: str) -> None:
    first = Message(role=role, content="a", thinking="t")
    last = Message(role=role, content="Par")
    thinking = "<|START_THINKING|>t<|END_THINKING|>"
    assert prompt("cohere", [user("Hi"), first, user("Hi"), last], think=False) == (
        PLATFORM
        + HI
        + turn("CHATBOT", "a").replace("<|START_TEXT|>", f"{thinking}<|START_TEXT|>")
        + HI
        + f"{CHATBOT}<|START_TEXT|>Par"
    )
    assert prompt("cohere", [first]) == f"{PLATFORM}{CHATBOT}{thinking}<|START_TEXT|>a"


def test_calls_are_numbered_over_the_conversation_and_results_refer_to_them() -> None:
    messages = (
        user("Hi"),
        assistant("dropped", call("f", {"b": 1, "a": {"y": 1, "x": "<"}}, id="one"), thinking="t"),
        result("r1", id="one"),
        assistant("", call("g", id="two"), call("h")),
        result("r3", id="unknown"),
        result("<\n", id="two"),
        assistant("", call("i", id="three")),
    )
    text = prompt("cohere", messages)

    def answer(call: str, content: str) -> str:
        return (
            f'\n    {{\n        "tool_call_id": "{call}",\n        "results": {{\n\n'
            f'            \n            "0": {{"content": "{content}"}}\n\n'
            '        },\n        "is_error": null\n    }'
        )

    def results(*answers: str) -> str:
        return (
            f"<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><|START_TOOL_RESULT|>[{','.join(answers)}"
            "\n\n]<|END_TOOL_RESULT|><|END_OF_TURN_TOKEN|>"
        )

    assert text == (
        PLATFORM
        + HI
        + action(
            '{"tool_call_id": "0", "tool_name": "f", "parameters": '
            '{"b": 1, "a": {"x": "\\u003c", "y": 1}}}',
            thinking="<|START_THINKING|>t<|END_THINKING|>",
        )
        + results(answer("0", "r1"))
        + action(
            '{"tool_call_id": "1", "tool_name": "g", "parameters": {}}',
            '{"tool_call_id": "2", "tool_name": "h", "parameters": {}}',
        )
        + results(answer("unknown", "r3"), answer("1", "\\u003c\\n"))
        + action('{"tool_call_id": "3", "tool_name": "i", "parameters": {}}')
        + GO_ON
    )


def test_values_and_numbers() -> None:
    arguments = VALUES | NUMBERS | {"h": BIG}
    assert (
        '"parameters": {"n": null, "f": 1.5, "t": true, "l": [1, "x"], "o": {"a": "\\u003c", '
        '"b": 1}, "a": 1000000, "b": 2097152, "c": 1234567.5, "d": 100000000000000000000, '
        '"e": 0.00001, "h": 12345678901234567000}}'
    ) in prompt("cohere", [assistant("", call("f", arguments))])


def test_images_leave_no_trace() -> None:
    assert "img" not in prompt("cohere", [user("Hi", images=1)])
