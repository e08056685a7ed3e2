"""Packs tensors for the report: masks of columns, and the cells of two scores. Needs torch, unlike the rest."""

import base64

import torch
from torch import Tensor

from hpa_merge.report.saliency import CELLS_PER_DECADE

__all__ = ["pack_columns", "saliency_cells"]

ROW = 2**20
"""More cells than a row of them has: float64 spans 632 decades."""


def pack_columns(mask: Tensor) -> str:
    """A bool mask ``[c]`` as base64 of its bits, the lowest first; :func:`unpack_columns` is the inverse."""
    bits = torch.nn.functional.pad(mask.cpu().to(torch.uint8), (0, -len(mask) % 8)).reshape(-1, 8)
    weights = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)
    return base64.b64encode(bytes((bits * weights).sum(dim=1).tolist())).decode("ascii")


def saliency_cells(epsilon: Tensor, zeta: Tensor, restored: Tensor) -> dict[tuple[int, int], tuple[int, int]]:
    """The cells that hold columns; columns whose ``ε̄`` or ``ζ̄`` is 0 are left out.

    Args:
        epsilon, zeta: ``ε̄`` and ``ζ̄``, ``[c]``, not negative.
        restored: the restored columns, ``[c]`` bool.
    """
    there = (epsilon > 0) & (zeta > 0)
    x, y = (torch.floor(CELLS_PER_DECADE * score[there].double().log10()).long() for score in (epsilon, zeta))
    keys, cell = (x * ROW + y).unique(return_inverse=True)  # [cells], [columns that are there]
    columns = torch.bincount(cell, minlength=len(keys))
    of_restored = torch.bincount(cell[restored[there]], minlength=len(keys))
    counts = zip(columns.tolist(), of_restored.tolist(), strict=True)
    places = (divmod(key + ROW // 2, ROW) for key in keys.tolist())
    return dict(zip(((i, j - ROW // 2) for i, j in places), counts, strict=True))
