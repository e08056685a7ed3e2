"""The exact compromise between two quadratic losses of one linear layer, one around each of two weights.

    Ŵ = argmin  w tr((W − W_old) H_s (W − W_old)ᵀ) + tr((W − W_new) H_t (W − W_new)ᵀ)
      = W_new − w ΔW H_s A⁻¹ = W_old + ΔW H_t A⁻¹        A = H_t + w H_s

Both Hessians are damped. In units of ``λ_t``, ``H_t = u_t x_tᵀx_t + I`` and ``w H_s = u_s x_sᵀx_s + d I``. Three exact
routes, chosen by what was gathered. Few tokens on both sides are stacked, ``Z = [√u_t x_t; √u_s x_s]``, and everything
happens in their space:

    w ΔW H_s A⁻¹ = ρ ΔW + Qᵀ (Z Zᵀ + (1 + d) I)⁻¹ Z        ρ = d/(1 + d),  Q = [0; √u_s x_s ΔWᵀ] − ρ Z ΔWᵀ

Otherwise ``A`` is built and factored. Where one side was kept as tokens, these multiply ``ΔW``, because that is cheap,
and the product is solved for. So it is for weights with fewer rows than columns. For the others ``N = w H_s A⁻¹`` is
made once, and serves all that read the input: ``Ŵ = W_new − ΔW N``, a product instead of a product and two triangular
solves.
"""

from collections.abc import Callable
from functools import cache
from typing import final

import torch
from torch import Tensor

from hpa_merge.core.gathered import Hessian
from hpa_merge.core.triangular import add_gram, cholesky_, mirror_

__all__ = ["Compromise", "SingularCompromise"]

ROWS = 1024
"""Rows that are solved for at once: enough to keep the solver busy, and little next to a weight."""

DUAL_SHARE = 0.8
"""Tokens of both sides per column up to which they are stacked; as in :mod:`~hpa_merge.core.hessian`."""

Solve = Callable[[Tensor, Tensor], Tensor]
"""Rows of ``W_old`` and ``W_new``, ``[r, c]`` each, to the same rows of ``Ŵ``, in float32 or float64."""

Routes = tuple[Solve, Solve]
"""For weights with fewer rows than columns, and for the others."""


class SingularCompromise(ArithmeticError):
    """``A`` is not positive definite in float64 either: the damping is too small."""


@final
class Compromise:
    """The compromise of two Hessians. What depends on ``w`` alone is factored once and serves every linear weight.

    Attributes:
        safety, task: ``H_s`` and ``H_t``.
    """

    def __init__(self, safety: Hessian, task: Hessian) -> None:
        self.safety, self.task = safety, task
        self._routes: dict[float, Routes] = {}

    def between(self, old: Tensor, new: Tensor, weight: float) -> Tensor:
        """``Ŵ``, ``[r, c]``, contiguous, in ``new``'s dtype and on its device.

        Args:
            old, new: ``W_old`` and ``W_new``, ``[r, c]``.
            weight: ``w``, finite; 0 gives ``new`` bit for bit.

        Raises:
            ValueError: the shapes do not fit together.
            SingularCompromise: ``A`` does not factor in float64 either.
        """
        if old.shape != new.shape or old.ndim != 2 or {self.safety.columns, self.task.columns} != {old.shape[1]}:
            raise ValueError(
                f"two weights [r, c] and two Hessians of c columns expected, found {list(old.shape)}, "
                f"{list(new.shape)}, {self.safety.columns} and {self.task.columns}"
            )
        result = new.contiguous().clone()
        if weight == 0.0:
            return result
        if weight not in self._routes:
            self._routes[weight] = self._routes_for(weight)
        rows, columns = old.shape
        solve = self._routes[weight][rows >= columns]
        for begin in range(0, len(old), ROWS):
            block = slice(begin, begin + ROWS)
            result[block] = solve(old[block], new[block]).to(result.dtype)
        return result

    def _routes_for(self, weight: float) -> Routes:
        """The cheapest exact routes for ``w``."""
        unit = self.task.scale * self.task.damp  # A/unit = u_t G_t + u_s G_s + (1 + d) I
        u_t, u_s = self.task.scale / unit, weight * self.safety.scale / unit
        given = (self.safety, self.task, u_s, u_t, u_s * self.safety.damp)
        return _stacked(*given) or _factored(*given)


def _stacked(safety: Hessian, task: Hessian, u_s: float, u_t: float, d: float) -> Routes | None:
    """In the space of the tokens, in float64; None where there are many, or they were not kept.

    Raises:
        SingularCompromise: ``Z Zᵀ + (1 + d) I`` does not factor.
    """
    x_s, x_t = safety.tokens, task.tokens
    if x_s is None or x_t is None or len(x_s) + len(x_t) > DUAL_SHARE * safety.columns:
        return None
    z = torch.cat([x_t.double() * u_t**0.5, x_s.double() * u_s**0.5])  # (n, c)
    k = z.new_zeros(len(z), len(z))  # Z Zᵀ + (1 + d) I, then its factor
    add_gram(k, z.T)
    k.diagonal().add_(1.0 + d)
    _factor_(k)
    rho = d / (1.0 + d)
    shares = z.new_full((len(z), 1), -rho)  # Q = shares · Z ΔWᵀ
    shares[len(x_t) :] = 1.0 / (1.0 + d)

    def solve(old: Tensor, new: Tensor) -> Tensor:
        delta = new.double() - old.double()
        q = (z @ delta.T).mul_(shares)  # (n, r)
        in_tokens = torch.cholesky_solve(q, k.T, upper=True)
        return new.double() - rho * delta - in_tokens.T @ z

    return solve, solve


def _factored(safety: Hessian, task: Hessian, u_s: float, u_t: float, d: float) -> Routes:
    """With ``A``, in float32, or in float64 where that does not factor.

    Raises:
        SingularCompromise: it does not factor there either.
    """
    for dtype in (torch.float32, torch.float64):
        a = torch.zeros(safety.columns, safety.columns, dtype=dtype, device=safety.device)  # A, then its factor
        safety.add_to(a, u_s)
        task.add_to(a, u_t)
        a.diagonal().add_(1.0 + d)
        if dtype == torch.float64:
            _factor_(a)
        elif cholesky_(a):
            continue
        break

    def solved(rows: Tensor) -> Tensor:
        """``rows · A⁻¹``, ``[r, c]`` as ``rows``."""
        return torch.cholesky_solve(rows.T, a.T, upper=True).T

    def solve(old: Tensor, new: Tensor) -> Tensor:
        w_old, w_new = old.to(a.dtype), new.to(a.dtype)
        delta = w_new - w_old
        if safety.tokens is None and task.tokens is not None:
            return w_old + solved(task.multiply(delta, u_t).add_(delta))
        return w_new - solved(safety.multiply(delta, u_s).add_(delta, alpha=d))

    @cache
    def undone() -> Tensor:
        """``N``, ``[c, c]`` float32, made in the place of ``w H_s``."""
        n = torch.zeros_like(a)
        safety.add_to(n, u_s)
        mirror_(n)
        n.diagonal().add_(d)
        for rows in n.split(ROWS):
            rows.copy_(solved(rows))
        return n

    def multiply(old: Tensor, new: Tensor) -> Tensor:
        w_new = new.to(a.dtype)
        return torch.addmm(w_new, w_new - old.to(a.dtype), undone(), alpha=-1.0)

    dense = safety.tokens is None and task.tokens is None
    return solve, multiply if dense and a.dtype == torch.float32 else solve


def _factor_(matrix: Tensor) -> None:
    """Put the lower Cholesky factor in the place of ``matrix``.

    Raises:
        SingularCompromise: there is none.
    """
    if order := cholesky_(matrix):
        raise SingularCompromise(f"the leading minor of order {order} is not positive definite")
