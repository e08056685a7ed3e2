"""What the rules by columns share: ``W_old`` on the restored columns, ``W_new − κ W_old`` elsewhere.

HPA and its two controls differ only in the choice of the columns, which they pass in.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from hpa_merge.core import Selection, column_budget, fuse, projections
from hpa_merge.core.rounding import close, slack
from hpa_merge.methods.hpa import Options, grid, share_at
from hpa_merge.methods.weight import Adapted, Redone, Weight

__all__ = ["adapt_columns", "budget", "budgets", "check_columns", "largest", "what_if"]


def budget(weight: Weight, options: Options, ratio: float = 1.0) -> int:
    """``n_restored`` at the depth of a weight; with the focus ratio as ``ratio``, ``n_focus``."""
    share = share_at(options, weight.block, weight.blocks)
    return column_budget(share, weight.old.shape[1], ratio)


def budgets(
    weight: Weight, options: Options, settings: Sequence[Mapping[str, float]], ratio: float = 1.0
) -> tuple[int, ...]:
    """:func:`budget` with the ``p_max`` and ``p_min`` of each setting."""
    ends = tuple((setting["p_max"], setting["p_min"]) for setting in settings)
    return _budgets(ends, options.depth_range, weight.block, weight.blocks, weight.old.shape[1], ratio)


@lru_cache(maxsize=1024)  # the weights of a block have the same
def _budgets(
    ends: tuple[tuple[float, float], ...], depth_range: Any, block: int, blocks: int, columns: int, ratio: float
) -> tuple[int, ...]:
    found = {}
    for p_max, p_min in dict.fromkeys(ends):
        options = Options(p_max=p_max, p_min=p_min, depth_range=depth_range)
        found[p_max, p_min] = column_budget(share_at(options, block, blocks), columns, ratio)
    return tuple(found[each] for each in ends)


def what_if(weight: Weight, options: Options, order: Tensor) -> dict[str, Any]:
    """The figure ``what_if`` of a control that restores the first columns of ``order`` ``[c]``."""
    energy = weight.update.energy
    sums = torch.cat([energy.new_zeros(1), energy[order].cumsum(0)])
    counts = torch.tensor(budgets(weight, options, grid(options).settings))
    return {"what_if": (sums[counts] / sums[-1] if weight.update.change > 0.0 else 0.0 * sums[counts]).tolist()}


def adapt_columns(
    weight: Weight, options: Options, selection: Selection, figures: Mapping[str, Any] | None = None
) -> Adapted:
    """``Ŵ`` with the columns of ``selection``; ``figures``: further ones for the report."""
    return replace(_fused(weight, options, selection, weight.update.kappa), figures=figures or {})


def check_columns(
    weight: Weight,
    options: Options,
    selection: Selection,
    said: Mapping[str, Any],
    problems: Iterable[str] = (),
    figures: Mapping[str, Any] | None = None,
) -> Redone:
    """The weight computed again with the columns of ``selection``.

    Args:
        said: the report's figures. If its ``κ`` is right up to rounding, it is used as it is, because the merge may
            have taken the sums in another order.
        problems: the problems found so far, each without the weight's name.
        figures: further ones of the weight.
    """
    kappa = weight.update.kappa
    if said["kappa"] is not None and close(said["kappa"], kappa, slack(weight.old, weight.update)):
        kappa = said["kappa"]
    adapted = replace(_fused(weight, options, selection, kappa), figures=figures or {})
    step = f"{adapted.kappa:.3g}" if adapted.kappas is None else f"κ of the {options.orthogonal_by}"
    here = selection.restored.expand_as(adapted.weight)
    compared = (
        (here, False, "in restored columns are not OLD's"),
        (~here, True, f"outside the restored columns are not NEW − {step} · OLD"),
    )
    return Redone(adapted, compared, tuple(f"{weight.name}: {problem}" for problem in problems))


def largest(score: Tensor, count: int) -> Tensor:
    """Mask ``[c]`` of the ``count`` columns of largest ``score`` ``[c]``; ties go to the lower index. On the CPU."""
    mask = torch.zeros(len(score), dtype=torch.bool)
    mask[by_size(score)[:count]] = True
    return mask


def by_size(score: Tensor) -> Tensor:
    """The columns by falling score, ``[c]``; ties go to the lower index. On the CPU."""
    return torch.sort(score.cpu(), descending=True, stable=True).indices


def _fused(weight: Weight, options: Options, selection: Selection, kappa: float) -> Adapted:
    """``Ŵ`` with the ``κ`` of the whole weight, if there is an orthogonal step and it takes that."""
    share, old, new = share_at(options, weight.block, weight.blocks), weight.old, weight.new
    if not options.orthogonal:
        kappa = 0.0
    kappas = None
    if options.orthogonal and options.orthogonal_by != "matrix":
        kappas = projections(old, new, 1 if options.orthogonal_by == "row" else 0)
    fused = fuse(old, new, selection.restored, kappa if kappas is None else kappas)
    times = None if options.orthogonal and (kappa or kappas is not None) else partial(_without, selection.restored)
    return Adapted(fused, weight.update, float(share), selection, kappa, kappas, times=times)


def _without(restored: Tensor, rows: Tensor) -> Tensor:
    """``rows`` ``[k, c]`` with zeros in the restored columns."""
    return rows.masked_fill(restored.to(rows.device), 0.0)
