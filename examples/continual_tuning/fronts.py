"""Rules compared as curves: safety against performance, base by base.

A rule at several strengths is a curve from sequential tuning (strength 0: OUT is NEW) to the frozen model (OUT is OLD).
Each point is a chain: its attack success rate ``m`` and its performance ``a``, both in percent. Between two strengths
the curve is a straight line. The *front* at a limit is the best performance on the curve with ``m`` within the limit;
the *area* under it is its mean over all limits from 0 to 100 %.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import sqrt
from statistics import fmean, stdev

Point = tuple[float, float]
"""Attack success rate and performance, percent."""

LIMITS = [limit / 2 for limit in range(201)]
"""Limits of the attack success rate, percent."""

STEPS = 100
"""Points on the line between two strengths."""

T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's t at 97.5 %, by the number of values."""


def points(curve: Sequence[Point]) -> list[Point]:
    """Points along a curve, close together."""
    close = [
        (left[0] + (right[0] - left[0]) * step / STEPS, left[1] + (right[1] - left[1]) * step / STEPS)
        for left, right in pairwise(curve)
        for step in range(STEPS)
    ]
    return [*close, curve[-1]]


def best_within(curve: Sequence[Point], limit: float) -> float | None:
    """The best performance with an attack success rate of at most ``limit``; None if the curve never is within it."""
    return max((a for m, a in points(curve) if m <= limit), default=None)


def safest_from(curve: Sequence[Point], least: float) -> float | None:
    """The lowest attack success rate with a performance of at least ``least``; None if the curve never reaches it."""
    return min((m for m, a in points(curve) if a >= least), default=None)


def area(curve: Sequence[Point]) -> float:
    """The mean of :func:`best_within` over :data:`LIMITS`, in percent; it counts as 0 where nothing is within."""
    ordered = sorted(points(curve))
    place, best, total = 0, 0.0, 0.0
    for limit in LIMITS:
        while place < len(ordered) and ordered[place][0] <= limit:
            best = max(best, ordered[place][1])
            place += 1
        total += best
    return total / len(LIMITS)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half the width of its 95 % confidence interval by Student's t; 0 for a single value."""
    if len(values) < 2:
        return values[0], 0.0
    return fmean(values), T95[len(values)] * stdev(values) / sqrt(len(values))


def less(these: Mapping[int, float | None], those: Mapping[int, float | None]) -> list[float]:
    """The differences base by base, where both have a value."""
    return [a - b for base in sorted(these) if (a := these[base]) is not None and (b := those.get(base)) is not None]
