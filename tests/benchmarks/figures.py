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
    """Measurements of two things, taken in turns: ``rows`` are (bare, ours).

    During ``disturbed`` of them other programs took processor time.
    """

    rows: tuple[tuple[float, float], ...]
    disturbed: int = 0

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

    def describe(self, unit: str) -> str:
        """Both sides' medians, and how far the ratios can be trusted."""
        ratios = [ours / bare for bare, ours in self.rows]
        text = (
            f"{number(self.ours)} / {number(self.bare)} {unit}, median of {len(self.rows)} pairs, "
            f"middle half {spread(ratios)}"
        )
        return f"{text}, {self.disturbed} DISTURBED by other programs" if self.disturbed else text


def alternate(
    pairs: int,
    bare: Callable[[], float],
    ours: Callable[[], float],
    *,
    disturbed: Callable[[], bool] = lambda: False,
) -> Pairs:
    """Measures both ``pairs`` times in turns, the one that goes first changing every time.

    ``disturbed`` tells whether other programs took processor time since it was asked last; such a
    pair counts only when twice as many pairs did not give enough others.
    """
    calm: list[tuple[float, float]] = []
    noisy: list[tuple[float, float]] = []
    disturbed()
    for turn in range(2 * pairs):
        if turn % 2:
            second = ours()
            row = (bare(), second)
        else:
            first = bare()
            row = (first, ours())
        (noisy if disturbed() else calm).append(row)
        if len(calm) == pairs:
            return Pairs(tuple(calm))
    missing = pairs - len(calm)
    return Pairs((*calm, *noisy[:missing]), disturbed=missing)


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
    """A line a figure, ``ok`` or ``MISS`` where it has a target, then what it was made of."""
    lines = []
    for figure in figures:
        bound = ""
        if figure.target is not None:
            bound = f"{'≥' if figure.at_least else '≤'} {number(figure.target)}"
        verdict = {True: "ok", False: "MISS", None: ""}[figure.met]
        value = f"{number(figure.value)} {figure.unit}".rstrip()
        lines.append(f"{figure.name:<54}{value:>16}  {bound:<10}{verdict:<5}{figure.detail}")
    return "\n".join(line.rstrip() for line in lines)
