"""How large activations are, and the power of two that they are divided by so that their squares fit into float32."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["exponent_of", "largest", "peak_of", "scaled"]

MODERATE = 40
"""Activations between ``2^-40`` and ``2^40`` are squared in float32 as they are; others are scaled first."""


def peak_of(*tensors: Tensor) -> float:
    """The largest magnitude in all of them: NaN if one holds a NaN, 0 if all are empty. It waits for a device once."""
    bounds = [bound.double() for x in tensors if x.numel() for bound in torch.aminmax(x)]
    return float(torch.stack(bounds).abs().max()) if bounds else 0.0


def largest(peaks: Sequence[float]) -> float:
    return math.nan if any(map(math.isnan, peaks)) else max(peaks)


def exponent_of(peak: float) -> int:
    """``k`` such that activations up to ``peak``, divided by ``2^k``, have squares well within float32."""
    if not 0.0 < peak < math.inf:
        return 0
    exponent = math.frexp(peak)[1]
    return exponent if abs(exponent) > MODERATE else 0


def scaled(x: Tensor, exponent: int) -> Tensor:
    return x * 2.0**-exponent if exponent else x
