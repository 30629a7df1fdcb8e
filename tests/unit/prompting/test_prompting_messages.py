"""prompting.md 5.1 to 5.3, runners-and-scheduling.md 3.5 and 8.6: which messages stay."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.prompting.messages import (
    IMAGE_TOKENS,
    Cut,
    chat_conversation,
    cut_tokens,
    forgets_reasoning,
    generate_conversation,
    image_count,
    kept_from,
    length_bound,
)
from ollamad.wire import Message


def message(role: str, content: str, images: int = 0) -> Message:
    return Message(role=role, content=content, images=[b"x"] * images or None)


def words(messages: list[Message]) -> int:
    return sum(len(m.content.split()) for m in messages) + IMAGE_TOKENS * image_count(messages)


def cut(messages: list[Message], limit: int, measure: Callable[[list[Message]], int | None]) -> Cut:
    search = Cut(messages, limit)
    while not search.done:
        search.measured(measure(search.candidate))
    return search


def texts(messages: list[Message]) -> list[str]:
    return [m.content for m in messages]


U, A, S = "user", "assistant", "system"


def test_the_models_system_and_history_come_first() -> None:
    stored = [message(U, "mu"), message(A, "ma")]
    request = [message(U, "hi")]
    assert texts(chat_conversation(request, stored=stored, system="SYS")) == [
        "SYS", "mu", "ma", "hi",
    ]  # fmt: skip


def test_a_request_that_starts_with_system_replaces_the_models() -> None:
    request = [message(S, "mine"), message(U, "hi")]
    assert texts(chat_conversation(request, stored=[], system="SYS")) == ["mine", "hi"]
    later = [message(U, "hi"), message(S, "mine")]
    assert texts(chat_conversation(later, stored=[], system="SYS")) == ["SYS", "hi", "mine"]


def test_generate_leaves_history_out_when_it_continues() -> None:
    stored = [message(U, "mu")]
    with_history = generate_conversation(
        "p", images=None, system="S", stored=stored, has_context=False
    )
    without = generate_conversation("p", images=None, system="", stored=stored, has_context=True)
    assert texts(with_history) == ["S", "mu", "p"]
    assert texts(without) == ["p"]


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        ("<think>x</think>\n\nabc", "abc"),
        (" <think>x</think>abc", "abc"),
        ("<think>never closed", ""),
        ("abc <think>x</think>", "abc <think>x</think>"),
    ],
)
def test_old_reasoning_is_forgotten(content: str, kept: str) -> None:
    request = [message(U, "q"), message(A, content), message(U, "q2"), message(A, content)]
    result = chat_conversation(request, stored=[], system="", forget_reasoning=True)
    assert texts(result) == ["q", kept, "q2", content]
    untouched = chat_conversation(request, stored=[], system="")
    assert texts(untouched) == texts(request)


def test_limit_one_keeps_the_last_message() -> None:
    messages = [message(U, "a b"), message(A, "c"), message(U, "d e")]
    assert texts(cut(messages, 1, words).kept) == ["d e"]


def test_system_messages_survive() -> None:
    messages = [
        message(S, "be kind"),
        message(U, "old old old"),
        message(A, "older older"),
        message(U, "last one"),
    ]
    search = cut(messages, 6, words)
    assert texts(search.kept) == ["be kind", "older older", "last one"]
    assert search.dropped_tokens == 3
    assert texts(cut(messages, 4, words).kept) == ["be kind", "last one"]


def test_images_cost_768() -> None:
    messages = [message(U, "a", 1), message(A, "b"), message(U, "c", 1)]
    assert texts(cut(messages, 64, words).kept) == ["c"]
    assert texts(cut(messages, 1024, words).kept) == ["b", "c"]


def test_all_fits_with_one_measurement() -> None:
    measured = []

    def measure(candidate: list[Message]) -> int:
        measured.append(candidate)
        return words(candidate)

    messages = [message(U, "a"), message(A, "b"), message(U, "c")]
    assert cut(messages, 10, measure).dropped_tokens == 0
    assert len(measured) == 1


def test_a_single_message_is_never_measured() -> None:
    assert Cut([message(U, "a")], 0).done
    assert Cut([], 0).done


def test_a_candidate_that_the_template_refuses_is_passed_over() -> None:
    def measure(candidate: list[Message]) -> int | None:
        return None if candidate[0].role == A else words(candidate)

    messages = [message(U, "a b c"), message(A, "d"), message(U, "e")]
    assert texts(cut(messages, 2, measure).kept) == ["e"]


conversations = st.lists(
    st.builds(message, st.sampled_from([U, A, S]), st.text(alphabet="a ", max_size=12)),
    min_size=2,
    max_size=30,
)


@given(conversations, st.integers(0, 60))
def test_the_search_finds_what_a_scan_finds(messages: list[Message], limit: int) -> None:
    start = next(
        (i for i in range(len(messages)) if words(kept_from(messages, i)) <= limit),
        len(messages) - 1,
    )
    search = cut(messages, limit, words)
    assert search.kept == kept_from(messages, start)
    assert search.dropped_tokens == words(messages) - words(search.kept)


@pytest.mark.parametrize(
    ("num_ctx", "num_keep", "bos", "count", "expected"),
    [
        (8, 3, False, 10, (3, 3)),
        (8, 3, False, 7, None),
        (4096, 4, True, 5000, (5, 2046)),
        (4096, 4, False, 5000, (4, 2046)),
        (8, 99, False, 100, (7, 0)),
        (8, -1, False, 10, (7, 0)),
        (1, 0, False, 10, None),
    ],
)
def test_token_cut(
    num_ctx: int, num_keep: int, bos: bool, count: int, expected: tuple[int, int] | None
) -> None:
    assert cut_tokens(count, num_ctx=num_ctx, num_keep=num_keep, adds_bos=bos) == expected


@given(conversations)
def test_the_bound_covers_an_ordinary_template(messages: list[Message]) -> None:
    template = "<|im_start|>{{ role }}\n{{ content }}<|im_end|>\n"
    rendered = "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in messages)
    assert length_bound(messages, template=template, tools_bytes=0) >= len(rendered)


def test_six_words_for_the_runners_own_template() -> None:
    """prompting.md C4, the native line."""
    messages = [
        message(S, "sys"),
        message(U, "old old old"),
        message(A, "an answer that was long"),
        message(U, "new ask"),
    ]
    assert texts(cut(messages, 6, words).kept) == ["sys", "new ask"]


@pytest.mark.parametrize(
    ("family", "name", "forgets"),
    [
        ("qwen3", "mine", True),
        ("llama", "deepseek-r1", True),
        ("qwen2", "deepseek-r1", True),
        ("qwen3moe", "qwen3", False),
        ("llama", "deepseek-r1-mine", False),
    ],
)
def test_whose_old_reasoning_is_forgotten(family: str, name: str, forgets: bool) -> None:
    assert forgets_reasoning(family, name) is forgets
