"""prompting.md 5.4: where a renderer writes ``[img-N]``."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.conversations import user

from ollamad.prompting.renderers.images import tagged_contents


@pytest.mark.parametrize(
    ("content", "images", "tagged"),
    [
        ("look at this", 1, "[img-0] look at this"),
        ("look", 2, "[img-0][img-1] look"),
        (" look", 1, "[img-0] look"),
        ("\u00a0look", 1, "[img-0]\u00a0look"),
        ("\nlook", 1, "[img-0]\nlook"),
        ("", 2, "[img-0][img-1]"),
        ("look", 0, "look"),
        ("[img]", 0, "[img]"),
        ("a [img] b", 1, "a [img-0] b"),
        ("a [img] b [img]", 2, "a [img-0] b [img-1]"),
        ("a [img] b", 3, "[img-1][img-2] a [img-0] b"),
        ("[img][img] b", 1, "[img-0][img] b"),
        ("see [img-0]", 1, "see [img-0]"),
        ("[img-0] and [img]", 2, "[img-0] and [img]"),
    ],
)
def test_tags_in_one_message(content: str, images: int, tagged: str) -> None:
    assert tagged_contents([user(content, images)], tag=True) == [tagged]
    assert tagged_contents([user(content, images)], tag=False) == [content]


def test_numbers_run_over_the_conversation_whatever_is_tagged_already() -> None:
    messages = [user("a", 2), user("b"), user("[img-2]", 1), user("[img] c", 2)]
    assert tagged_contents(messages, tag=True) == [
        "[img-0][img-1] a", "b", "[img-2]", "[img-4] [img-3] c",
    ]  # fmt: skip


def test_other_contents_than_the_messages_own() -> None:
    messages = [user("  a ", 1), user("b")]
    assert tagged_contents(messages, ["a", "B"], tag=True) == ["[img-0] a", "B"]
    assert tagged_contents(messages, ["a", "B"], tag=False) == ["a", "B"]


@given(st.lists(st.tuples(st.sampled_from(["", "x", "[img]", "a[img]b[img]c"]), st.integers(0, 4))))
def test_every_image_has_one_tag(contents: list[tuple[str, int]]) -> None:
    messages = [user(content, images) for content, images in contents]
    text = "\n".join(tagged_contents(messages, tag=True))
    found = sorted(int(number) for number in re.findall(r"\[img-(\d+)\]", text))
    assert found == list(range(sum(images for _, images in contents)))
