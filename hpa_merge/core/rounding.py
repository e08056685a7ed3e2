"""Numbers that are compared: bit for bit, as neighbours in their dtype, or within what the order of a sum changes."""

import torch
from torch import Tensor

from hpa_merge.core.adjustment import Update

__all__ = ["NEAR", "bits", "close", "differing", "neighbours", "slack"]

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By the bytes of an element."""

NEAR = 1e-3
"""How far ``[H⁻¹]_jj`` of two machines may lie apart, relative: float32's 6e-8 times a condition number of 10⁴, which
``damping`` 0.01 allows a matrix whose largest eigenvalue is 100 times the mean of its diagonal."""

UNIT = 2.0**-53
"""Half a unit in the last place of 1 in float64, in which the figures of a weight are summed."""


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
    """Whether a figure is another one but for rounding: they differ by ``most``, relative to the greater, or less."""
    return abs(found - expected) <= most * max(abs(found), abs(expected))


def slack(weight: Tensor, update: Update | None = None) -> float:
    """How far two sums over a weight ``[r, c]`` may lie apart that were taken in another order, relative to the sum.

    ``n u`` bounds either for ``n`` terms of one sign (Higham, Accuracy and Stability of Numerical Algorithms, 4.2). Of
    ``κ``, whose terms have both, it bounds the error relative to ``Σ|ΔW||W_old| ≤ ‖ΔW‖ ‖W_old‖``.

    Args:
        update: give it for ``κ``.
    """
    relative = 4 * (weight.numel() + 8) * UNIT
    if update is not None and update.kappa and update.old_norm:
        relative *= max(1.0, (update.change / update.old_norm) ** 0.5 / abs(update.kappa))
    return relative


def _ordinals(x: Tensor) -> Tensor:
    """Floating numbers as int64 that count them in ascending order: neighbours differ by one, and both zeros are 0."""
    counted = bits(x)
    return torch.where(counted < 0, torch.iinfo(counted.dtype).min - counted.long(), counted.long())
