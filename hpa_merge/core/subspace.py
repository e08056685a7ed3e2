"""The directions in which the inputs of a linear have most of their energy.

    G = xᵀx = Σ_i λ_i v_i v_iᵀ,  λ falling            V = v_1 … v_k, the fewest with Σ_{i≤k} λ_i ≥ share · Σ_i λ_i

With fewer tokens than columns the eigenvectors come from ``x xᵀ``. All in float64.
"""

import torch
from torch import Tensor

from hpa_merge.core.gathered import Hessian

__all__ = ["leading_directions"]


def leading_directions(hessian: Hessian, share: float) -> Tensor:
    """``V``, ``[c, k]`` float64, orthonormal columns.

    Args:
        hessian: of which ``G`` is used, without damping.
        share: between 0 and 1; 0 gives no direction, 1 all that have energy as far as float64 tells.
    """
    if hessian.tokens is not None and len(hessian.tokens) < hessian.columns:
        x = hessian.tokens.double()
        values, vectors = torch.linalg.eigh(x @ x.T)
        chosen = _chosen(values, share)
        # v = xᵀu/√λ; the factor of a QR decomposition is the same up to rounding, and orthonormal
        basis: Tensor = torch.linalg.qr(x.T @ vectors[:, chosen]).Q
        return basis
    gram = torch.zeros(hessian.columns, hessian.columns, dtype=torch.float64, device=hessian.device)
    hessian.add_to(gram, 1.0)
    values, vectors = torch.linalg.eigh(gram, UPLO="L")
    directions: Tensor = vectors[:, _chosen(values, share)]
    return directions.contiguous()


def _chosen(values: Tensor, share: float) -> Tensor:
    """The places of the ``k`` largest of ascending ``values``, the largest first."""
    falling = values.flip(0).clamp_min(0.0)
    noise = falling[0] * len(values) * torch.finfo(values.dtype).eps
    falling = falling.where(falling > noise, 0.0)
    missing = falling.sum() * share - falling.cumsum(0)  # after each direction
    count = 0 if share == 0.0 else min(int((missing > noise).sum()) + 1, int((falling > 0.0).sum()))
    return torch.arange(len(values) - 1, len(values) - 1 - count, -1, device=values.device)
