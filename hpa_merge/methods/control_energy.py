"""A control: as many columns as HPA puts back, those that changed most, without any curvature.

    M = the n_keep columns of largest e_j = (1/r) Σ_i ΔW_ij²

What HPA gains over it is what the curvatures and the balance are worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hpa_merge.methods import hpa
from hpa_merge.methods.rule import Rule
from hpa_merge.methods.weight import Adapted, Redone, Weight

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RULE"]

TIE = 1e-9
"""Energies of columns that are no further apart, relative to the greater, may change places with the order of sums."""


def adapt(weight: Weight, options: hpa.Options) -> Adapted:
    """``Ŵ``, from the update alone."""
    from hpa_merge.core import Selection
    from hpa_merge.methods.columns import adapt_columns, budget, largest

    n_keep = budget(weight, options)
    return adapt_columns(weight, options, Selection(largest(weight.update.energy, n_keep), n_keep))


def check(weight: Weight, options: hpa.Options, said: Mapping[str, Any], found: Tensor) -> Redone:
    """The weight with its own columns; with those of the report where they differ in a tie alone."""
    from hpa_merge.core import Selection
    from hpa_merge.methods.columns import budget, check_columns, largest

    n_keep, kept, energy = budget(weight, options), said["kept"], weight.update.energy
    chosen = largest(energy, n_keep)
    swapped = energy[chosen ^ kept]
    apart = float(swapped.max() - swapped.min()) / float(swapped.max()) if len(swapped) and swapped.max() > 0 else 0.0
    if int(kept.sum()) == n_keep and apart <= TIE:
        chosen = kept
    wrong = [] if kept.equal(chosen) else [f"the columns put back are not the {n_keep} that changed most."]
    return check_columns(weight, options, Selection(chosen, n_keep), said, wrong)


RULE = Rule(
    name="energy",
    does="control: HPA's shares, the columns that changed most",
    paper="a control: as many columns as Harmonious Parameter Adaptation puts back, but those that changed most",
    bibtex=hpa.BIBTEX,
    options=hpa.STEP,
    adapt=adapt,
    check=check,
    by_columns=True,
    computes=True,
    share=hpa.share,
)
