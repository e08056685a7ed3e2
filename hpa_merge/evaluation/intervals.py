"""A mean with its confidence interval, by the bootstrap."""

from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor

from hpa_merge.report.evaluation import Figure

__all__ = ["mean_of_sets"]

RESAMPLES = 2000
CONFIDENCE = 0.95


def mean_of_sets(sets: Sequence[Sequence[float]], seed: int = 0) -> Figure:
    """The mean of the sets' means, each set counting the same whatever its size; of one set, its mean.

    Args:
        sets: scores between 0 and 1, none of them empty; each set is resampled by itself.
    """
    generator = torch.Generator().manual_seed(seed)
    resampled = torch.stack([_resampled_means(scores, generator) for scores in sets]).mean(dim=0)
    tail = (1 - CONFIDENCE) / 2
    low, high = torch.quantile(resampled, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    value = fmean(fmean(scores) for scores in sets)
    # Rounding in the mean of equal scores must not put the mean outside of its interval.
    return Figure(100 * value, 100 * min(low, value), 100 * max(high, value), sum(len(scores) for scores in sets))


def _resampled_means(scores: Sequence[float], generator: torch.Generator) -> Tensor:
    """``[RESAMPLES]`` float64: means of as many scores drawn with replacement."""
    values = torch.tensor(scores, dtype=torch.float64)
    draws = (torch.randint(len(values), (len(values),), generator=generator) for _ in range(RESAMPLES))
    return torch.stack([values[draw].mean() for draw in draws])
