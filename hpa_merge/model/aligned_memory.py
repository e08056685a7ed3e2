"""The alignment of tensors in memory. On some processors it decides the order in which a small product is summed, so a
forward pass gets tensors that are aligned as torch itself would align them."""

from torch import Tensor

__all__ = ["ALIGNMENT", "aligned"]

ALIGNMENT = 64
"""In bytes, as torch aligns every tensor with its own memory on the CPU (``gAlignment`` in c10/core/alignment.h)."""


def aligned(tensor: Tensor) -> Tensor:
    """The tensor at a multiple of :data:`ALIGNMENT`: itself, or a copy, which keeps dense strides."""
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor
