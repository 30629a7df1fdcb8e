"""renderers-and-parsers.md 1.1, 1.3, 1.4: names, BOS, images; prompts for ``Hi`` (Cases)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.conversations import (
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

from ollamad.errors import OllamadError
from ollamad.prompting.renderers.registry import find_renderer, renderer_names
from ollamad.wire import Message, Think, ToolProperty

CHATML = turn("user", "Hi") + "<|im_start|>assistant\n"
BOS = "<｜begin▁of▁sentence｜>"
COGITO = (
    "You are Cogito, an AI assistant created by Deep Cogito, which is an AI research lab based in "
    "San Francisco."
)
GEMMA = "<bos><|turn>user\nHi<turn|>\n<|turn>model\n"
GEMMA_THINKS = f"<bos><|turn>system\n<|think|>\n<turn|>\n{GEMMA.removeprefix('<bos>')}"
FUNCTION_GEMMA = "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"
XHIGH = (
    "Reasoning effort is set to xhigh. Please think carefully through the task, validate key "
    "assumptions, consider plausible alternatives, and prioritize correctness, consistency, and "
    "clarity in the final answer."
)
THINK, NO_THINK = "<think>\n", "<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("name", "absent", "off", "on"),
    [
        ("qwen3-coder", CHATML, CHATML, CHATML),
        ("qwen3-vl-instruct", CHATML, CHATML, CHATML + THINK),
        ("qwen3-vl-thinking", CHATML + THINK, CHATML, CHATML + THINK),
        ("qwen3.5", CHATML + THINK, CHATML + NO_THINK, CHATML + THINK),
        ("ornith", CHATML + THINK, CHATML + NO_THINK, CHATML + THINK),
        (
            "qwen3.8",
            turn("system", XHIGH) + CHATML + THINK,
            CHATML + NO_THINK,
            CHATML + THINK,
        ),
        (
            "cogito",
            f"{BOS}{COGITO}<｜User｜>Hi<｜Assistant｜>",
            f"{BOS}{COGITO}<｜User｜>Hi<｜Assistant｜>",
            f"{BOS}Enable deep thinking subroutine.\n\n{COGITO}<｜User｜>Hi<｜Assistant｜>{THINK}",
        ),
        (
            "deepseek3.1",
            f"{BOS}<｜User｜>Hi<｜Assistant｜></think>",
            f"{BOS}<｜User｜>Hi<｜Assistant｜></think>",
            f"{BOS}<｜User｜>Hi<｜Assistant｜><think>",
        ),
        ("gemma4", GEMMA, GEMMA, GEMMA_THINKS),
        ("gemma4-small", GEMMA, GEMMA, GEMMA_THINKS),
        (
            "gemma4-large",
            f"{GEMMA}<|channel>thought\n<channel|>",
            f"{GEMMA}<|channel>thought\n<channel|>",
            GEMMA_THINKS,
        ),
        ("functiongemma", FUNCTION_GEMMA, FUNCTION_GEMMA, FUNCTION_GEMMA),
    ],
)
def test_one_message_with_thinking_absent_off_and_on(
    name: str, absent: str, off: str, on: str
) -> None:
    prompts = [prompt(name, [user("Hi")], think=think) for think in (None, False, True)]
    assert prompts == [absent, off, on]


def test_a_level_is_on() -> None:
    for name in ("qwen3-vl-instruct", "deepseek3.1", "cogito", "gemma4"):
        low, on, off = (prompt(name, [user("Hi")], think=think) for think in ("low", True, False))
        assert low == on != off


def test_an_unknown_name() -> None:
    with pytest.raises(OllamadError) as caught:
        find_renderer("nope")
    assert caught.value.message == 'unknown renderer "nope"'
    assert caught.value.status == 500


LARGE, SMALL = "gemma4-large", "gemma4"


@pytest.mark.parametrize(
    ("names", "size", "resolved"),
    [
        ((), "", SMALL),
        (("gemma4:e4b",), "", SMALL),
        (("gemma4:E2B",), "25.2B", SMALL),
        (("gemma4:31b",), "1B", LARGE),
        (("gemma4:26B",), "", LARGE),
        (("x:12b",), "", LARGE),
        (("mine", "host/gemma4-12b/mine:latest"), "1B", LARGE),
        (("mine:e4b", "host/12b/mine:e4b"), "", SMALL),
        (("gemma4",), "25.2B", LARGE),
        (("gemma4",), "12B", LARGE),
        (("gemma4",), "11.9B", SMALL),
        (("gemma4",), "12000M", LARGE),
        (("gemma4",), "999K", SMALL),
        (("gemma4",), "large", SMALL),
        (("gemma4",), "25.2", SMALL),
    ],
)
def test_gemma4_is_resolved_by_name_then_by_size(
    names: tuple[str, ...], size: str, resolved: str
) -> None:
    assert find_renderer("gemma4", model_names=names, parameter_size=size).name == resolved


def test_only_gemma4_itself_is_resolved() -> None:
    assert find_renderer("gemma4-small", parameter_size="31B").name == "gemma4-small"
    assert find_renderer("gemma4-large", model_names=["e2b"]).name == "gemma4-large"


BOS_OF = {
    "gemma4": "<bos>",
    "gemma4-small": "<bos>",
    "gemma4-large": "<bos>",
    "functiongemma": "<bos>",
    "deepseek3.1": BOS,
    "cogito": BOS,
    "qwen3-coder": "",
    "qwen3.5": "",
}


@pytest.mark.parametrize(("name", "bos"), BOS_OF.items())
def test_the_bos_that_may_be_taken_off(name: str, bos: str) -> None:
    assert find_renderer(name).leading_bos == bos
    assert prompt(name, [user("Hi")]).startswith(bos)


IMAGES_PLACED = {
    "qwen3-vl-instruct": True,
    "qwen3-vl-thinking": True,
    "qwen3.5": True,
    "qwen3.8": True,
    "ornith": True,
    "gemma4": True,
    "gemma4-small": True,
    "gemma4-large": True,
    "qwen3-coder": False,
    "functiongemma": False,
    "deepseek3.1": False,
    "cogito": False,
}


@pytest.mark.parametrize(("name", "places"), IMAGES_PLACED.items())
def test_who_places_images(name: str, places: bool) -> None:
    messages = [user("look", images=2)]
    assert find_renderer(name).places_images is places
    assert ("[img-0][img-1] look" in prompt(name, messages)) is places
    assert "[img-" not in prompt(name, messages, tag_images=False)


def test_tags_of_tool_results() -> None:
    calls = assistant("", call("f"))
    for name in ("qwen3-vl-instruct", "qwen3.5", "qwen3.8", "ornith", "gemma4"):
        messages = [user("see", images=1), calls, result("done", images=1)]
        assert "[img-1] done" in prompt(name, messages)


@pytest.mark.parametrize("name", ["qwen3-coder", "qwen3-vl-thinking", "qwen3.5", "ornith"])
def test_no_messages_give_no_generation_prompt(name: str) -> None:
    assert prompt(name, []) == ""


NESTED: ToolProperty = ToolProperty(type="object")
for _ in range(5000):
    NESTED = ToolProperty(type="object", properties={"p": NESTED})


@pytest.mark.parametrize("name", ["qwen3-coder", "qwen3.5", "deepseek3.1", "cogito", "gemma4"])
def test_a_schema_deeper_than_the_stack_is_refused(name: str) -> None:
    with pytest.raises(OllamadError, match="nested too deep") as caught:
        prompt(name, [user("Hi")], tools=[tool("f", {"p": NESTED})])
    assert caught.value.status == 400


messages_of_any_kind = st.lists(
    st.one_of(
        st.builds(Message, role=st.sampled_from(["system", "user", "x"]), content=st.text()),
        st.builds(result, st.text(), name=st.text()),
        st.builds(assistant, st.text(), thinking=st.text()),
        st.just(assistant("", call("f", {"a": [1.5, {"b": None}]}))),
    ),
    max_size=6,
)


@given(
    name=st.sampled_from(sorted(IMAGES_PLACED)),
    messages=messages_of_any_kind,
    think=st.sampled_from([None, True, False, "low", "high"]),
)
def test_any_conversation_is_rendered(
    name: str, messages: list[Message], think: Think | None
) -> None:
    conversation = [system("SYSTEM"), *messages, user("QUESTION")]
    text = prompt(name, conversation, tools=[WEATHER], think=think)
    assert "QUESTION" in text
    assert "SYSTEM" in text
    assert "get_weather" in text


def test_every_name_is_known_once() -> None:
    assert set(IMAGES_PLACED) <= renderer_names()
