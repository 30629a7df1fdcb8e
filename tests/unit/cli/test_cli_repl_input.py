"""Typed lines become messages and commands; what was typed is kept."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ollamad.cli.repl.history import LIMIT, History
from ollamad.cli.repl.input import Command, Entry, Input, Message, SystemMessage


@pytest.mark.parametrize(
    ("lines", "entries"),
    [
        (["hello"], [Message("hello")]),
        ([""], []),
        (["/bye"], [Command("/bye")]),
        ([" /bye"], [Message(" /bye")]),
        (['"""all of it"""'], [Message("all of it")]),
        (['"""one', "two", 'three"""', "x"], [Message("one\ntwo\nthree"), Message("x")]),
        (['"""', "/bye", '"""'], [Message("\n/bye\n")]),
        (['"""', '"""'], [Message("\n")]),
        # Pastes: nothing is sent before the end, and nothing in them is a command.
        (["one\ntwo"], [Message("one\ntwo")]),
        (["one\n"], [Message("one\n")]),
        (["ls\n/bye"], [Message("ls\n/bye")]),
        (['"""a\nb"""\nc'], [Message("a\nb"), Message("c")]),
        (['see:\n"""a\nb"""'], [Message("see:\na\nb")]),
    ],
)
def test_feed(lines: list[str], entries: list[Entry]) -> None:
    typed = Input()
    assert [entry for line in lines for entry in typed.feed(line)] == entries
    assert not typed.is_open


def test_a_block_for_the_system_message() -> None:
    typed = Input()
    typed.open_system_block("abc")
    assert typed.is_open
    assert typed.feed("def") == []
    assert typed.feed('ghi"""') == [SystemMessage("abcdef\nghi")]
    assert not typed.is_open


def test_dropping_leaves_the_block() -> None:
    typed = Input()
    typed.feed('"""one')
    assert typed.is_open
    typed.drop()
    assert typed.feed("two") == [Message("two")]


def test_history_is_private_bounded_and_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / ".ollama" / "history"
    history = History(path, saved=True)
    assert history.entries == []
    for number in range(LIMIT + 5):
        history.add(f"line {number}")
    history.add("")
    history.add("two\nlines")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["history"]
    again = History(path, saved=True)
    assert len(again.entries) == LIMIT
    assert again.entries[-3:] == [f"line {LIMIT + 4}", "two", "lines"]


def test_history_that_is_not_to_be_kept_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text("  old  \n\n")
    history = History(path, saved=False)
    history.add("new")
    assert history.entries == ["old", "new"]
    assert path.read_text() == "  old  \n\n"
