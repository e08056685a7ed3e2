"""Factors of low rank: the truncated singular value decomposition, and norms of products that are never built."""

import pytest
import torch

from hpa_merge.core import product_norm, truncated


@pytest.mark.parametrize("shape", [(40, 70), (70, 40), (5, 3)])
@pytest.mark.parametrize("rank", [1, 6, 50])
def test_truncated_is_as_near_as_can_be(shape: tuple[int, int], rank: int) -> None:
    draw = torch.Generator().manual_seed(0)
    update = torch.randn(shape, generator=draw) * torch.linspace(0.1, 3, shape[1])
    left = torch.random.get_rng_state()
    y, x = truncated(update, rank)
    assert torch.equal(left, torch.random.get_rng_state())
    assert (y.shape, x.shape) == ((shape[0], rank), (rank, shape[1]))
    values = torch.linalg.svdvals(update.double())
    best = float(values[rank:].square().sum()) ** 0.5
    found = float((y.double() @ x.double() - update.double()).norm())
    assert best * (1 - 1e-6) <= found <= best * 1.01 + 1e-5 * float(values[0])
    assert all(torch.equal(a, b) for a, b in zip((y, x), truncated(update, rank), strict=True))


def test_an_update_of_that_rank_is_held_whole() -> None:
    draw = torch.Generator().manual_seed(0)
    update = torch.randn(64, 4, generator=draw) @ torch.randn(4, 96, generator=draw)
    y, x = truncated(update, 8)
    torch.testing.assert_close(y @ x, update, rtol=1e-4, atol=1e-4)


def test_product_norm() -> None:
    draw = torch.Generator().manual_seed(0)
    y, x = torch.randn(30, 4, generator=draw), torch.randn(4, 20, generator=draw)
    assert product_norm(y, x) == pytest.approx(float((y.double() @ x.double()).norm()), rel=1e-12)
    assert product_norm(y, x * 0.0) == 0.0
