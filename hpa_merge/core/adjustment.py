"""The update between two weights: its column energies, its component along the old weights, and the fused result.

    ΔW = W_new − W_old
    e_j = (1/r) Σ_i ΔW_ij²                        column energy
    κ = ⟨ΔW, W_old⟩_F / ‖W_old‖²_F                 the share of W_old in the update
    Ŵ = W_old on the restored columns, W̃ = W_new − κ W_old elsewhere

Weights are ``[r, c]`` in any floating dtype; transposed views are accepted. Sums are taken in float64, and the fused
weight is computed in float32 or better. Both go by blocks of rows that fit a core's cache, in memory that serves all
blocks, on one thread. Every sum adds block to block, element by element.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from hpa_merge.core.threads import one_thread

ELEMENTS = 2**18
"""Elements of a block of rows for a rule that multiplies matrices: 2 MiB in float64."""

BLOCK = 2**15
"""Elements of a block of rows that is measured or fused on the CPU: 256 KiB in float64."""

DEVICE_BLOCK = 2**20
"""The same on another device: 8 MiB in float64."""

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The integer dtype for each element size in bytes."""


@final
@dataclass(frozen=True)
class Update:
    """What the rules use of ``ΔW``.

    Attributes:
        energy: ``e_j``, ``[c]`` float64 on the CPU.
        kappa: ``κ``; 0 if ``W_old`` is zero.
        change: ``‖ΔW‖²_F``; 0 if nothing changed, not finite if a weight is not.
        old_norm: ``‖W_old‖²_F``.
    """

    energy: Tensor
    kappa: float
    change: float
    old_norm: float


@one_thread()
def measure_update(old: Tensor, new: Tensor) -> Update:
    """Measure the update from ``old`` to ``new``, both ``[r, c]``.

    Raises:
        ValueError: they are not matrices of the same shape.
    """
    _check(old, new)
    sums = torch.zeros(3, *_block_of(old), dtype=torch.float64, device=old.device)
    squares, products, old_squares = sums
    for w_old, delta in _differences(old, new):
        squares, products, old_squares = _cut(squares, delta), _cut(products, delta), _cut(old_squares, delta)
        squares.addcmul_(delta, delta)
        products.addcmul_(delta, w_old)
        old_squares.addcmul_(w_old, w_old)
    energy, along, norms = (each.sum(dim=0).cpu() for each in sums)  # [c] each, of all rows
    old_norm = _total(norms)
    kappa = _total(along) / old_norm if old_norm > 0.0 else 0.0
    return Update(energy=energy / len(old), kappa=kappa, change=_total(energy), old_norm=old_norm)


def projections(old: Tensor, new: Tensor, axis: int) -> Tensor:
    """``κ`` of every row (``axis`` 1, ``[r, 1]``) or column (``axis`` 0, ``[1, c]``) by itself, in float64; else 0.

    The ``κ`` of the whole weight is their mean, weighted by the squares of the old rows or columns.

    Raises:
        ValueError: they are not matrices of the same shape.
    """
    _check(old, new)
    along, norm = torch.zeros(2, old.shape[1 - axis], dtype=torch.float64, device=old.device)
    begin = 0
    for w_old, delta in _differences(old, new):
        here = slice(begin, begin + len(delta)) if axis == 1 else slice(None)
        along[here] += delta.mul_(w_old).sum(dim=axis)
        norm[here] += w_old.square_().sum(dim=axis)
        begin += len(delta)
    kappa: Tensor = (along / norm).where(norm > 0.0, 0.0)
    return kappa.unsqueeze(axis)


@one_thread()
def squared_distance(a: Tensor, b: Tensor) -> float:
    """``‖a − b‖²_F`` of two matrices ``[r, c]``, in float64; not finite if one of them is not.

    Raises:
        ValueError: they are not matrices of the same shape.
    """
    _check(a, b)
    squares = torch.zeros(_block_of(a), dtype=torch.float64, device=a.device)
    for _, difference in _differences(a, b):
        _cut(squares, difference).addcmul_(difference, difference)
    return _total(squares.sum(dim=0).cpu())


@one_thread()
def squared_norm(a: Tensor) -> float:
    """``‖a‖²_F`` of a matrix ``[r, c]``, in float64."""
    squares, values = torch.zeros(2, *_block_of(a), dtype=torch.float64, device=a.device)
    for block in a.split(len(squares)):
        here = _cut(values, block).copy_(block)
        _cut(squares, block).addcmul_(here, here)
    return _total(squares.sum(dim=0).cpu())


@one_thread()
def fuse(old: Tensor, new: Tensor, restored: Tensor, kappa: float | Tensor) -> Tensor:
    """``Ŵ``: ``old``, cast to ``new``'s dtype, on the restored columns; ``new − kappa · old`` elsewhere.

    Args:
        old, new: ``[r, c]``.
        restored: ``M``, ``[c]`` bool.
        kappa: ``κ``; with 0, ``new`` is kept bit for bit. One of each row or column is ``[r, 1]`` or ``[1, c]``.

    Returns:
        ``[r, c]``, contiguous, in ``new``'s dtype and on its device.
    """
    _check(old, new)
    if restored.shape != old.shape[1:] or restored.dtype != torch.bool:
        raise ValueError(f"expected a mask of shape [{old.shape[1]}], found {list(restored.shape)} of {restored.dtype}")
    fused = torch.empty(new.shape, dtype=new.dtype, device=new.device)
    dtype = torch.promote_types(torch.promote_types(old.dtype, new.dtype), torch.float32)
    integer = INTEGERS[new.element_size()]
    chosen = restored.to(new.device, integer).neg_()  # all bits of a restored column
    rows, columns = _block_of(new)
    before, adjusted = torch.empty(2, rows, columns, dtype=dtype, device=new.device)
    bits = torch.empty(rows, columns, dtype=integer, device=new.device)
    steps: Iterable[float | Tensor] = itertools.repeat(kappa)
    if isinstance(kappa, Tensor):
        kappa = kappa.to(new.device, dtype)
        steps = kappa.split(rows) if kappa.shape[1] == 1 else itertools.repeat(kappa)
    blocks = (each.split(rows) for each in (old, new, fused, fused.view(integer)))
    for w_old, w_new, result, into, step in zip(*blocks, steps, strict=False):
        if not isinstance(step, Tensor) and step == 0.0:
            result.copy_(w_new)
        else:
            before, adjusted = _cut(before, result).copy_(w_old), _cut(adjusted, result).copy_(w_new)
            if isinstance(step, Tensor):
                torch.addcmul(adjusted, step, before, value=-1.0, out=adjusted)
            else:
                torch.sub(adjusted, before, alpha=step, out=adjusted)
            result.copy_(adjusted)
        differing = torch.bitwise_xor(into, w_old.to(new.dtype).view(integer), out=_cut(bits, result))
        into.bitwise_xor_(differing.bitwise_and_(chosen))
    return fused


@one_thread()
def all_finite(x: Tensor) -> bool:
    """Whether a floating tensor of any shape holds neither NaN nor infinity; allocates nothing of its size."""
    if math.isfinite(x.sum().item()):  # NaN and infinity stay in a sum
        return True
    # The sum of finite values may be too large for the dtype.
    return not x.numel() or all(map(math.isfinite, torch.stack(torch.aminmax(x)).tolist()))


@one_thread()
def equal(a: Tensor, b: Tensor) -> bool:
    """As :func:`torch.equal`, for which zeros of either sign are equal; the same bytes are, even if they are NaN."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if _is_wide(a) and _is_wide(b) and torch.equal(a.view(-1).view(torch.int64), b.view(-1).view(torch.int64)):
        return True  # four numbers of bfloat16 were compared at once
    return torch.equal(a, b)


def _is_wide(x: Tensor) -> bool:
    """Whether the bytes of a tensor can be read as integers of eight bytes."""
    begin = x.storage_offset() * x.element_size()
    return x.is_contiguous() and begin % 8 == 0 and x.nbytes % 8 == 0


def row_blocks(shape: torch.Size) -> Iterator[slice]:
    """Slices that cover the rows of a weight ``[r, c]``, a block at a time."""
    rows, columns = shape
    step = max(1, ELEMENTS // max(1, columns))
    return (slice(start, start + step) for start in range(0, rows, step))


def _differences(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of rows of ``a``, and of ``b − a``, in float64; the next block takes the memory of the last one."""
    rows, columns = _block_of(a)
    values, difference = torch.empty(2, rows, columns, dtype=torch.float64, device=a.device)
    for x, y in zip(a.split(rows), b.split(rows), strict=True):
        values, difference = _cut(values, x), _cut(difference, x)
        yield values.copy_(x), difference.copy_(y).sub_(values)


def _cut(block: Tensor, like: Tensor) -> Tensor:
    """As many rows of a block as ``like`` has: only the last block of a weight has fewer."""
    rows = like.shape[0]
    return block if block.shape[0] == rows else block[:rows]


def _block_of(weight: Tensor) -> tuple[int, int]:
    """Rows and columns of a block of a weight ``[r, c]``."""
    rows, columns = weight.shape
    most = BLOCK if weight.device.type == "cpu" else DEVICE_BLOCK
    return max(1, min(rows, most // max(1, columns))), columns


def _total(sums: Tensor) -> float:
    """The sum of a vector ``[c]``."""
    return float(sums.sum())


def _check(old: Tensor, new: Tensor) -> None:
    if old.ndim != 2 or old.shape != new.shape:
        raise ValueError(f"expected two matrices of the same shape, found {list(old.shape)} and {list(new.shape)}")
