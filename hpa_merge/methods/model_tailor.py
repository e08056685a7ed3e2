"""Model Tailor: keep the few changes of a weight that the task needs (Zhu et al., ICML 2024, arXiv 2402.12048).

    salience_m = |ΔW_m|                          how much tuning changed the value m of the weight
    sensitivity_m = W_new,m² / [H_t⁻¹]_mm        what the task loses without it (optimal brain surgeon)
    score = ω z(salience) + (1 − ω) z(sensitivity)
    P                                            the model patch: the share k of the values with the largest scores
    W = W_old outside of P;  W_new + the compensation in P   C_m = −ΔW_m/[H_t⁻¹]_mm · H_t⁻¹_{:,m} for one m ∉ P

``W_old``, ``W_new`` and ``P`` are ``[r, c]``. A value ``m`` lies in a row and a column; ``[H_t⁻¹]_mm`` is its column's,
and ``C_m`` changes its row. The paper fuses salience and sensitivity into a sparse mask, keeps at most a tenth of the
tuned values (``k`` = 10 %), and lets them compensate, by the inverse Hessian of the target task, for the values that
are restored.

The paper leaves details open. From the authors' code: ``z`` is the standard score within a row, 0 in a row that does
not vary; ``ω`` is 0.8 in the copy that their script for LLaVA runs, and 0.5 in the other; the values compensate from
left to right (:mod:`surgery`). Different here: the code's ``[H_t⁻¹]_mm`` is the square of the diagonal of the Cholesky
factor of ``H_t⁻¹``, which leaves out the columns on the left; it chooses the patch in blocks of 128 columns, and takes
the standard score within them; it tunes and patches the last blocks of the text stack alone (see ``--include``). And
its compensation has the opposite sign of optimal brain surgeon, which raises the loss that it should lower. Ties go to
the lower row, then to the lower column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from hpa_merge.methods import surgery
from hpa_merge.methods.rule import PERCENT, Rule, Strength, option
from hpa_merge.methods.weight import Adapted, Redone, Weight, energy_within

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RULE", "Options", "model_patch"]

SALIENCE = 0.8
"""``ω``: the weight of the salience in the authors' script for LLaVA."""


@dataclass(frozen=True)
class Options:
    """``k``; the default is the paper's."""

    patch_share: float = option(10.0, "model-tailor: percent of a weight's values to keep from NEW.", PERCENT)


class Compensated(Options, surgery.Options):
    """The options that the rule reads."""


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
    """How many of ``size`` values the patch has, computed exactly from the share as typed."""
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
    """``W``; it uses the curvature of the task set."""
    old, new = weight.old, weight.new
    rest = ~model_patch(old, new, weight.diagonal["task"], options.patch_share)
    made = surgery.operate(new, old, rest, surgery.compensation_of(weight, options, "task"), new.dtype)
    free = surgery.free_values(rest, old != new, options)
    figures = {**surgery.shares(rest, free), "energy_restored": energy_within(weight, rest)}
    return Adapted(made, weight.update, figures=figures)


def check(weight: Weight, options: Compensated, said: Mapping[str, Any], found: Tensor) -> Redone:
    """The weight as far as it is known without the patch, which the report does not hold.

    As many values as lie outside the patch have to be OLD's; which ones they are depends on the samples. Values that
    are neither OLD's nor NEW's belong to the patch and compensate.
    """
    from hpa_merge.core.rounding import differing

    old, new, size, problems = weight.old, weight.new, weight.old.numel(), []
    restored, of_old = size - patch_size(options.patch_share, size), ~differing(found, old.to(new.dtype))
    if int(of_old.sum()) < restored:
        problems.append(f"{weight.name}: {int(of_old.sum())} of {size} values are OLD's, and {restored} are required.")
    if said["energy_restored"] is None:
        problems.append(f"{weight.name}: the report does not say how much of the update was restored.")
    figures = {
        "restored_share": restored / size if size else 0.0,
        "compensated_share": said["compensated_share"],
        "energy_restored": said["energy_restored"],
    }
    free = ~of_old if options.compensation and restored else of_old & False
    made = found.where(of_old | free, new)
    compared = ((~of_old & ~free, False, "are neither OLD's nor NEW's"),)
    return Redone(Adapted(made, weight.update, figures=figures), compared, tuple(problems), int(free.sum()))


RULE = Rule(
    name="model-tailor",
    does="the values of largest salience and sensitivity are kept from NEW, and compensate for the rest "
    "([Zhu et al.](https://arxiv.org/abs/2402.12048))",
    paper="[Model Tailor](https://arxiv.org/abs/2402.12048) (Zhu et al.)",
    sets=("task",),
    takes=surgery.takes,
    base="new",
    options=("patch_share", *surgery.ORDER),
    strength=Strength("patch_share", (70, 50, 30, 20, 10, 5)),
    adapt=adapt,
    check=check,
    no_grid="it ranks every single value of a weight",
    of_samples=("energy_restored", "compensated_share"),
    bytes_per_value=24,  # masks, the first given value of a row, and scores that are sorted
    bytes_per_square=16,  # a factor in float64, while it is turned
)
