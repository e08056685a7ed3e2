"""Curvatures of made-up samples, and the diagonal of the damped inverse held against the textbook's."""

from collections.abc import Mapping
from typing import Any

import torch
from precision import inverse_diagonal_error
from torch import Tensor

from hpa_merge.core import Curvature
from hpa_merge.core.gathered import Packed
from hpa_merge.core.leaves import Place


def normal(n: int, c: int, seed: int = 0) -> Tensor:
    return torch.randn(n, c, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gather(*batches: Tensor) -> Curvature:
    curvature = Curvature(batches[0].shape[1])
    for batch in batches:
        curvature.add(batch)
    return curvature


def textbook(x: Tensor, damping: float = 0.01) -> Tensor:
    """``diag(((2/N) Σ x xᵀ + λI)⁻¹)`` by an explicit inverse: ``[c]`` float64."""
    h = 2.0 / x.shape[0] * x.double().T @ x.double()
    identity = torch.eye(x.shape[1], dtype=torch.float64)
    return torch.linalg.inv(h + damping * h.diagonal().mean() * identity).diagonal().clone()


def added(leaves: Mapping[Place, Packed], *, travelling: bool = False) -> Curvature:
    """What an owner has of the leaves of all ranks; ``travelling``: the sum is sent after each of them."""
    total = Curvature(next(iter(leaves.values())).columns)
    for place in sorted(leaves):
        total.take_packed(leaves[place])
        if travelling:
            packed = total.packed()
            assert total.tokens == 0
            total = Curvature.unpacked(packed.head().whole(packed.contents))
    return total


def assert_near(found: Tensor, expected: Tensor, error: Tensor | float) -> None:
    """``error``: relative, of each column or of all."""
    assert found.dtype == torch.float64
    excess = (found - expected).abs() / (error * expected.abs())
    assert float(excess.max()) <= 1.0, f"an error is {float(excess.max()):.3g} times its bound"


def assert_textbook(found: Tensor, x: Tensor, damping: float = 0.01, **route: Any) -> None:
    assert_near(found, textbook(x, damping), inverse_diagonal_error(x, damping, **route))


def assert_holds(curvature: Curvature, tokens: Tensor) -> None:
    """It has seen exactly these tokens: strongly damped, so that the order of the sums hardly shows."""
    alone = Curvature(tokens.shape[1])
    alone.add(tokens)
    assert curvature.tokens == len(tokens)
    assert_near(curvature.inverse_diagonal(1.0), alone.inverse_diagonal(1.0), 2 * inverse_diagonal_error(tokens, 1.0))
