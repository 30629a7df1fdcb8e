"""How answers look: wrapping, thinking, tool calls, timings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.cli.answer import AnswerText, timings
from ollamad.cli.wordwrap import WordWrap
from ollamad.wire import GenerateResponse, ToolCall, ToolCallFunction

GREY, BOLD, RESET = "\x1b[38;5;245m", "\x1b[1m", "\x1b[0m"


@pytest.mark.parametrize(
    ("columns", "text", "shown"),
    [
        (20, "the quick brown fox", "the quick brown\x1b[5D\x1b[K\nbrown fox"),
        (20, "日本語日本語日本語日本語 x", "日本語日本語日本\x1b[K\n語日本語 x"),
        (20, "abcdefghijklmnopqrstuvwxyz 12", "abcdefghijklmnopqrstuvwxyz 12"),
        (9, "the quick brown fox", "the quick brown fox"),
        (20, "a line\nanother line\n", "a line\nanother line\n"),
        # A line that just fits is not broken by its end.
        (20, "the quick brown\nfox", "the quick brown\nfox"),
        (0, "x" * 60 + " " + "y" * 30, "x" * 60 + " " + "y" * 14 + "\x1b[14D\x1b[K\n" + "y" * 30),
    ],
)
def test_word_wrap(columns: int, text: str, shown: str) -> None:
    assert WordWrap(columns).feed(text) == shown


@given(st.text("ab \n日", max_size=80), st.integers(10, 30), st.integers(0, 80))
def test_wrapping_does_not_depend_on_how_the_text_arrives(text: str, columns: int, at: int) -> None:
    pieces = WordWrap(columns)
    assert pieces.feed(text[:at]) + pieces.feed(text[at:]) == WordWrap(columns).feed(text)


def plain(hide_thinking: bool = False) -> AnswerText:
    return AnswerText(columns=None, plain=True, hide_thinking=hide_thinking)


def test_thinking_in_a_file() -> None:
    answer = plain()
    shown = answer.event("a", "", None) + answer.event("b\n", "", None)
    shown += answer.event("", "X", None) + answer.end()
    assert shown == "Thinking...\nab\n...done thinking.\n\nX"


def test_thinking_on_a_terminal() -> None:
    answer = AnswerText(columns=80, plain=False, hide_thinking=False)
    shown = answer.event("hmm", "", None) + answer.event("", "X", None) + answer.end()
    assert shown == (
        f"{GREY}{BOLD}Thinking...\n{RESET}{GREY}hmm\n{GREY}{BOLD}...done thinking.\n\n{RESET}X"
    )


def test_an_answer_of_thoughts_only() -> None:
    answer = plain()
    assert answer.event("a", "", None) + answer.end() == "Thinking...\na"
    answer = AnswerText(columns=None, plain=False, hide_thinking=False)
    assert (answer.event("a", "", None) + answer.end()).endswith(f"a{RESET}")


def test_hidden_thinking() -> None:
    answer = plain(hide_thinking=True)
    assert answer.event("a", "", None) + answer.event("", "X", None) == "X"


def call(name: str, arguments: dict[str, object]) -> ToolCall:
    return ToolCall(function=ToolCallFunction(index=0, name=name, arguments=arguments))


def test_tool_calls() -> None:
    calls = [call("f", {"b": 1, "a": "x"}), call("g", {})]
    assert plain().event("", "", calls) == (
        '  Model called a non-existent function \'f()\' with arguments: {"b":1,"a":"x"}\n'
        "  Model called a non-existent function 'g()' with arguments: {}"
    )
    assert (
        plain()
        .event("a", "", calls[1:])
        .startswith("Thinking...\na\n...done thinking.\n\n  Model called")
    )


def response(**fields: int) -> GenerateResponse:
    return GenerateResponse(model="m", created_at="", response="", done=True, **fields)


def test_timings() -> None:
    last = response(
        total_duration=5_589_157_167,
        load_duration=3_013_701_500,
        prompt_eval_count=46,
        prompt_eval_duration=1_160_282_000,
        eval_count=113,
        eval_duration=1_325_948_000,
    )
    assert timings(last) == (
        "total duration:       5.589157167s\n"
        "load duration:        3.0137015s\n"
        "prompt eval count:    46 token(s)\n"
        "prompt eval duration: 1.160282s\n"
        "prompt eval rate:     39.65 tokens/s\n"
        "eval count:           113 token(s)\n"
        "eval duration:        1.325948s\n"
        "eval rate:            85.22 tokens/s\n"
    )


def test_timings_that_are_not_known_are_left_out() -> None:
    assert timings(response(total_duration=3600 * 10**9, eval_count=7)) == (
        "total duration:       1h0m0s\neval count:           7 token(s)\n"
    )
