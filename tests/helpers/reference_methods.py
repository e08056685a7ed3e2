"""The rules that HPA is compared with, slowly, in float64 and from their papers, without a line of the package.

One weight ``[r, c]`` at a time, element by element where the papers are. Symbols are those of the papers.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Adjusted:
    """A weight in float64, and what was decided."""

    weight: Tensor
    mask: Tensor  # [r, c] bool: where NEW was given a place
    margin: float  # how near the nearest decision was, relative
    cost: float = 0.0
    budget: float = 0.0


def safe_delta(old: Tensor, new: Tensor, hessian: Tensor, s: float, *, compensation: bool = True) -> Adjusted:
    """Lu et al., section 4: one after the other, every weight of the layer as a candidate."""
    w_orig, delta = old.double(), new.double() - old.double()
    rows, columns = w_orig.shape
    inverse = torch.linalg.inv(hessian)
    budget = s * sum(1 / (2 * float(inverse[j, j])) for _ in range(rows) for j in range(columns)) / (rows * columns)
    ranked = sorted(
        ((i, j) for i in range(rows) for j in range(columns)), key=lambda m: (-2 * float(inverse[m[1], m[1]]), m[1])
    )  # stable: rows in their order
    mask, cost, margin = torch.zeros(rows, columns, dtype=torch.bool), 0.0, math.inf
    for i, j in ranked:
        degradation = float(delta[i, j]) ** 2 / (2 * float(inverse[j, j]))
        if budget:
            margin = min(margin, abs(cost + degradation - budget) / budget)
        if cost + degradation > budget:
            break
        cost += degradation
        mask[i, j] = True
    ratios = torch.sort(inverse.diagonal()).values
    margin = min(margin, float(((ratios[1:] - ratios[:-1]) / ratios[1:]).min()))
    total = torch.zeros_like(w_orig)
    for i, j in mask.nonzero().tolist():
        total[i] += delta[i, j] / inverse[j, j] * inverse[:, j]
    if not compensation:
        total.zero_()
    return Adjusted(w_orig + torch.where(mask, delta, total), mask, margin, cost, budget)


def model_tailor(
    old: Tensor, new: Tensor, hessian: Tensor, share: float, *, omega: float = 0.8, compensation: bool = True
) -> Adjusted:
    """Zhu et al.: fused score, model patch, patch decorator."""
    w_pre, w_sft = old.double(), new.double()
    rows, columns = w_pre.shape
    inverse = torch.linalg.inv(hessian)
    score = torch.empty_like(w_pre)
    for i in range(rows):
        salience = (w_sft[i] - w_pre[i]).abs()
        sensitivity = w_sft[i] ** 2 / inverse.diagonal()
        parts = [
            (x - x.mean()) / x.std() if float(x.std()) > 0 else torch.zeros_like(x) for x in (salience, sensitivity)
        ]
        score[i] = omega * parts[0] + (1 - omega) * parts[1]
    count = math.floor(share / 100 * rows * columns + 0.5)
    ranked = sorted(((i, j) for i in range(rows) for j in range(columns)), key=lambda m: -float(score[m]))
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    for m in ranked[:count]:
        mask[m] = True
    margin = math.inf
    if 0 < count < rows * columns:
        margin = float(score[ranked[count - 1]] - score[ranked[count]])
    total = torch.zeros_like(w_pre)
    for i, j in (~mask).nonzero().tolist():
        undone = w_pre[i, j] - w_sft[i, j]
        total[i] += undone / inverse[j, j] * inverse[:, j]
    if not compensation:
        total.zero_()
    return Adjusted(torch.where(mask, w_sft + total, w_pre), mask, margin)
