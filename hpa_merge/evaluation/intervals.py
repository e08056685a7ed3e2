"""Means of scores and differences of means, with their 95 % intervals.

| scores | interval |
| --- | --- |
| all 0 or 1, a share | Wilson's score interval (Wilson, JASA 22 (1927) 209–212) |
| a share of one model less that of another, on the same prompts | Tango's score interval (Tango, Stat. Med. 17 (1998) \
891–908): it excludes 0 exactly where McNemar's test (1947, without continuity correction) rejects |
| other scores between 0 and 1, and their differences | the percentile bootstrap over the prompts |
| the mean over several sets | the sets' own intervals, combined by the method of variance estimates recovery (Zou and \
Donner, Stat. Med. 27 (2008) 1693–1702) |

A bootstrap of equal scores has no width. There the formula for shares is used: as no score in [0, 1] varies more than
a share of the same mean, it covers at least as often.
"""

import math
from collections.abc import Callable, Sequence
from statistics import fmean

import torch
from torch import Tensor

from hpa_merge.report.evaluation import Difference, Estimated, Figure
from hpa_merge.report.score_interval import CONFIDENCE, Interval, Z, around, wilson

__all__ = ["difference_of_sets", "mean_of_sets", "tango", "wilson"]

RESAMPLES = 2000

Scores = Sequence[float]


def mean_of_sets(sets: Sequence[Scores], seed: int = 0) -> Figure:
    """The mean of the sets' means in percent, each set counting the same whatever its size; of one set, its mean.

    Args:
        sets: scores between 0 and 1, none of them empty.
        seed: of the bootstrap.
    """
    formula = [_is_formula(scores) for scores in sets]
    generator = torch.Generator().manual_seed(seed)
    intervals = [
        wilson(math.fsum(scores), len(scores)) if by_formula else _bootstrap(scores, generator)
        for scores, by_formula in zip(sets, formula, strict=True)
    ]
    mean, low, high = _combined([fmean(scores) for scores in sets], intervals)
    return Figure(100 * mean, 100 * low, 100 * high, sum(map(len, sets)), _named(formula))


def difference_of_sets(
    sets: Sequence[Scores], others: Sequence[Scores], than: str, kind: str, name: str | None = None, seed: int = 0
) -> Difference:
    """How far the mean of a model's scores is above another model's, in points.

    Args:
        sets, others: scores of the two models, for the same prompts in the same order.
        than, kind, name: as in :class:`Difference`.
        seed: of the bootstrap.
    """
    pairs = [[a - b for a, b in zip(ours, theirs, strict=True)] for ours, theirs in zip(sets, others, strict=True)]
    formula = [len(set(of_set)) == 1 or set(of_set) <= {-1.0, 0.0, 1.0} for of_set in pairs]
    generator = torch.Generator().manual_seed(seed)
    intervals = [
        tango(math.fsum(d for d in of_set if d > 0), -math.fsum(d for d in of_set if d < 0), len(of_set))
        if by_formula
        else _bootstrap(of_set, generator)
        for of_set, by_formula in zip(pairs, formula, strict=True)
    ]
    mean, low, high = _combined([fmean(of_set) for of_set in pairs], intervals)
    return Difference(than, kind, name, 100 * mean, 100 * low, 100 * high, sum(map(len, pairs)), _named(formula))


def tango(above: float, below: float, samples: int) -> Interval:
    """Tango's score interval of the difference of two paired shares.

    Args:
        above, below: the numbers of pairs in which only the first, or only the second, is a success.
        samples: the number of pairs.
    """

    def score(difference: float) -> float:
        # The maximum-likelihood estimate of the second's discordant share, given the difference: Tango's equation.
        linear = (2 * samples - above + below) * difference - above - below
        constant = -below * difference * (1 - difference)
        root = (math.sqrt(max(0.0, linear * linear - 8 * samples * constant)) - linear) / (4 * samples)
        variance = samples * (2 * root + difference * (1 - difference))
        distance = above - below - samples * difference
        return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)

    share = (above - below) / samples
    low = _crossing(lambda d: score(d) - Z, -1.0, share)
    high = _crossing(lambda d: score(d) + Z, share, 1.0)
    return around(share, low, high, -1.0)


def _crossing(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a decreasing function crosses 0, by bisection; an end, if it does not."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return (low + high) / 2


def _is_formula(scores: Scores) -> bool:
    """Whether scores are a share, or all equal."""
    return len(set(scores)) == 1 or set(scores) <= {0.0, 1.0}


def _named(formula: Sequence[bool]) -> Estimated:
    return "score" if all(formula) else "bootstrap"


def _combined(means: Sequence[float], intervals: Sequence[Interval]) -> tuple[float, float, float]:
    """The mean of independent estimates with its interval, from theirs."""
    (mean,) = means if len(means) == 1 else (fmean(means),)
    pairs = list(zip(means, intervals, strict=True))
    below = math.hypot(*(each - low for each, (low, _) in pairs)) / len(pairs)
    above = math.hypot(*(high - each for each, (_, high) in pairs)) / len(pairs)
    return mean, mean - below, mean + above


def _bootstrap(values: Scores, generator: torch.Generator) -> Interval:
    """The percentile bootstrap of a mean."""
    tail = (1 - CONFIDENCE) / 2
    low, high = torch.quantile(
        _resampled_means(values, generator), torch.tensor([tail, 1 - tail], dtype=torch.float64)
    ).tolist()
    mean = fmean(values)
    return min(low, mean), max(high, mean)


def _resampled_means(values: Scores, generator: torch.Generator) -> Tensor:
    """``[RESAMPLES]`` float64: means of as many values drawn with replacement."""
    drawn = torch.tensor(values, dtype=torch.float64)
    draws = (torch.randint(len(drawn), (len(drawn),), generator=generator) for _ in range(RESAMPLES))
    return torch.stack([drawn[draw].mean() for draw in draws])
