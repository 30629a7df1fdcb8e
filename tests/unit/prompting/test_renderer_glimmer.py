"""Glimmer (renderers-and-parsers 3.16)."""

from __future__ import annotations

from datetime import date
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

from ollamad.prompting.renderers import glimmer
from ollamad.prompting.renderers.conversation import Conversation
from ollamad.wire import Message, ToolProperty

BOS, GO_ON = "<|begin_of_text|>", "<|start|>assistant"
STRENGTH = "\n\nReasoning strength: high."
META = '\n\n# Valid recipients: "self", "user".'


def block(header: str, body: str, end: str = "<|eot|>") -> str:
    return f"<|start|>{header}<|message|>{body}{end}"


SYSTEM = block("system", f"S{STRENGTH}{META}")


def flow(*messages: Message) -> str:
    """The prompt between the system message and the opening of the answer."""
    return prompt("glimmer", [system("S"), *messages]).removeprefix(BOS + SYSTEM)


def test_worked_example() -> None:
    assert prompt("glimmer", CW, tools=[WEATHER], think=True) == example("glimmer")


# --- system ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("think", "strength"),
    [
        (None, "high"),
        (True, "high"),
        (False, "none"),
        ("low", "low"),
        ("medium", "medium"),
        ("max", "max"),
    ],
)
def test_missing_system_message_is_replaced(think: Any, strength: str) -> None:
    (renderer,) = glimmer.RENDERERS
    assert renderer.render(Conversation([user("Hi")], [], think, True, date(2026, 3, 9))) == (
        BOS
        + block(
            "system",
            "You are a helpful AI assistant.\nKnowledge cutoff: 2026-01-04.\n"
            f"Current date: 2026-03-09.\n\nReasoning strength: {strength}.{META}",
        )
        + block("user", "Hi")
        + GO_ON
    )


def test_every_system_message_is_complete_at_its_place() -> None:
    messages = user("Hi"), system("S"), user("you"), system("")
    assert prompt("glimmer", messages) == (
        BOS
        + block("user", "Hi")
        + SYSTEM
        + block("user", "you")
        + block("system", STRENGTH + META)
        + GO_ON
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("reasoning effort: low", "reasoning strength: low"),
        ("REASONING EFFORT", "REASONING STRENGTH"),
        ("Reasoning effort", "Reasoning strength"),
        ("Reasoning Effort", "Reasoning Strength"),
        ("REASONING strength", "REASONING strength"),
        ("reasoning Effort", f"reasoning Effort{STRENGTH}"),
    ],
)
def test_effort_is_called_strength(text: str, expected: str) -> None:
    assert prompt("glimmer", [system(text)]) == BOS + block("system", expected + META) + GO_ON


def test_tools_by_namespace() -> None:
    tools = [
        tool("ns.f", {"p": ToolProperty(description="a <b>")}, description="a <b>"),
        tool("ping", type=""),
        tool("ns.g.h"),
    ]
    text = prompt("glimmer", [system("S")], tools=tools)
    listed = text.partition("JSONSchema format:\n")[2].partition("\n\nHere's")[0]
    assert listed == (
        '// Tool metadata\n{"name": "ns", "description": ""}\n{"name": "ping", "description": ""}\n'
        '// Function schemas\n{"name": "ns.f", "description": "a <b>", "parameters": {"type": '
        '"object", "properties": {"p": {"description": "a \\u003cb\\u003e"}}}}\n'
        '{"name": "ping", "parameters": {"type": "", "properties": null}}\n'
        '{"name": "ns.g.h", "parameters": {"type": "object", "properties": null}}'
    )
    assert '# Valid recipients: "self", "ns.*", "ping.*", "user".<|eot|>' in text


# --- the other messages ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (assistant("a"), block("assistant to=user", "a")),
        (assistant(""), block("assistant to=user", "")),
        (assistant("", thinking="t"), block("assistant to=self", "t", "<|eom|>")),
        (
            assistant("a", thinking="t"),
            block("assistant to=self", "t", "<|eom|>") + block("assistant to=user", "a"),
        ),
    ],
)
def test_answers_without_calls(answer: Message, expected: str) -> None:
    assert flow(answer, user("x")) == expected + block("user", "x") + GO_ON
    assert flow(user("x"), answer) == block("user", "x") + expected + GO_ON


def atem(name: str, parameters: str = "") -> str:
    return (
        f'<atem:function_calls>\n<atem:invoke name="{name}">\n{parameters}</atem:invoke>\n'
        "</atem:function_calls>"
    )


def test_calls() -> None:
    answer = assistant("dropped", call("f", {"k": "<v>"}), call("g"), thinking="t")
    calls = (
        block("assistant to=self", "t", "<|eom|>")
        + block(
            "assistant to=f",
            atem("f", '<atem:parameter name="k"><v></atem:parameter>\n'),
            "<|eom|>",
        )
        + block("assistant to=g", atem("g"))
    )
    assert flow(answer) == calls + GO_ON
    assert flow(answer, user("x")) == calls + block("user", "x") + GO_ON
    continued = calls.removesuffix("<|eot|>") + "<|eom|>"
    assert flow(answer, assistant("a")) == continued + block("assistant to=user", "a") + GO_ON


def test_values_and_numbers() -> None:
    text = flow(assistant("", call("f", VALUES | NUMBERS | {"h": BIG})))
    values = [
        part.partition("</")[0].partition(">")[2] for part in text.split("<atem:parameter ")[1:]
    ]
    assert values == [
        *("null", "1.5", "true", '[1, "x"]', '{"a": "<", "b": 1}'),
        *("1e+06", "2.097152e+06", "1.2345675e+06", "1e+20", "1e-05", "1.2345678901234567e+19"),
    ]


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (result("r", name="n", id="one"), "n"),
        (result("r", id="one"), "f"),
        (result("r", id="later"), "g"),
        (result("r", id="unknown"), "unknown"),
        (result("r"), ""),
    ],
)
def test_results_are_named(answer: Message, name: str) -> None:
    text = flow(assistant("", call("f", id="one")), answer, assistant("", call("g", id="later")))
    expected = block(f"tool {name}", f'<tool_output name="{name}">\nr\n</tool_output>')
    assert f"<|eot|>{expected}<|start|>assistant to=g" in text


def test_images_keep_their_numbers_where_content_is_dropped() -> None:
    dropped = Message(role="assistant", content="c", tool_calls=[call("f")], images=[b"x"])
    reply = Message(role="tool", content="r", tool_name="f", images=[b"x"])
    messages = user("a", images=1), dropped, reply, user("see [img]", images=1)
    text = flow(*messages)
    assert block("user", "[img-0] a") in text
    assert '<tool_output name="f">\n[img-2] r\n</tool_output>' in text
    assert block("user", "see [img-3]") in text
    assert "[img-" not in prompt("glimmer", messages, tag_images=False)
