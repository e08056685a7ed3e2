"""Some values of a weight are given, and the others compensate: optimal brain surgeon, as both papers use it.

Moving one value by ``δ_m`` raises the loss ``½ Δᵀ H Δ`` by ``δ_m²/(2[H⁻¹]_mm)`` if the rest of its row moves by
``C_m = δ_m/[H⁻¹]_mm · H⁻¹_{:,m}``, and no other movement of the rest raises it less (Hassibi and Stork 1993; Theorem
4.1 of Safe Delta). For several values at once there are two orders:

``left-to-right``, as in the codes of both papers: column by column, a given value moves from where the compensation has
brought it so far, and only the columns on its right compensate. Values that are passed are final.

``sum``, as the papers write it: the ``C_m`` of all given values are added, and the others alone move by the sum. Values
that are given nearby count twice, so the sum overshoots on correlated inputs.

Neither is the optimum, which needs another factorisation for every row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hpa_merge.errors import NumericalError
from hpa_merge.methods.rule import Part, option
from hpa_merge.methods.weight import Weight, share_within

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["ORDER", "Options", "Spread", "compensation_of", "free_values", "operate", "shares", "takes"]

ROWS = 1024
"""Rows that are compensated at once: enough to keep the solver busy, and small compared with a weight."""

ORDER = ("compensation", "compensation_order")
"""The names of the options."""

Spread = Callable[["Tensor", "Tensor"], "Tensor"]
"""Takes the moves of the given values, ``[r, c]``, zero elsewhere, and where they are, ``[r, c]`` bool; returns how far
the others move, ``[r, c]``."""


@dataclass(frozen=True)
class Options:
    """The options that both rules share."""

    compensation: bool = option(True, "safe-delta, model-tailor: let the other values compensate for the given ones.")
    compensation_order: Literal["left-to-right", "sum"] = option(
        "left-to-right", "safe-delta, model-tailor: compensate column by column, or by the sum of all single steps."
    )


def takes(options: Options) -> tuple[Part, ...]:
    """What the rules take of the curvature."""
    if not options.compensation:
        return ("diagonal",)
    return ("diagonal", "inverse") if options.compensation_order == "sum" else ("diagonal", "hessian")


def compensation_of(weight: Weight, options: Options, purpose: str) -> Spread | None:
    """How the other values compensate, by the curvature of one set; None if they do not.

    Raises:
        NumericalError: the Hessian does not factor in float64 either.
    """
    if not options.compensation:
        return None
    if options.compensation_order == "sum":
        inverse = weight.inverse[purpose]
        return lambda moves, given: inverse.spread(moves)
    from hpa_merge.core import SingularHessian, respond, reversed_factor

    hessian = weight.hessian[purpose]
    try:
        factor = hessian.once("reversed", lambda: reversed_factor(hessian))
    except SingularHessian as error:
        raise NumericalError(
            f"the {purpose} curvature of {weight.name} cannot be factored, in float64 either ({error}): raise damping."
        ) from error
    return lambda moves, given: respond(moves, given, factor)


def operate(base: Tensor, given: Tensor, mask: Tensor, spread: Spread | None, dtype: torch.dtype) -> Tensor:
    """``given`` within ``mask``, and ``base`` with its compensation elsewhere.

    Args:
        base, given: ``[r, c]``.
        mask: ``[r, c]`` bool.
        spread: gives the compensation; None for none.
        dtype: of the result.

    Returns:
        ``[r, c]``, contiguous; bit for bit ``given`` within the mask and, without ``spread``, ``base`` elsewhere.
    """
    import torch

    result = torch.empty(base.shape, dtype=dtype, device=base.device)
    for begin in range(0, base.shape[0], ROWS):
        block = slice(begin, begin + ROWS)
        start, chosen = base[block], mask[block].to(base.device)
        rest = start
        if spread is not None:
            moves = torch.where(chosen, given[block].double() - start.double(), 0.0)
            compensation = spread(moves, chosen)
            rest = start.to(torch.promote_types(start.dtype, compensation.dtype)) + compensation
        result[block] = torch.where(chosen, given[block].to(dtype), rest.to(dtype))
    return result


def free_values(mask: Tensor, moved: Tensor, options: Options) -> Tensor:
    """Where compensation may change values: outside ``mask``, and in rows in which a given value moved.

    Args:
        mask: where values are given, ``[r, c]`` bool.
        moved: where the given value differs from the base, ``[r, c]`` bool; counts within ``mask``.
    """
    import torch

    moved = moved & mask
    if not options.compensation:
        return torch.zeros_like(mask)
    if options.compensation_order == "sum":
        return ~mask & moved.any(dim=1, keepdim=True)
    columns = torch.arange(mask.shape[1], device=mask.device)
    first = moved.int().argmax(dim=1, keepdim=True).where(moved.any(dim=1, keepdim=True), mask.shape[1])
    return ~mask & (columns > first)


def shares(old_values: Tensor, free: Tensor) -> dict[str, float]:
    """The shares of the values that are OLD's and of those that compensation may have changed; ``[r, c]`` bool each."""
    return {"restored_share": share_within(old_values), "compensated_share": share_within(free)}
