"""Numbers that are compared: bit for bit, as neighbours in their dtype, or within what the order of a sum changes."""

from collections.abc import Iterator

import torch
from torch import Tensor

from hpa_merge.core import Update
from hpa_merge.report.records import unpack_columns

__all__ = ["bits", "close", "differing", "mask_of", "neighbours", "slack", "told"]

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By the bytes of an element."""

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


def told(name: str, wrong: Tensor, what: str) -> Iterator[str]:
    """One sentence where any value is wrong; ``wrong`` has the tensor's shape, ``[r, c]`` for a linear."""
    count = int(wrong.sum())
    if count:
        where = ""
        if wrong.ndim == 2:
            where = f", first in column {int(wrong.any(dim=0).byte().argmax())}"
        yield f"{name}: {count} of {wrong.numel()} values {what}{where}."


def mask_of(packed: str | None, columns: int) -> Tensor:
    """The columns of a base64 bit mask of the report, ``[c]`` bool; none of one that is not there."""
    mask = torch.zeros(columns, dtype=torch.bool)
    if packed is not None:
        mask[torch.tensor(unpack_columns(packed, columns), dtype=torch.long)] = True
    return mask


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
