"""Harmonious Parameter Adaptation of one linear weight: ``core``'s functions with the options of a merge.

Another merge rule would be another function of this shape.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from hpa_merge.config import HPAConfig
from hpa_merge.core import Selection, Update, column_budget, fuse, measure_update, retained_share, select_columns


@final
@dataclass(frozen=True)
class Adapted:
    """An adapted weight and how it came about.

    Attributes:
        weight: ``Ŵ``, ``[r, c]`` in NEW's dtype; rows that OLD has not are NEW's.
        share: ``p`` in percent.
        selection: the kept columns.
        update: what was measured of ``ΔW``.
        kappa: the ``κ`` that was used: 0 without the orthogonal step.
    """

    weight: Tensor
    share: float
    selection: Selection
    update: Update
    kappa: float

    @property
    def energy_put_back(self) -> float:
        """The share of ``‖ΔW‖²_F`` that lies in the kept columns."""
        energy = self.update.energy
        return float(energy[self.selection.kept].sum() / energy.sum()) if self.update.change > 0.0 else 0.0

    @property
    def relative_update(self) -> float | None:
        """``‖ΔW‖_F / ‖W_old‖_F``; None where ``W_old`` is zero."""
        return (self.update.change / self.update.old_norm) ** 0.5 if self.update.old_norm > 0.0 else None


def adapt(
    old: Tensor,
    new: Tensor,
    inverse_safety: Tensor,
    inverse_task: Tensor,
    *,
    block: int,
    blocks: int,
    configs: Sequence[HPAConfig],
) -> Iterator[Adapted]:
    """``Ŵ`` of the weight ``old`` ``[r, c]`` that tuning turned into ``new``, at depth ``block`` of ``blocks``.

    Args:
        new: it may have more rows (a head whose vocabulary grew): only those of ``old`` are measured and adapted.
        inverse_safety: ``[H_s⁻¹]_jj``, ``[c]``, of OLD's activations on the safety set.
        inverse_task: ``[H_t⁻¹]_jj``, ``[c]``, of NEW's activations on the task set.
        configs: the options, of which there may be several: the update is measured once.

    Yields:
        What comes of it with each of ``configs``.
    """
    update = measure_update(old, new[: len(old)])
    for config in configs:
        yield _adapt(old, new, update, inverse_safety, inverse_task, block=block, blocks=blocks, config=config)


def _adapt(
    old: Tensor,
    new: Tensor,
    update: Update,
    inverse_safety: Tensor,
    inverse_task: Tensor,
    *,
    block: int,
    blocks: int,
    config: HPAConfig,
) -> Adapted:
    share = retained_share(block, blocks, config.p_max, config.p_min)
    rows, columns = old.shape
    selection = select_columns(
        update.energy,
        inverse_safety,
        inverse_task,
        n_keep=column_budget(share, columns),
        n_focus=column_budget(share, columns, config.focus_ratio),
        alpha_min=config.alpha_min,
        alpha_max=config.alpha_max,
        selection=config.selection,
        saliency=config.saliency,
    )
    kappa = update.kappa if config.orthogonal else 0.0
    weight = with_new_rows(fuse(old, new[:rows], selection.kept, kappa), new)
    return Adapted(weight, float(share), selection, update, kappa)


def with_new_rows(weight: Tensor, new: Tensor) -> Tensor:
    """``weight`` ``[r, c]`` followed by the rows that ``new`` has beyond those, if it has any."""
    return weight if len(weight) == len(new) else torch.cat([weight, new[len(weight) :]])


def differ(old: Tensor, new: Tensor) -> bool:
    """Whether tuning changed a weight, ``[r, c]``, in NEW's dtype; ``new`` may have further rows."""
    return not torch.equal(old.to(new.dtype), new[: len(old)])
