"""Safe Delta: keep the changes of a weight that cost safety little (Lu et al., ICML 2025, arXiv 2505.12038, section 4).

    δL_m = δw_m² / (2[H_s⁻¹]_mm)                 the cost to safety of keeping the change δw_m, compensated: Theorem 4.1
    r_m = δw_m² / δL_m = 2[H_s⁻¹]_mm             utility over cost; the utility of a change is its square
    ε = s · (r c/4096²) · (1/(r c)) Σ_m 1/(2[H_s⁻¹]_mm)      the safety budget of a layer of r c values, s = 0.1
    M                                            greedily by r_m, the largest first, while Σ δL_m ≤ ε
    W = W_new in M,  W_old + the compensation elsewhere      C_m = δw_m/[H_s⁻¹]_mm · H_s⁻¹_{:,m} for one m ∈ M

``W_old``, ``W`` and the mask ``M`` are ``[r, c]``. A value ``m`` lies in a row and a column; ``C_m`` changes its row.
``H_s`` is the same ``c × c`` matrix for each row, so ``r_m`` depends on the column alone, and ``M`` consists of whole
columns and the beginning of one more. The scale of ``H_s`` cancels: it may be per token or per sample.

From the authors' code: the factor ``r c/4096²``, which the paper leaves out because its layers have that size, so that
``s`` bounds the mean cost of a value and means the same at every size; the values compensate from left to right
(:mod:`surgery`); ``--safety-floor 15`` leaves out the 15 % of the values with the smallest ``r_m``. Different here: the
code goes by blocks of 2048 columns, each with its own share of the budget, and of the 15 %; its ``[H_s⁻¹]_mm`` is the
square of the diagonal of the Cholesky factor of ``H_s⁻¹``, which leaves out the columns on the left; and it compensates
four columns at a time. The order of equal ``r_m`` is open: here the lower column goes first, and within a column the
lower row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, final

from hpa_merge.methods import surgery
from hpa_merge.methods.rule import NOT_NEGATIVE, PERCENT, Rule, Strength, option
from hpa_merge.methods.weight import Adapted, Redone, Weight, energy_within
from hpa_merge.methods.what_if import Grid, Slider, grid_of, with_own

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RULE", "DeltaSelection", "Options", "select_deltas"]

WIDTH = 4096
"""Rows and columns of the layers that ``s`` is given for: those of Llama 2 7B."""

BUDGETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""The values of ``s`` that the grid has besides the merge's own."""


@dataclass(frozen=True)
class Options:
    """``s``, with the paper's default, and the authors' floor, which the paper does not have."""

    safety_budget: float = option(
        0.1, "safe-delta: how much safety the kept changes may cost, s in the paper.", NOT_NEGATIVE
    )
    safety_floor: float = option(
        0.0, "safe-delta: percent of the values, of least utility for their cost, that are never kept.", PERCENT
    )


class Compensated(Options, surgery.Options):
    """The options that the rule reads."""


@final
@dataclass(frozen=True)
class DeltaSelection:
    """The changes of one weight that are kept.

    Attributes:
        whole: the columns whose changes are all kept, ``[c]`` bool.
        split: the column of which only the first rows are kept; None if there is none.
        rows: how many rows of that column are kept.
        cost: ``Σ_{m ∈ M} δL_m``.
        budget: ``ε``.
    """

    whole: Tensor
    split: int | None
    rows: int
    cost: float
    budget: float

    def mask(self, rows: int) -> Tensor:
        """``M``, ``[r, c]`` bool, for a weight of ``rows`` rows."""
        mask = self.whole.expand(rows, -1).clone()
        if self.split is not None:
            mask[: self.rows, self.split] = True
        return mask


def select_deltas(
    old: Tensor, new: Tensor, energy: Tensor, inverse: Tensor, safety_budget: float, floor: float = 0.0
) -> DeltaSelection:
    """``M`` of the weight ``old`` ``[r, c]`` that tuning turned into ``new``; float64 on the CPU.

    Args:
        energy: ``e_j = (1/r) Σ_i ΔW_ij²``, ``[c]``.
        inverse: ``[H_s⁻¹]_jj``, ``[c]``, positive.
        safety_budget: ``s``.
        floor: percent of the values that are never kept.
    """
    import torch

    energy, inverse = energy.to("cpu", torch.float64), inverse.to("cpu", torch.float64)
    budget = safety_budget * old.numel() / WIDTH**2 * float((0.5 / inverse).mean())
    order = torch.sort(inverse, descending=True, stable=True).indices
    costs = (old.shape[0] * energy / (2.0 * inverse))[order]  # of whole columns
    sums = costs.cumsum(0)
    most = old.numel() - math.floor(Fraction(str(floor)) * old.numel() / 100)  # values that may be kept
    count = min(int((sums <= budget).sum()), most // max(1, old.shape[0]))
    whole = torch.zeros(len(energy), dtype=torch.bool)
    whole[order[:count]] = True
    spent = float(sums[count - 1]) if count else 0.0
    if count == len(order):
        return DeltaSelection(whole, None, 0, spent, budget)
    split = int(order[count])
    delta = new[:, split].double() - old[:, split].double()
    within = spent + (delta.square() / (2.0 * float(inverse[split]))).cumsum(0).cpu()
    rows = min(int((within <= budget).sum()), most - count * old.shape[0])
    cost = float(within[rows - 1]) if rows else spent
    return DeltaSelection(whole, split if rows else None, rows, cost, budget)


def adapt(weight: Weight, options: Compensated) -> Adapted:
    """``W``; it uses the curvature of the safety set."""
    old, new, budget = weight.old, weight.new, options.safety_budget
    chosen = select_deltas(old, new, weight.update.energy, weight.diagonal["safety"], budget, options.safety_floor)
    mask = chosen.mask(len(old)).to(old.device)
    figures = {
        **_figures(weight, mask, surgery.free_values(mask, old != new, options)),
        "new_columns": chosen.whole,
        "split_column": chosen.split,
        "split_rows": chosen.rows if chosen.split is not None else None,
        "safety_cost": chosen.cost,
        "safety_budget": chosen.budget,
        "what_if": [_undone(weight, options, setting["safety_budget"]) for setting in grid(options).settings],
    }
    made = surgery.operate(old, new, mask, surgery.compensation_of(weight, options, "safety"), new.dtype)
    return Adapted(made, weight.update, figures=figures)


def grid(options: Options) -> Grid:
    """The settings around ``options``."""
    budgets = with_own(BUDGETS, options.safety_budget)
    slider = Slider("s: what the kept changes may cost safety", ("safety_budget",))
    return grid_of([(slider, budgets)], lambda budget: {"safety_budget": budget})


def _undone(weight: Weight, options: Options, safety_budget: float) -> float:
    """The share of the update that is not kept with another budget."""
    old, new, energy = weight.old, weight.new, weight.update.energy
    chosen = select_deltas(old, new, energy, weight.diagonal["safety"], safety_budget, options.safety_floor)
    kept = len(old) * float(energy[chosen.whole].sum())
    if (split := chosen.split) is not None:
        delta = new[: chosen.rows, split].double() - old[: chosen.rows, split].double()
        kept += float(delta.square().sum())
    return max(0.0, 1.0 - kept / weight.update.change) if weight.update.change > 0.0 else 0.0


def _figures(weight: Weight, mask: Tensor, free: Tensor) -> dict[str, float]:
    """What is OLD's, and what compensation may have changed; ``mask``, ``free``: ``[r, c]`` bool."""
    return {**surgery.shares(~mask & ~free, free), "energy_restored": energy_within(weight, ~mask)}


def check(weight: Weight, options: Compensated, said: Mapping[str, Any], found: Tensor) -> Redone:
    """The weight with NEW's values where the report says so; the others are OLD's, or compensate."""
    old, new, problems = weight.old, weight.new, []
    mask = said["new_columns"].expand(len(old), -1).clone()
    if said["split_column"] is not None and said["split_rows"] is not None:
        if mask[:, said["split_column"]].any():
            problems.append(f"{weight.name}: the split column is whole in the report.")
        mask[: said["split_rows"], said["split_column"]] = True
    cost, budget, split = said["safety_cost"], said["safety_budget"], (said["split_column"], said["split_rows"])
    if cost is None or budget is None or cost > budget or split.count(None) == 1:
        problems.append(f"{weight.name}: the report does not say how safety was spent.")
    rest, free = ~mask, surgery.free_values(mask, old != new, options)
    figures = {**_figures(weight, mask, free), **{name: said[name] for name in SPENT}}
    made = found.where(free, new.where(mask, old.to(new.dtype)))
    compared = (
        (mask, False, "are NEW's in the report and not in OUT"),
        (rest & ~free, False, "are restored in the report and not OLD's in OUT"),
    )
    return Redone(Adapted(made, weight.update, figures=figures), compared, tuple(problems), int(free.sum()))


SPENT = ("new_columns", "split_column", "split_rows", "safety_cost", "safety_budget")

RULE = Rule(
    name="safe-delta",
    does="changes are kept as long as they cost safety little; the other values compensate for them "
    "([Lu et al.](https://arxiv.org/abs/2505.12038))",
    paper="[Safe Delta](https://arxiv.org/abs/2505.12038) (Lu et al.)",
    sets=("safety",),
    takes=surgery.takes,
    base="old",
    options=("safety_budget", "safety_floor", *surgery.ORDER),
    strength=Strength("safety_budget", (1000, 100, 10, 1, 0.1, 0.01)),  # the budget does not follow the update's size
    adapt=adapt,
    check=check,
    of_samples=(*SPENT, "what_if"),
    grid=grid,
    bytes_per_value=8,  # masks, and the first given value of a row
    bytes_per_square=16,  # a factor in float64, while it is turned
)
