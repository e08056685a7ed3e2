"""A control: restore as many columns as HPA, those that changed most, without any curvature.

    M = the n_restored columns of largest e_j = (1/r) Σ_i ΔW_ij²
    Ŵ = W_old on M, W_new − κ W_old elsewhere

HPA's gain over it measures what the curvatures and the balance contribute.
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
"""If the relative difference of two energies is at most this, the order of a sum can decide which is greater."""


def adapt(weight: Weight, options: hpa.Options) -> Adapted:
    """``Ŵ``; it uses the update alone."""
    from hpa_merge.core import Selection
    from hpa_merge.methods.columns import adapt_columns, budget, by_size, largest, what_if

    n_restored, energy = budget(weight, options), weight.update.energy
    figures = what_if(weight, options, by_size(energy))
    return adapt_columns(weight, options, Selection(largest(energy, n_restored), n_restored), figures)


def check(weight: Weight, options: hpa.Options, said: Mapping[str, Any], found: Tensor) -> Redone:
    """The weight with the columns chosen here, or with those of the report if only ties differ."""
    from hpa_merge.core import Selection
    from hpa_merge.methods.columns import budget, by_size, check_columns, largest, what_if

    n_restored, restored, energy = budget(weight, options), said["restored"], weight.update.energy
    chosen = largest(energy, n_restored)
    swapped = energy[chosen ^ restored]
    apart = float(swapped.max() - swapped.min()) / float(swapped.max()) if len(swapped) and swapped.max() > 0 else 0.0
    if int(restored.sum()) == n_restored and apart <= TIE:
        chosen = restored
    wrong = [] if restored.equal(chosen) else [f"the restored columns are not the {n_restored} that changed most."]
    figures = what_if(weight, options, by_size(energy))
    return check_columns(weight, options, Selection(chosen, n_restored), said, wrong, figures)


RULE = Rule(
    name="energy",
    does="control: HPA's shares, the columns that changed most",
    paper="a control: as many columns as Harmonious Parameter Adaptation restores, but those that changed most",
    bibtex=hpa.BIBTEX,
    options=hpa.STEP,
    strength=hpa.STRENGTH,
    adapt=adapt,
    check=check,
    by_columns=True,
    computes=True,
    share=hpa.share,
    grid=hpa.grid,
    no_lora=hpa.no_lora,
)
