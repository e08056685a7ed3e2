"""How far a result may lie from the exact one: bounds from what is computed, not from what one processor gave.

The standard model of rounding, ``fl(a ∘ b) = (a ∘ b)(1 + δ)`` with ``|δ| ≤ u``, holds for every processor, any order of
a sum, any number of threads, with fused multiplications or without. To first order in ``u``:

- Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed. (2002): a sum of ``n`` products is off by at most
  ``n u Σ|ab|`` (3.5), so is each entry of a product of matrices (3.13); a Cholesky factor ``L`` is that of a matrix
  that is off by ``(c + 1) u |L||Lᵀ|`` (theorem 10.3), a triangular solution that of a factor that is off by ``c u |L|``
  (theorem 8.5).
- Higham and Mary, A New Approach to Probabilistic Rounding Error Analysis, SIAM J. Sci. Comput. 41 (2019): rounding
  errors are all but independent and of mean zero, so by Hoeffding's inequality a sum of them is at most
  ``λ u ‖coefficients‖₂`` but for a chance of ``2 exp(−λ²/2)``: of ``n`` products ``λ √n u``, not ``n u``.

Where an error moves what is asked for, its condition number is not taken but what it makes of each entry. A mistake of
another kind (a damping that is off, a mean over another number, a detour through half precision) is large against these
bounds: ``core/test_hessian_precision.py`` shows it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["accumulated", "inverse_diagonal_error", "inverse_rows_error", "unit_roundoff"]

LAMBDA = 6
"""A bound is exceeded once in thirty million sums."""


def unit_roundoff(dtype: torch.dtype) -> float:
    """``u``: half of the distance from 1 to the next number."""
    return torch.finfo(dtype).eps / 2


def accumulated(terms: int, dtype: torch.dtype) -> float:
    """The error of a sum of so many products, relative to the sum of their magnitudes."""
    return min(terms, LAMBDA * terms**0.5) * unit_roundoff(dtype)


def inverse_diagonal_error(
    x: Tensor, damping: float, *, dtype: torch.dtype = torch.float32, apart: Tensor | None = None
) -> Tensor:
    """The relative error of each ``[H⁻¹]_jj`` of :mod:`hpa_merge.core.hessian`: ``[c]`` float64.

    Args:
        x: ``[n, c]``: the tokens, which it takes in float32.
        damping: ``μ``, relative to the mean of the diagonal of ``xᵀx``.
        dtype: in which the matrix is factored.
        apart: which columns the dual form leaves out of that matrix, ``[c]`` bool; None: none.
    """
    converted = 0 if x.dtype != torch.float64 else 1  # roundings that a token has behind it
    x = x.double()
    n, c = x.shape
    u = unit_roundoff(dtype)
    damp = damping * float(x.square().mean(dim=1).sum())
    inverse = torch.linalg.inv(x.T @ x + damp * torch.eye(c, dtype=x.dtype))
    # μ comes from a mean of squares in float32, and d H⁻¹ = −H⁻² dμ
    found = 2 * unit_roundoff(torch.float32) * damp * inverse.square().sum(dim=0) / inverse.diagonal()
    if n > 0.8 * c:
        products = accumulated_in(x, torch.float32, converted)
        q = _Entries(x.T @ x + damp * torch.eye(c, dtype=x.dtype), torch.eye(c, dtype=x.dtype))
        return found + (q.moved_by(products) + q.computed(dtype)) / q.values + 4 * u
    rest = x if apart is None else torch.where(apart, 0.0, x)
    eye = torch.eye(n, dtype=x.dtype)
    whole, q = _Entries(x @ x.T + damp * eye, x), _Entries(rest @ rest.T + damp * eye, x)
    moved = whole.moved_by([*accumulated_in(rest.T, dtype, converted), *q.factored(dtype)])
    formed = q.computed(dtype) + 2 * u
    if converted:
        moved += 2 * unit_roundoff(torch.float32) * (whole.z.abs() * x.abs()).sum(dim=0)
    if apart is not None:  # these come from what was left out in float64; the others once more, for its share of them
        formed = torch.where(apart, 0.0, 2 * formed)
    return found + (moved + formed) / (damp * inverse.diagonal()) + 4 * u


def inverse_rows_error(a: Tensor, x: Tensor, damping: float) -> Tensor:
    """The error of each entry of ``a (xᵀx + μI)⁻¹``, ``[r, c]``, from the Gram matrix in float32 and its factor.

    Args:
        a: ``[r, c]`` float64.
        x, damping: as in :func:`inverse_diagonal_error`.
    """
    c = x.shape[1]
    wide = x.double()
    matrix = wide.T @ wide + damping * float(wide.square().mean(dim=1).sum()) * torch.eye(c, dtype=wide.dtype)
    q = _Entries(matrix, torch.eye(c, dtype=wide.dtype))
    solved = a @ q.z  # (r, c)
    errors = [*accumulated_in(wide, torch.float32, 0), *3 * q.factored(torch.float32)]  # factored, and solved twice
    variance = sum(terms * (solved.square() @ error.square() @ q.z.square()) for terms, error in errors)
    return LAMBDA * (2 * variance).sqrt() + 4 * unit_roundoff(torch.float32) * solved.abs()


Errors = Sequence[tuple[float, Tensor]]
"""Of the entries of a matrix: by how many roundings each, and of what magnitude."""


def accumulated_in(x: Tensor, dtype: torch.dtype, converted: int) -> Errors:
    """The errors of ``xᵀx``."""
    u = unit_roundoff(dtype)
    magnitude = x.T.abs() @ x.abs()
    return [(len(x), u * magnitude), (2 * converted, unit_roundoff(torch.float32) * magnitude)]


class _Entries:
    """``q_j = b_jᵀ A⁻¹ b_j``, found as ``‖y_j‖²`` of ``L y_j = b_j`` with ``A = L Lᵀ``.

    An error ``E`` of ``A`` moves ``q_j`` by ``z_jᵀ E z_j`` with ``z_j = A⁻¹ b_j``, one of ``L`` in the solution by
    twice ``z_jᵀ E y_j``.
    """

    def __init__(self, a: Tensor, b: Tensor) -> None:
        """``a``: ``[c, c]``; ``b``: ``[c, m]``; both float64."""
        self._factor = torch.linalg.cholesky(a)
        self._diagonal = torch.diag(a.diagonal())
        self._y = torch.linalg.solve_triangular(self._factor, b, upper=False)
        self.z = torch.linalg.solve_triangular(self._factor.T, self._y, upper=True)
        self.values = self._y.square().sum(dim=0)

    def moved_by(self, errors: Errors) -> Tensor:
        """By errors of the entries of ``A``: ``[m]``."""
        at_most = sum(terms * (self.z.abs() * (error @ self.z.abs())).sum(dim=0) for terms, error in errors)
        squares = self.z.square()
        variance = sum(terms * (squares * (error.square() @ squares)).sum(dim=0) for terms, error in errors)
        return torch.minimum(at_most, LAMBDA * (2 * variance).sqrt())  # twice: an entry and its twin have one error

    def factored(self, dtype: torch.dtype) -> Errors:
        """What adding the damping and factoring come to, as errors of ``A``."""
        u, factor = unit_roundoff(dtype), self._factor.abs()
        return [(len(factor) + 1, u * (factor @ factor.T)), (2, u * self._diagonal)]

    def computed(self, dtype: torch.dtype) -> Tensor:
        """By factoring, solving and squaring: ``[m]``."""
        u, c = unit_roundoff(dtype), len(self._factor)
        spread = self._factor.abs() @ self._y.abs()
        at_most = c * (self.z.abs() * spread).sum(dim=0)
        likely = LAMBDA * (c * (self.z * spread).square().sum(dim=0)).sqrt()
        solved = 2 * u * torch.minimum(at_most, likely)
        return self.moved_by(self.factored(dtype)) + solved + (accumulated(c, dtype) + u) * self.values
