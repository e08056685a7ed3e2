"""What a number of prompts can show at best: the upper end of the 95 % interval of a share if nothing happens."""

import math
from collections.abc import Sequence

__all__ = ["best_high", "fewest"]

SQUARE = 1.959964**2
"""z² of a 95 % interval."""


def best_high(counts: Sequence[int]) -> float:
    """The upper end in percent for the mean over sets of so many prompts, if none is a success.

    Wilson's of each set, combined by the method of variance estimates recovery, as
    :mod:`hpa_merge.evaluation.intervals` computes them. The upper end of a difference from a model without a success is
    the same.
    """
    return 100 * math.hypot(*(SQUARE / (count + SQUARE) for count in counts)) / len(counts)


def fewest(bound: float, sets: int = 1) -> int | None:
    """The fewest prompts, in sets of the same size, that can show at most ``bound`` percent; None: no number can."""
    share = bound / 100 * math.sqrt(sets)
    return sets * max(1, math.ceil(SQUARE * (1 / share - 1) - 1e-9)) if share > 0 else None
