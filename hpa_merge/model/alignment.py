"""Where a tensor begins in memory. On some processors that decides in which order a small product is summed, so what
a forward pass reads begins where torch itself would have put it."""

from torch import Tensor

__all__ = ["ALIGNMENT", "aligned"]

ALIGNMENT = 64
"""Bytes: what torch gives every tensor with memory of its own on the CPU (``gAlignment`` in c10/core/alignment.h)."""


def aligned(tensor: Tensor) -> Tensor:
    """The tensor, copied into memory of its own if it begins elsewhere, as a view or memory from outside may.

    Returns:
        The same values, beginning at a multiple of :data:`ALIGNMENT`; a copy keeps the strides where they are dense.
    """
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor
