"""The whole damped inverse of a curvature, applied to rows without being formed.

Rules that compensate in the rest of a row for given weights (optimal brain surgeon) need more than the diagonal of
``H⁻¹``. :mod:`hessian` makes these objects, by the same two exact routes. ``N`` is the number of tokens.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from hpa_merge.core.triangular import add_gram, cholesky_


@final
@dataclass(frozen=True)
class InverseHessian:
    """``H⁻¹`` of one linear input of ``c`` columns.

    Attributes:
        diagonal: ``[H⁻¹]_jj``, ``[c]`` float64.
        factor: ``L`` of ``L Lᵀ = G + μI`` ``[c, c]`` in the primal form, of ``x xᵀ + μI`` ``[N, N]`` in the dual one.
        scale: ``H⁻¹ = scale · (G + μI)⁻¹``.
        tokens: ``x`` ``[N, c]`` in the dual form; None in the primal one.
        damp: ``μ``.
    """

    diagonal: Tensor
    factor: Tensor
    scale: float
    tokens: Tensor | None
    damp: float

    def spread(self, a: Tensor) -> Tensor:
        """``Σ_m a_m/[H⁻¹]_mm · [H⁻¹]_mj`` for every column ``j`` of each row of ``a`` ``[r, c]``: ``[r, c]``.

        Moving one weight by ``a_m`` raises the loss ``½ Δᵀ H Δ`` least if the rest of its row moves by the term of
        ``m`` in this sum. The result has the factor's dtype; the scale of ``H`` cancels.
        """
        return self._solved(a.double().div_((self.diagonal / self.scale).to(a.device)).to(self.factor.dtype))

    def _solved(self, a: Tensor) -> Tensor:
        """``a (G + μI)⁻¹``, ``[r, c]``."""
        upper = self.factor.T  # Lᵀ, as LAPACK wants it in memory
        if self.tokens is None:
            solved: Tensor = torch.cholesky_solve(a.T, upper, upper=True).T
            return solved
        in_tokens = torch.cholesky_solve(self.tokens @ a.T, upper, upper=True)  # [N, r]
        return (a - in_tokens.T @ self.tokens) / self.damp


def dual_factor(x: Tensor, damping: float) -> tuple[Tensor, float] | None:
    """``L`` of ``x xᵀ + μI = L Lᵀ``, ``[N, N]``, and ``μ``, for tokens ``x`` ``[N, c]``; None if there is no factor."""
    damp = damping * float(x.square().sum()) / x.shape[1]
    k = x.new_zeros(x.shape[0], x.shape[0])
    add_gram(k, x.T)
    k.diagonal().add_(damp)
    return None if cholesky_(k) else (k, damp)
