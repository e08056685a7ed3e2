"""A control: restore as many columns as HPA, drawn at random.

    M = n_restored columns, drawn by the seed and the name of the weight
    Ŵ = W_old on M, W_new − κ W_old elsewhere

The draw does not look at the weight. HPA's gain over it measures what choosing columns contributes at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpa_merge.methods import hpa
from hpa_merge.methods.rule import Rule
from hpa_merge.methods.weight import Adapted, Redone, Weight

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RULE", "random_columns"]


@dataclass(frozen=True)
class Seeded(hpa.Options):
    """The options that the rule reads: HPA's step, and the seed, which also draws the samples."""

    seed: int = 0


def random_columns(columns: int, n_restored: int, seed: int, name: str) -> Tensor:
    """Mask ``[c]`` of ``n_restored`` columns drawn at random: the same for the same ``seed`` and tensor ``name``."""
    import torch

    mask = torch.zeros(columns, dtype=torch.bool)
    mask[random_order(columns, seed, name)[:n_restored]] = True
    return mask


def random_order(columns: int, seed: int, name: str) -> Tensor:
    """The columns in the order in which they are drawn, ``[c]``.

    The name is part of the seed, so that a weight's columns do not depend on which weights were drawn before it.
    """
    import torch

    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    return torch.randperm(columns, generator=generator)


def adapt(weight: Weight, options: Seeded) -> Adapted:
    """``Ŵ``; the draw does not depend on the weight's values."""
    from hpa_merge.core import Selection
    from hpa_merge.methods.columns import adapt_columns, budget, what_if

    n_restored = budget(weight, options)
    drawn = random_columns(weight.old.shape[1], n_restored, options.seed, weight.name)
    figures = what_if(weight, options, random_order(weight.old.shape[1], options.seed, weight.name))
    return adapt_columns(weight, options, Selection(drawn, n_restored), figures)


def check(weight: Weight, options: Seeded, said: Mapping[str, Any], found: Tensor) -> Redone:
    """The weight with the columns that the seed draws."""
    from hpa_merge.core import Selection
    from hpa_merge.methods.columns import budget, check_columns, what_if

    n_restored, seed = budget(weight, options), options.seed
    drawn = random_columns(weight.old.shape[1], n_restored, seed, weight.name)
    other = f"the restored columns are not the {n_restored} that seed {seed} draws."
    wrong = [] if drawn.equal(said["restored"]) else [other]
    figures = what_if(weight, options, random_order(weight.old.shape[1], seed, weight.name))
    return check_columns(weight, options, Selection(drawn, n_restored), said, wrong, figures)


RULE = Rule(
    name="random",
    does="control: HPA's shares, random columns, drawn by `--seed` and the weight's name",
    paper="a control: as many columns as Harmonious Parameter Adaptation restores, but random ones",
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
