"""Model Tailor: the few changes of a weight that the task needs (Zhu et al., ICML 2024, arXiv 2402.12048).

    salience_m = |ΔW_m|                          how much tuning changed a weight
    sensitivity_m = W_new,m² / [H_t⁻¹]_mm        what the task loses without it (optimal brain surgeon)
    score = ω z(salience) + (1 − ω) z(sensitivity)
    P                                            the model patch: the share k of the weights of largest score, k = 10 %
    W = W_old outside of P;  W_new + Σ_{m ∉ P} C_m in P, decorated   C_m = −ΔW_m/[H_t⁻¹]_mm · H_t⁻¹_{:,m}

The paper fuses salience and sensitivity into a sparse mask, keeps at most a tenth of the tuned weights, and compensates
them by the inverse Hessian of the target task for what was undone. The details above are those of the authors' code:
``z`` is the standard score within a row (what does not vary scores 0), and of its two copies one has ``ω = 0.8``, the
one that their script for LLaVA runs, and the other ``ω = 0.5``. Chosen here: the patch is of a whole weight and not of
128 columns of it at a time; ties go to the lower row, then the lower column; the sum of the ``C_m`` and not a sequence
of steps from left to right; and the compensation has optimal brain surgeon's sign, the opposite of the code's, which
would raise the loss that it is derived to lower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from hpa_merge.methods import surgery
from hpa_merge.methods.rule import PERCENT, Rule, option
from hpa_merge.methods.weight import Adapted, Redone, Weight, restored_figures

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RULE", "Options", "model_patch"]

SALIENCE = 0.8
"""``ω``: the weight of the salience, in the script with which the authors tailored LLaVA."""


@dataclass(frozen=True)
class Options:
    """``k``; the default is the paper's."""

    patch_share: float = option(10.0, "model-tailor: percent of a weight's values to keep from NEW.", PERCENT)


class Compensated(Options, surgery.Options):
    """What the rule reads."""


def model_patch(old: Tensor, new: Tensor, inverse: Tensor, patch_share: float, *, salience: float = SALIENCE) -> Tensor:
    """``P``, ``[r, c]`` bool, of the weight ``old`` ``[r, c]`` that tuning turned into ``new``.

    Args:
        inverse: ``[H_t⁻¹]_jj``, ``[c]``, positive.
        patch_share: ``k``, in percent.
        salience: ``ω``.
    """
    import torch

    from hpa_merge.core.adjustment import row_blocks

    scores = torch.empty(new.shape, dtype=torch.float32, device=new.device)
    inverse = inverse.to(new.device, torch.float64)
    for block in row_blocks(new.shape):
        w_new = new[block].double()
        of_change = _standard((w_new - old[block].double()).abs())
        of_weight = _standard(w_new.square() / inverse)
        scores[block] = (salience * of_change + (1.0 - salience) * of_weight).float()
    return _largest(scores.flatten(), patch_size(patch_share, scores.numel())).reshape(scores.shape)


def patch_size(patch_share: float, size: int) -> int:
    """How many of ``size`` values the patch has: exact, as the share was typed."""
    return math.floor(Fraction(str(patch_share)) * size / 100 + Fraction(1, 2))


def _standard(x: Tensor) -> Tensor:
    """``(x − mean)/std`` within each row of ``[r, c]``; 0 in a row that does not vary."""
    centred = x - x.mean(dim=1, keepdim=True)
    deviation = centred.square().mean(dim=1, keepdim=True).sqrt()
    return (centred / deviation).where(deviation > 0.0, 0.0)


def _largest(scores: Tensor, count: int) -> Tensor:
    """Mask ``[n]`` of the ``count`` largest; ties go to the lower index."""
    import torch

    if not 0 < count < len(scores):
        return torch.full_like(scores, count > 0, dtype=torch.bool)
    least = torch.kthvalue(scores, len(scores) - count + 1).values
    mask = scores > least
    ties = (scores == least).nonzero().squeeze(1)
    mask[ties[: count - int(mask.sum())]] = True
    return mask


def adapt(weight: Weight, options: Compensated) -> Adapted:
    """``W``, from the curvature of the task set."""
    old, new = weight.old, weight.new
    rest = ~model_patch(old, new, weight.diagonal["task"], options.patch_share)
    made = surgery.operate(new, old, rest, weight.inverse.get("task"), new.dtype)
    return Adapted(made, weight.update, figures=restored_figures(weight, rest))


def check(weight: Weight, options: Compensated, said: Mapping[str, Any], found: Tensor) -> Redone:
    """The weight, whose patch the report does not hold: as many values as are not in it have to be OLD's.

    Which they are would take the samples; those that are neither OLD's nor NEW's are in the patch, and compensated.
    """
    from hpa_merge.core.rounding import differing

    old, new, size, problems = weight.old, weight.new, weight.old.numel(), []
    restored, of_old = size - patch_size(options.patch_share, size), ~differing(found, old.to(new.dtype))
    if int(of_old.sum()) < restored:
        problems.append(f"{weight.name}: {int(of_old.sum())} of {size} values are OLD's, and {restored} have to be.")
    if said["energy_restored"] is None:
        problems.append(f"{weight.name}: the report does not say how much of the update lies in what was restored.")
    figures = {"restored_share": restored / size if size else 0.0, "energy_restored": said["energy_restored"]}
    free = ~of_old if options.compensation and restored else of_old & False
    made = found.where(of_old | free, new)
    compared = ((~of_old & ~free, False, "are neither OLD's nor NEW's"),)
    return Redone(Adapted(made, weight.update, figures=figures), compared, tuple(problems), int(free.sum()))


RULE = Rule(
    name="model-tailor",
    does="the values of largest salience and sensitivity stay new, and make up for the rest "
    "([Zhu et al.](https://arxiv.org/abs/2402.12048))",
    paper="[Model Tailor](https://arxiv.org/abs/2402.12048) (Zhu et al.)",
    sets=("task",),
    whole_inverse=surgery.compensates,
    base="new",
    options=("patch_share", "compensation"),
    adapt=adapt,
    check=check,
    of_samples=("energy_restored",),
    bytes_per_value=19,  # masks, and scores that are put in order
)
