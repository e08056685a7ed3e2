"""The paper's metrics, from the results after each step of a sequence of tuning steps.

Performances and attack success rates are percentages. ``A_{t,i}`` is the performance on task ``i`` after step ``t``;
step ``t`` is the one that teaches task ``t``, both counted from 1 to ``k``. ``R_{t,s}`` is the attack success rate on
safety set ``s`` after step ``t``, and ``R_{0,s}`` that of the first aligned model, before any step.

| metric | definition |
| --- | --- |
| AP, average performance | ``(1/k) Σ_i A_{k,i}`` |
| BWT, backward transfer | ``(1/(k−1)) Σ_{i<k} (A_{k,i} − A_{i,i})`` |
| just learned | ``(1/k) Σ_i A_{i,i}`` |
| MASR, mean attack success rate | mean of ``R_{k,s}`` over the safety sets |
| DASR, its rise | ``MASR`` less the mean of ``R_{0,s}`` |

Just-learned accuracy belongs beside BWT: a method that refuses to learn has nothing to forget. The same figures may be
asked for after any earlier step, and their means over the steps say what a model was like on the way.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import final

__all__ = [
    "ContinualMetrics",
    "average_performance",
    "backward_transfer",
    "continual_metrics",
    "just_learned",
    "mean_attack_success",
    "rise_in_attack_success",
]

Matrix = Sequence[Sequence[float]]
"""A row for each step; a row has a column for each task learned so far, at least, and may have more."""


@final
@dataclass(frozen=True)
class ContinualMetrics:
    """The figures of a sequence of ``k`` tuning steps, in percent and percentage points.

    Attributes:
        steps: ``k``.
        ap, just_learned, masr, dasr: after the last step, as at the top of the file.
        bwt: likewise; None where there is one step, after which nothing can have been forgotten.
        ap_over_steps, masr_over_steps, dasr_over_steps: means of the figures after each step.
    """

    steps: int
    ap: float
    bwt: float | None
    just_learned: float
    masr: float
    dasr: float
    ap_over_steps: float
    masr_over_steps: float
    dasr_over_steps: float


def continual_metrics(performance: Matrix, attacks: Matrix, aligned_attacks: Sequence[float]) -> ContinualMetrics:
    """Every metric of a sequence.

    Args:
        performance: ``A``, ``[k][≥ t]``.
        attacks: ``R`` from step 1, ``[k][sets]``.
        aligned_attacks: ``R_0``, ``[sets]``.

    Raises:
        ValueError: a row is too short, the rows do not belong together, or a figure that is needed is not finite.
    """
    if len(performance) != len(attacks):
        raise ValueError(f"{len(performance)} steps have performances and {len(attacks)} have attack success rates")
    so_far = range(1, len(performance) + 1)
    return ContinualMetrics(
        steps=len(performance),
        ap=average_performance(performance),
        bwt=backward_transfer(performance) if len(performance) > 1 else None,
        just_learned=just_learned(performance),
        masr=mean_attack_success(attacks),
        dasr=rise_in_attack_success(attacks, aligned_attacks),
        ap_over_steps=fmean(average_performance(performance[:t]) for t in so_far),
        masr_over_steps=fmean(mean_attack_success(attacks[:t]) for t in so_far),
        dasr_over_steps=fmean(rise_in_attack_success(attacks[:t], aligned_attacks) for t in so_far),
    )


def average_performance(performance: Matrix) -> float:
    """AP: the mean over the tasks learned so far, after the last step."""
    return _mean(_learned(performance)[-1])


def backward_transfer(performance: Matrix) -> float:
    """BWT: what the tasks before the last have gained since they were learned; negative where they were forgotten.

    Raises:
        ValueError: there is no task before the last.
    """
    rows = _learned(performance)
    if len(rows) < 2:
        raise ValueError("backward transfer needs two steps or more")
    return _mean([after - rows[task][task] for task, after in enumerate(rows[-1][:-1])])


def just_learned(performance: Matrix) -> float:
    """The mean over the tasks of the performance right after the step that taught it."""
    return _mean([row[-1] for row in _learned(performance)])


def mean_attack_success(attacks: Matrix) -> float:
    """MASR: the mean over the safety sets, after the last step."""
    if not attacks:
        raise ValueError("a sequence has one step or more")
    return _mean(attacks[-1])


def rise_in_attack_success(attacks: Matrix, aligned_attacks: Sequence[float]) -> float:
    """DASR: how far MASR lies over that of the first aligned model.

    Args:
        attacks: ``R`` from step 1, ``[k][sets]``.
        aligned_attacks: ``R_0``, ``[sets]``.
    """
    if any(len(row) != len(aligned_attacks) for row in attacks):
        raise ValueError("the steps have attack success rates on other safety sets than the aligned model")
    return mean_attack_success(attacks) - _mean(aligned_attacks)


def _learned(performance: Matrix) -> list[Sequence[float]]:
    """Of each row the tasks learned so far."""
    if not performance:
        raise ValueError("a sequence has one step or more")
    for step, row in enumerate(performance, start=1):
        if len(row) < step:
            raise ValueError(f"step {step} has performances on {len(row)} tasks, and {step} were learned by then")
    return [row[:step] for step, row in enumerate(performance, start=1)]


def _mean(values: Sequence[float]) -> float:
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError("a figure that the mean is taken of is missing")
    return fmean(values)
