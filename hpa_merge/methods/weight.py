"""What a rule is given of one linear weight, and what it gives back.

Imports no torch, as :mod:`rule` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from torch import Tensor

    from hpa_merge.core import Hessian, InverseHessian, Selection, Update

__all__ = ["Adapted", "Redone", "Weight", "restored_figures"]

ROWS = 256
"""Rows that are gone over at once."""


@final
@dataclass(frozen=True)
class Weight:
    """One linear weight before and after tuning, and what the samples say of its input.

    Attributes:
        name: of its tensor in NEW.
        old, new: ``W_old`` and ``W_new``, ``[r, c]``.
        update: what was measured of ``ΔW``.
        block, blocks: depth ``l`` of ``L``.
        diagonal: ``[H⁻¹]_jj``, ``[c]``, of each set that the rule looks at: ``safety`` of OLD's activations, ``task``
            of NEW's. None of them where it is checked without the samples.
        inverse: all of ``H⁻¹``, where the rule takes it.
        hessian: ``H`` itself, where the rule takes it.
    """

    name: str
    old: Tensor
    new: Tensor
    update: Update
    block: int
    blocks: int
    diagonal: Mapping[str, Tensor] = field(default_factory=dict)
    inverse: Mapping[str, InverseHessian] = field(default_factory=dict)
    hessian: Mapping[str, Hessian] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class Adapted:
    """An adapted weight and how it came about.

    Attributes:
        weight: ``Ŵ``, ``[r, c]`` in NEW's dtype.
        update: what was measured of ``ΔW``.
        share: ``p`` in percent; None where the method has none, as below.
        selection: the restored columns.
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
    def energy_restored(self) -> float | None:
        """The share of ``‖ΔW‖²_F`` that lies in what is restored; None where nothing is as a whole."""
        if self.selection is None:
            return self.figures.get("energy_restored")
        energy = self.update.energy
        return float(energy[self.selection.restored].sum() / energy.sum()) if self.update.change > 0.0 else 0.0

    @property
    def relative_update(self) -> float | None:
        """``‖ΔW‖_F / ‖W_old‖_F``; None where ``W_old`` is zero."""
        return (self.update.change / self.update.old_norm) ** 0.5 if self.update.old_norm > 0.0 else None


@final
@dataclass(frozen=True)
class Redone:
    """A weight made again without the samples.

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


def restored_figures(weight: Weight, mask: Tensor) -> dict[str, float]:
    """How much of a weight, and of the square of its update, lies in the values ``mask`` ``[r, c]``."""
    mask, change = mask.to(weight.old.device), 0.0
    for begin in range(0, len(mask), ROWS):
        rows = slice(begin, begin + ROWS)
        delta = weight.new[rows].double() - weight.old[rows].double()
        change += float(delta.square_()[mask[rows]].sum())
    return {
        "restored_share": int(mask.sum()) / mask.numel() if mask.numel() else 0.0,
        "energy_restored": change / weight.update.change if weight.update.change > 0.0 else 0.0,
    }
