"""Reasoning split from an answer: the cases of prompting.md C6, and however the text is cut."""

import itertools
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ollamad.parsing.events import Call, Content, Event, Thinking, merged
from ollamad.parsing.thinking import ThinkingParser

Told = list[tuple[type, str]]


def told(events: list[Event]) -> Told:
    """Kinds and texts of events without calls."""
    return [(type(event), event.text) for event in events if not isinstance(event, Call)]


def fed(chunks: list[str], *, prefilled: bool = False) -> list[Told]:
    """The events of each chunk, and of the end."""
    parser = ThinkingParser("<think>", "</think>")
    if prefilled:
        parser.assume_open()
    return [*(told(parser.feed(chunk)) for chunk in chunks), told(parser.finish())]


def split(chunks: list[str], *, prefilled: bool = False) -> Told:
    events = (event for told in fed(chunks, prefilled=prefilled) for event in told)
    return told(merged(kind(text) for kind, text in events))


def T(text: str) -> Told:
    return [(Thinking, text)]


def C(text: str) -> Told:
    return [(Content, text)]


@pytest.mark.parametrize(
    ("chunks", "events"),
    [
        (["<think> internal </think> world"], [T("internal ") + C("world"), []]),
        (["<think>a</think><think>b</think>c"], [T("a") + C("<think>b</think>c"), []]),
        (["no think"], [C("no think"), []]),
        (["  abc", "def"], [C("  abc"), C("def"), []]),
        (["  abc <think>def</think> ghi"], [C("  abc <think>def</think> ghi"), []]),
        (["  <th", "in", "k>a"], [[], [], T("a"), []]),
        (["<think>abc</th", "ink>def"], [T("abc"), C("def"), []]),
        (
            ["<think>abc</th", "ing>def", "ghi</thi", "nk>jkl"],
            [T("abc"), T("</thing>def"), T("ghi"), C("jkl"), []],
        ),
        (["  <think>abc</think>", "\n\ndef"], [T("abc"), C("def"), []]),
        (["  <think>abc</think>\n\ndef ", " ghi"], [T("abc") + C("def "), C(" ghi"), []]),
        (
            ["<think>", "\n", "</think>", "\n\n", "Hi", " there"],
            [[], [], [], [], C("Hi"), C(" there"), []],
        ),
        (
            [
                "  <think>   \t ",
                "  these are some ",
                "thoughts </think>  ",
                "  more content",
            ],
            [[], T("these are some "), T("thoughts "), C("more content"), []],
        ),
    ],
)
def test_the_cases_of_the_contract(chunks: list[str], events: list[Told]) -> None:
    assert fed(chunks) == events


@pytest.mark.parametrize(
    ("chunks", "end"),
    [
        (["  <thi"], C("  <thi")),
        (["<think>abc</thi"], T("</thi")),
        ([" \n"], C(" \n")),
        (["<think>abc</think> \n"], []),
        (["<think> "], []),
    ],
)
def test_what_was_withheld_comes_out_at_the_end(chunks: list[str], end: Told) -> None:
    assert fed(chunks)[-1] == end


def test_a_prompt_that_ends_with_the_opening_tag_has_opened_the_reasoning() -> None:
    assert split(["\n", "a</think>b"], prefilled=True) == T("a") + C("b")


def test_tags_must_be_known() -> None:
    with pytest.raises(ValueError, match="must be known"):
        ThinkingParser("<think>", "")


PARTS = ["<think>", "</think>", "<th", "ink>", "</th", "</", " ", "\n\n", "abc", "é", "<", ">"]


@given(st.lists(st.sampled_from(PARTS), max_size=8), st.data(), st.booleans())
@example(["</think></think>"], None, True)
def test_the_events_are_the_same_however_the_text_is_cut(
    parts: list[str], data: st.DataObject | None, prefilled: bool
) -> None:
    text = "".join(parts)
    whole = split([text], prefilled=prefilled)
    assert split(list(text), prefilled=prefilled) == whole
    if data is not None:
        places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
        edges = [0, *places, len(text)]
        pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
        assert split(pieces, prefilled=prefilled) == whole


def test_ten_thousand_ways_to_cut() -> None:
    random = Random(4)
    for _ in range(1000):
        text = "".join(random.choices(PARTS, k=random.randint(1, 12)))
        if random.random() < 0.7:
            text = "<think>" + text
        whole = split([text])
        for _ in range(10):
            edges = [0, *sorted(random.choices(range(len(text) + 1), k=4)), len(text)]
            pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
            assert split(pieces) == whole, pieces


@given(st.lists(st.sampled_from(PARTS), max_size=8))
def test_no_text_is_lost(parts: list[str]) -> None:
    text = "".join(parts)
    said = "".join(part for _, part in split([text]))
    if text.lstrip().startswith("<think>"):
        text = text.lstrip().removeprefix("<think>").replace("</think>", "", 1)
        assert "".join(said.split()) == "".join(text.split())
    else:
        assert said == text
