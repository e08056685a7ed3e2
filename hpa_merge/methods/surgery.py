"""Some values of a weight are given, and the others make up for it: optimal brain surgeon, as both papers use it.

Moving one weight by ``δ_m`` raises the loss ``½ Δᵀ H Δ`` by ``δ_m²/(2[H⁻¹]_mm)`` if the rest of its row moves by
``C_m = δ_m/[H⁻¹]_mm · H⁻¹_{:,m}``, and no movement of the rest raises it less (Hassibi and Stork 1993; Theorem 4.1 of
Safe Delta). Both papers add the ``C_m`` of all given weights and apply the sum to the others alone. For several weights
at once the sum is not the optimum, which would take another factorisation for every row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpa_merge.methods.rule import option

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from hpa_merge.core import InverseHessian

__all__ = ["Options", "compensates", "operate"]

ROWS = 256
"""Rows that are compensated at once: enough to keep the solver busy, and next to nothing beside a weight."""


@dataclass(frozen=True)
class Options:
    """What the rules with such a surgery share."""

    compensation: bool = option(True, "safe-delta, model-tailor: let other values compensate for the changed ones.")


def compensates(options: Options) -> bool:
    """Whether all of ``H⁻¹`` is at work."""
    return options.compensation


def operate(base: Tensor, given: Tensor, mask: Tensor, inverse: InverseHessian | None, dtype: torch.dtype) -> Tensor:
    """``given`` where ``mask``, and ``base + Σ_{m in mask} C_m`` elsewhere, with ``δ = given − base``.

    Args:
        base, given: ``[r, c]``.
        mask: ``[r, c]`` bool.
        inverse: of the loss that is kept low, of the weight's input; None for no compensation.
        dtype: of the result.

    Returns:
        ``[r, c]``, contiguous; bit for bit ``given`` in the mask, and ``base`` elsewhere where ``inverse`` is None.
    """
    import torch

    result = torch.empty(base.shape, dtype=dtype, device=base.device)
    for begin in range(0, base.shape[0], ROWS):
        block = slice(begin, begin + ROWS)
        start, chosen = base[block], mask[block].to(base.device)
        rest = start
        if inverse is not None:
            delta = torch.where(chosen, given[block].double() - start.double(), 0.0)
            compensation = inverse.spread(delta)
            rest = start.to(torch.promote_types(start.dtype, compensation.dtype)) + compensation
        result[block] = torch.where(chosen, given[block].to(dtype), rest.to(dtype))
    return result
