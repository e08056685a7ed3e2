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

import math
from fractions import Fraction

import torch
from torch import Tensor

from hpa_merge.core.adjustment import row_blocks

SALIENCE = 0.8
"""``ω``: the weight of the salience, in the script with which the authors tailored LLaVA."""


def model_patch(old: Tensor, new: Tensor, inverse: Tensor, patch_share: float, *, salience: float = SALIENCE) -> Tensor:
    """``P``, ``[r, c]`` bool, of the weight ``old`` ``[r, c]`` that tuning turned into ``new``.

    Args:
        inverse: ``[H_t⁻¹]_jj``, ``[c]``, positive.
        patch_share: ``k``, in percent.
        salience: ``ω``.
    """
    scores = torch.empty(new.shape, dtype=torch.float32, device=new.device)
    inverse = inverse.to(new.device, torch.float64)
    for block in row_blocks(new.shape):
        w_new = new[block].double()
        of_change = _standard((w_new - old[block].double()).abs())
        of_weight = _standard(w_new.square() / inverse)
        scores[block] = (salience * of_change + (1.0 - salience) * of_weight).float()
    count = math.floor(Fraction(str(patch_share)) * scores.numel() / 100 + Fraction(1, 2))
    return _largest(scores.flatten(), count).reshape(scores.shape)


def _standard(x: Tensor) -> Tensor:
    """``(x − mean)/std`` within each row of ``[r, c]``; 0 in a row that does not vary."""
    centred = x - x.mean(dim=1, keepdim=True)
    deviation = centred.square().mean(dim=1, keepdim=True).sqrt()
    return torch.where(deviation > 0.0, centred / deviation, 0.0)


def _largest(scores: Tensor, count: int) -> Tensor:
    """Mask ``[n]`` of the ``count`` largest; ties go to the lower index."""
    if not 0 < count < len(scores):
        return torch.full_like(scores, count > 0, dtype=torch.bool)
    least = torch.kthvalue(scores, len(scores) - count + 1).values
    mask = scores > least
    ties = (scores == least).nonzero().squeeze(1)
    mask[ties[: count - int(mask.sum())]] = True
    return mask
