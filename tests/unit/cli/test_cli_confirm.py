"""Keys, and a question that is answered with them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.terminal import on_terminal, screen

from ollamad.cli.confirm import FOOTER, Question, confirm, typed_answer
from ollamad.cli.keys import Key, Keys
from ollamad.cli.width import width

PROGRAM = """
import sys
from ollamad.cli.confirm import confirm
if sys.argv[2:]:
    print("typing")
    input()
print("answer", confirm("Did you mean?", sys.argv[1] == "yes"))
"""


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"\r", [Key.ENTER]),
        (b"\n", [Key.ENTER]),
        (b"\x03", [Key.INTERRUPT]),
        (b"\x1b[D", [Key.LEFT]),
        (b"\x1bOC", [Key.RIGHT]),
        (b"\x1b[D\x1b[C\r", [Key.LEFT, Key.RIGHT, Key.ENTER]),
        (b"y\xc3\xa9", [Key.OTHER] * 3),
        # Whole sequences, or their rest would be keys.
        (b"\x1b[1;5D\x1b[200~\x1b[3~\x1b[A", [Key.OTHER] * 4),
        (b"\x1bb", [Key.OTHER]),
        (b"\x1b\x1b[C", [Key.ESCAPE, Key.RIGHT]),
    ],
)
def test_keys(data: bytes, keys: list[Key]) -> None:
    assert Keys().feed(data) == keys
    one_by_one = Keys()
    assert [key for byte in data for key in one_by_one.feed(bytes((byte,)))] == keys
    assert not one_by_one.is_waiting


def test_escape_is_known_by_the_pause_after_it() -> None:
    keys = Keys()
    assert keys.feed(b"\x1b") == []
    assert keys.is_waiting
    assert keys.pause() == [Key.ESCAPE]
    assert not keys.is_waiting
    assert keys.feed(b"\x1b[") == keys.pause() == []
    assert keys.feed(b"D") == [Key.OTHER]


@pytest.mark.parametrize(
    ("keys", "default", "answer", "cancelled"),
    [
        ([Key.ENTER], True, True, False),
        ([Key.ENTER], False, False, False),
        ([Key.RIGHT, Key.ENTER], True, False, False),
        ([Key.RIGHT, Key.RIGHT, Key.LEFT, Key.ENTER], True, True, False),
        ([Key.LEFT, Key.ENTER], False, True, False),
        ([Key.ESCAPE], True, False, True),
        ([Key.INTERRUPT], True, False, True),
        ([Key.OTHER], True, None, False),
        ([Key.ENTER, Key.ESCAPE], True, True, False),
    ],
)
def test_answers(keys: list[Key], default: bool, answer: bool | None, cancelled: bool) -> None:
    question = Question("?", default)
    for key in keys:
        question.press(key)
    assert (question.answer, question.cancelled) == (answer, cancelled)


def test_how_a_question_looks() -> None:
    question = Question("Sure?")
    assert question.lines(80) == [
        "\x1b[1mSure?\x1b[0m",
        "",
        "\x1b[7m  Yes  \x1b[0m   No  ",
        "",
        f"\x1b[38;5;245m{FOOTER}\x1b[0m",
    ]
    question.press(Key.RIGHT)
    assert question.lines(80)[2] == "  Yes   \x1b[7m  No  \x1b[0m"


@pytest.mark.parametrize("columns", [4, 10, 20, 45])
def test_a_question_fits_a_narrow_terminal(columns: int) -> None:
    lines = Question('Did you mean "日本語日本語日本語日本語日本語:cloud"?').lines(columns)
    for line in (lines[0], lines[4]):
        shown = line.partition("m")[2].removesuffix("\x1b[0m")
        assert 0 < width(shown) < columns


def test_typed_answers() -> None:
    assert typed_answer("\n", True) is True
    assert typed_answer("", False) is False
    assert [typed_answer(t, True) for t in ("n", " NO ", "no")] == [False] * 3
    assert [typed_answer(t, False) for t in ("y", "Yes")] == [True] * 2
    assert typed_answer("maybe", True) is None


ASK = [sys.executable, "-c", PROGRAM]
HOME = {"PYTHONPATH": str(Path(__file__).parents[3])}


@pytest.mark.parametrize(
    ("default", "keys", "answer"),
    [
        ("yes", b"\r", b"True"),
        ("yes", b"\x1b[C\r", b"False"),
        ("yes", b"yn\x1b", b"False"),
        ("yes", b"\x03", b"False"),
        ("no", b"\r", b"False"),
        ("no", b"\x1b[D\r", b"True"),
    ],
)
def test_a_question_on_a_terminal(default: str, keys: bytes, answer: bytes) -> None:
    with on_terminal([*ASK, default], HOME) as terminal:
        terminal.until(b"esc cancel")
        assert not terminal.is_as_before
        terminal.press(keys)
        assert terminal.until(rb"answer (\w+)").endswith(answer)
        assert terminal.wait() == 0
        assert terminal.is_as_before
        assert screen(terminal.seen) == [f"answer {answer.decode()}", ""]
        assert terminal.seen.count(b"\x1b[?25l") == terminal.seen.count(b"\x1b[?25h") == 1


def test_what_was_typed_before_the_question_is_no_answer() -> None:
    with on_terminal([*ASK, "yes", "typing"], HOME) as terminal:
        terminal.until(b"typing")
        # The second line is there before the question.
        terminal.press(b"go\n\x1b[C\n")
        terminal.until(b"esc cancel")
        terminal.press(b"\r")
        terminal.until(b"answer True")


def test_a_plain_terminal_is_asked_for_a_line() -> None:
    with on_terminal([*ASK, "yes"], {**HOME, "TERM": "dumb"}) as terminal:
        terminal.until(rb"Did you mean\? \[Y/n\] ")
        terminal.press(b"what\n")
        terminal.until(rb"\[Y/n\] ")
        terminal.press(b"no\n")
        terminal.until(b"answer False")
        assert terminal.wait() == 0
        assert b"\x1b" not in terminal.seen


@pytest.mark.parametrize("end", [EOFError, KeyboardInterrupt])
def test_a_line_that_does_not_come_is_a_no(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], end: type[BaseException]
) -> None:
    def ended(_: str) -> str:
        raise end

    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("builtins.input", ended)
    assert confirm("Did you mean?") is False
    # What follows begins on a line of its own.
    assert capsys.readouterr().out == "\n"


def test_a_killed_question_leaves_the_terminal_as_it_was() -> None:
    with on_terminal([*ASK, "yes"], HOME) as terminal:
        terminal.until(b"esc cancel")
        terminal.process.send_signal(2)
        terminal.wait()
        assert terminal.is_as_before
        assert b"answer" not in terminal.seen
