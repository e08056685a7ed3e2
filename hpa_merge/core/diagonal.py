"""The diagonal of the damped inverse of a curvature, from its tokens or from their Gram matrix.

Both routes are exact; :mod:`hessian` says what they compute, and takes the cheaper one.
"""

import torch
from torch import Tensor

from hpa_merge.core.triangular import PANEL, add_gram, cholesky_, column_energy, factor_, inverse_column_norms, solved

STRONG = (2.0**8, 2.0**10)
"""Ratios of a column's energy to the damping at which ``1 − s`` of the dual form may lose 8 or 10 of float32's 24 bits.
The loss of 8 bits is avoided if few columns have that ratio; the loss of 10 is avoided in float64 if many have it."""


class SingularCurvature(ArithmeticError):
    """``H`` is not positive definite, in float64 either: every input is zero, or the damping is too small."""


def inverse_diagonal_primal(gram: Tensor, tokens: int, damping: float) -> Tensor:
    """``[H⁻¹]_jj``, ``[c]`` float64, from :func:`factor_primal`."""
    return factor_primal(gram, tokens, damping)[1]


def factor_primal(gram: Tensor, tokens: int, damping: float) -> tuple[Tensor, Tensor]:
    """The Cholesky factor of ``G + μI = N/2 · H = L Lᵀ``, and ``[H⁻¹]_jj = N/2 · Σ_i (L⁻¹)_ij²``.

    Args:
        gram: ``G = Σ x xᵀ``, ``[c, c]``; only the lower triangle is read.
        tokens: ``N``.
        damping: ``μ`` divided by the mean of ``G``'s diagonal.

    Returns:
        ``L``, ``[c, c]`` in float32, or in float64 if float32 fails; the diagonal, ``[c]`` float64.

    Raises:
        SingularCurvature: ``H`` does not factor in float64 either.
    """
    damp = damping * gram.diagonal().double().mean()
    for dtype in (torch.float32, torch.float64):
        h = gram.to(dtype, copy=True)
        h.diagonal().add_(damp)
        failed = factor_(h)
        diagonal = inverse_column_norms(h)
        if bool(torch.isfinite(diagonal).all() & (failed == 0)):  # the only wait for a device
            return h, diagonal * (tokens / 2)
    raise SingularCurvature(f"the leading minor of order {int(failed)} is not positive definite")


def inverse_diagonal_dual(x: Tensor, damping: float) -> Tensor:
    """``[H⁻¹]_jj`` in the space of the tokens, by Woodbury's identity.

    With ``K = x xᵀ + μI = L Lᵀ`` and ``s_j = ‖(L⁻¹x)_j‖²``: ``[H⁻¹]_jj = N/2 · (1 − s_j)/μ``. Let ``J`` be the few
    columns whose energy ``‖x_j‖²`` is far above ``μ``; real models have channels a thousand times as large as the rest.
    There ``s_j`` is nearly 1, and the difference would be lost. So the columns ``J`` are left out of ``K`` and added by
    their Schur complement ``μQ``, which does not cancel: ``Q = I + BᵀB = R Rᵀ`` with ``B = L⁻¹x_J``. This replaces
    ``1 − s_j`` by ``1 − s_j + ‖R⁻¹Bᵀ(L⁻¹x)_j‖²`` outside ``J``, and by ``[Q⁻¹]_jj`` within.

    Args:
        x: ``[N, c]`` float32, whose squares are float32 numbers too; may be overwritten.
        damping: ``μ`` divided by the mean of the diagonal of ``xᵀx``.

    Returns:
        ``[c]``, float64.

    Raises:
        SingularCurvature: ``K`` does not factor in float64 either.
    """
    tokens = x.shape[0]
    energy = column_energy(x)
    damp = damping * float(energy.mean())
    remainder = None
    for times in STRONG:
        strong = (energy > times * damp).nonzero().flatten()
        if len(strong) <= tokens // 3:
            x_strong = x[:, strong]
            x[:, strong] = 0.0
            remainder = _remainder(x, damp, strong, x_strong)
            x[:, strong] = x_strong
            break
    if remainder is None:  # many strong columns, or no factor in float32
        remainder = _remainder(x.double(), damp, strong[:0], x[:, :0])
    if remainder is None:
        raise SingularCurvature("the Gram matrix of the tokens is not positive definite")
    if not bool((remainder > 0.0).all()):
        raise SingularCurvature("a column's curvature exceeds the damping beyond float64's precision")
    return remainder / damp * (tokens / 2)


def _remainder(x: Tensor, damp: float, strong: Tensor, x_strong: Tensor) -> Tensor | None:
    """``μ`` times the diagonal of the inverse, ``[c]`` float64; None if ``K`` does not factor in ``x``'s dtype.

    Args:
        x: ``[N, c]``, zero in the columns ``strong`` (``J``), which are in ``x_strong`` ``[N, |J|]``.
    """
    k = x.new_zeros(x.shape[0], x.shape[0])  # K, then L
    add_gram(k, x.T)
    k.diagonal().add_(damp)
    if cholesky_(k):
        return None
    b = solved(k.double(), x_strong.double()) if len(strong) else x_strong.double()  # B, [N, |J|]
    q = torch.eye(len(strong), dtype=torch.float64, device=x.device) + b.T @ b  # Q, then R
    if cholesky_(q):
        return None
    to_strong = solved(q, b.T).to(x.dtype)  # R⁻¹Bᵀ, [|J|, N]
    remainder = x.new_empty(x.shape[1], dtype=torch.float64)
    for start in range(0, x.shape[1], PANEL):
        panel = slice(start, start + PANEL)
        z = solved(k, x[:, panel])
        s, shared = z.square().sum(dim=0), (to_strong @ z).square().sum(dim=0)
        remainder[panel] = 1.0 - s.double() + shared
    remainder[strong] = inverse_column_norms(q)
    return remainder
