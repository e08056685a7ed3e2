"""Comparing numbers: bit for bit, as neighbours in their dtype, or within what the order of a sum changes."""

import torch
from torch import Tensor

from hpa_merge.core.adjustment import INTEGERS, Update

__all__ = ["NEAR", "bits", "close", "differing", "neighbours", "slack"]

NEAR = 1e-3
"""The relative difference of ``[H⁻¹]_jj`` that two machines may have: float32's 6e-8 times a condition number of 10⁴.
With ``damping`` 0.01, a matrix has that condition if its largest eigenvalue is 100 times the mean of its diagonal."""

UNIT = 2.0**-53
"""Half a unit in the last place of 1 in float64. The figures of a weight are summed in float64."""


def bits(x: Tensor) -> Tensor:
    """The numbers as integers of their width: −0.0 is not 0.0, and NaN is itself."""
    return x.contiguous().view(INTEGERS[x.element_size()])


def differing(found: Tensor, expected: Tensor) -> Tensor:
    """Where two tensors of one shape and dtype are not the same bits, as a mask."""
    return bits(found) != bits(expected)


def neighbours(found: Tensor, expected: Tensor) -> Tensor:
    """Where two tensors differ by one unit in the last place at most, as a mask."""
    return (_ordinals(found) - _ordinals(expected)).abs() <= 1


def close(found: float, expected: float, most: float) -> bool:
    """Whether two figures differ by at most ``most``, relative to the greater."""
    return abs(found - expected) <= most * max(abs(found), abs(expected))


def slack(weight: Tensor, update: Update | None = None) -> float:
    """How far two sums over a weight ``[r, c]``, taken in different orders, may differ, relative to the sum.

    For ``k`` terms of one sign, ``k u`` bounds the error of each (Higham, Accuracy and Stability of Numerical
    Algorithms, 4.2). The terms of ``κ`` have both signs; there it bounds the error relative to
    ``Σ|ΔW||W_old| ≤ ‖ΔW‖ ‖W_old‖``.

    Args:
        update: needed for ``κ`` alone.
    """
    relative = 4 * (weight.numel() + 8) * UNIT
    if update is not None and update.kappa and update.old_norm:
        relative *= max(1.0, (update.change / update.old_norm) ** 0.5 / abs(update.kappa))
    return relative


def _ordinals(x: Tensor) -> Tensor:
    """Floating numbers as int64 in the same order: neighbours differ by one, and both zeros are 0."""
    counted = bits(x)
    return torch.where(counted < 0, torch.iinfo(counted.dtype).min - counted.long(), counted.long())
