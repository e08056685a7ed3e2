"""Curvature-Guided Mixing, by columns: each column of OLD and NEW mixed by its two curvatures (Yang et al., ECCV 2026).

    Ŵ_j = W_new,j + λ_j (W_old,j − W_new,j)      λ_j = w_l h_s,j / (h_t,j + w_l h_s,j)          eq. 8, with α = w_l
    h_s,j = [H_s]_jj,  h_t,j = [H_t]_jj          w_l = w (1 − f l/L): ``--safety-weight``, ``--safety-fade``

``W`` are ``[r, c]``, and column ``j`` is an input. It minimises ``½ (w − w_ft)ᵀ H_ft (w − w_ft) + α/2 (w − w_pt)ᵀ H_pt
(w − w_pt)`` (eq. 5, arXiv 2606.24963) with both Hessians diagonal: what :mod:`regmean` minimises with the whole ones.
The paper has OLD's general tasks in the place of safety, and estimates a diagonal for every single parameter by the
empirical Fisher information, from gradients. Here no gradient is taken: the Hessian of the layer's quadratic loss is
the same for every row, so a column has one curvature. Both Hessians are damped as for HPA. The paper's sparse variant,
which reverts single values, is not here; HPA's choice of columns takes its place. ``ΔW diag(1 − λ)`` has the rank of
``ΔW``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hpa_merge.methods.regmean import STRENGTH, WEIGHTS, Options, weight_at
from hpa_merge.methods.rule import Rule
from hpa_merge.methods.weight import Adapted, Redone, Weight, redone_in_rows
from hpa_merge.methods.what_if import Grid, Slider, grid_of, with_own

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RULE", "mix_columns"]


def mix_columns(old: Tensor, new: Tensor, of_old: Tensor) -> Tensor:
    """``new + of_old · (old − new)``: ``[r, c]``, contiguous, in ``new``'s dtype and on its device.

    Args:
        old, new: ``[r, c]``.
        of_old: ``λ``, ``[c]``; a column with 0 is ``new``'s bit for bit.
    """
    import torch

    from hpa_merge.core.adjustment import row_blocks

    mixed = torch.empty(new.shape, dtype=new.dtype, device=new.device)
    dtype = torch.promote_types(torch.promote_types(old.dtype, new.dtype), torch.float32)
    share = of_old.to(new.device, dtype)
    for block in row_blocks(old.shape):
        w_new = new[block].to(dtype)
        mixed[block] = torch.addcmul(w_new, share, old[block].to(dtype) - w_new).to(new.dtype)
    return mixed


def adapt(weight: Weight, options: Options) -> Adapted:
    """``Ŵ``; it uses the diagonals of both Hessians."""
    safety, task = (weight.hessian[purpose].diagonal() for purpose in ("safety", "task"))

    def of_old_with(chosen: Options) -> Tensor:
        of_safety = weight_at(chosen, weight.block, weight.blocks) * safety
        return of_safety / (task + of_safety)

    of_old, energy = of_old_with(options), weight.update.energy
    made = mix_columns(weight.old, weight.new, of_old)
    others = (of_old_with(Options(**setting)) for setting in grid(options).settings)
    undone = [float(share.cpu().double().square() @ energy) for share in others]
    whole = float(energy.sum()) or 1.0
    return Adapted(
        made,
        weight.update,
        figures={"what_if": [each / whole for each in undone]},
        times=lambda rows: mix_columns(rows.new_zeros(rows.shape), rows, of_old),
    )


def grid(options: Options) -> Grid:
    """The settings around ``options``."""
    weights = with_own((0.0, *STRENGTH.values), options.safety_weight)
    fades = with_own((0.0, 0.5, 1.0), options.safety_fade)
    return grid_of(
        (
            (Slider("w: weight of the safety loss", ("safety_weight",)), weights),
            (Slider("f: share of w that is gone after the last block", ("safety_fade",)), fades),
        ),
        lambda of_safety, fade: {"safety_weight": of_safety, "safety_fade": fade},
    )


def check(weight: Weight, options: Options, said: Mapping[str, Any], found: Tensor) -> Redone:
    """The rows that tuning did not change, and with them the rule; all others need the samples."""
    return redone_in_rows(weight, found, mixed=weight_at(options, weight.block, weight.blocks) > 0.0)


RULE = Rule(
    name="cgm",
    does="each column is mixed from OLD's and NEW's by its curvature in both sets, after Curvature-Guided Mixing "
    "([Yang et al.](https://arxiv.org/abs/2606.24963))",
    paper="[Curvature-Guided Mixing](https://arxiv.org/abs/2606.24963) (Yang et al.), by columns",
    sets=("safety", "task"),
    takes=lambda options: ("hessian",),
    options=WEIGHTS,
    strength=STRENGTH,
    adapt=adapt,
    check=check,
    of_samples=("what_if",),
    grid=grid,
    no_lora=lambda options: "",
    computes=True,
)
