"""Restore whole blocks of the text stack: ``W = W_old`` in the chosen blocks, ``W_new`` everywhere else.

Li et al. (arXiv 2408.17003) find the safety of a model in a few layers in its middle, and freeze those layers during
tuning. Here they are restored after tuning. Their layers 6 to 14 are those of models with 32 blocks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpa_merge.errors import ConfigError
from hpa_merge.methods.rule import Bound, Rule, option
from hpa_merge.methods.weight import Adapted, Redone, Weight

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RULE", "Options"]


def numbers(text: str) -> set[int]:
    """The numbers that a text such as ``0-2,7`` names; empty if it has another form."""
    if not re.fullmatch(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*", text):
        return set()
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


@dataclass(frozen=True)
class Options:
    """Which blocks."""

    blocks: str = option(
        "6-14",
        "blocks: the blocks of the text stack to restore, counted from 0, such as 0-2,7.",
        Bound(lambda text: bool(numbers(text)), "block numbers and ranges of them, such as 0-2,7"),
    )


def touches(options: Options, text: bool, block: int | None) -> bool:
    """Whether a unit is one of the chosen blocks."""
    return text and block in numbers(options.blocks)


def check_model(options: Options, architecture: str, blocks: int) -> None:
    """Check that the text stack has all of the chosen blocks.

    Raises:
        ConfigError: it does not.
    """
    if (last := max(numbers(options.blocks))) >= blocks:
        raise ConfigError(
            f"blocks is {options.blocks!r}, and the text stack of this {architecture} has {blocks} blocks, counted "
            f"from 0: name blocks below {blocks}, not {last}."
        )


def adapt(weight: Weight, options: Options) -> Adapted:
    """``W_old``; this is never called for the weights of other blocks."""
    figures = {"restored_share": 1.0, "energy_restored": 1.0}
    return Adapted(weight.old.to(weight.new.dtype), weight.update, figures=figures, times=_nothing)


def _nothing(rows: Tensor) -> Tensor:
    """``rows M`` with ``M = 0``."""
    return rows.new_zeros(rows.shape)


def check(weight: Weight, options: Options, said: Mapping[str, Any], found: Tensor) -> Redone:
    """Compute the weight again, in full."""
    import torch

    adapted = adapt(weight, options)
    return Redone(adapted, ((torch.ones_like(adapted.weight, dtype=torch.bool), False, "are not OLD's"),))


RULE = Rule(
    name="blocks",
    does="whole blocks of the text stack are OLD's ([Li et al.](https://arxiv.org/abs/2408.17003): the safety layers)",
    paper="whole blocks restored, as in [Li et al.](https://arxiv.org/abs/2408.17003)",
    options=("blocks",),
    adapt=adapt,
    check=check,
    no_grid="it restores whole blocks: everything in them, and nothing elsewhere",
    no_lora=lambda options: "",
    touches=touches,
    check_model=check_model,
)
