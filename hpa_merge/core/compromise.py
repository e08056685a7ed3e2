"""The exact compromise between two quadratic losses of one linear layer, one around each of two weights.

    Ŵ = argmin  w tr((W − W_old) H_s (W − W_old)ᵀ) + tr((W − W_new) H_t (W − W_new)ᵀ)
      = W_new − w ΔW H_s A⁻¹ = W_old + ΔW H_t A⁻¹        A = H_t + w H_s

``H_t`` is damped and ``H_s`` is not: where no safety token looks, ``W_new`` stays, however large ``w`` is. Three exact
routes, chosen by what was gathered. Few tokens on both sides are stacked, ``Z = [√u_t x_t; √u_s x_s]``, and everything
happens in their space:

    w ΔW H_s A⁻¹ = Pᵀ (Z Zᵀ + I)⁻¹ Z        P = [0; √u_s x_s ΔWᵀ]

Otherwise ``A`` is built and factored, and the side that was kept as tokens multiplies ``ΔW``, because that is cheaper.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from hpa_merge.core.triangular import add_gram, cholesky_

__all__ = ["Hessian", "SingularCompromise", "compromise"]

ROWS = 1024
"""Rows that are solved for at once: enough to keep the solver busy, and little next to a weight."""

DUAL_SHARE = 0.8
"""Tokens of both sides per column up to which they are stacked; as in :mod:`~hpa_merge.core.hessian`."""


class SingularCompromise(ArithmeticError):
    """``A`` is not positive definite in float64 either: ``w`` is too large for the damping."""


@final
@dataclass(frozen=True)
class Hessian:
    """``H = scale · (G + μI)`` of one linear input of ``c`` columns, as it was gathered: nothing is copied.

    Attributes:
        tokens: ``x`` of ``G = xᵀx``, ``[n, c]``; None where ``gram`` is kept instead.
        gram: ``G``, ``[c, c]`` float32, of which the lower triangle counts; None where ``tokens`` are kept.
        scale: ``2/N``, with the powers of two that the activations were divided by.
        damp: ``μ``.
    """

    tokens: Tensor | None
    gram: Tensor | None
    scale: float
    damp: float

    @property
    def columns(self) -> int:
        """``c``."""
        kept = self.tokens if self.tokens is not None else self.gram
        assert kept is not None
        return kept.shape[1]

    def add_to(self, total: Tensor, factor: float) -> None:
        """``total += factor · G`` in the lower triangle; ``total`` is ``[c, c]`` float32 or float64."""
        if self.tokens is not None:
            for piece in self.tokens.split(ROWS):
                add_gram(total, piece.to(total.dtype) * factor**0.5)
        elif self.gram is not None:
            total.add_(self.gram, alpha=factor)

    def multiply(self, rows: Tensor, factor: float) -> Tensor:
        """``rows · factor · G``, ``[r, c]``, in the dtype of ``rows``."""
        if self.tokens is not None:
            x = self.tokens.to(rows.dtype) * float(factor**0.5)
            return torch.mm(torch.mm(rows, x.T), x)
        assert self.gram is not None
        lower = self.gram.tril().to(rows.dtype) * factor
        product: Tensor = rows @ lower + rows @ lower.T - rows * lower.diagonal()  # G = L + Lᵀ − diag(L)
        return product


def compromise(old: Tensor, new: Tensor, safety: Hessian, task: Hessian, weight: float) -> Tensor:
    """``Ŵ``, ``[r, c]``, contiguous, in ``new``'s dtype and on its device.

    Args:
        old, new: ``W_old`` and ``W_new``, ``[r, c]``.
        safety: ``H_s``, of which the damping is not used.
        task: ``H_t``.
        weight: ``w``, finite; 0 gives ``new`` bit for bit.

    Raises:
        ValueError: the shapes do not fit together.
        SingularCompromise: ``A`` does not factor in float64 either.
    """
    if old.shape != new.shape or old.ndim != 2 or {safety.columns, task.columns} != {old.shape[1]}:
        raise ValueError(
            f"two weights [r, c] and two Hessians of c columns expected, found {list(old.shape)}, {list(new.shape)}, "
            f"{safety.columns} and {task.columns}"
        )
    result = new.contiguous().clone()
    if weight == 0.0:
        return result
    unit = task.scale * task.damp  # A/unit = u_t G_t + u_s G_s + I
    u_t, u_s = task.scale / unit, weight * safety.scale / unit
    solve = _stacked(safety, task, u_s, u_t) or _factored(safety, task, u_s, u_t)
    for begin in range(0, len(old), ROWS):
        block = slice(begin, begin + ROWS)
        result[block] = solve(old[block], new[block]).to(result.dtype)
    return result


Solve = Callable[[Tensor, Tensor], Tensor]
"""Rows of ``W_old`` and ``W_new``, ``[r, c]`` each, to the same rows of ``Ŵ``, in float32 or float64."""


def _stacked(safety: Hessian, task: Hessian, u_s: float, u_t: float) -> Solve | None:
    """In the space of the tokens, in float64; None where there are many, or they were not kept.

    Raises:
        SingularCompromise: ``Z Zᵀ + I`` does not factor.
    """
    x_s, x_t = safety.tokens, task.tokens
    if x_s is None or x_t is None or len(x_s) + len(x_t) > DUAL_SHARE * safety.columns:
        return None
    z = torch.cat([x_t.double() * u_t**0.5, x_s.double() * u_s**0.5])  # (n, c)
    k = z.new_zeros(len(z), len(z))  # Z Zᵀ + I, then its factor
    add_gram(k, z.T)
    k.diagonal().add_(1.0)
    _factor_(k)

    def solve(old: Tensor, new: Tensor) -> Tensor:
        p = z.new_zeros(len(z), len(old))  # (n, r)
        p[len(x_t) :] = z[len(x_t) :] @ (new.double() - old.double()).T
        in_tokens = torch.cholesky_solve(p, k.T, upper=True)
        return new.double() - in_tokens.T @ z

    return solve


def _factored(safety: Hessian, task: Hessian, u_s: float, u_t: float) -> Solve:
    """With ``A``, in float32, or in float64 where that does not factor.

    Raises:
        SingularCompromise: it does not factor there either.
    """
    for dtype in (torch.float32, torch.float64):
        device = (safety.tokens if safety.gram is None else safety.gram).device  # type: ignore[union-attr]
        a = torch.zeros(safety.columns, safety.columns, dtype=dtype, device=device)  # A, then its factor
        safety.add_to(a, u_s)
        task.add_to(a, u_t)
        a.diagonal().add_(1.0)
        if dtype == torch.float64:
            _factor_(a)
        elif cholesky_(a):
            continue
        break

    def solve(old: Tensor, new: Tensor) -> Tensor:
        w_old, w_new = old.to(a.dtype), new.to(a.dtype)
        delta = w_new - w_old
        if safety.tokens is None and task.tokens is not None:
            product = task.multiply(delta, u_t).add_(delta)
            return w_old + torch.cholesky_solve(product.T, a.T, upper=True).T
        product = safety.multiply(delta, u_s)
        return w_new - torch.cholesky_solve(product.T, a.T, upper=True).T

    return solve


def _factor_(matrix: Tensor) -> None:
    """Put the lower Cholesky factor in the place of ``matrix``.

    Raises:
        SingularCompromise: there is none.
    """
    if order := cholesky_(matrix):
        raise SingularCompromise(f"the leading minor of order {order} is not positive definite")
