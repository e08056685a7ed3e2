"""A lower triangle as a rectangle of exactly as many numbers, which a few copies of blocks make: it is sent like this.

With ``h = ⌊c/2⌋``, the rows of the rectangle are the last ``c − h`` rows of the triangle. Row ``i`` of them has
``h + 1 + i`` numbers, and room at its end for the ``h − i`` numbers of row ``h − 1 − i``, which lie there backwards.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["add_folded", "folded", "unfolded"]

ROWS = 512
"""Rows that are copied at once."""


def folded(square: Tensor) -> Tensor:
    """The lower triangle of ``[c, c]``, in the order above: ``[c(c + 1)/2]``."""
    columns, half = len(square), len(square) // 2
    rectangle = square.new_empty(columns - half, 2 * half + 1)
    rectangle[:, :columns] = square[half:]
    for first, end in _blocks(square[:half, :half], rectangle[:half, half + 1 :]):
        backwards, size = first.flip(0, 1), len(end)
        inside = torch.ones(size, size, dtype=torch.bool, device=square.device).triu()
        end[:, :size] = torch.where(inside, backwards[:, :size], end[:, :size])
        end[:, size:] = backwards[:, size:]
    return rectangle.view(-1)


def unfolded(numbers: Tensor, columns: int) -> Tensor:
    """The reverse of :func:`folded`: ``[c, c]``, where some numbers of the triangle lie above the diagonal too."""
    half = columns // 2
    rectangle = numbers.view(columns - half, 2 * half + 1)
    square = numbers.new_empty(columns, columns)
    square[half:] = rectangle[:, :columns]
    square[:half, half:] = 0.0
    for first, end in _blocks(square[:half, :half], rectangle[:half, half + 1 :]):
        first.copy_(end.flip(0, 1))
    return square


def add_folded(square: Tensor, numbers: Tensor, factor: float) -> None:
    """``square += factor · unfolded(numbers)`` in the lower triangle, without its memory; the rest may change too."""
    columns, half = len(square), len(square) // 2
    rectangle = numbers.view(columns - half, 2 * half + 1)
    square[half:].add_(rectangle[:, :columns], alpha=factor)
    for first, end in _blocks(square[:half, :half], rectangle[:half, half + 1 :]):
        first.add_(end.flip(0, 1), alpha=factor)


def _blocks(top: Tensor, ends: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of the top half of a square, ``[h, h]``, and where they lie in the ends of the rectangle's rows."""
    half = len(top)
    for begin in range(0, half, ROWS):
        stop = min(begin + ROWS, half)
        yield top[half - stop : half - begin, : half - begin], ends[begin:stop, begin:]
