import pytest

from ollamad.parsing.withholding import (
    first_tag,
    hold,
    hold_tag,
    may_begin,
    partial_tag,
    remainder,
    up_to_tag,
)

TAGS = ("<tool_call>", "</think>")


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("abc", 0),
        ("abc<", 1),
        ("abc<tool_call", 10),
        ("abc<tool_call>", 0),
        ("abc</th", 4),
        ("<tool_<", 1),
        ("<toolx", 0),
        ("<<<", 1),
        ("</tool_call", 0),
        ("", 0),
    ],
)
def test_partial_tag_is_the_longest_end_that_begins_a_tag(text: str, length: int) -> None:
    assert partial_tag(text, TAGS) == length


def test_partial_tag_prefers_the_longer_of_two_overlapping_ones() -> None:
    assert partial_tag("x[[a", ("[a]", "[[ab]")) == 3
    assert partial_tag("xaa", ("ab", "aab")) == 2


@pytest.mark.parametrize(
    ("buffer", "show", "keep"),
    [
        ("abc \n<too", "abc", " \n<too"),
        ("abc \n", "abc", " \n"),
        ("abc", "abc", ""),
        (" \u3000", "", " \u3000"),
        (" abc", " abc", ""),
        ("a < b", "a < b", ""),
    ],
)
def test_hold_keeps_partial_tag_and_whitespace(buffer: str, show: str, keep: str) -> None:
    assert hold(buffer, TAGS) == (show, keep)


@pytest.mark.parametrize(
    ("buffer", "show", "keep"),
    [("abc \n<too", "abc \n", "<too"), ("abc \n", "abc \n", ""), ("</think", "", "</think")],
)
def test_hold_tag_keeps_only_the_partial_tag(buffer: str, show: str, keep: str) -> None:
    assert hold_tag(buffer, TAGS) == (show, keep)


def test_first_tag_is_the_one_that_begins_first_and_the_longer_of_two_at_one_place() -> None:
    assert first_tag("a </think> b <tool_call>", TAGS) == ("a ", "</think>", " b <tool_call>")
    assert first_tag("<tool_call></think>", TAGS) == ("", "<tool_call>", "</think>")
    assert first_tag("x<ab>", ("<a", "<ab>")) == ("x", "<ab>", "")
    assert first_tag("<tool_cal", TAGS) is None


def test_up_to_tag_is_what_can_be_passed_on_and_the_new_buffer() -> None:
    assert up_to_tag("a </think> <too", TAGS) == ("a ", "</think>", " <too")
    assert up_to_tag("a <too", TAGS) == ("a ", "", "<too")
    assert up_to_tag("a ", TAGS) == ("a ", "", "")


def test_may_begin() -> None:
    assert may_begin("", TAGS)
    assert may_begin("</th", TAGS)
    assert not may_begin("</think>", TAGS)
    assert not may_begin("x</th", TAGS)


def test_remainder_is_text_unless_it_is_only_whitespace() -> None:
    assert remainder(" <too") == " <too"
    assert remainder(" \n") == ""
    assert remainder("") == ""
