"""Take out of the update what acts on the directions in which the safety inputs have most of their energy.

    G_s = Σ x xᵀ = Σ_i λ_i v_i v_iᵀ              over the safety tokens, λ falling
    V = v_1 … v_k                                the fewest with Σ_{i≤k} λ_i ≥ η Σ_i λ_i, η: ``--safety-energy``
    Ŵ = W_old + ΔW (I − V Vᵀ)

``W`` are ``[r, c]``, ``V`` is ``[c, k]``. Gradient Projection Memory (Saha et al., ICLR 2021, arXiv 2103.09762) keeps
``V`` of earlier tasks, by the same criterion, and projects every gradient step onto the rest, so that what the layer
does to the earlier inputs stays. Here the finished update is projected, once, and the earlier inputs are the
safety samples. The task has no say: where both sets use the same directions, the update is lost there. ``η = 0`` gives
NEW bit for bit. The new update has at most the rank of ``ΔW``.

The projection moves a weight as ``regmean`` does for ``w → ∞``, but onto the strongest directions only, and without
letting the others make up for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpa_merge.methods.rule import SHARE, Rule, Strength, option
from hpa_merge.methods.weight import Adapted, Redone, Weight, redone_in_rows

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RULE", "Options", "project_out"]


@dataclass(frozen=True)
class Options:
    """``η``; the default is a choice of this package."""

    safety_energy: float = option(
        0.95, "null-space: share of the safety inputs' energy in the directions that the update leaves alone.", SHARE
    )


def project_out(old: Tensor, new: Tensor, directions: Tensor) -> Tensor:
    """``new − ΔW V Vᵀ``: ``[r, c]``, contiguous, in ``new``'s dtype and on its device.

    Args:
        old, new: ``[r, c]``.
        directions: ``V``, ``[c, k]``, orthonormal columns; with none, ``new`` is kept bit for bit.
    """
    import torch

    from hpa_merge.core.adjustment import row_blocks

    result = new.contiguous().clone()
    if directions.shape[1] == 0:
        return result
    dtype = torch.promote_types(torch.promote_types(old.dtype, new.dtype), torch.float32)
    v = directions.to(new.device, dtype)
    for block in row_blocks(old.shape):
        w_new = new[block].to(dtype)
        delta = w_new - old[block].to(dtype)
        result[block] = torch.addmm(w_new, delta @ v, v.T, alpha=-1.0).to(new.dtype)
    return result


def adapt(weight: Weight, options: Options) -> Adapted:
    """``Ŵ``; it uses the inputs of the safety set."""
    from hpa_merge.core import leading_directions

    hessian, share = weight.hessian["safety"], options.safety_energy
    directions = hessian.once(share, lambda: leading_directions(hessian, share))
    made = project_out(weight.old, weight.new, directions)
    return Adapted(made, weight.update, times=lambda rows: project_out(rows.new_zeros(rows.shape), rows, directions))


def check(weight: Weight, options: Options, said: Mapping[str, Any], found: Tensor) -> Redone:
    """The rows that tuning did not change, and with them the rule; all others need the samples."""
    return redone_in_rows(weight, found, mixed=options.safety_energy > 0.0)


RULE = Rule(
    name="null-space",
    does="the update loses what acts on the leading directions of the safety inputs, after Gradient Projection Memory "
    "([Saha et al.](https://arxiv.org/abs/2103.09762))",
    paper="projection of the update away from the safety inputs, after "
    "[Gradient Projection Memory](https://arxiv.org/abs/2103.09762) (Saha et al., ICLR 2021)",
    sets=("safety",),
    takes=lambda options: ("hessian",),
    options=("safety_energy",),
    strength=Strength("safety_energy", (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)),
    adapt=adapt,
    check=check,
    no_grid="each share of the energy needs a product of its own with the update",
    no_lora=lambda options: "",
    computes=True,
    bytes_per_square=40,  # a matrix in float64, its eigenvectors, and what they are computed with
)
