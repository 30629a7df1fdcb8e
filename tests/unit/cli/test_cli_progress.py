"""Spinners, bars and frames."""

from __future__ import annotations

import io

import pytest

from ollamad.cli.progress import Bar, Display, Spinner, erased, frame, remaining_text
from ollamad.units import SECOND

LABEL = "pulling 667b0c1932bc:"


def test_a_bar_with_a_rate() -> None:
    bar = Bar(LABEL, 4_900_000_000, 0)
    bar.set(2_400_000_000, 48 * SECOND)
    bar.set(2_450_000_000, 49 * SECOND)
    line = bar.line(49 * SECOND, 80)
    assert line == f"{LABEL}  50% ▕█████████         ▏ 2.5 GB/4.9 GB   50 MB/s     49s"
    assert len(line) == 79


def test_a_bar_without_a_rate_and_a_finished_one() -> None:
    bar = Bar(LABEL, 4_900_000_000, 0, 2_450_000_000)
    blanks = " " * 18
    assert bar.line(0, 80) == f"{LABEL}  50% ▕█████████         ▏ 2.5 GB/4.9 GB{blanks}"
    bar.set(5_000_000_000, SECOND)
    assert bar.line(SECOND, 80) == f"{LABEL} 100% ▕{'█' * 18}▏ 4.9 GB{' ' * 25}"


def test_a_bar_without_a_label_or_a_size() -> None:
    bar = Bar("", 100, 0, 33)
    assert bar.line(0, 80) == f" 33% ▕{'█' * 13}{' ' * 27}▏   33 B/ 100 B{' ' * 18}"
    assert Bar("x", 0, 0).line(0, 80).startswith("x   0% ▕ ")
    assert Bar("x" * 100, 10, 0, 5).line(0, 80).startswith("x" * 100 + "  50% ▕▏ ")


def test_the_rate_is_that_of_the_last_ten_samples() -> None:
    bar = Bar("", 10**9, 0)
    assert bar.rate(0) == 0
    bar.set(1000, SECOND)
    assert bar.rate(2 * SECOND) == 500
    for second in range(2, 30):
        bar.set(1000 * second if second < 20 else 20_000 + 50 * (second - 20), second * SECOND)
    assert bar.rate(30 * SECOND) == 50


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (49, "49s"), (123, "2m3s"), (3900, "1h5m"), (359_999, "99h59m"), (360_000, "99h+")],
)
def test_remaining(seconds: int, text: str) -> None:
    assert remaining_text(seconds) == text


def test_a_spinner_turns_until_it_is_stopped() -> None:
    spinner = Spinner(" doing ", 0)
    assert spinner.line(0, 80) == "doing ⠋ "
    assert spinner.line(SECOND // 10, 80) == "doing ⠙ "
    assert spinner.line(SECOND, 80) == "doing ⠋ "
    spinner.stop(SECOND)
    assert spinner.line(SECOND, 80) == "doing "
    assert Spinner("", 0).line(0, 80) == "⠋ "


def test_frames() -> None:
    assert frame(["a"], 0) == "\x1b[?2026h\x1b[?25l\x1b[1Ga\x1b[K\x1b[1G\x1b[?25h\x1b[?2026l"
    assert frame(["a", "b"], 2) == (
        "\x1b[?2026h\x1b[?25l\x1b[A\x1b[1Ga\x1b[K\nb\x1b[K\x1b[1G\x1b[?25h\x1b[?2026l"
    )
    assert erased(2) == "\x1b[2K\x1b[1G\x1b[A\x1b[2K\x1b[1G\x1b[?25h"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_display_leaves_its_final_lines() -> None:
    terminal = Terminal()
    with Display(stream=terminal) as display:
        display.spin("one")
    assert terminal.getvalue().endswith("\x1b[1Gone \x1b[K\x1b[1G\x1b[?25h\x1b[?2026l\n")
    display.end()
    assert terminal.getvalue().endswith("\x1b[?2026l\n")


def test_a_transient_display_leaves_nothing() -> None:
    terminal = Terminal()
    with Display(transient=True, stream=terminal) as display:
        display.spin("one")
        while not terminal.getvalue():
            pass  # until the first frame
    assert terminal.getvalue().endswith(erased(1))


def test_what_is_over_before_the_first_frame_draws_nothing() -> None:
    terminal = Terminal()
    with Display(transient=True, stream=terminal) as display:
        display.spin("one")
    assert terminal.getvalue() == ""


def test_a_file_gets_each_line_once() -> None:
    file = io.StringIO()
    with Display(stream=file) as display:
        first = display.spin("one")
        display.stop(first)
        display.stop(first)
        display.spin("two")
    assert file.getvalue() == "one \ntwo \n"
    file = io.StringIO()
    with Display(transient=True, stream=file) as display:
        display.stop(display.spin("one"))
    assert file.getvalue() == ""
