"""Progress events as bars and spinners."""

from __future__ import annotations

import io

import pytest

from ollamad.cli.events import CREATE, PULL, PUSH, EventProgress, Style, digest_label
from ollamad.cli.progress import Bar, Display
from ollamad.units import SECOND
from ollamad.wire import Progress

HEX = "667b0c1932bcaaaa" + "a" * 48
DIGEST = f"sha256:{HEX}"
BLANKS = " " * 18


def written(style: Style, *events: Progress) -> list[str]:
    """The lines in a file, where each is written when it is final."""
    file = io.StringIO()
    with Display(stream=file) as display:
        progress = EventProgress(display, style, lambda: 0)
        for event in events:
            progress.show(event)
        progress.end()
    return file.getvalue().splitlines()


def event(completed: int, total: int = 10, status: str = "", digest: str = DIGEST) -> Progress:
    return Progress(status=status, digest=digest, total=total, completed=completed)


def test_a_bar_for_each_digest_and_a_line_for_each_status() -> None:
    lines = written(
        CREATE,
        Progress(status="one"),
        Progress(status="one"),
        event(5),
        event(10),
        Progress(status="two"),
    )
    assert [lines[0], lines[2]] == ["one ", "two "]
    assert lines[1].startswith("pulling 667b0c1932bc... 100% ▕")
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("digest", "label"),
    [
        (DIGEST, "pulling 667b0c1932bc:"),
        ("sha256:model", "pulling model:"),
        ("sha256:abc", "pulling abc:"),
        ("md5:0123456789abcdef", "pulling md5:0123456789abcdef:"),
    ],
)
def test_labels_of_pull(digest: str, label: str) -> None:
    assert PULL.label(event(1, digest=digest, status="pulling something")) == label


@pytest.mark.parametrize(
    ("status", "digest", "label"),
    [
        ("uploading model", DIGEST, "uploading model"),
        ("", "sha256:abc123456789def", "pushing abc123456789..."),
        ("", "sha256:abc", "pushing sha256:abc..."),
        ("", "x", "pushing x..."),
    ],
)
def test_labels_of_push(status: str, digest: str, label: str) -> None:
    assert PUSH.label(event(1, digest=digest, status=status)) == label


def test_labels_of_create() -> None:
    assert CREATE.label(event(1, status="copying")) == "copying"
    assert CREATE.label(event(1)) == "pulling 667b0c1932bc..."


def test_short_digests_are_shown_whole() -> None:
    assert digest_label("sha256:abc123456789def") == "abc123456789"
    assert digest_label("sha256:abc") == "sha256:abc"


def test_pull_shows_no_empty_bar_and_keeps_its_spinner_meanwhile() -> None:
    file = io.StringIO()
    with Display(stream=file) as display:
        progress = EventProgress(display, PULL, lambda: 0)
        progress.show(Progress(status="pulling manifest"))
        progress.show(event(0))
        assert (file.getvalue(), progress.has_moved) == ("", False)
        progress.show(event(5))
        assert (file.getvalue(), progress.has_moved) == ("pulling manifest \n", True)


def test_a_bar_at_half_where_stderr_is_no_terminal() -> None:
    lines = written(PULL, event(2_450_000_000, 4_900_000_000))
    assert lines == [f"pulling 667b0c1932bc:  50% ▕█████████         ▏ 2.5 GB/4.9 GB{BLANKS}"]


def test_push_shows_bars_at_zero_and_blobs_without_a_size() -> None:
    assert written(PUSH, event(0))[0].startswith("pushing 667b0c1932bc...   0% ▕ ")
    # An empty blob: no total, no completed.
    assert written(PUSH, event(0, total=0))[0].startswith("pushing 667b0c1932bc...   0% ▕ ")


def test_progress_may_go_back() -> None:
    lines = written(PULL, event(10), event(4), event(10), event(10))
    # What was said to be whole and was not is told again when it is.
    assert [line.split()[2] for line in lines] == ["100%", "100%"]
    lines = written(PULL, event(10), event(4))
    assert [line.split()[2] for line in lines] == ["100%", "40%"]


def test_a_total_that_is_known_late_is_used() -> None:
    assert " 50% " in written(PUSH, event(0, total=0), event(50, total=100))[1]


def test_a_bar_that_goes_back_has_no_rate_until_it_moves_on() -> None:
    bar = Bar("", 1000, 0)
    bar.set(900, SECOND)
    bar.set(100, 2 * SECOND)
    assert bar.rate(2 * SECOND) < 0
    assert bar.line(2 * SECOND, 80).endswith(f" 100 B/  1 KB{BLANKS}")


def test_texts_of_a_server_do_not_steer_the_terminal() -> None:
    assert written(PULL, Progress(status="a\x1b[2Jb\nc")) == ["a\\x1b[2Jb\\x0ac "]
    assert written(PULL, event(10, digest="sha256:\x1b[2J"))[0].startswith("pulling \\x1b[2J:")


def test_a_long_pull_says_now_and_then_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0
    monkeypatch.setattr("ollamad.cli.progress.time.monotonic_ns", lambda: now)
    file = io.StringIO()
    with Display(stream=file) as display:
        progress = EventProgress(display, PULL, lambda: now)
        for second in range(0, 91):
            now = second * SECOND
            progress.show(event(1 + second, 1000))
        seen = file.getvalue().splitlines()
    assert [line.split("▏ ")[1].split("/")[0].strip() for line in seen] == ["31 B", "61 B", "91 B"]
    assert seen[2].rstrip().endswith(" 1 B/s   15m9s")
