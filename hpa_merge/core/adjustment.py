"""The update between two weights: its column energies, its component along the old weights, and the fused result.

    ΔW = W_new − W_old
    e_j = (1/r) Σ_i ΔW_ij²                        column energy
    κ = ⟨ΔW, W_old⟩_F / ‖W_old‖²_F                 the share of W_old in the update
    Ŵ = W_old on the restored columns, W̃ = W_new − κ W_old elsewhere

Weights are ``[r, c]`` in any floating dtype; transposed views are accepted. Sums are taken in float64, and the fused
weight is computed in float32 or better. Both go by blocks of rows that fit the processor's cache, so that no temporary
has the size of a weight.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

ELEMENTS = 2**18
"""Elements of a block of rows: 2 MiB in float64."""


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


def measure_update(old: Tensor, new: Tensor) -> Update:
    """Measure the update from ``old`` to ``new``, both ``[r, c]``.

    Raises:
        ValueError: they are not matrices of the same shape.
    """
    _check(old, new)
    rows, columns = old.shape
    energy = torch.zeros(columns, dtype=torch.float64, device=old.device)
    along, old_norm = torch.zeros(2, dtype=torch.float64, device=old.device)
    for block in row_blocks(old.shape):
        w_old = old[block].double()
        delta = new[block].double() - w_old
        along += torch.dot(delta.flatten(), w_old.flatten())
        old_norm += torch.dot(w_old.flatten(), w_old.flatten())
        energy += delta.square_().sum(dim=0)
    change = float(energy.sum())
    kappa = float(along / old_norm) if float(old_norm) > 0.0 else 0.0
    return Update(energy=(energy / rows).cpu(), kappa=kappa, change=change, old_norm=float(old_norm))


def projections(old: Tensor, new: Tensor, axis: int) -> Tensor:
    """``κ`` of every row (``axis`` 1, ``[r, 1]``) or column (``axis`` 0, ``[1, c]``) by itself, in float64; else 0.

    The ``κ`` of the whole weight is their mean, weighted by the squares of the old rows or columns.

    Raises:
        ValueError: they are not matrices of the same shape.
    """
    _check(old, new)
    along, norm = (torch.zeros(old.shape[1 - axis], dtype=torch.float64, device=old.device) for _ in range(2))
    for block in row_blocks(old.shape):
        w_old = old[block].double()
        delta = new[block].double() - w_old
        here = block if axis == 1 else slice(None)
        along[here] += (delta * w_old).sum(dim=axis)
        norm[here] += w_old.square().sum(dim=axis)
    kappa = (along / norm).where(norm > 0.0, 0.0)
    return kappa.unsqueeze(axis)


def squared_distance(a: Tensor, b: Tensor) -> float:
    """``‖a − b‖²_F`` of two matrices ``[r, c]``, in float64.

    Raises:
        ValueError: they are not matrices of the same shape.
    """
    _check(a, b)
    total = torch.zeros((), dtype=torch.float64, device=a.device)
    for block in row_blocks(a.shape):
        difference = a[block].to(torch.float64, copy=True).sub_(b[block]).flatten()
        total += torch.dot(difference, difference)
    return float(total)


def squared_norm(a: Tensor) -> float:
    """``‖a‖²_F`` of a matrix ``[r, c]``, in float64."""
    total = torch.zeros((), dtype=torch.float64, device=a.device)
    for block in row_blocks(a.shape):
        flat = a[block].double().flatten()
        total += torch.dot(flat, flat)
    return float(total)


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
    restored = restored.to(new.device)
    fused = torch.empty(new.shape, dtype=new.dtype, device=new.device)
    dtype = torch.promote_types(torch.promote_types(old.dtype, new.dtype), torch.float32)
    for block in row_blocks(old.shape):
        w_old, w_new = old[block], new[block]
        if isinstance(kappa, Tensor):
            step = (kappa[block] if kappa.shape[1] == 1 else kappa).to(new.device, dtype)
            adjusted = torch.addcmul(w_new.to(dtype), step, w_old.to(dtype), value=-1.0).to(new.dtype)
        elif kappa == 0.0:
            adjusted = w_new
        else:
            adjusted = torch.sub(w_new.to(dtype), w_old.to(dtype), alpha=kappa).to(new.dtype)
        fused[block] = torch.where(restored, w_old.to(new.dtype), adjusted)
    return fused


def all_finite(x: Tensor) -> bool:
    """Whether a floating tensor of any shape holds neither NaN nor infinity; allocates nothing of its size."""
    return x.numel() == 0 or all(bool(torch.isfinite(bound)) for bound in torch.aminmax(x))


def row_blocks(shape: torch.Size) -> Iterator[slice]:
    """Slices that cover the rows of a weight ``[r, c]``, a block at a time."""
    rows, columns = shape
    step = max(1, ELEMENTS // max(1, columns))
    return (slice(start, start + step) for start in range(0, rows, step))


def _check(old: Tensor, new: Tensor) -> None:
    if old.ndim != 2 or old.shape != new.shape:
        raise ValueError(f"expected two matrices of the same shape, found {list(old.shape)} and {list(new.shape)}")
