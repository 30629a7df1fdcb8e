"""What tables of renderers-and-parsers.md say of many renderers at once (1.3, 1.4, 2.1, Cases)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.conversations import (
    BIG,
    CW,
    NUMBERS,
    WEATHER,
    assistant,
    call,
    prompt,
    result,
    tool,
    user,
)

from ollamad.prompting.renderers.conversation import Conversation
from ollamad.prompting.renderers.registry import find_renderer, renderer_names
from ollamad.wire import Think, ToolProperty

HI = user("Hi")

#: As templates print them, as Gemma does, and as JSON.
TEMPLATE = ["1e+06", "2.097152e+06", "1.2345675e+06", "1e+20", "1e-05", "1.2345678901234567e+19"]
GEMMA = ["1000000", "2097152", "1.2345675e+06", "1e+20", "1e-05", "1.2345678901234567e+19"]
JSON = [
    *("1000000", "2097152", "1234567.5", "100000000000000000000", "0.00001"),
    "12345678901234567000",
]


def joined(mark: str, gap: str) -> Callable[[str, list[str]], str]:
    """Arguments in a row: ``mark`` stands for the name, then the value follows."""
    return lambda names, texts: gap.join(
        mark.format(name) + text for name, text in zip(names, texts, strict=True)
    )


XML = joined("<parameter={}>\n", "\n</parameter>\n")
ARG_VALUES = joined("<arg_key>{}</arg_key><arg_value>", "</arg_value>")
ARG_LINES = joined("<arg_key>{}</arg_key>\n<arg_value>", "</arg_value>\n")
ATEM = joined('<atem:parameter name="{}">', "</atem:parameter>\n")
COMPACT, SPACED = joined('"{}":', ","), joined('"{}": ', ", ")

WRITTEN = {
    "qwen3-coder": (XML, TEMPLATE),
    "qwen3.5": (XML, TEMPLATE),
    "ornith": (XML, TEMPLATE),
    "qwen3.8": (XML, TEMPLATE),
    "nemotron-3-nano": (XML, TEMPLATE),
    "nemotron-3.5-nano": (XML, TEMPLATE),
    "glimmer": (ATEM, TEMPLATE),
    "gemma4": (joined("{}:", ","), GEMMA),
    "gemma4-small": (joined("{}:", ","), GEMMA),
    "gemma4-large": (joined("{}:", ","), GEMMA),
    "functiongemma": (joined("{}:", ","), GEMMA),
    "glm-4.7": (ARG_VALUES, JSON),
    "glm-ocr": (ARG_VALUES, JSON),
    "laguna": (ARG_LINES, JSON),
    "poolside-v1": (ARG_VALUES, JSON),
    "lfm2": (joined("{}=", ","), JSON),
    "lfm2-thinking": (joined("{}=", ","), JSON),
    "olmo3": (joined("{}=", ", "), JSON),
    "olmo3.1": (joined("{}=", ", "), JSON),
    "cohere": (SPACED, JSON),
    "qwen3-vl-instruct": (SPACED, JSON),
    "qwen3-vl-thinking": (SPACED, JSON),
    "cogito": (COMPACT, JSON),
    "deepseek3.1": (COMPACT, JSON),
}


def test_every_renderer_that_writes_calls_is_here() -> None:
    assert renderer_names() - set(WRITTEN) == {"olmo3-think", "olmo3-32b-think"}


@pytest.mark.parametrize("name", WRITTEN)
def test_numbers_of_arguments(name: str) -> None:
    written, texts = WRITTEN[name]
    arguments = NUMBERS | {"h": BIG}
    text = prompt(name, [HI, assistant("", call("f", arguments)), result("r")])
    assert written("abcdeh", texts) in text


@pytest.mark.parametrize(
    "name",
    [
        *("qwen3-vl-instruct", "qwen3-vl-thinking", "qwen3.5", "ornith", "qwen3.8"),
        *("olmo3", "olmo3.1", "glm-4.7", "glm-ocr", "laguna", "poolside-v1"),
    ],
)
def test_a_tool_without_parameters(name: str) -> None:
    assert (
        '{"type": "function", "function": {"name": "ping", "parameters": {"type": "", '
        '"properties": null}}}'
    ) in prompt(name, [HI], tools=[tool("ping", type="")])


def test_a_level_is_on_for_every_renderer() -> None:
    for name in renderer_names() - {"qwen3.8", "glimmer"}:  # these write the level itself
        assert prompt(name, [HI], think="low") == prompt(name, [HI], think=True), name


@pytest.mark.parametrize(
    ("name", "think", "like"),
    [
        ("qwen3-vl-instruct", True, "qwen3-vl-thinking"),
        ("ornith", True, "qwen3.5"),
        ("qwen3.8", True, "qwen3.5"),
        ("gemma4-small", True, "gemma4"),
        ("gemma4-small", False, "gemma4"),
        ("gemma4-large", True, "gemma4"),
        ("gemma4-large", False, "gemma4"),
        ("olmo3.1", None, "olmo3"),
    ],
)
def test_the_whole_conversation_in_variants_that_do_not_differ(
    name: str, think: Think | None, like: str
) -> None:
    expected = prompt(like, CW, tools=[WEATHER], think=think)
    assert prompt(name, CW, tools=[WEATHER], think=think) == expected


@pytest.mark.parametrize("name", ["qwen3-vl-instruct", "qwen3-vl-thinking", "qwen3.8", "ornith"])
def test_no_bos_to_take_off(name: str) -> None:
    assert find_renderer(name).leading_bos == ""


def test_no_messages_give_no_generation_prompt() -> None:
    assert prompt("qwen3-vl-instruct", []) == ""


def test_gemma4_writes_as_the_size_that_it_was_resolved_to() -> None:
    hello = Conversation([user("Hello")], [], None, True)
    small = "<bos><|turn>user\nHello<turn|>\n<|turn>model\n"
    assert find_renderer("gemma4", model_names=["gemma4:e4b"]).render(hello) == small
    large = find_renderer("gemma4", model_names=["mine"], parameter_size="25.2B")
    assert large.render(hello) == f"{small}<|channel>thought\n<channel|>"


def test_gemma4_writes_no_type_for_alternatives_with_more_than_a_type() -> None:
    numbers = ToolProperty(type="array", items={"type": "number"})
    text = prompt("gemma4", [HI], tools=[tool("f", {"name": ToolProperty(anyOf=[numbers])})])
    assert "properties:{name:{}}" in text


@pytest.mark.parametrize("think", [None, False, True])
def test_laguna_goes_on_with_an_answer_whatever_think_is(think: Think | None) -> None:
    text = prompt("laguna", [HI, assistant("Par")], think=think)
    assert text.endswith("<user>\nHi\n</user>\n<assistant>\n</think>\nPar\n")


@pytest.mark.parametrize("think", [None, False, True])
def test_cohere_goes_on_with_an_answer_whatever_think_is(think: Think | None) -> None:
    text = prompt("cohere", [HI, assistant("Par")], think=think)
    assert text.endswith("<|CHATBOT_TOKEN|><|START_TEXT|>Par")
