"""What holds for every built-in parser: cuts do not matter, nothing raises, nothing is lost."""

import random
from itertools import pairwise

import pytest
from support.answers import (
    ANSWERS,
    WEATHER,
    cuts,
    filled,
    letters_of,
    outcome,
    pieces_of,
    started,
)

from ollamad.parsing.events import Call, Event
from ollamad.parsing.families.registry import find_parser, parser_names
from ollamad.wire import Message, Think

NAMES = sorted(parser_names())

#: Texts and random cuts of each: 10,000 cuts per parser.
TEXTS, CUTS = 1_250, 8

LASTS = (
    None,
    Message(role="user", content="Hi"),
    Message(role="tool", content="22C"),
    Message(role="assistant", content="Par"),
)

#: Where a format drops reasoning that is not asked for: the tags with which that begins.
DROPPED = {"gemma4-no-thinking": ("<|channel>",)}
DROPPED_WITHOUT_THINKING = {
    "gemma4": ("<|channel>",),
    "laguna": ("<think>",),
    "poolside-v1": ("<think>",),
    "glimmer": ("to=self",),
}


def text_of(events: list[Event]) -> str:
    # Not by JSON: the order and the escapes do not matter here.
    return "".join(
        f"{event.name}{event.arguments}" if isinstance(event, Call) else event.text
        for event in events
    )


def check_all_is_there_once(name: str, text: str, think: Think | None, events: list[Event]) -> None:
    dropped = DROPPED.get(name, ())
    if not think:
        dropped += DROPPED_WITHOUT_THINKING.get(name, ())
    if not any(tag in text for tag in dropped):
        assert letters_of(text_of(events)) == letters_of(text), (text, events)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("think", [True, False, None])
def test_whole_answers_at_every_cut(name: str, think: Think | None) -> None:
    for template in ANSWERS[name]:
        text = filled(template)
        results = [outcome(started(name, think=think), pieces) for pieces in cuts(text)]
        assert all(result == results[0] for result in results)
        check_all_is_there_once(name, text, think, results[0])


@pytest.mark.parametrize("name", NAMES)
def test_answers_that_break_off_anywhere(name: str) -> None:
    for template in ANSWERS[name]:
        text = filled(template)
        for end in range(len(text)):
            whole = outcome(started(name), [text[:end]])
            assert outcome(started(name), list(text[:end])) == whole, text[:end]
            check_all_is_there_once(name, text[:end], True, whole)


@pytest.mark.parametrize("name", NAMES)
def test_random_answers_in_random_cuts(name: str) -> None:
    chance = random.Random(name)
    pieces = pieces_of(name)
    for number in range(TEXTS):
        # By turns pieces alone and an answer with pieces in its midst.
        parts = list(chance.choice(ANSWERS[name])) if number % 2 else []
        for piece in chance.choices(pieces, k=chance.randint(1, 3 if parts else 10)):
            parts.insert(chance.randint(0, len(parts)), piece)
        text = filled("".join(parts))
        last = LASTS[number % len(LASTS)]
        think = (True, True, False, None)[number // len(LASTS) % 4]
        tools = [WEATHER] if number % 7 else []
        whole = outcome(started(name, tools=tools, last=last, think=think), [text])
        check_all_is_there_once(name, text, think, whole)
        for _ in range(CUTS):
            places = sorted(chance.randint(0, len(text)) for _ in range(chance.randint(1, 8)))
            chunks = [text[a:b] for a, b in pairwise([0, *places, len(text)])]
            parser = started(name, tools=tools, last=last, think=think)
            assert outcome(parser, chunks) == whole, (chunks, last, think)


def test_an_unknown_name_is_no_parser() -> None:
    assert find_parser("nope") is None
    assert find_parser("") is None


def test_every_parser_is_new() -> None:
    for name in NAMES:
        assert find_parser(name) is not find_parser(name)
