"""Harmonious Parameter Adaptation (Wang et al., CVPR 2026, arXiv 2511.20158): it restores whole input columns.

    ε̄_j = e_j / [H_s⁻¹]_jj,  ζ̄_j = e_j / [H_t⁻¹]_jj      focus scores; e_j = (1/r) Σ_i ΔW_ij²
    p = p_max − (l/L)(p_max − p_min)                     the share of the columns that is restored, in percent
    S, T = the n_focus columns of largest ε̄, ζ̄          O = S ∩ T
    M = S∖O by ε̄, then O by φ_j = ε̄_j − α ζ̄_j           the n_restored columns to restore
    Ŵ = W_old on M, W_new − κ W_old elsewhere            κ = ⟨ΔW, W_old⟩_F / ‖W_old‖²_F

``W_old``, ``W_new`` and ``Ŵ`` are ``[r, c]``; scores and ``M`` are vectors over the ``c`` columns; ``l`` is the depth
of the block, of ``L``. All of this is computed in :mod:`hpa_merge.core`: :mod:`~hpa_merge.core.hessian` (``H_s``,
``H_t``), :mod:`~hpa_merge.core.adjustment` (``e_j``, ``κ``, ``Ŵ``), :mod:`~hpa_merge.core.selection` (the rest). The
controls :mod:`control_random` and :mod:`control_energy` restore as many columns and take the same step elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from hpa_merge.methods.rule import NOT_NEGATIVE, PERCENT, Bound, Rule, Strength, option
from hpa_merge.methods.weight import Adapted, Redone, Weight
from hpa_merge.methods.what_if import Grid, Slider, grid_of, with_own

if TYPE_CHECKING:
    from torch import Tensor

    from hpa_merge.core import Selection

__all__ = ["BIBTEX", "RULE", "STEP", "STRENGTH", "Options", "grid", "share", "share_at"]

TIE = 1e-9
"""How far ``α`` may lie outside its bounds because of rounding, relative."""

STEP = ("p_max", "p_min", "orthogonal", "orthogonal_by", "depth_range")
"""The options that the controls share."""

STRENGTH = Strength("p_max", (5, 10, 15, 20, 30, 45), ratios={"p_min": 1 / 3})
"""The controls have it too. ``p_min`` is a third of ``p_max``, as in the paper."""

P_MAX, P_MIN = (5, 10, 15, 20, 25, 30, 40, 50), (0, 1 / 3, 2 / 3, 1)
ALPHA = ((0, 0), (0.2, 0.4), (0.4, 0.8), (0.8, 1.6))
"""What the grid has besides the merge's own: ``p_max``, the ratio of ``p_min`` to it, and the bounds of ``α``."""

BIBTEX = """\
@inproceedings{wang2026harmonious,
  title     = {Harmonious Parameter Adaptation in Continual Visual Instruction Tuning for Safety-Aligned {MLLMs}},
  author    = {Wang, Ziqi and Che, Chang and Wang, Qi and Ma, Hui and Shi, Zenglin and Snoek, Cees G. M. and \
Wang, Meng},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2026},
  note      = {arXiv:2511.20158}
}"""


@dataclass(frozen=True)
class Options:
    """HPA's own options; the defaults are the paper's."""

    p_max: float = option(15.0, "Percent of the columns restored in the first block.", PERCENT)
    p_min: float = option(5.0, "Percent of the columns restored after the last block.", PERCENT, most="p_max")
    focus_ratio: float = option(
        2.0,
        "Size of the focus sets, as a multiple of the restored columns.",
        Bound(lambda x: x >= 1.0, "at least 1, because the restored columns come from the focus set"),
    )
    alpha_min: float = option(
        0.4, "Least weight of the task score in the balanced score.", NOT_NEGATIVE, most="alpha_max"
    )
    alpha_max: float = option(0.8, "Greatest weight of the task score in the balanced score.", NOT_NEGATIVE)
    selection: Literal["balanced", "safety", "shared"] = option(
        "balanced", "Which columns are restored: balanced is the method, the others are its ablations."
    )
    orthogonal: bool = option(True, "Remove the part of the update that points along the old weights.")
    saliency: Literal["quotient", "product"] = option(
        "quotient", "Focus score: energy divided by [H⁻¹]_jj, or multiplied by it."
    )
    orthogonal_by: Literal["matrix", "row", "column"] = option(
        "matrix", "Orthogonal step: one κ for a weight, or one for each of its rows or columns."
    )
    depth_range: Literal["zero-based", "one-based", "full"] = option(
        "zero-based", "Depth l/L of a block: l from 0 to L - 1, from 1 to L, or from 0 to L in equal steps."
    )
    hessian_scale: Literal["mean", "sum"] = option("mean", "The Hessian as mean over the tokens, or as their sum.")
    averaging: Literal["mean-log", "log-mean"] = option(
        "mean-log", "Balance α from the mean of the logarithms of ε̄/ζ̄, or from the logarithm of their mean."
    )
    excess: Literal["cut", "keep"] = option(
        "cut", "Columns that only safety needs, beyond the share to restore: leave them to NEW, or restore them too."
    )


def share_at(options: Options, block: int, blocks: int) -> Fraction:
    """``p``, in percent, at depth ``block`` of ``blocks``, as ``depth_range`` counts it."""
    from hpa_merge.core import retained_share

    if options.depth_range == "one-based":
        block = min(block + 1, blocks)
    elif options.depth_range == "full" and blocks > 1:
        block, blocks = min(block, blocks - 1), blocks - 1
    return retained_share(block, blocks, options.p_max, options.p_min)


def inverse_of(weight: Weight, options: Options, purpose: str) -> Tensor:
    """``[H⁻¹]_jj`` of a set, ``[c]``, with ``H`` as mean or as sum."""
    inverse = weight.diagonal[purpose]
    return inverse / weight.tokens[purpose] if options.hessian_scale == "sum" else inverse


def adapt(weight: Weight, options: Options) -> Adapted:
    """``Ŵ``; it uses both diagonals."""
    from hpa_merge.core import select_columns
    from hpa_merge.methods.columns import adapt_columns, budget

    selection = select_columns(
        weight.update.energy,
        inverse_of(weight, options, "safety"),
        inverse_of(weight, options, "task"),
        n_restored=budget(weight, options),
        n_focus=budget(weight, options, options.focus_ratio),
        alpha_min=options.alpha_min,
        alpha_max=options.alpha_max,
        selection=options.selection,
        saliency=options.saliency,
        averaging=options.averaging,
        excess=options.excess,
    )
    return adapt_columns(weight, options, selection, {"what_if": _shares(weight, options)})


def grid(options: Options, *, weighing: bool = False) -> Grid:
    """The settings around ``options``; ``weighing``: those of ``α`` too."""
    return _grid(options.p_max, options.p_min, (options.alpha_min, options.alpha_max) if weighing else None)


@lru_cache(maxsize=64)
def _grid(p_max: float, p_min: float, alphas: tuple[float, float] | None) -> Grid:
    ratio = p_min / p_max if p_max else P_MIN[1]

    def setting(most: float, of_most: float, bounds: tuple[float, float] | None) -> dict[str, float]:
        least = p_min if (most, of_most) == (p_max, ratio) else min(most, round(most * of_most, 1))
        return {"p_max": most, "p_min": least} | (
            {} if bounds is None else {"alpha_min": bounds[0], "alpha_max": bounds[1]}
        )

    return grid_of(
        (
            (Slider("p_max: columns restored in the first block", ("p_max",), " %"), with_own(P_MAX, p_max)),
            (Slider("p_min: columns restored after the last block", ("p_min",), " %"), with_own(P_MIN, ratio)),
            (
                Slider("α: weight of the task", ("alpha_min", "alpha_max")),
                ((None,), 0) if alphas is None else with_own(ALPHA, alphas),
            ),
        ),
        setting,
    )


def _weighing(options: Options) -> Grid:
    """The grid of the rule itself; ``α`` has no part in the choice by safety alone."""
    return grid(options, weighing=options.selection != "safety")


def _shares(weight: Weight, options: Options) -> list[float]:
    """The share of the update that each setting of the grid restores."""
    from hpa_merge.core import energies_restored
    from hpa_merge.methods.columns import budgets

    settings, ratio = _weighing(options).settings, options.focus_ratio
    sizes = [*zip(budgets(weight, options, settings), budgets(weight, options, settings, ratio), strict=True)]
    alphas = [(s.get("alpha_min", options.alpha_min), s.get("alpha_max", options.alpha_max)) for s in settings]
    rows, columns = list(dict.fromkeys(sizes)), list(dict.fromkeys(alphas))
    energy = weight.update.energy
    sums = energies_restored(
        energy,
        inverse_of(weight, options, "safety"),
        inverse_of(weight, options, "task"),
        budgets=rows,
        alphas=columns,
        selection=options.selection,
        saliency=options.saliency,
        averaging=options.averaging,
        excess=options.excess,
    )
    shares = (sums / energy.sum()).tolist() if weight.update.change > 0.0 else sums.tolist()
    row_of, column_of = ({value: place for place, value in enumerate(each)} for each in (rows, columns))
    return [shares[row_of[size]][column_of[alpha]] for size, alpha in zip(sizes, alphas, strict=True)]


def share(options: Options, block: int, blocks: int) -> float:
    """``p``, in percent, at depth ``block`` of ``blocks``."""
    return float(share_at(options, block, blocks))


def no_lora(options: Options) -> str:
    """Restored columns leave the update's rank as it is; the orthogonal step does not."""
    reason = "its orthogonal step subtracts a part of OLD's whole weight: leave it out with --no-orthogonal"
    return reason if options.orthogonal else ""


def check(weight: Weight, options: Options, said: Mapping[str, Any], found: Tensor) -> Redone:
    """The weight with the columns of the report, and the claims about them that no samples can lead to."""
    from hpa_merge.core import Selection
    from hpa_merge.methods.columns import budget, check_columns

    n_restored, n_focus = budget(weight, options), budget(weight, options, options.focus_ratio)
    selection = Selection(said["restored"], n_restored, n_focus, said["n_shared"], said["alpha"])
    return check_columns(weight, options, selection, said, _impossible(weight, options, selection, said))


def _impossible(weight: Weight, options: Options, selection: Selection, said: Mapping[str, Any]) -> Iterator[str]:
    """The claims about the choice of columns that no samples can lead to, a sentence each."""
    energy, n_shared, alpha = weight.update.energy, selection.n_shared, selection.alpha
    n_restored, n_focus, restored = selection.n_restored, selection.n_focus or 0, int(selection.restored.sum())
    columns = len(energy)
    if n_shared is None or not max(0, 2 * n_focus - columns) <= n_shared <= n_focus:
        yield f"two sets of {n_focus} of {columns} columns cannot share {n_shared}."
        return
    wanted = min(n_restored, n_shared) if options.selection == "shared" else n_restored
    if options.selection == "balanced" and options.excess == "keep":
        wanted = max(n_restored, n_focus - n_shared)
    if restored != wanted:
        yield f"{restored} columns are restored in the report, and {wanted} are required."
    allowed = allowed_columns(energy, n_restored if options.selection == "safety" else n_focus)
    if beyond := int((selection.restored & ~allowed).sum()):
        yield f"{beyond} of the restored columns did not change, and no samples can choose them."
    low, high = options.alpha_min, options.alpha_max
    if alpha is None or not low * (1 - TIE) <= alpha <= high * (1 + TIE):
        yield f"α is {alpha} in the report, and has to lie between {low:g} and {high:g}."
    cells = said["saliency"].values()
    totals = sum(columns for columns, _ in cells), sum(of_restored for _, of_restored in cells)
    if totals != (int((energy > 0).sum()), int(selection.restored[energy > 0].sum())):
        yield "saliency does not count each changed column once."


def allowed_columns(energy: Tensor, size: int) -> Tensor:
    """The columns that can be among the ``size`` of largest focus score, whatever the curvature; ``[c]`` bool.

    An unchanged column scores 0. It ranks after all changed columns and before unchanged ones of a higher index.
    """
    allowed = energy > 0.0
    if (missing := size - int(allowed.sum())) > 0:
        allowed[(~allowed).nonzero().squeeze(1)[:missing]] = True
    return allowed


def explains(said: Tensor, selection: Selection, options: Options) -> bool:
    """Whether rounding can turn a selection into the report's columns.

    A column whose score lies at a threshold may fall on either side of it, and moves one other column into or out of
    ``M``. So there are at most as many exchanges as columns within :data:`~hpa_merge.core.rounding.NEAR` of a
    threshold.

    Args:
        said: the report's restored columns, ``[c]`` bool.
        selection: the selection made here.
    """
    from hpa_merge.core.rounding import NEAR
    from hpa_merge.methods.columns import largest

    if selection.epsilon is None or selection.zeta is None or selection.alpha is None or selection.n_focus is None:
        return said.equal(selection.restored)
    epsilon, zeta, n_focus = selection.epsilon, selection.zeta, selection.n_focus
    phi = epsilon - selection.alpha * zeta
    width = NEAR * (epsilon + selection.alpha * zeta)  # for φ, which is a difference
    everything = selection.restored | ~selection.restored
    if options.selection == "safety":
        near = _at(epsilon, selection.n_restored, NEAR * epsilon, everything)
    else:
        near = _at(epsilon, n_focus, NEAR * epsilon, everything) | _at(zeta, n_focus, NEAR * zeta, everything)
        shared = largest(epsilon, n_focus) & largest(zeta, n_focus)
        alone = largest(epsilon, n_focus) & ~shared
        if options.selection == "balanced" and options.excess == "cut":
            near |= _at(epsilon, selection.n_restored, NEAR * epsilon, alone)
        left = selection.n_restored - (int(alone.sum()) if options.selection == "balanced" else 0)
        near |= _at(phi, left, width, shared)
    return int((said ^ selection.restored).sum()) <= 2 * int(near.sum())


def _at(score: Tensor, count: int, width: Tensor, among: Tensor) -> Tensor:
    """The columns ``among`` whose score is within ``width`` of the threshold after the ``count`` largest; ``[c]``."""
    ordered = score[among].sort(descending=True).values
    if not 0 < count < len(ordered):
        return among & ~among
    low, high = ordered[count], ordered[count - 1]
    return among & (score + width >= high) & (score - width <= low)


RULE = Rule(
    name="hpa",
    does="[the method of this package](method.md)",
    paper="[Harmonious Parameter Adaptation](https://arxiv.org/abs/2511.20158) (Wang et al., CVPR 2026)",
    bibtex=BIBTEX,
    sets=("safety", "task"),
    options=(
        *("p_max", "p_min", "focus_ratio", "alpha_min", "alpha_max", "selection", "orthogonal", "saliency"),
        *("orthogonal_by", "depth_range", "hessian_scale", "averaging", "excess"),
    ),
    strength=STRENGTH,
    adapt=adapt,
    check=check,
    explains=explains,
    by_columns=True,
    computes=True,
    of_samples=("n_shared", "alpha", "restored", "saliency", "what_if"),
    share=share,
    grid=_weighing,
    no_lora=no_lora,
)
