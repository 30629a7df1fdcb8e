"""Tables as scripts read them: padded columns, four blanks between and behind (``cli.md`` 7.1).

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest

from ollamad.cli.width import width

WRAP_WIDTH = 30
_GAP = "    "


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = (), wrap: int = WRAP_WIDTH) -> str:
    """The lines of a table, each with its line end. Without ``header`` there is none.

    A cell wider than ``wrap`` columns is broken at blanks. A row may have fewer cells than others.
    """
    body = [[broken(cell, wrap) for cell in row] for row in rows]
    widths = [width(title) for title in header]
    for row in body:
        widths += [0] * (len(row) - len(widths))
        for column, lines in enumerate(row):
            widths[column] = max(widths[column], *map(width, lines))
    text = []
    if header:
        cells = [_padded(title.upper(), size) for title, size in zip(header, widths, strict=True)]
        text.append(_GAP.join(cells) + " \n")
    for row in body:
        sizes = widths[: len(row)]
        for cells_of_line in zip_longest(*row, fillvalue=""):
            cells = [_padded(cell, size) for cell, size in zip(cells_of_line, sizes, strict=True)]
            text.append("".join(cell + _GAP for cell in cells) + "\n")
    return "".join(text)


def _padded(cell: str, size: int) -> str:
    return cell + " " * (size - width(cell))


def broken(text: str, wrap: int) -> list[str]:
    """``text`` in lines of at most ``wrap`` columns, or of its longest word when that is wider.

    The breaks leave the smallest sum of squared blanks at the ends of all lines but the last.
    """
    if width(text) <= wrap:
        return [text]
    words = text.split()
    sizes = [width(word) for word in words]
    limit = max(wrap, *sizes, 0)
    # best[i]: the cost of the lines from word i on, and where the line that starts there ends.
    count = len(words)
    best: list[tuple[int, int]] = [(0, count)] * (count + 1)
    for first in range(count - 1, -1, -1):
        length = -1
        options: list[tuple[int, int]] = []
        for end in range(first + 1, count + 1):
            length += sizes[end - 1] + 1
            if length > limit:
                break
            cost = 0 if end == count else (limit - length) ** 2 + best[end][0]
            options.append((cost, end))
        best[first] = min(options)
    lines = []
    first = 0
    while first < count:
        end = best[first][1]
        lines.append(" ".join(words[first:end]))
        first = end
    return lines or [""]
