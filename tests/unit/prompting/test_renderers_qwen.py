"""renderers-and-parsers.md 3.1, 3.3, 3.4 and the Cases: the families in ChatML turns."""

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

from ollamad.errors import OllamadError
from ollamad.prompting.renderers.chatml import XML_CALL_INSTRUCTIONS
from ollamad.wire import Message, Think, ToolProperty

ASSISTANT = "<|im_start|>assistant\n"
THINK, NO_THINK = "<think>\n", "<think>\n\n</think>\n\n"
HI = user("Hi")
ALL = ("qwen3-coder", "qwen3-vl-instruct", "qwen3-vl-thinking", "qwen3.5", "ornith", "qwen3.8")
CALLING = ("qwen3-coder", "qwen3.5", "ornith", "qwen3.8")
TRIMMING = ("qwen3.5", "ornith", "qwen3.8")


def ending(renderer: str, messages: list[Message], think: Think | None) -> str:
    """The prompt behind the turn of ``Hi``."""
    return prompt(renderer, messages, think=think).rpartition(turn("user", "Hi"))[2]


# --- all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("renderer", ALL)
def test_results_in_a_row_share_a_turn(renderer: str) -> None:
    messages = [HI, assistant("", call("f"), call("g")), result("1"), result("2"), user("x")]
    messages += [assistant("y", call("f")), result("3")]
    text = prompt(renderer, messages, think=False)
    both = (
        "<|im_start|>user\n<tool_response>\n1\n</tool_response>\n"
        "<tool_response>\n2\n</tool_response><|im_end|>\n"
    )
    assert both + turn("user", "x") in text
    assert "<|im_start|>user\n<tool_response>\n3\n</tool_response><|im_end|>\n" in text
    assert text.count("<|im_start|>user") == 4


@pytest.mark.parametrize(
    ("renderer", "absent", "off", "on"),
    [
        ("qwen3-coder", "", "", ""),
        ("qwen3-vl-instruct", "", "", NO_THINK),
        ("qwen3-vl-thinking", NO_THINK, "", NO_THINK),
        ("qwen3.5", NO_THINK, "", NO_THINK),
        ("ornith", NO_THINK, NO_THINK, NO_THINK),
        ("qwen3.8", NO_THINK, NO_THINK, NO_THINK),
    ],
)
def test_prefill(renderer: str, absent: str, off: str, on: str) -> None:
    endings = [ending(renderer, [HI, assistant("Par")], think) for think in (None, False, True)]
    assert endings == [f"{ASSISTANT}{block}Par" for block in (absent, off, on)]


@pytest.mark.parametrize("renderer", CALLING)
@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (VALUES, ["null", "1.5", "true", '[1,"x"]', '{"a":"\\u003c","b":1}']),
        (NUMBERS, ["1e+06", "2.097152e+06", "1.2345675e+06", "1e+20", "1e-05"]),
        ({"n": BIG}, ["1.2345678901234567e+19"]),
        ({"z": "<b>\n", "a": ""}, ["<b>\n", ""]),
        ({}, []),
    ],
)
def test_values_of_arguments(renderer: str, arguments: dict[str, Any], texts: list[str]) -> None:
    text = prompt(renderer, [HI, assistant("", call("f", arguments)), result("1")])
    names = list(arguments)
    written = "".join(
        f"<parameter={name}>\n{value}\n</parameter>\n"
        for name, value in zip(names, texts, strict=True)
    )
    assert f"<tool_call>\n<function=f>\n{written}</function>\n</tool_call><|im_end|>\n" in text


# --- qwen3-coder ----------------------------------------------------------------------------------


def coder(*messages: Message, **kwargs: Any) -> str:
    return prompt("qwen3-coder", messages, **kwargs)


def test_coder_only_a_system_message() -> None:
    assert coder(system("S")) == turn("system", "S")


def test_coder_takes_the_first_system_text_wherever_it_stands() -> None:
    messages = [system(""), HI, system("S1"), user("x"), system("S2")]
    assert coder(*messages) == (
        turn("system", "S1") + turn("user", "Hi") + turn("user", "x") + ASSISTANT
    )


def test_coder_last_is_counted_without_system_messages() -> None:
    assert coder(HI, assistant("Par"), system("S")).endswith(f"{ASSISTANT}Par")


def test_coder_a_system_message_does_not_part_results() -> None:
    text = coder(HI, assistant("", call("f")), result("1"), system("S"), result("2"))
    assert "1\n</tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>\n" in text


def test_coder_calls() -> None:
    text = coder(HI, assistant("", call("f", {"a": 1}), call("g")), HI)
    assert text == (
        turn("user", "Hi")
        + turn(
            "assistant",
            "\n<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n"
            "</tool_call>\n<tool_call>\n<function=g>\n</function>\n</tool_call>",
        )
        + turn("user", "Hi")
        + ASSISTANT
    )


def test_coder_a_last_call_is_closed_without_a_generation_prompt() -> None:
    assert coder(HI, assistant("C", call("f"))).endswith("</tool_call><|im_end|>\n")


def test_coder_other_roles_and_closed_answers() -> None:
    messages = [Message(role="developer", content="D"), assistant("A"), HI]
    assert coder(*messages) == (
        turn("developer", "D") + turn("assistant", "A") + turn("user", "Hi") + ASSISTANT
    )


def test_coder_default_system_text_only_with_tools() -> None:
    default = (
        "<|im_start|>system\nYou are Qwen, a helpful AI assistant that can interact with a "
        "computer to solve tasks.\n\n# Tools\n\n"
    )
    assert coder(HI, tools=[WEATHER]).startswith(default)


def test_coder_a_tool_without_anything() -> None:
    text = coder(HI, tools=[tool("ping", type="")])
    assert (
        "<tools>\n<function>\n<name>ping</name>\n<parameters>\n</parameters>\n</function>\n</to"
        in (text)
    )


def test_coder_extra_keys_of_tools() -> None:
    declared = tool(
        "f",
        {
            "p": ToolProperty(
                type=["string", "null"],
                anyOf=[ToolProperty(type="integer", description="<d>")],
                items=True,
                enum=["a", {"z": 1, "b": 2}],
                properties={"q": ToolProperty(type="string")},
                required=["q"],
            ),
            "u": ToolProperty(items={"type": "string", "a": "<"}),
        },
        required=["p"],
        items="scalar",
        defs={"z": 1, "a": 2},
    )
    assert (
        "<parameters>\n<parameter>\n<name>p</name>\n"
        '<type>["string","null"]</type>\n'
        '<anyOf>[{"description":"\\u003cd\\u003e","type":"integer"}]</anyOf>\n'
        "<items>true</items>\n"
        '<enum>["a",{"b":2,"z":1}]</enum>\n'
        '<properties>{"q":{"type":"string"}}</properties>\n'
        '<required>["q"]</required>\n'
        "</parameter>\n<parameter>\n<name>u</name>\n"
        '<items>{"a":"\\u003c","type":"string"}</items>\n</parameter>\n'
        '<$defs>{"a":2,"z":1}</$defs>\n<items>scalar</items>\n<required>["p"]</required>\n'
        "</parameters>"
    ) in coder(HI, tools=[declared])


def test_coder_ignores_thinking() -> None:
    assert coder(*CW, think=True) == coder(*CW, think=False)
    assert "Need the tool." not in coder(*CW, think=True)


# --- qwen3-vl -------------------------------------------------------------------------------------


def vl(*messages: Message, think: Think | None = True, **kwargs: Any) -> str:
    return prompt("qwen3-vl-thinking", messages, think=think, **kwargs)


def test_vl_system_messages() -> None:
    messages = [system("S1"), HI, system("S2"), HI]
    rest = turn("user", "Hi") + turn("system", "S2") + turn("user", "Hi") + ASSISTANT + THINK
    assert vl(*messages) == turn("system", "S1") + rest
    assert vl(*messages, tools=[WEATHER]).startswith("<|im_start|>system\nS1\n\n# Tools\n\n")
    assert vl(HI, tools=[WEATHER]).startswith("<|im_start|>system\n# Tools\n\n")


def test_vl_tools_stand_on_lines_of_their_own() -> None:
    text = vl(HI, tools=[WEATHER, WEATHER])
    assert f"<tools>\n{WEATHER_SJ}\n{WEATHER_SJ}\n</tools>\n" in text


def test_vl_unknown_roles_are_left_out() -> None:
    assert vl(Message(role="developer", content="D"), HI) == vl(HI)


def test_vl_reasoning_is_written_behind_the_last_query_only() -> None:
    old = assistant("A1", thinking="T1")
    new = assistant("\n\nA2", call("f"), thinking="\nT2\n")
    text = vl(HI, old, HI, new, result("r"))
    assert turn("assistant", "A1") in text
    assert f"{ASSISTANT}<think>\nT2\n</think>\n\nA2\n<tool_call>\n" in text
    assert "<think>\nT2" not in vl(HI, old, HI, new, result("r"), think=False)


def test_vl_reasoning_without_thinking_text_is_written_in_the_final_answer_only() -> None:
    messages = [HI, assistant("A", call("f")), result("r")]
    assert f"{ASSISTANT}A\n<tool_call>" in vl(*messages)
    assert vl(HI, assistant("A")).endswith(f"{ASSISTANT}{NO_THINK}A")
    assert vl(HI, assistant("", thinking="T")).endswith(f"{ASSISTANT}<think>\nT")


def test_vl_wrapped_results_are_no_query() -> None:
    answer = assistant("A", call("f"), thinking="T")
    wrapped = user("<tool_response>\nr\n</tool_response>")
    assert "<think>\nT\n</think>" in vl(HI, answer, wrapped)
    assert "<think>\nT\n</think>" not in vl(HI, answer, user("<tool_response>"))
    # Without any query nothing is behind the last one.
    assert "<think>\nT\n</think>" not in vl(wrapped, answer, wrapped)


def test_vl_a_wrapper_with_space_or_an_image_around_it_is_a_query() -> None:
    answer = assistant("A", call("f"), thinking="T")
    for query in (
        user("<tool_response></tool_response>\n"),
        user("<tool_response></tool_response>", 1),
    ):
        assert "<think>\nT\n</think>" not in vl(HI, answer, query)
        assert "<think>\nT\n</think>" not in vl(HI, answer, query, tag_images=False)


def test_vl_calls() -> None:
    calls = (call("f", VALUES), call("g", NUMBERS))
    text = (
        '<tool_call>\n{"name": "f", "arguments": {"n": null, "f": 1.5, "t": true, '
        '"l": [1, "x"], "o": {"a": "\\u003c", "b": 1}}}\n</tool_call>\n'
        '<tool_call>\n{"name": "g", "arguments": {"a": 1000000, "b": 2097152, "c": 1234567.5, '
        '"d": 100000000000000000000, "e": 0.00001}}\n</tool_call>'
    )
    assert vl(HI, assistant("", *calls), HI, think=False) == (
        turn("user", "Hi") + turn("assistant", text) + turn("user", "Hi") + ASSISTANT
    )
    # A last message stays open also with calls.
    assert vl(HI, assistant("C", *calls), think=False).endswith(f"{ASSISTANT}C\n{text}")
    assert '"n": 12345678901234567000}' in vl(HI, assistant("", call("f", {"n": BIG})), HI)


# --- qwen3.5, ornith, qwen3.8 ---------------------------------------------------------------------


@pytest.mark.parametrize("renderer", TRIMMING)
def test_contents_are_trimmed_behind_their_tags(renderer: str) -> None:
    text = prompt(renderer, [user("  pad \n", 1), assistant(" a "), user(" x ", 1)], think=False)
    assert turn("user", "[img-0]  pad") in text
    assert turn("user", "[img-1] x") in text
    assert "a<|im_end|>\n" in text


@pytest.mark.parametrize("renderer", ["qwen3.5", "ornith"])
def test_system_text_stands_behind_the_tools(renderer: str) -> None:
    tools = (
        "# Tools\n\nYou have access to the following functions:\n\n<tools>\n"
        f"{WEATHER_SJ}\n{WEATHER_SJ}\n</tools>{XML_CALL_INSTRUCTIONS}"
    )
    two = [WEATHER, WEATHER]
    user_turn = turn("user", "Hi") + ASSISTANT + THINK
    assert prompt(renderer, [HI], tools=two) == turn("system", tools) + user_turn
    assert prompt(renderer, [system(" S "), HI], tools=two) == (
        turn("system", f"{tools}\n\nS") + user_turn
    )
    assert prompt(renderer, [system(" "), HI], tools=two) == turn("system", tools) + user_turn
    assert prompt(renderer, [system(""), HI]) == turn("system", "") + user_turn


@pytest.mark.parametrize("renderer", ["qwen3.5", "ornith"])
def test_later_system_messages_are_turns_and_unknown_roles_nothing(renderer: str) -> None:
    messages = [HI, system("S"), Message(role="developer", content="D"), HI]
    assert prompt(renderer, messages) == (
        turn("user", "Hi") + turn("system", "S") + turn("user", "Hi") + ASSISTANT + THINK
    )


OLD, NEW = assistant("A1", thinking=" T1 "), assistant("A2", call("f"), thinking="\nT2\n")


@pytest.mark.parametrize(
    ("renderer", "think", "old", "new"),
    [
        ("qwen3.5", None, "", "<think>\nT2\n</think>\n\n"),
        ("qwen3.5", True, "", "<think>\nT2\n</think>\n\n"),
        ("qwen3.5", False, "", ""),
        ("ornith", False, "<think>\nT1\n</think>\n\n", "<think>\nT2\n</think>\n\n"),
        ("qwen3.8", True, "<think>\nT1\n</think>\n\n", "<think>\nT2\n</think>\n\n"),
    ],
)
def test_reasoning_in_history(renderer: str, think: Think | None, old: str, new: str) -> None:
    text = prompt(renderer, [HI, OLD, HI, NEW, result("r")], think=think)
    assert turn("assistant", f"{old}A1") in text
    assert f"{ASSISTANT}{new}A2\n\n<tool_call>\n<function=f>\n</function>\n</tool_call>" in text


TAGGED = "x<think>a<think>\nwhy\n</think>\n\nb</think>c"


@pytest.mark.parametrize(
    ("renderer", "message", "written"),
    [
        ("qwen3.5", assistant(TAGGED), "<think>\nwhy\n</think>\n\nb</think>c"),
        ("qwen3.5", assistant("why\n</think>\nb"), "<think>\nwhy\n</think>\n\nb"),
        ("ornith", assistant(TAGGED), "<think>\nwhy\n</think>\n\nb</think>c"),
        ("qwen3.5", assistant(TAGGED, thinking="T"), f"<think>\nT\n</think>\n\n{TAGGED}"),
        ("qwen3.8", assistant(TAGGED), f"<think>\n\n</think>\n\n{TAGGED}"),
    ],
)
def test_reasoning_with_its_tags_in_the_content(
    renderer: str, message: Message, written: str
) -> None:
    assert prompt(renderer, [HI, message]).endswith(f"{ASSISTANT}{written}")


def test_tagged_reasoning_is_cut_also_where_no_block_is_written() -> None:
    assert turn("assistant", "b</think>c") in prompt("qwen3.5", [HI, assistant(TAGGED), HI])
    message = assistant(TAGGED, thinking="T")
    assert turn("assistant", "b</think>c") in prompt("qwen3.5", [HI, message, HI])


@pytest.mark.parametrize("renderer", TRIMMING)
def test_newlines_between_calls(renderer: str) -> None:
    one = "<tool_call>\n<function=f>\n</function>\n</tool_call>"
    for content, gap in (("C", "\n\n"), (" \n", "")):
        messages = [HI, assistant(content, call("f"), call("f")), HI]
        text = prompt(renderer, messages, think=False)
        assert f"{content.strip()}{gap}{one}\n{one}<|im_end|>\n" in text
    assert prompt(renderer, [HI, assistant("C", call("f"))]).endswith(f"C\n\n{one}")


def test_35_wrapped_results_are_no_query_also_with_space_around() -> None:
    wrapped = user(" <tool_response>r</tool_response>\n")
    assert "<think>\nT2\n</think>" in prompt("qwen3.5", [HI, NEW, wrapped])
    assert "<think>\nT2\n</think>" not in prompt("qwen3.5", [wrapped, NEW, wrapped])


HIGH, LOW = "Reasoning effort is set to xhigh. ", "Reasoning effort is set to low. "


@pytest.mark.parametrize(
    ("think", "effort"),
    [
        (None, HIGH),
        ("high", HIGH),
        ("max", HIGH),
        ("low", LOW),
        (True, ""),
        ("medium", ""),
        (False, ""),
    ],
)
def test_38_effort(think: Think | None, effort: str) -> None:
    text = prompt("qwen3.8", [HI], think=think)
    assert text.startswith(f"<|im_start|>system\n{effort}" if effort else turn("user", "Hi"))
    with_tools = prompt("qwen3.8", [system("S"), HI], think=think, tools=[WEATHER])
    assert with_tools.startswith(f"<|im_start|>system\n{effort or '# Tools'}")
    assert ("\n\n# Tools\n\nYou have" in with_tools) is bool(effort)
    assert "</IMPORTANT>\n\nS<|im_end|>\n" in with_tools


def test_38_low_effort_in_full() -> None:
    assert prompt("qwen3.8", [system(" S "), HI], think="low").startswith(
        turn(
            "system",
            "Reasoning effort is set to low. Keep your thinking brief and focused, moving directly "
            "to the conclusion without unnecessary elaboration.\n\nS",
        )
    )


def developer(content: str) -> Message:
    return Message(role="developer", content=content)


@pytest.mark.parametrize(
    ("messages", "merged"),
    [
        ([system("S1"), HI, system("S2"), HI], "S1\n\nS2"),
        ([HI, developer(" D "), HI], "D"),
        ([developer("D"), HI], "D"),
        ([system("S"), developer("  "), developer("D"), HI], "S\n\nD"),
        ([system(" S "), HI], "S"),
        ([system(" "), HI], None),
        ([HI, system("")], None),
    ],
)
def test_38_system_messages_are_merged(messages: list[Message], merged: str | None) -> None:
    text = prompt("qwen3.8", messages, think=True)
    start = turn("user", "Hi") if merged is None else turn("system", merged)
    assert text.startswith(start)
    assert text.count("<|im_start|>system") == (merged is not None)
    assert "developer" not in text


def test_38_two_system_messages_behind_the_effort() -> None:
    text = prompt("qwen3.8", [system("S1"), HI, system("S2"), HI])
    assert text.startswith(f"<|im_start|>system\n{HIGH}")
    assert "in the final answer.\n\nS1\n\nS2<|im_end|>\n" in text


def test_38_other_roles_are_turns() -> None:
    text = prompt("qwen3.8", [HI, Message(role="critic", content="no"), HI], think=True)
    assert turn("critic", "no") in text


WRAPPED = "<tool_response>r</tool_response>"


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([], "no messages provided"),
        ([system("S")], "no user query found in messages"),
        ([user(f" {WRAPPED} ")], "no user query found in messages"),
        ([assistant("a")], "no user query found in messages"),
        (
            [Message(role="system", content="S", images=[b"x"]), HI],
            "system message cannot contain images",
        ),
        (
            [HI, Message(role="developer", content="S", images=[b"x"])],
            "developer message cannot contain images",
        ),
    ],
)
def test_38_refusals(messages: list[Message], error: str) -> None:
    with pytest.raises(OllamadError) as caught:
        prompt("qwen3.8", messages)
    assert caught.value.message == error
    assert caught.value.status == 500


@pytest.mark.parametrize("tag_images", [True, False])
def test_38_a_wrapper_with_an_image_is_a_query(tag_images: bool) -> None:
    assert WRAPPED in prompt("qwen3.8", [user(WRAPPED, 1)], tag_images=tag_images)
