"""The exact compromise between what safety and the task ask of a weight, after RegMean (Jin et al., ICLR 2023).

    Ŵ = argmin  w_l tr((W − W_old) H_s (W − W_old)ᵀ) + tr((W − W_new) H_t (W − W_new)ᵀ)
      = W_old + ΔW H_t (H_t + w_l H_s)⁻¹
    w_l = w (1 − f l/L)                          w, f: ``--safety-weight``, ``--safety-fade``

HPA looks at the same two quadratic losses a column at a time; this is their minimum over the whole weight. RegMean
(arXiv 2212.09849) merges models that were tuned on different tasks, each with the inputs that its own model makes of
its own data, and shrinks the off-diagonal of each Gram matrix. Here the two models are OLD with the safety samples and
NEW with the task samples; both Hessians are damped as for HPA, and ``w`` weighs the two. With ``w = 0`` NEW's values
stay, bit for bit; as ``w`` grows, the result goes to OLD's, first where safety tokens look.

The new update is ``ΔW M`` with ``M = H_t (H_t + w H_s)⁻¹``: where ``ΔW = B A`` is a LoRA, ``B (A M)`` is one of the
same rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpa_merge.errors import NumericalError
from hpa_merge.methods.rule import NOT_NEGATIVE, SHARE, Rule, Strength, option
from hpa_merge.methods.weight import Adapted, Redone, Weight, redone_in_rows

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RULE", "STRENGTH", "WEIGHTS", "Options", "weight_at"]

WEIGHTS = ("safety_weight", "safety_fade")
"""The names of the options."""

STRENGTH = Strength("safety_weight", (0.1, 0.3, 1, 3, 10, 30))


@dataclass(frozen=True)
class Options:
    """``w`` and how it falls with depth."""

    safety_weight: float = option(
        1.0, "regmean, cgm: weight of the safety loss; the task loss has weight 1.", NOT_NEGATIVE
    )
    safety_fade: float = option(
        0.0, "regmean, cgm: share of the safety weight that is gone after the last block.", SHARE
    )


def weight_at(options: Options, block: int, blocks: int) -> float:
    """``w_l`` at depth ``block`` of ``blocks``; ``w`` in a model without blocks."""
    return options.safety_weight * (1.0 - options.safety_fade * (block / blocks if blocks else 0.0))


def adapt(weight: Weight, options: Options) -> Adapted:
    """``Ŵ``, from both Hessians.

    Raises:
        NumericalError: ``H_t + w H_s`` does not factor in float64 either.
    """
    from hpa_merge.core import Compromise, SingularCompromise

    of_safety = weight_at(options, weight.block, weight.blocks)
    safety, task = weight.hessian["safety"], weight.hessian["task"]
    both = safety.once(task, lambda: Compromise(safety, task))
    try:
        made = both.between(weight.old, weight.new, of_safety)
    except SingularCompromise as error:
        raise NumericalError(
            f"the two Hessians of {weight.name} cannot be combined, in float64 either ({error}): "
            f"lower safety_weight, which is {options.safety_weight:g}, or raise damping."
        ) from error
    return Adapted(made, weight.update, times=lambda rows: both.between(rows.new_zeros(rows.shape), rows, of_safety))


def check(weight: Weight, options: Options, said: Mapping[str, Any], found: Tensor) -> Redone:
    """The rows that tuning did not change, and with them the rule; all others need the samples."""
    return redone_in_rows(weight, found, mixed=weight_at(options, weight.block, weight.blocks) > 0.0)


RULE = Rule(
    name="regmean",
    does="the exact compromise between the safety loss around OLD and the task loss around NEW, after RegMean "
    "([Jin et al.](https://arxiv.org/abs/2212.09849))",
    paper="a weighted compromise of two quadratic losses, after [RegMean](https://arxiv.org/abs/2212.09849) "
    "(Jin et al., ICLR 2023)",
    sets=("safety", "task"),
    takes=lambda options: ("hessian",),
    bytes_per_square=16,  # a factor in float64, and half of a symmetric matrix
    options=WEIGHTS,
    strength=STRENGTH,
    adapt=adapt,
    check=check,
    no_grid="each safety weight needs a factorisation of its own",
    no_lora=lambda options: "",
    computes=True,
)
