"""What a rule takes and returns for one linear weight.

Imports no torch, as :mod:`rule` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from torch import Tensor

    from hpa_merge.core import Hessian, InverseHessian, Selection, Update

__all__ = ["Adapted", "Redone", "Weight", "energy_within", "redone_in_rows", "share_within"]

ROWS = 256
"""Rows that are processed at once."""


@final
@dataclass(frozen=True)
class Weight:
    """One linear weight before and after tuning, and the curvature of its input.

    Attributes:
        name: of its tensor in NEW.
        old, new: ``W_old`` and ``W_new``, ``[r, c]``.
        update: the measured ``ΔW``.
        block, blocks: depth ``l`` of ``L``.
        diagonal: ``[H⁻¹]_jj``, ``[c]``, of each set that the rule uses: ``safety`` from OLD's activations, ``task``
            from NEW's. Empty if the weight is checked without the samples.
        inverse: all of ``H⁻¹``, if the rule needs it.
        hessian: ``H`` itself, if the rule needs it.
        tokens: how many tokens each set's ``H`` is the mean of.
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
    tokens: Mapping[str, int] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class Adapted:
    """An adapted weight and how it was made.

    Attributes:
        weight: ``Ŵ``, ``[r, c]`` in NEW's dtype.
        update: the measured ``ΔW``.
        share: ``p`` in percent; None, like the next two, if the method has none.
        selection: the restored columns.
        kappa: the ``κ`` that was used: 0 without the orthogonal step.
        kappas: the ``κ`` of each row ``[r, 1]`` or column ``[1, c]``, if one for each was used.
        figures: further figures for the report, by field.
        times: multiplies rows ``[k, c]`` in float32 by ``M``, if ``Ŵ = W_old + ΔW M``; see :attr:`Rule.no_lora`.
    """

    weight: Tensor
    update: Update
    share: float | None = None
    selection: Selection | None = None
    kappa: float | None = None
    kappas: Tensor | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    times: Callable[[Tensor], Tensor] | None = None

    @property
    def energy_restored(self) -> float | None:
        """The share of ``‖ΔW‖²_F`` in the restored values; None if the rule restores no value as it is."""
        if self.selection is None:
            return self.figures.get("energy_restored")
        energy = self.update.energy
        return float(energy[self.selection.restored].sum() / energy.sum()) if self.update.change > 0.0 else 0.0

    @property
    def relative_update(self) -> float | None:
        """``‖ΔW‖_F / ‖W_old‖_F``; None if ``W_old`` is zero."""
        return (self.update.change / self.update.old_norm) ** 0.5 if self.update.old_norm > 0.0 else None


@final
@dataclass(frozen=True)
class Redone:
    """A weight computed again without the samples.

    Attributes:
        adapted: the weight and its figures; values that depend on the samples are those of OUT.
        compared: groups of values that were computed again: a mask ``[r, c]`` bool; whether another device may round
            them differently; and the end of the sentence for values that differ.
        problems: the report's claims that no samples can lead to, a sentence each.
        open: how many values depend on the samples.
    """

    adapted: Adapted
    compared: tuple[tuple[Tensor, bool, str], ...]
    problems: tuple[str, ...] = ()
    open: int = 0


def share_within(mask: Tensor) -> float:
    """The share of the values of ``mask`` ``[r, c]`` that are true."""
    return int(mask.sum()) / mask.numel() if mask.numel() else 0.0


def energy_within(weight: Weight, mask: Tensor) -> float:
    """The share of the square of a weight's update that lies within ``mask`` ``[r, c]``."""
    mask, change = mask.to(weight.old.device), 0.0
    for begin in range(0, len(mask), ROWS):
        rows = slice(begin, begin + ROWS)
        delta = weight.new[rows].double() - weight.old[rows].double()
        change += float(delta.square_()[mask[rows]].sum())
    return change / weight.update.change if weight.update.change > 0.0 else 0.0


def redone_in_rows(weight: Weight, found: Tensor, *, mixed: bool) -> Redone:
    """A weight of a rule that mixes the columns within each row of the update: unchanged rows need no samples.

    Args:
        found: the weight in OUT, ``[r, c]``.
        mixed: whether the options let the rule change anything.
    """
    from hpa_merge.core.rounding import differing

    changed = differing(weight.old.to(weight.new.dtype), weight.new).any(dim=1, keepdim=True).expand(weight.new.shape)
    free = changed if mixed else changed & False
    made = found.where(free, weight.new)
    return Redone(Adapted(made, weight.update), ((~free, False, "are not NEW's"),), open=int(free.sum()))
