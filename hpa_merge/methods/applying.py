"""One linear weight by the rule that the options name: functions of ``core`` and ``methods`` with a merge's options.

This is the one place where a rule meets a weight; another rule is another function of this kind.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from hpa_merge.config import HPAConfig
from hpa_merge.core import (
    Inverse,
    Selection,
    Update,
    column_budget,
    fuse,
    measure_update,
    retained_share,
    select_columns,
)
from hpa_merge.methods import interpolate, model_patch, most_changed, operate, random_columns, select_deltas

Curved = Tensor | Inverse | None
"""What is known of one side's curvature: ``[H⁻¹]_jj``, ``[c]``, or all of ``H⁻¹``, or nothing."""


@final
@dataclass(frozen=True)
class Adapted:
    """An adapted weight and how it came about.

    Attributes:
        weight: ``Ŵ``, ``[r, c]`` in NEW's dtype; rows that OLD has not are NEW's.
        update: what was measured of ``ΔW``.
        share: ``p`` in percent; None where the method has none, as below.
        selection: the kept columns.
        kappa: the ``κ`` that was used: 0 without the orthogonal step.
        figures: what else the report says of it, by field.
    """

    weight: Tensor
    update: Update
    share: float | None = None
    selection: Selection | None = None
    kappa: float | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def energy_put_back(self) -> float | None:
        """The share of ``‖ΔW‖²_F`` that lies in what is put back; None where nothing is as a whole."""
        if self.selection is None:
            return self.figures.get("energy_put_back")
        energy = self.update.energy
        return float(energy[self.selection.kept].sum() / energy.sum()) if self.update.change > 0.0 else 0.0

    @property
    def relative_update(self) -> float | None:
        """``‖ΔW‖_F / ‖W_old‖_F``; None where ``W_old`` is zero."""
        return (self.update.change / self.update.old_norm) ** 0.5 if self.update.old_norm > 0.0 else None


def adapt(
    old: Tensor,
    new: Tensor,
    safety: Curved,
    task: Curved,
    *,
    block: int,
    blocks: int,
    configs: Sequence[HPAConfig],
    name: str = "",
) -> Iterator[Adapted]:
    """``Ŵ`` of the weight ``old`` ``[r, c]`` that tuning turned into ``new``, at depth ``block`` of ``blocks``.

    Args:
        new: it may have more rows (a head whose vocabulary grew): only those of ``old`` are measured and adapted.
        safety: ``H_s⁻¹`` of OLD's activations on the safety set; as much of it as the methods of ``configs`` need.
        task: ``H_t⁻¹`` of NEW's activations on the task set; likewise.
        configs: the options, of which there may be several: the update is measured once.
        name: the weight's, which ``random`` draws by.

    Yields:
        What comes of it with each of ``configs``.
    """
    update = measure_update(old, new[: len(old)])
    for config in configs:
        if config.method in ("hpa", "random", "energy"):
            yield _columns(old, new, update, safety, task, block=block, blocks=blocks, config=config, name=name)
        elif config.method == "safe-delta":
            yield _safe_delta(old, new, update, safety, config)
        elif config.method == "model-tailor":
            yield _model_tailor(old, new, update, task, config)
        elif config.method == "linear":
            weight = interpolate(old, new[: len(old)], config.weight)
            yield Adapted(with_new_rows(weight, new), update)
        else:  # blocks: the plan includes those that are put back alone
            figures = {"kept_share": 1.0, "energy_put_back": 1.0}
            yield Adapted(with_new_rows(old.to(new.dtype), new), update, figures=figures)


def _columns(
    old: Tensor,
    new: Tensor,
    update: Update,
    safety: Curved,
    task: Curved,
    *,
    block: int,
    blocks: int,
    config: HPAConfig,
    name: str,
) -> Adapted:
    """HPA, and the controls that put as many columns back."""
    share = retained_share(block, blocks, config.p_max, config.p_min)
    rows, columns = old.shape
    n_keep = column_budget(share, columns)
    if config.method == "hpa":
        selection = select_columns(
            update.energy,
            _diagonal(safety),
            _diagonal(task),
            n_keep=n_keep,
            n_focus=column_budget(share, columns, config.focus_ratio),
            alpha_min=config.alpha_min,
            alpha_max=config.alpha_max,
            selection=config.selection,
            saliency=config.saliency,
        )
    elif config.method == "random":
        selection = Selection(random_columns(columns, n_keep, config.seed, name), n_keep)
    else:
        selection = Selection(most_changed(update.energy, n_keep), n_keep)
    kappa = update.kappa if config.orthogonal else 0.0
    weight = with_new_rows(fuse(old, new[:rows], selection.kept, kappa), new)
    return Adapted(weight, update, float(share), selection, kappa)


def _safe_delta(old: Tensor, new: Tensor, update: Update, safety: Curved, config: HPAConfig) -> Adapted:
    rows = len(old)
    chosen = select_deltas(old, new[:rows], update.energy, _diagonal(safety), config.safety_budget)
    mask = chosen.mask(rows)
    weight = operate(old, new[:rows], mask, _whole(safety) if config.compensation else None, new.dtype)
    figures = {
        **put_back(old, new, ~mask, update),
        "new_columns": chosen.whole,
        "split_column": chosen.split,
        "split_rows": chosen.rows if chosen.split is not None else None,
        "safety_cost": chosen.cost,
        "safety_budget": chosen.budget,
    }
    return Adapted(with_new_rows(weight, new), update, figures=figures)


def _model_tailor(old: Tensor, new: Tensor, update: Update, task: Curved, config: HPAConfig) -> Adapted:
    rows = len(old)
    rest = ~model_patch(old, new[:rows], _diagonal(task), config.patch_share)
    weight = operate(new[:rows], old, rest, _whole(task) if config.compensation else None, new.dtype)
    return Adapted(with_new_rows(weight, new), update, figures=put_back(old, new, rest, update))


def put_back(old: Tensor, new: Tensor, mask: Tensor, update: Update) -> dict[str, float]:
    """How much of a weight, and of the square of its update, lies in the values ``mask`` ``[r, c]``."""
    mask = mask.to(old.device)
    change = sum(
        float((b.double() - a.double()).square_()[m].sum())
        for a, b, m in zip(old.split(256), new[: len(old)].split(256), mask.split(256), strict=True)
    )
    return {
        "kept_share": int(mask.sum()) / mask.numel() if mask.numel() else 0.0,
        "energy_put_back": change / update.change if update.change > 0.0 else 0.0,
    }


def _diagonal(curved: Curved) -> Tensor:
    if curved is None:
        raise RuntimeError("a method was asked for without the curvature that it needs")
    return curved.diagonal if isinstance(curved, Inverse) else curved


def _whole(curved: Curved) -> Inverse:
    if not isinstance(curved, Inverse):
        raise RuntimeError("a method was asked for without the inverse that it needs")
    return curved


def with_new_rows(weight: Tensor, new: Tensor) -> Tensor:
    """``weight`` ``[r, c]`` followed by the rows that ``new`` has beyond those, if it has any."""
    return weight if len(weight) == len(new) else torch.cat([weight, new[len(weight) :]])


def differ(old: Tensor, new: Tensor) -> bool:
    """Whether tuning changed a weight, ``[r, c]``, in NEW's dtype; ``new`` may have further rows."""
    return not torch.equal(old.to(new.dtype), new[: len(old)])
