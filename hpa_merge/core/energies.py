"""How much of an update :func:`select_columns` would restore with other budgets and another α, for many at once.

The result is that of a call for each, without a sort for each: the scores are ranked once, and φ once for each ``α``.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from hpa_merge.core.selection import balance, focus_scores


def energies_restored(
    energy: Tensor,
    inverse_safety: Tensor,
    inverse_task: Tensor,
    *,
    budgets: Sequence[tuple[int, int]],
    alphas: Sequence[tuple[float, float]],
    selection: Literal["balanced", "safety", "shared"] = "balanced",
    saliency: Literal["quotient", "product"] = "quotient",
    averaging: Literal["mean-log", "log-mean"] = "mean-log",
    excess: Literal["cut", "keep"] = "cut",
) -> Tensor:
    """``Σ_{j ∈ M} e_j`` for each pair of budgets and each pair of bounds of ``α``.

    Args:
        energy, inverse_safety, inverse_task: ``[c]``; these and the options are as for :func:`select_columns`.
        budgets: ``n_restored`` and ``n_focus``, ``b`` pairs.
        alphas: ``α_min`` and ``α_max``, ``a`` pairs.

    Returns:
        ``[b, a]``, float64.
    """
    scores = focus_scores(energy, inverse_safety, inverse_task, saliency)
    energy, by_safety, by_task = scores.energy, _order(scores.epsilon), _order(scores.zeta)
    n_restored, n_focus = torch.tensor(budgets, dtype=torch.int32).reshape(-1, 2).T.unsqueeze(-1)  # [b, 1] each
    if selection == "safety":
        total: Tensor = (torch.arange(len(energy)) < n_restored).double() @ energy[by_safety]
        return total.unsqueeze(1).expand(-1, len(alphas))
    in_safety, in_task = _ranks(by_safety), _ranks(by_task)  # S and T are the columns of a rank below n_focus
    in_both = torch.maximum(in_safety, in_task)
    count, first = torch.zeros_like(n_restored), torch.zeros(len(budgets), dtype=torch.float64)
    if selection == "balanced":
        most = n_restored if excess == "cut" else torch.full_like(n_restored, len(energy))
        alone = (in_safety[by_safety] < n_focus) & (in_task[by_safety] >= n_focus)
        count, first = _largest(alone, most, energy[by_safety])
    left = (n_restored - count).clamp(min=0)
    phi = [
        scores.epsilon - balance(scores.weight_safety, scores.weight_task, low, high, averaging) * scores.zeta
        for low, high in alphas
    ]
    by_phi = _order(torch.stack(phi))  # [a, c]
    _, sums = _largest(in_both[by_phi].unsqueeze(1) < n_focus, left, energy[by_phi])
    return (first + sums).T


def _order(score: Tensor) -> Tensor:
    """The columns by falling score, in the last dimension; ties go to the lower index."""
    return torch.sort(score, descending=True, stable=True).indices


def _ranks(order: Tensor) -> Tensor:
    """The rank of each column, ``[c]``: the inverse of ``order``."""
    ranks = torch.empty(len(order), dtype=torch.int32)
    ranks[order] = torch.arange(len(order), dtype=torch.int32)
    return ranks


def _largest(candidates: Tensor, count: Tensor, energy: Tensor) -> tuple[Tensor, Tensor]:
    """How many of the ``count`` ``[b, 1]`` first candidates there are, ``[…, b, 1]``, and their energy, ``[…, b]``.

    Args:
        candidates: ``[…, b, c]`` bool, by falling score.
        energy: ``[…, c]``, in the same order.
    """
    taken = candidates & (candidates.cumsum(dim=-1, dtype=torch.int32) <= count)
    return taken.sum(dim=-1, keepdim=True, dtype=torch.int32), (taken.double() @ energy.unsqueeze(-1)).squeeze(-1)
