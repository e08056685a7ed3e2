"""Lower triangles: Gram matrices, Cholesky factors, and the column norms of their inverses.

Half of a symmetric product, and half of an inverse factor, need not be computed. torch has no routine that skips them,
so both go by panels, and nearly all of the work is large matrix products.
"""

import torch
from torch import Tensor

ROWS = {"cpu": 256, "cuda": 1024}
"""Rows of a Gram matrix that are computed at once, from the first column to their own, by kind of device: enough to
keep its multiplier busy."""

BLOCK = {"cpu": 256, "cuda": 1024}
"""Columns of a block of a triangular inverse, by kind of device: large enough to keep its multiplier busy."""

PANEL = 1024
"""Columns that a triangular solve takes at a time, so that no temporary has the size of the right side."""


def add_gram(gram: Tensor, x: Tensor) -> None:
    """``gram += xᵀx`` in the lower triangle; parts of the upper one may be filled too.

    Args:
        gram: ``[c, c]`` float32 or float64.
        x: ``[n, c]`` in ``gram``'s dtype, or on CUDA in bfloat16 or float16, whose products are exact in float32.
    """
    for rows, columns in _lower(gram.shape[0], ROWS[gram.device.type]):
        a, b = x[:, rows].T, x[:, columns]
        if a.dtype == gram.dtype:
            gram[rows, columns].addmm_(a, b)
        else:
            gram[rows, columns] += torch.mm(a, b, out_dtype=gram.dtype)


def add_gram_apart(gram: Tensor, x: Tensor, factor: float) -> None:
    """What :func:`add_triangle` does with the ``xᵀx`` that this function adds to zeros, bit for bit, in less memory.

    Args:
        gram: as for :func:`add_gram`.
        x: as for :func:`add_gram`; all its products are summed before they are added.
        factor: a power of four.
    """
    blocks = _lower(gram.shape[0], ROWS[gram.device.type])
    scratch = gram.new_empty(max((rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in blocks))
    for rows, columns in blocks:
        a, b = x[:, rows].T, x[:, columns]
        product = scratch[: a.shape[0] * b.shape[1]].view(a.shape[0], b.shape[1])
        if a.dtype == gram.dtype:
            torch.mm(a, b, out=product)
        else:
            torch.mm(a, b, out_dtype=gram.dtype, out=product)
        gram[rows, columns].add_(product, alpha=factor)


def add_triangle(total: Tensor, part: Tensor, factor: float) -> None:
    """``total += factor · part`` in the lower triangle of ``[c, c]``; parts of the upper one may be added too."""
    for block in _lower(total.shape[0], ROWS[total.device.type]):
        total[block].add_(part[block], alpha=factor)


def mirror_(h: Tensor) -> None:
    """Make ``h`` ``[c, c]`` symmetric, by its lower triangle."""
    for rows, _ in _lower(h.shape[0], ROWS[h.device.type]):
        before, block = slice(0, rows.start), h[rows, rows]
        h[before, rows].copy_(h[rows, before].T)
        block.copy_(block.tril() + block.tril(-1).T)


def cholesky_(h: Tensor) -> int:
    """Overwrite ``h`` ``[c, c]`` with its lower Cholesky factor ``L``; only the lower triangle of ``h`` is read.

    Returns:
        The order of the first leading minor that is not positive definite, and then ``h`` is lost; 0 if all are.
    """
    return int(factor_(h))


def factor_(h: Tensor) -> Tensor:
    """:func:`cholesky_` without waiting for a device: what it returns is an int32 scalar there."""
    failed = torch.empty((), dtype=torch.int32, device=h.device)
    torch.linalg.cholesky_ex(h.T, upper=True, out=(h.T, failed))
    return failed


def inverse_column_norms(factor: Tensor) -> Tensor:
    """``Σ_i (L⁻¹)_ij²`` of every column ``j``, for lower-triangular ``L`` ``[c, c]``: ``[c]`` float64.

    By panels of columns, each from its diagonal block down: ``X_jj = L_jj⁻¹``, ``X_ij = −L_ii⁻¹ Σ_{j≤k<i} L_ik X_kj``.
    """
    blocks = _blocks(factor)
    inverses = [_inverse(factor[rows, rows]) for rows in blocks]
    norms = factor.new_empty(factor.shape[0], dtype=torch.float64)
    panel = factor.new_empty(factor.shape[0], max((block.stop - block.start for block in blocks), default=0))
    for j, columns in enumerate(blocks):
        x = panel[:, : columns.stop - columns.start]
        x[columns] = inverses[j]
        for i, rows in enumerate(blocks[j + 1 :], start=j + 1):
            above = slice(columns.start, rows.start)
            torch.mm(inverses[i], torch.mm(factor[rows, above], x[above]), out=x[rows])
            x[rows].neg_()
        norms[columns] = column_energy(x[columns.start :])
    return norms


def solved(factor: Tensor, a: Tensor) -> Tensor:
    """``L⁻¹ a`` for lower-triangular ``L`` ``[n, n]`` and ``a`` ``[n, c]``: ``[n, c]``."""
    transposed: Tensor = torch.linalg.solve_triangular(factor.T, a.T, upper=True, left=False)
    return transposed.T


def column_energy(x: Tensor) -> Tensor:
    """``Σ_i x_ij²`` of every column ``j`` of ``[n, c]``: ``[c]`` float64."""
    return x.square().sum(dim=0, dtype=torch.float64)


def _inverse(factor: Tensor) -> Tensor:
    """``L⁻¹`` of one small block."""
    identity = torch.eye(factor.shape[0], dtype=factor.dtype, device=factor.device)
    inverse: Tensor = torch.linalg.solve_triangular(factor, identity, upper=False)
    return inverse


def _blocks(factor: Tensor) -> list[slice]:
    size, columns = BLOCK[factor.device.type], factor.shape[0]
    return [slice(start, min(start + size, columns)) for start in range(0, columns, size)]


def _lower(columns: int, most: int) -> list[tuple[slice, slice]]:
    """Panels that cover the lower triangle: of at most so many rows each, up to the diagonal."""
    ends = [min(start + most, columns) for start in range(0, columns, most)]
    return [(slice(start, end), slice(0, end)) for start, end in zip(range(0, columns, most), ends, strict=True)]
