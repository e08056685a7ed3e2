"""Wilson's score interval of a share (Wilson, JASA 22 (1927) 209–212)."""

import math
from statistics import NormalDist

__all__ = ["CONFIDENCE", "Interval", "Z", "around", "wilson"]

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)

Interval = tuple[float, float]


def wilson(successes: float, samples: int) -> Interval:
    """Wilson's score interval of a share."""
    share, square = successes / samples, Z * Z
    centre = (share + square / (2 * samples)) / (1 + square / samples)
    half = Z * math.sqrt(share * (1 - share) / samples + square / (4 * samples**2)) / (1 + square / samples)
    return around(share, centre - half, centre + half, 0.0)


def around(share: float, low: float, high: float, least: float) -> Interval:
    """An interval that rounding has not moved off its share, nor out of the possible values."""
    return max(least, min(low, share)), min(1.0, max(high, share))
