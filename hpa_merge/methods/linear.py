"""Weight interpolation: ``W = W_old + w ΔW``, all ``[r, c]``.

Lee et al. (ICLR 2025, arXiv 2410.07571) merge a safe model and a capable one linearly, against the loss of safety in
vision-language adaptation. Farn et al. (arXiv 2412.19512) merge a model before and after tuning. Both merge every
parameter; here, as with every method, all parameters that are no linear weights come from NEW.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpa_merge.methods.rule import SHARE, Rule, Strength, option
from hpa_merge.methods.weight import Adapted, Redone, Weight
from hpa_merge.methods.what_if import Grid, Slider, grid_of, with_own

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RULE", "Options", "interpolate"]


@dataclass(frozen=True)
class Options:
    """``w``; 0.5 is the mean of OLD and NEW."""

    weight: float = option(0.5, "linear: share of the update to keep.", SHARE)


def interpolate(old: Tensor, new: Tensor, weight: float) -> Tensor:
    """``old + weight · (new − old)``: ``[r, c]``, contiguous, in ``new``'s dtype and on its device.

    Args:
        old, new: ``[r, c]``.
        weight: ``w``; 0 gives ``old`` and 1 gives ``new``, bit for bit.
    """
    import torch

    from hpa_merge.core.adjustment import row_blocks

    if weight in (0.0, 1.0):
        return (new if weight else old).to(new.dtype).contiguous()
    mixed = torch.empty(new.shape, dtype=new.dtype, device=new.device)
    dtype = torch.promote_types(torch.promote_types(old.dtype, new.dtype), torch.float32)
    for block in row_blocks(old.shape):
        w_old = old[block].to(dtype)
        mixed[block] = torch.add(w_old, new[block].to(dtype) - w_old, alpha=weight).to(new.dtype)
    return mixed


def adapt(weight: Weight, options: Options) -> Adapted:
    """``W``; it uses the two weights alone."""
    mixed = interpolate(weight.old, weight.new, options.weight)
    shares = [(1.0 - setting["weight"]) ** 2 for setting in grid(options).settings]
    return Adapted(mixed, weight.update, figures={"what_if": shares}, times=lambda rows: rows * options.weight)


def grid(options: Options) -> Grid:
    """The settings around ``options``."""
    weights = with_own([step / 20 for step in range(21)], options.weight)
    return grid_of([(Slider("w: share of the update that is kept", ("weight",)), weights)], lambda w: {"weight": w})


def check(weight: Weight, options: Options, said: Mapping[str, Any], found: Tensor) -> Redone:
    """Compute the weight again, in full."""
    import torch

    adapted = adapt(weight, options)
    everywhere = torch.ones_like(adapted.weight, dtype=torch.bool)
    return Redone(adapted, ((everywhere, True, f"are not OLD + {options.weight:g} · (NEW − OLD)"),))


RULE = Rule(
    name="linear",
    does="`W_old + w ΔW`, with `--weight` w ([Lee et al.](https://arxiv.org/abs/2410.07571), "
    "[Farn et al.](https://arxiv.org/abs/2412.19512))",
    paper="interpolation of the weights ([Lee et al.](https://arxiv.org/abs/2410.07571), "
    "[Farn et al.](https://arxiv.org/abs/2412.19512))",
    options=("weight",),
    strength=Strength("weight", (0.9, 0.7, 0.5, 0.4, 0.3, 0.2)),
    adapt=adapt,
    check=check,
    grid=grid,
    no_lora=lambda options: "",
    computes=True,
)
