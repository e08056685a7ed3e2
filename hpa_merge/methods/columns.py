"""What the rules by columns share: ``W_old`` on the restored columns, ``W_new − κ W_old`` elsewhere.

HPA and its two controls differ only in the choice of the columns, which they pass in.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hpa_merge.core import Selection, column_budget, fuse, projections
from hpa_merge.core.rounding import close, slack
from hpa_merge.methods.hpa import Options, share_at
from hpa_merge.methods.weight import Adapted, Redone, Weight

__all__ = ["adapt_columns", "budget", "check_columns", "largest"]


def budget(weight: Weight, options: Options, ratio: float = 1.0) -> int:
    """``n_restored`` at the depth of a weight; with the focus ratio as ``ratio``, ``n_focus``."""
    share = share_at(options, weight.block, weight.blocks)
    return column_budget(share, weight.old.shape[1], ratio)


def adapt_columns(weight: Weight, options: Options, selection: Selection) -> Adapted:
    """``Ŵ`` with the columns of ``selection``."""
    return _fused(weight, options, selection, weight.update.kappa)


def check_columns(
    weight: Weight, options: Options, selection: Selection, said: Mapping[str, Any], problems: Iterable[str] = ()
) -> Redone:
    """The weight computed again with the columns of ``selection``.

    Args:
        said: the report's figures. If its ``κ`` is right up to rounding, it is used as it is, because the merge may
            have taken the sums in another order.
        problems: the problems found so far, each without the weight's name.
    """
    kappa = weight.update.kappa
    if said["kappa"] is not None and close(said["kappa"], kappa, slack(weight.old, weight.update)):
        kappa = said["kappa"]
    adapted = _fused(weight, options, selection, kappa)
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
    mask[torch.sort(score.cpu(), descending=True, stable=True).indices[:count]] = True
    return mask


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
