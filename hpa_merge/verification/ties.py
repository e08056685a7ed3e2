"""Whether a choice of columns differs from another one by no more than rounding on another machine explains."""

import torch
from torch import Tensor

from hpa_merge.config import HPAConfig
from hpa_merge.core import Selection

__all__ = ["NEAR", "explained"]

NEAR = 1e-3
"""How far ``[H⁻¹]_jj`` of two machines may lie apart, relative: float32's 6e-8 times a condition number of 10⁴, which
``damping`` 0.01 allows a matrix whose largest eigenvalue is 100 times the mean of its diagonal."""


def explained(said: Tensor, selection: Selection, config: HPAConfig) -> bool:
    """Whether rounding can turn a selection into the report's columns.

    A column whose score lies at a threshold may fall on either side of it, and brings one other column in or out of
    ``M``. So there can be no more exchanges than columns that lie within :data:`NEAR` of a threshold.

    Args:
        said: the report's kept columns, ``[c]`` bool.
        selection: the one that was made here.
    """
    if selection.epsilon is None or selection.zeta is None or selection.alpha is None or selection.n_focus is None:
        return torch.equal(said, selection.kept)
    epsilon, zeta, n_focus = selection.epsilon, selection.zeta, selection.n_focus
    phi = epsilon - selection.alpha * zeta
    width = NEAR * (epsilon + selection.alpha * zeta)  # of φ, which is a difference
    near = torch.zeros_like(selection.kept)
    if config.selection == "safety":
        near |= _at(epsilon, selection.n_keep, NEAR * epsilon)
    else:
        near |= _at(epsilon, n_focus, NEAR * epsilon) | _at(zeta, n_focus, NEAR * zeta)
        shared = _largest(epsilon, n_focus) & _largest(zeta, n_focus)
        alone = _largest(epsilon, n_focus) & ~shared
        if config.selection == "balanced":
            near |= _at(epsilon, selection.n_keep, NEAR * epsilon, among=alone)
        left = selection.n_keep - (int(alone.sum()) if config.selection == "balanced" else 0)
        near |= _at(phi, left, width, among=shared)
    return int((said ^ selection.kept).sum()) <= 2 * int(near.sum())


def _largest(score: Tensor, count: int) -> Tensor:
    mask = torch.zeros(len(score), dtype=torch.bool)
    mask[torch.sort(score, descending=True, stable=True).indices[:count]] = True
    return mask


def _at(score: Tensor, count: int, width: Tensor, among: Tensor | None = None) -> Tensor:
    """The columns whose score lies within ``width`` of the threshold between the ``count`` largest and the rest."""
    candidates = torch.ones(len(score), dtype=torch.bool) if among is None else among
    ordered = torch.sort(score[candidates], descending=True).values
    if not 0 < count < len(ordered):
        return torch.zeros_like(candidates)
    low, high = ordered[count], ordered[count - 1]
    return candidates & (score + width >= high) & (score - width <= low)
