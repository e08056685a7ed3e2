"""The best factors of low rank for an update, and how far a product of factors is from it.

The update of a LoRA is ``Y X`` with ``X`` ``[k, c]``, which multiplies the inputs, and ``Y`` ``[r, k]``.
"""

import math

import torch
from torch import Tensor

__all__ = ["product_norm", "truncated"]

OVERSAMPLING = 16
"""Directions that are followed in addition to those that are kept."""

ITERATIONS = 4
"""Rounds of the subspace iteration: after so many, the error is that of the best factors to a fraction of a percent."""


def truncated(update: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """``Y`` ``[r, rank]`` and ``X`` ``[rank, c]`` whose product is nearest to ``update`` ``[r, c]``, in float32.

    This is the truncated singular value decomposition, by randomised subspace iteration from a fixed seed
    (Halko et al., arXiv 0909.4061). Both factors get the root of each singular value; missing ranks are zero.
    """
    rows, columns = update.shape
    found = min(rank, rows, columns)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        wide = min(found + OVERSAMPLING, rows, columns)
        start = torch.randn(columns, wide).to(update.device)
    matrix = update.float()
    basis = torch.linalg.qr(matrix @ start).Q  # [r, wide]
    for _ in range(ITERATIONS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis).Q).Q
    left, values, right = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    roots = values[:found].clamp(min=0.0).sqrt()
    y, x = matrix.new_zeros(rows, rank), matrix.new_zeros(rank, columns)
    y[:, :found] = (basis @ left[:, :found]) * roots
    x[:found] = roots[:, None] * right[:found]
    return y, x


def product_norm(y: Tensor, x: Tensor) -> float:
    """``‖Y X‖_F`` of ``[r, k]`` and ``[k, c]``, in float64, from their Gram matrices: the product is never built."""
    y, x = y.double(), x.double()
    return math.sqrt(max(0.0, float(((y.T @ y) * (x @ x.T)).sum())))
