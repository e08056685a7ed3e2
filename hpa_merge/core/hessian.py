"""The curvature of one linear input: gather its tokens, then take the diagonal of the damped inverse.

    H = (2/N) Σ x xᵀ + λ I,    λ = damping · mean(diag((2/N) Σ x xᵀ))        wanted: [H⁻¹]_jj for every column j

Two exact routes. With fewer tokens than columns the tokens themselves are kept and the inverse is taken in their
space (Woodbury); otherwise the Gram matrix is accumulated, and the diagonal comes from its Cholesky factor. Neither
builds ``H⁻¹``.
"""

import math
from typing import final

import torch
from torch import Tensor

BLOCK = 1024
"""Columns that the triangular products and solves take at a time: large enough to keep the multiplier busy."""

CANCELLATION = 2.0**-10
"""Below this, ``1 − s`` in the dual form has lost ten of float32's 24 bits: such columns are taken in float64."""


class SingularCurvature(ArithmeticError):
    """``H`` is not positive definite, in float64 either: every input is zero, or the damping is too small."""


@final
class Curvature:
    """``H`` of one linear input of ``c`` columns, gathered from any number of token batches.

    Holds the tokens while they are fewer than ``c``, and from then on a ``[c, c]`` float32 Gram matrix of which only
    the lower triangle is filled. Everything stays on the device of the tokens, and is computed on tokens divided by
    ``2^k`` that brings their mean square near 1, so that squares of any activation stay within float32.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.tokens = 0
        self._rows: list[Tensor] = []  # [n, c] each; together fewer than c rows
        self._gram: Tensor | None = None  # Σ x xᵀ / 4^k, [c, c] float32, lower triangle
        self._exponent = 0  # k, chosen when the Gram matrix is begun
        self._norm: Tensor | float = 0.0  # Σ ‖x‖², float64

    def add(self, x: Tensor) -> None:
        """Take in tokens ``x`` of shape ``[n, c]``, any floating dtype. ``x`` is kept: do not write to it afterwards.

        Raises:
            ValueError: ``x`` is not ``[n, c]``.
        """
        if x.ndim != 2 or x.shape[1] != self.columns:
            raise ValueError(f"tokens of shape [n, {self.columns}] expected, found {list(x.shape)}")
        self.tokens += x.shape[0]
        self._norm = self._norm + torch.linalg.vector_norm(x, dtype=torch.float64).square()
        self._rows.append(x)
        self._fold_if_full()

    def absorb(self, other: "Curvature") -> None:
        """Take in everything that ``other`` has gathered; ``other`` is left as it is.

        Raises:
            ValueError: ``other`` has another number of columns.
        """
        if other.columns != self.columns:
            raise ValueError(f"a curvature of {self.columns} columns expected, found one of {other.columns} columns")
        self.tokens += other.tokens
        self._norm = self._norm + other._norm
        self._rows.extend(other._rows)
        if other._gram is not None:
            if self._gram is None:
                self._gram, self._exponent = torch.zeros_like(other._gram), other._exponent
            self._gram += other._gram * 4.0 ** (other._exponent - self._exponent)
        self._fold_if_full()

    @property
    def mean_square(self) -> float:
        """``mean(diag(Σ x xᵀ)) / N``: 0 where nothing activates the layer, not finite where an activation is not."""
        return float(self._norm) / (self.tokens * self.columns) if self.tokens else 0.0

    def inverse_diagonal(self, damping: float) -> Tensor:
        """``[H⁻¹]_jj`` of every column: ``[c]``, float64, on the device of the tokens.

        Raises:
            SingularCurvature: ``H`` does not factor in float64 either.
        """
        if not 0.0 < self.mean_square < math.inf:
            silent = self.mean_square == 0.0
            raise SingularCurvature("no token activates any column" if silent else "an activation is not finite")
        scale = 2.0 / self.tokens
        damp = damping * scale * float(self._norm) / self.columns
        if self._gram is None:
            exponent = self._unit_exponent()
            x = torch.cat(self._rows) * 2.0**-exponent
            return inverse_diagonal_dual(x, scale, damp / 4.0**exponent) / 4.0**exponent
        if self._rows:
            self._fold()
        return inverse_diagonal_primal(self._gram, scale, damp / 4.0**self._exponent) / 4.0**self._exponent

    def _unit_exponent(self) -> int:
        """``k`` that brings the tokens so far, divided by ``2^k``, near a mean square of 1."""
        mean_square = self.mean_square
        if not 0.0 < mean_square < math.inf:
            return 0
        return max(-100, min(100, round(math.log2(mean_square) / 2)))

    def _fold_if_full(self) -> None:
        if sum(len(rows) for rows in self._rows) >= self.columns:
            self._fold()

    def _fold(self) -> None:
        """``Σ x xᵀ`` += the kept tokens', by blocks of the lower triangle."""
        if self._gram is None:
            self._exponent = self._unit_exponent()
        x = torch.cat(self._rows).float() * 2.0**-self._exponent  # (n, c)
        self._rows.clear()
        if self._gram is None:
            self._gram = x.new_zeros(self.columns, self.columns)
        for start in range(0, self.columns, BLOCK):
            stop = min(start + BLOCK, self.columns)
            self._gram[start:stop, :stop].addmm_(x[:, start:stop].T, x[:, :stop])


def inverse_diagonal_primal(gram: Tensor, scale: float, damp: float) -> Tensor:
    """``diag((scale · gram + damp · I)⁻¹)`` from the Cholesky factor: ``H = L Lᵀ``, ``[H⁻¹]_jj = Σ_i (L⁻¹)_ij²``.

    Args:
        gram: ``[c, c]``; only the lower triangle is read.
        scale: ``2/N``.
        damp: ``λ``.

    Returns:
        ``[c]``, float64.
    """
    for dtype in (torch.float32, torch.float64):
        h = gram.to(dtype) * scale
        h.diagonal().add_(damp)
        factor, failed = torch.linalg.cholesky_ex(h)
        del h
        if not failed:
            diagonal = _inverse_factor_norms(factor)
            if bool(torch.isfinite(diagonal).all()):
                return diagonal
    raise SingularCurvature(f"the leading minor of order {int(failed)} is not positive definite")


def _inverse_factor_norms(factor: Tensor) -> Tensor:
    """Squared norms of the columns of ``L⁻¹`` for lower-triangular ``L`` ``[c, c]``: ``[c]`` float64.

    Columns ``start:stop`` of ``L⁻¹`` are zero above row ``start``: one triangular solve below it, by column blocks.
    """
    columns = factor.shape[0]
    norms = factor.new_empty(columns, dtype=torch.float64)
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        unit = torch.eye(columns - start, stop - start, dtype=factor.dtype, device=factor.device)
        solved = torch.linalg.solve_triangular(factor[start:, start:], unit, upper=False)  # (c - start, stop - start)
        norms[start:stop] = solved.square_().sum(dim=0, dtype=torch.float64)
    return norms


def inverse_diagonal_dual(x: Tensor, scale: float, damp: float) -> Tensor:
    """``diag((scale · xᵀx + damp · I)⁻¹)`` in the space of the tokens, by Woodbury's identity.

    With ``A = x √scale`` of shape ``[n, c]`` and ``K = A Aᵀ + λ I = L Lᵀ``: ``[H⁻¹]_jj = (1 − s_j)/λ``,
    ``s_j = ‖(L⁻¹A)_j‖²``. Where ``s_j`` comes so close to 1 that float32 cancels, column ``j`` is taken in float64.

    Args:
        x: ``[n, c]``, any floating dtype.
        scale: ``2/N``.
        damp: ``λ``.

    Returns:
        ``[c]``, float64.
    """
    remainder = None
    a = x.float() * scale**0.5
    factor = _dual_factor(a, damp)
    if factor is not None:
        remainder = 1.0 - _solved_norms(factor, a)
        weak = ~(remainder > CANCELLATION)  # a NaN is weak too
        if not bool(weak.any()):
            return remainder / damp
    a = x.double() * scale**0.5
    factor = _dual_factor(a, damp)
    if factor is None:
        raise SingularCurvature("the Gram matrix of the tokens is not positive definite")
    if remainder is None:
        remainder = 1.0 - _solved_norms(factor, a)
    else:
        remainder[weak] = 1.0 - _solved_norms(factor, a[:, weak])
    if not bool((remainder > 0.0).all()):
        raise SingularCurvature("a column's curvature exceeds the damping beyond float64's precision")
    return remainder / damp


def _dual_factor(a: Tensor, damp: float) -> Tensor | None:
    """Lower Cholesky factor of ``a aᵀ + damp · I``, ``[n, n]``, or None where it does not exist in ``a``'s dtype."""
    k = a @ a.T
    k.diagonal().add_(damp)
    factor, failed = torch.linalg.cholesky_ex(k)
    return None if failed else factor


def _solved_norms(factor: Tensor, a: Tensor) -> Tensor:
    """Squared norms of the columns of ``L⁻¹ a``: ``[c]`` float64, by column blocks."""
    blocks = (
        torch.linalg.solve_triangular(factor, a[:, start : start + BLOCK], upper=False).square_()
        for start in range(0, a.shape[1], BLOCK)
    )
    return torch.cat([block.sum(dim=0, dtype=torch.float64) for block in blocks])
