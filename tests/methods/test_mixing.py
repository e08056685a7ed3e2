"""The rules that mix the columns of an update, against numpy and against what makes them what they are."""

import numpy as np
import pytest
import torch
from torch import Tensor

from hpa_merge.config import HPAConfig
from hpa_merge.core import Curvature, leading_directions
from hpa_merge.methods.applying import Curved, adapt

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
TOKENS = pytest.mark.parametrize("tokens", [(9, 20), (9, 90), (90, 9), (90, 120)], ids=str)

ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2.0**-8}


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def weights(dtype: torch.dtype, rows: int = 12, columns: int = 40) -> tuple[Tensor, Tensor]:
    old = normal(rows, columns, seed=1)
    return old.to(dtype), (old + 0.1 * normal(rows, columns, seed=2)).to(dtype)


def inputs(tokens: int, seed: int, columns: int = 40) -> Tensor:
    """Correlated, of unequal scale, and with a column that nothing activates."""
    x = normal(tokens, columns, seed=seed) @ (normal(columns, columns, seed=3) / columns**0.5 + torch.eye(columns))
    x = x * (0.5 * normal(columns, seed=seed + 1)).exp()
    x[:, 7] = 0.0
    return x


def curved(x: Tensor) -> Curved:
    gathered = Curvature(x.shape[1])
    gathered.add(x)
    return Curved(gathered.inverse_diagonal(0.01), None, gathered.hessian(0.01), len(x))


def made(old: Tensor, new: Tensor, x_s: Tensor, x_t: Tensor, block: int = 0, **options: object) -> Tensor:
    config = HPAConfig(**options)  # type: ignore[arg-type]
    return next(adapt(old, new, curved(x_s), curved(x_t), block=block, blocks=4, configs=[config])).weight


@TOKENS
@DTYPES
@pytest.mark.parametrize("w", [0.0, 0.3, 5.0])
def test_cgm(w: float, dtype: torch.dtype, tokens: tuple[int, int]) -> None:
    """The ratio of eq. 8, from plain sums of squares."""
    (old, new), x_s, x_t = weights(dtype), inputs(tokens[0], 10), inputs(tokens[1], 20)
    h_s, h_t = (2 * np.mean(np.square(x.double().numpy()), axis=0) for x in (x_s, x_t))
    h_s, h_t = (h + 0.01 * np.mean(h) for h in (h_s, h_t))
    half = w * (1 - 0.5 * 2 / 4)  # half of the weight is gone after the last of four blocks: here before the third
    ratio = half * h_s / (h_t + half * h_s)
    w_old, w_new = old.double().numpy(), new.double().numpy()
    expected = w_new + ratio * (w_old - w_new)
    found = made(old, new, x_s, x_t, 2, method="cgm", safety_weight=w, safety_fade=0.5)
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=ROUNDING[dtype], atol=1e-6)
    assert (w == 0.0) == torch.equal(found, new)


def test_cgm_is_the_exact_compromise_where_no_two_inputs_are_correlated() -> None:
    old, new = weights(torch.float32)
    x_s, x_t = (torch.diag((0.5 * normal(40, seed=seed)).exp()).repeat(3, 1) for seed in (5, 6))
    by_columns, exact = (made(old, new, x_s, x_t, method=name, safety_weight=2.0) for name in ("cgm", "regmean"))
    torch.testing.assert_close(by_columns, exact)


@TOKENS
@DTYPES
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95, 1.0])
def test_null_space(share: float, dtype: torch.dtype, tokens: tuple[int, int]) -> None:
    (old, new), x_s = weights(dtype), inputs(tokens[0], 10)
    _, singular, right = np.linalg.svd(x_s.double().numpy(), full_matrices=False)
    energy = np.cumsum(singular**2) / np.sum(singular**2)
    count = 0 if share == 0.0 else int(np.sum(energy < share - 1e-12)) + 1
    v = right[: min(count, int(np.sum(singular > 1e-12 * singular[0])))].T
    delta = new.double().numpy() - old.double().numpy()
    expected = new.double().numpy() - delta @ v @ v.T
    found = made(old, new, x_s, x_s, method="null-space", safety_energy=share)
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=ROUNDING[dtype], atol=1e-5)
    left = np.linalg.norm((found.double() - old.double()).numpy() @ x_s.double().numpy().T)
    assert left <= (1 - share + 1e-4) ** 0.5 * np.linalg.norm(delta, 2) * np.linalg.norm(x_s) + (
        ROUNDING[dtype] * np.linalg.norm(x_s) * np.linalg.norm(old.double())
    )
    assert (share == 0.0) == torch.equal(found, new)


@pytest.mark.parametrize("tokens", [9, 40, 120])
def test_the_leading_directions_are_orthonormal_and_no_more_than_needed(tokens: int) -> None:
    x = inputs(tokens, 10)
    hessian = curved(x).hessian
    assert hessian is not None
    energy = x.double().square().sum()
    for share in (0.3, 0.9, 0.999):
        v = leading_directions(hessian, share)
        torch.testing.assert_close(v.T @ v, torch.eye(v.shape[1], dtype=torch.float64))
        assert float((x.double() @ v).square().sum() / energy) >= share - 1e-6
        assert float((x.double() @ v[:, :-1]).square().sum() / energy) < share + 1e-6
    assert leading_directions(hessian, 1.0).shape[1] == min(tokens, 39)


@pytest.mark.parametrize("method", ["cgm", "null-space", "regmean"])
def test_a_lora_keeps_its_rank(method: str) -> None:
    old = normal(12, 40, seed=1)
    new = old + normal(12, 2, seed=2) @ normal(2, 40, seed=3)
    change = made(old, new, inputs(9, 10), inputs(90, 20), method=method).double() - old.double()
    singular = torch.linalg.svdvals(change)
    assert float(singular[2]) <= 1e-5 * float(singular[0])


@pytest.mark.parametrize("method", ["regmean", "cgm"])
def test_a_model_without_blocks_has_the_whole_safety_weight(method: str) -> None:
    old, new = weights(torch.float32)
    sides, found = (curved(inputs(9, 10)), curved(inputs(90, 20))), []
    for fade in (0.0, 0.5):
        config = HPAConfig(method=method, safety_fade=fade)  # type: ignore[arg-type]
        found.append(next(adapt(old, new, *sides, block=0, blocks=0, configs=[config])).weight)
    assert torch.equal(*found)
