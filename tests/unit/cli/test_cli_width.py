"""Texts as a terminal of some width shows them."""

from __future__ import annotations

import pytest

from ollamad.cli.width import clipped, harmless, width


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "abc"),
        ("日本語", 5, "日本"),
        ("日本語", 6, "日本語"),
        ("e\u0301e\u0301x", 2, "e\u0301e\u0301"),
        ("abc", 0, ""),
        ("abc", -1, ""),
    ],
)
def test_clipped(text: str, columns: int, expected: str) -> None:
    assert clipped(text, columns) == expected
    assert width(clipped(text, columns)) <= max(columns, 0)


def test_harmless() -> None:
    assert harmless("plain ▕█▏ 日本語\n\ttext") == "plain ▕█▏ 日本語\n\ttext"
    assert harmless("\x1b]0;title\x07\r\x7f\x9b2J") == "\\x1b]0;title\\x07\\x0d\\x7f\\x9b2J"
    assert harmless("a\nb\t", "") == "a\\x0ab\\x09"
