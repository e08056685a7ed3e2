"""The rules that HPA is compared with, slowly, in float64 and from their papers, without a line of the package.

One weight ``[r, c]`` at a time, element by element where the papers are. Symbols are those of the papers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Spread = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Takes moves ``[r, c]``, a mask of those that are given, and a Hessian; returns how far the others move."""


@dataclass(frozen=True)
class Adjusted:
    """A weight in float64, and what was decided."""

    weight: Tensor
    mask: Tensor  # [r, c] bool: where NEW was given a place
    margin: float  # how near the nearest decision was, relative
    cost: float = 0.0
    budget: float = 0.0


def summed(moves: Tensor, mask: Tensor, hessian: Tensor) -> Tensor:
    """What the others move by if the single steps of all given moves are added, ``[r, c]``."""
    inverse, total = torch.linalg.inv(hessian), torch.zeros_like(moves)
    for i, j in mask.nonzero().tolist():
        total[i] += moves[i, j] / inverse[j, j] * inverse[:, j]
    return total


def left_to_right(moves: Tensor, mask: Tensor, hessian: Tensor) -> Tensor:
    """What the others move by if, column by column, those on the right make up for what the column still moves by."""
    total, columns = torch.zeros_like(moves), len(hessian)
    for j in range(columns):
        step = torch.where(mask[:, j], moves[:, j] - total[:, j], 0.0)
        if j + 1 < columns:
            response = torch.linalg.solve(hessian[j + 1 :, j + 1 :], hessian[j + 1 :, j])
            total[:, j + 1 :] -= step[:, None] * response
    return total


def uncompensated(moves: Tensor, mask: Tensor, hessian: Tensor) -> Tensor:
    return torch.zeros_like(moves)


def safe_delta(
    old: Tensor, new: Tensor, hessian: Tensor, s: float, spread: Spread = left_to_right, floor: float = 0.0
) -> Adjusted:
    """Lu et al., section 4: one after the other, every weight of the layer as a candidate; ``s`` as in their code."""
    w_orig, delta = old.double(), new.double() - old.double()
    rows, columns = w_orig.shape
    inverse = torch.linalg.inv(hessian)
    budget = s * sum(1 / (2 * float(inverse[j, j])) for _ in range(rows) for j in range(columns)) / (rows * columns)
    budget *= rows * columns / 4096**2
    ranked = sorted(
        ((i, j) for i in range(rows) for j in range(columns)), key=lambda m: (-2 * float(inverse[m[1], m[1]]), m[1])
    )  # stable: rows in their order
    mask, cost, margin = torch.zeros(rows, columns, dtype=torch.bool), 0.0, math.inf
    for i, j in ranked[: len(ranked) - int(floor / 100 * len(ranked))]:
        degradation = float(delta[i, j]) ** 2 / (2 * float(inverse[j, j]))
        if budget:
            margin = min(margin, abs(cost + degradation - budget) / budget)
        if cost + degradation > budget:
            break
        cost += degradation
        mask[i, j] = True
    ratios = torch.sort(inverse.diagonal()).values
    margin = min(margin, float(((ratios[1:] - ratios[:-1]) / ratios[1:]).min()))
    total = spread(delta, mask, hessian)
    return Adjusted(w_orig + torch.where(mask, delta, total), mask, margin, cost, budget)


def model_tailor(
    old: Tensor, new: Tensor, hessian: Tensor, share: float, spread: Spread = left_to_right, omega: float = 0.8
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
    total = spread(w_pre - w_sft, ~mask, hessian)
    return Adjusted(torch.where(mask, w_sft + total, w_pre), mask, margin)
