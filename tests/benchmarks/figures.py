"""Figures, their targets, and how two things are compared fairly on a noisy machine. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the report.

    ``target`` is the most it may be, or the least when ``at_least``; None for a figure that only
    explains another. ``detail`` says what it was made of.
    """

    name: str
    value: float
    unit: str = ""
    target: float | None = None
    at_least: bool = False
    detail: str = ""

    @property
    def met(self) -> bool | None:
        """None without a target."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


@dataclass(frozen=True, slots=True)
class Pairs:
    """Measurements of two things, taken in turns: ``rows`` are (bare, ours)."""

    rows: tuple[tuple[float, float], ...]

    @property
    def bare(self) -> float:
        return statistics.median(row[0] for row in self.rows)

    @property
    def ours(self) -> float:
        return statistics.median(row[1] for row in self.rows)

    @property
    def ratio(self) -> float:
        """Median of ours / bare: what disturbs the machine for a while spoils one pair only."""
        return statistics.median(ours / bare for bare, ours in self.rows)

    @property
    def added(self) -> float:
        """Median of ours - bare."""
        return statistics.median(ours - bare for bare, ours in self.rows)

    @property
    def ratio_spread(self) -> str:
        """The middle half of the ratios."""
        return spread([ours / bare for bare, ours in self.rows])


def alternate(pairs: int, bare: Callable[[], float], ours: Callable[[], float]) -> Pairs:
    """Measures both ``pairs`` times in turns, the one that goes first changing every time."""
    rows = []
    for number in range(pairs):
        if number % 2:
            second = ours()
            rows.append((bare(), second))
        else:
            first = bare()
            rows.append((first, ours()))
    return Pairs(tuple(rows))


def spread(values: Sequence[float]) -> str:
    """The middle half of ``values``, as text."""
    ordered = sorted(values)
    quarter = len(ordered) // 4
    low, high = ordered[quarter], ordered[-1 - quarter]
    return f"{number(low)} to {number(high)}"


def number(value: float) -> str:
    """Three digits that matter; four for thousands and for ratios near one."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.3f}" if 0.1 <= abs(value) < 10 else f"{value:.3g}"


def table(figures: Iterable[Figure]) -> str:
    """The report: a line a figure, ``ok`` or ``MISS`` where it has a target."""
    rows = [("figure", "value", "target", "", "made of")]
    for figure in figures:
        bound = ""
        if figure.target is not None:
            bound = f"{'≥' if figure.at_least else '≤'} {number(figure.target)}"
        verdict = {True: "ok", False: "MISS", None: ""}[figure.met]
        value = f"{number(figure.value)} {figure.unit}".rstrip()
        rows.append((figure.name, value, bound, verdict, figure.detail))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                row[1].rjust(widths[1]),
                row[2].ljust(widths[2]),
                row[3].ljust(widths[3]),
                row[4],
            ]
        ).rstrip()
        for row in rows
    )
