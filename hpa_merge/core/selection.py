"""Which input columns of a linear weight are restored to their old values.

    ε̄_j = e_j / [H_s⁻¹]_jj        safety focus score          ζ̄_j = e_j / [H_t⁻¹]_jj        task focus score
    S, T = the n_focus columns of largest ε̄, ζ̄               O = S ∩ T                       shared positions
    φ_j = ε̄_j − α ζ̄_j            balanced score              M                               restored columns

Everything is a vector over the ``c`` columns, on the CPU in float64; ties go to the lower index. Budgets are computed
in exact rational arithmetic from the decimals that the user typed, so that no column depends on a rounding error.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, final

import torch
from torch import Tensor


@final
@dataclass(frozen=True)
class Selection:
    """The restored columns of one weight, and how they were chosen.

    Attributes:
        restored: ``M``, ``[c]`` bool.
        n_restored, n_focus: the column budgets.
        n_shared: ``|O|``; None, like the rest, if the rule has no focus sets.
        alpha: ``α``.
        epsilon, zeta: ``ε̄`` and ``ζ̄``, ``[c]``.
    """

    restored: Tensor
    n_restored: int
    n_focus: int | None = None
    n_shared: int | None = None
    alpha: float | None = None
    epsilon: Tensor | None = None
    zeta: Tensor | None = None


@final
@dataclass(frozen=True)
class FocusScores:
    """The scores of the columns of one weight; each is ``[c]`` float64 on the CPU.

    Attributes:
        energy: ``e_j``.
        weight_safety, weight_task: what the energies are multiplied with.
        epsilon, zeta: ``ε̄`` and ``ζ̄``.
    """

    energy: Tensor
    weight_safety: Tensor
    weight_task: Tensor
    epsilon: Tensor
    zeta: Tensor


def retained_share(block: int, blocks: int, p_max: float, p_min: float) -> Fraction:
    """``p = p_max − (l/L)(p_max − p_min)``, in percent, for block ``l`` of ``L``; ``p_max`` if ``L`` is 0."""
    top, bottom = Fraction(str(p_max)), Fraction(str(p_min))
    return top - Fraction(block, blocks) * (top - bottom) if blocks else top


def column_budget(share: Fraction, columns: int, ratio: float = 1.0) -> int:
    """``min(c, ⌊ratio · share/100 · c + ½⌋)``: ``n_restored`` with ``ratio`` 1, ``n_focus`` with the focus ratio."""
    return min(columns, math.floor(Fraction(str(ratio)) * share * columns / 100 + Fraction(1, 2)))


def select_columns(
    energy: Tensor,
    inverse_safety: Tensor,
    inverse_task: Tensor,
    *,
    n_restored: int,
    n_focus: int,
    alpha_min: float = 0.4,
    alpha_max: float = 0.8,
    selection: Literal["balanced", "safety", "shared"] = "balanced",
    saliency: Literal["quotient", "product"] = "quotient",
    averaging: Literal["mean-log", "log-mean"] = "mean-log",
    excess: Literal["cut", "keep"] = "cut",
) -> Selection:
    """The restored columns ``M``.

    Args:
        energy: ``e_j``, ``[c]``, not negative.
        inverse_safety, inverse_task: ``[H_s⁻¹]_jj`` and ``[H_t⁻¹]_jj``, ``[c]``, positive.
        n_restored, n_focus: the budgets that :func:`column_budget` gives.
        alpha_min, alpha_max: the bounds of ``α``; the paper's ``α₀`` and ``α₁``.
        selection: ``balanced`` is the method. The paper's ablations are ``safety`` (the ``n_restored`` columns of
            largest ``ε̄``) and ``shared`` (the ``n_restored`` columns of ``O`` of largest ``φ``).
        saliency: ``quotient`` (optimal brain surgeon), or ``product`` for the reading ``e_j · [H⁻¹]_jj``.
        averaging: how ``α`` averages the ratios of the scores, as :func:`balance` has it.
        excess: if ``S∖O`` has more than ``n_restored`` columns, ``cut`` takes those of largest ``ε̄``, and ``keep`` all.

    Raises:
        ValueError: the three are not finite vectors of the same length, or an inverse is not positive.
    """
    scores = focus_scores(energy, inverse_safety, inverse_task, saliency)
    epsilon, zeta = scores.epsilon, scores.zeta
    alpha = balance(scores.weight_safety, scores.weight_task, alpha_min, alpha_max, averaging)
    phi = epsilon - alpha * zeta

    everything = torch.ones_like(epsilon, dtype=torch.bool)
    safety_focus = _largest(epsilon, everything, n_focus)  # S
    task_focus = _largest(zeta, everything, n_focus)  # T
    shared = safety_focus & task_focus  # O
    if selection == "safety":
        restored = _largest(epsilon, everything, n_restored)
    elif selection == "shared":
        restored = _largest(phi, shared, n_restored)
    else:
        alone = safety_focus & ~shared
        restored = alone if excess == "keep" else _largest(epsilon, alone, n_restored)
        restored = restored | _largest(phi, shared, max(0, n_restored - int(restored.sum())))
    return Selection(restored, n_restored, n_focus, n_shared=int(shared.sum()), alpha=alpha, epsilon=epsilon, zeta=zeta)


def focus_scores(
    energy: Tensor, inverse_safety: Tensor, inverse_task: Tensor, saliency: Literal["quotient", "product"]
) -> FocusScores:
    """``ε̄`` and ``ζ̄``; arguments and errors are those of :func:`select_columns`."""
    energy, inverse_safety, inverse_task = (v.to("cpu", torch.float64) for v in (energy, inverse_safety, inverse_task))
    if not energy.ndim == inverse_safety.ndim == inverse_task.ndim == 1:
        raise ValueError("expected vectors over the columns")
    if not len(energy) == len(inverse_safety) == len(inverse_task):
        raise ValueError(f"lengths differ: {len(energy)}, {len(inverse_safety)}, {len(inverse_task)}")
    if not bool(torch.isfinite(energy).all()):
        raise ValueError("column energies must be finite")
    if not all(bool((torch.isfinite(v) & (v > 0)).all()) for v in (inverse_safety, inverse_task)):
        raise ValueError("the diagonal of an inverse must be finite and positive")

    weight_safety = inverse_safety.reciprocal() if saliency == "quotient" else inverse_safety
    weight_task = inverse_task.reciprocal() if saliency == "quotient" else inverse_task
    return FocusScores(energy, weight_safety, weight_task, energy * weight_safety, energy * weight_task)


def balance(
    weight_safety: Tensor,
    weight_task: Tensor,
    alpha_min: float,
    alpha_max: float,
    averaging: Literal["mean-log", "log-mean"] = "mean-log",
) -> float:
    """``α = α_min + (α_max − α_min)(1 + tanh ρ)/2`` with ``ρ = mean_j log(ε̄_j/ζ̄_j)``; the energies cancel in ``ρ``.

    With ``averaging`` ``log-mean``, ``ρ = log mean_j (ε̄_j/ζ̄_j)``.
    """
    logs = weight_safety.log() - weight_task.log()
    if not len(logs):
        rho = 0.0
    elif averaging == "mean-log":
        rho = float(logs.mean())
    else:
        rho = float(logs.logsumexp(dim=0)) - math.log(len(logs))
    return alpha_min + (alpha_max - alpha_min) * (1.0 + math.tanh(rho)) / 2.0


def _largest(score: Tensor, candidates: Tensor, count: int) -> Tensor:
    """Mask ``[c]`` of the ``count`` candidates of largest ``score``, or of all if fewer; ties go to the lower index."""
    among = candidates.nonzero().squeeze(1)
    order = torch.sort(score[among], descending=True, stable=True).indices
    mask = torch.zeros_like(candidates)
    mask[among[order[:count]]] = True
    return mask
