"""Moves of some values of a row are given; the other values respond one after the other, from left to right.

    G + μI = R Rᵀ,  R upper triangular               ½ Δᵀ(G + μI)Δ = ½ ‖ΔR‖²  for the row Δ of moves
    Δ_j = δ_j where it is given,  −(Σ_{i<j} Δ_i R_ij)/R_jj elsewhere

``(ΔR)_j = Σ_{i≤j} Δ_i R_ij`` depends on the values up to ``j`` alone. So each free value cancels its own term, given
the values on its left, and is then final. This is the recursion of SparseGPT and of the codes that are built on it:
they read the same factor off the Cholesky factor of the inverse, whose rows divided by their diagonal are the moves.
"""

import torch
from torch import Tensor

from hpa_merge.core.gathered import Hessian
from hpa_merge.core.triangular import cholesky_

__all__ = ["SingularHessian", "respond", "reversed_factor"]

COLUMNS = 128
"""Columns after which the rest of the rows is brought up to date."""


class SingularHessian(ArithmeticError):
    """``G + μI`` is not positive definite in float64 either."""


def reversed_factor(hessian: Hessian) -> Tensor:
    """``Rᵀ``, ``[c, c]`` lower triangular, in float32, or in float64 where that does not factor.

    Raises:
        SingularHessian: it does not factor there either.
    """
    for dtype in (torch.float32, torch.float64):
        total = torch.zeros(hessian.columns, hessian.columns, dtype=dtype, device=hessian.device)
        hessian.add_to(total, 1.0)
        total.diagonal().add_(hessian.damp)
        turned = total.flip(0, 1)  # its Cholesky factor is that of the columns in reverse order
        del total
        order = cholesky_(turned.T)
        if not order:
            return turned.flip(0, 1)
    raise SingularHessian(f"the leading minor of order {order} is not positive definite")


def respond(moves: Tensor, given: Tensor, factor: Tensor) -> Tensor:
    """``Δ``, ``[r, c]`` in the factor's dtype: ``moves`` where they are ``given``, the responses elsewhere.

    Args:
        moves: ``δ``, ``[r, c]``.
        given: ``[r, c]`` bool.
        factor: ``Rᵀ``, from :func:`reversed_factor`.

    Raises:
        ValueError: the shapes do not fit together.
    """
    if moves.ndim != 2 or moves.shape != given.shape or factor.shape != (moves.shape[1], moves.shape[1]):
        raise ValueError(
            f"moves [r, c], a mask [r, c] and a factor [c, c] expected, found {list(moves.shape)}, {list(given.shape)} "
            f"and {list(factor.shape)}"
        )
    moves, given = moves.T.to(factor.dtype), given.T  # [c, r]
    columns = len(factor)
    delta = moves.where(given, 0.0).contiguous()
    sums = torch.zeros_like(delta)  # Σ_{i<j} R_ij Δ_i
    pivots = factor.diagonal().tolist()
    for begin in range(0, columns, COLUMNS):
        end = min(begin + COLUMNS, columns)
        for j in range(begin, end):
            delta[j] = delta[j].where(given[j], sums[j] / -pivots[j])
            sums[j + 1 : end].addr_(factor[j + 1 : end, j], delta[j])
        sums[end:].addmm_(factor[end:, begin:end], delta[begin:end])
    return delta.T
