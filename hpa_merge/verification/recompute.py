"""An adapted weight as its method makes it of OLD's and NEW's; the samples' part in it is taken from the report."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, final

import torch
from torch import Tensor

from hpa_merge.config import HPAConfig
from hpa_merge.core import Selection, Update, column_budget, fuse, measure_update, retained_share
from hpa_merge.methods import interpolate, most_changed, random_columns
from hpa_merge.methods.applying import Adapted, put_back
from hpa_merge.report.records import LinearRecord
from hpa_merge.report.saliency import unpack_cells
from hpa_merge.verification.values import bits, close, differing, mask_of, slack

__all__ = ["OF_SAMPLES", "TIE", "Redone", "redo"]

TIE = 1e-9
"""Energies of columns that are no further apart, relative to the greater, may change places with the order of sums."""

OF_SAMPLES: dict[str, tuple[str, ...]] = {
    "hpa": ("n_shared", "alpha", "kept", "saliency"),
    "safe-delta": ("new_columns", "split_column", "split_rows", "safety_cost", "safety_budget"),
    "model-tailor": ("energy_put_back",),
}
"""By method, the fields of a record that the samples decide."""


@final
@dataclass(frozen=True)
class Redone:
    """A weight made again.

    Attributes:
        adapted: it, and the figures of it; values that the samples decide are those that were found.
        compared: the values that were made again, ``[r, c]`` bool each; whether another device may round them
            otherwise; and what is said of one that differs.
        problems: what of the report cannot have come of any samples, a sentence each.
        open: how many values the samples decide.
    """

    adapted: Adapted
    compared: tuple[tuple[Tensor, bool, str], ...]
    problems: tuple[str, ...] = ()
    open: int = 0


def redo(
    config: HPAConfig, record: LinearRecord, depth: int, blocks: int, old: Tensor, new: Tensor, found: Tensor
) -> Redone:
    """Make a weight again.

    Args:
        record: what the report has of it.
        depth, blocks: where it stands.
        old, new, found: OLD's, NEW's and OUT's, ``[r, c]`` each.
    """
    update = measure_update(old, new)
    if config.method == "linear":
        weight = interpolate(old, new, config.weight)
        what = f"are not OLD + {config.weight:g} · (NEW − OLD)"
        return Redone(Adapted(weight, update), ((torch.ones_like(weight, dtype=torch.bool), True, what),))
    if config.method == "blocks":
        weight = old.to(new.dtype)
        adapted = Adapted(weight, update, figures={"kept_share": 1.0, "energy_put_back": 1.0})
        return Redone(adapted, ((torch.ones_like(weight, dtype=torch.bool), False, "are not OLD's"),))
    if config.method == "safe-delta":
        return _safe_delta(config, record, old, new, found, update)
    if config.method == "model-tailor":
        return _model_tailor(config, record, old, new, found, update)
    return _columns(config, record, depth, blocks, old, new, update)


def allowed_columns(energy: Tensor, size: int) -> Tensor:
    """The columns that can be among the ``size`` of largest focus score, whatever the curvature; ``[c]`` bool.

    A column that did not change scores 0: it comes after all that did, and before those of a higher index.
    """
    allowed = energy > 0.0
    if (missing := size - int(allowed.sum())) > 0:
        allowed[(~allowed).nonzero().squeeze(1)[:missing]] = True
    return allowed


def _columns(
    config: HPAConfig, record: LinearRecord, depth: int, blocks: int, old: Tensor, new: Tensor, update: Update
) -> Redone:
    """HPA with the columns of the report; of the controls, which take no samples, with their own."""
    columns, problems = old.shape[1], list[str]()
    share = retained_share(depth, blocks, config.p_max, config.p_min)
    n_keep = column_budget(share, columns)
    kept = mask_of(record.kept, columns)
    selection = Selection(kept, n_keep)
    if config.method == "hpa":
        n_focus = column_budget(share, columns, config.focus_ratio)
        selection = Selection(kept, n_keep, n_focus, record.n_shared, record.alpha)
        problems += _impossible(config, record, selection, update.energy)
    elif config.method == "random":
        selection = replace(selection, kept=random_columns(columns, n_keep, config.seed, record.name))
    else:
        selection = replace(selection, kept=_most_changed(kept, update.energy, n_keep))
    if not torch.equal(kept, selection.kept):
        how = f"seed {config.seed} draws" if config.method == "random" else "changed most"
        problems.append(f"{record.name}: the columns put back are not the {n_keep} that {how}.")
    kappa = update.kappa if config.orthogonal else 0.0
    if record.kappa is not None and close(record.kappa, kappa, slack(old, update)):
        kappa = record.kappa  # to the last bit as the merge had it: its sums may have been taken in another order
    weight = fuse(old, new, selection.kept, kappa)
    here = selection.kept.expand_as(weight)
    compared = (
        (here, False, "in columns put back are not OLD's"),
        (~here, True, f"outside the columns put back are not NEW − {kappa:.3g} · OLD"),
    )
    return Redone(Adapted(weight, update, float(share), selection, kappa), compared, tuple(problems))


def _impossible(config: HPAConfig, record: LinearRecord, selection: Selection, energy: Tensor) -> Iterator[str]:
    """What of the choice of columns cannot have come of any samples."""
    n_keep, n_focus, kept = selection.n_keep, selection.n_focus or 0, int(selection.kept.sum())
    n_shared, columns = record.n_shared, len(energy)
    if n_shared is None or not max(0, 2 * n_focus - columns) <= n_shared <= n_focus:
        yield f"{record.name}: two sets of {n_focus} of {columns} columns cannot share {n_shared}."
        return
    wanted = min(n_keep, n_shared) if config.selection == "shared" else n_keep
    if kept != wanted:
        yield f"{record.name}: {kept} columns are put back in the report, and {wanted} have to be."
    allowed = allowed_columns(energy, n_keep if config.selection == "safety" else n_focus)
    if beyond := int((selection.kept & ~allowed).sum()):
        yield f"{record.name}: {beyond} of the columns put back did not change, and no samples choose them."
    low, high = config.alpha_min, config.alpha_max
    if record.alpha is None or not low * (1 - TIE) <= record.alpha <= high * (1 + TIE):
        yield f"{record.name}: α is {record.alpha} in the report, and lies between {low:g} and {high:g}."
    cells = unpack_cells(record.saliency or "").values()
    totals = sum(columns for columns, _ in cells), sum(of_kept for _, of_kept in cells)
    if totals != (int((energy > 0).sum()), int(selection.kept[energy > 0].sum())):
        yield f"{record.name}: saliency does not have each column that changed once."


def _safe_delta(
    config: HPAConfig, record: LinearRecord, old: Tensor, new: Tensor, found: Tensor, update: Update
) -> Redone:
    """Safe Delta with NEW's values of the report; the others are OLD's, or take the inverse to compensate."""
    problems = []
    mask = mask_of(record.new_columns, record.columns).expand(len(old), -1).clone()
    if record.split_column is not None and record.split_rows is not None:
        if mask[:, record.split_column].any():
            problems.append(f"{record.name}: the split column is whole in the report.")
        mask[: record.split_rows, record.split_column] = True
    cost, budget = record.safety_cost, record.safety_budget
    if cost is None or budget is None or cost > budget or (record.split_column is None) != (record.split_rows is None):
        problems.append(f"{record.name}: the report does not say how safety was spent.")
    rest = ~mask
    weight = torch.where(mask, new, old.to(new.dtype))
    figures = {
        **put_back(old, new, rest, update),
        **{"new_columns": mask_of(record.new_columns, record.columns), "split_column": record.split_column},
        **{"split_rows": record.split_rows, "safety_cost": cost, "safety_budget": budget},
    }
    # A row of which nothing is NEW's has nothing to make up for.
    free = rest & (mask & differing(old, new)).any(dim=1, keepdim=True) if config.compensation else rest & False
    weight = torch.where(free, found, weight)
    compared = ((mask, False, "that the report calls NEW's are not"), (rest & ~free, False, "put back are not OLD's"))
    return Redone(Adapted(weight, update, figures=figures), compared, tuple(problems), int(free.sum()))


def _model_tailor(
    config: HPAConfig, record: LinearRecord, old: Tensor, new: Tensor, found: Tensor, update: Update
) -> Redone:
    """Model Tailor, whose patch the report does not hold: as many values as are not in it have to be OLD's.

    Which they are would take the samples; those that are neither OLD's nor NEW's are in the patch, and compensated.
    """
    count = math.floor(Fraction(str(config.patch_share)) * old.numel() / 100 + Fraction(1, 2))
    kept, of_old = old.numel() - count, bits(found) == bits(old.to(new.dtype))
    problems = []
    if int(of_old.sum()) < kept:
        problems.append(f"{record.name}: {int(of_old.sum())} of {old.numel()} values are OLD's, and {kept} have to be.")
    free = ~of_old if config.compensation and kept else of_old & False
    weight = torch.where(of_old | free, found, new)
    share = record.energy_put_back
    if share is None:
        problems.append(f"{record.name}: the report does not say how much of the update was put back.")
    figures: dict[str, Any] = {"kept_share": kept / old.numel() if old.numel() else 0.0, "energy_put_back": share}
    compared = ((~of_old & ~free, False, "are neither OLD's nor NEW's"),)
    return Redone(Adapted(weight, update, figures=figures), compared, tuple(problems), int(free.sum()))


def _most_changed(said: Tensor, energy: Tensor, count: int) -> Tensor:
    """The columns that changed most; those of the report where they differ in a tie alone."""
    chosen = most_changed(energy, count)
    swapped = energy[chosen ^ said]
    apart = float(swapped.max() - swapped.min()) / float(swapped.max()) if len(swapped) and swapped.max() > 0 else 0.0
    return said if int(said.sum()) == count and apart <= TIE else chosen
