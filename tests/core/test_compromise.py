"""The compromise between two quadratic losses, against numpy in float64 and against what makes it one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from precision import unit_roundoff
from torch import Tensor

from hpa_merge.core import Compromise, Curvature, SingularCompromise

DAMPING = 0.01


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def weights(rows: int, columns: int, dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor]:
    old = normal(rows, columns, seed=seed)
    return old.to(dtype), (old + 0.1 * normal(rows, columns, seed=seed + 1)).to(dtype)


def activations(tokens: int, columns: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Correlated, and of channels of unequal scale."""
    mixing = normal(columns, columns, seed=seed) / columns**0.5 + torch.eye(columns)
    return (normal(tokens, columns, seed=seed + 1) @ mixing * (0.5 * normal(columns, seed=seed + 2)).exp()).to(dtype)


def gathered(x: Tensor, *, offload: bool = False) -> Curvature:
    curvature = Curvature(x.shape[1], offload=offload)
    for batch in x.split(9):
        curvature.add(batch)
    return curvature


def hessian(x: Tensor) -> np.ndarray:
    """``(2/N) Σ x xᵀ + λI``, ``[c, c]``."""
    values = x.double().numpy()
    h = 2 / len(values) * values.T @ values
    return h + DAMPING * np.mean(np.diag(h)) * np.eye(len(h))


def textbook(old: Tensor, new: Tensor, x_s: Tensor, x_t: Tensor, w: float) -> tuple[np.ndarray, float]:
    """``W_old + ΔW H_t (H_t + w H_s)⁻¹``, and the condition number of what is inverted."""
    h_s, h_t = hessian(x_s), hessian(x_t)
    w_old, w_new = old.double().numpy(), new.double().numpy()
    total = h_t + w * h_s
    return w_old + np.linalg.solve(total.T, ((w_new - w_old) @ h_t).T).T, float(np.linalg.cond(total))


def made(old: Tensor, new: Tensor, x_s: Tensor, x_t: Tensor, w: float, **options: bool) -> Tensor:
    safety, task = (gathered(x, **options).hessian(DAMPING) for x in (x_s, x_t))
    return Compromise(safety, task).between(old, new, w)


ROUTES = {
    "stacked": (9, 20),
    "both too many to stack": (30, 30),
    "safety few": (9, 90),
    "task few": (90, 9),
    "many": (90, 120),
}

ROWS = [12, 40, 70]
"""Fewer than columns, as many, more."""


@pytest.mark.parametrize("w", [0.1, 1.0, 3.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("tokens", ROUTES.values(), ids=ROUTES)
def test_the_textbook(tokens: tuple[int, int], rows: int, dtype: torch.dtype, w: float) -> None:
    old, new = weights(rows, 40, dtype, seed=1)
    x_s, x_t = activations(tokens[0], 40, dtype, seed=4), activations(tokens[1], 40, dtype, seed=8)
    expected, condition = textbook(old, new, x_s, x_t, w)
    found = made(old, new, x_s, x_t, w)
    assert found.dtype == dtype
    moved = np.linalg.norm(new.double().numpy() - old.double().numpy(), axis=1, keepdims=True)
    in_sums = 40 * unit_roundoff(torch.float32) * condition * moved
    rounding = unit_roundoff(dtype) * np.abs(expected) + 1e-7 * (dtype == torch.float16)  # float16 has subnormals here
    assert (np.abs(found.double().numpy() - expected) <= in_sums + rounding * 1.01).all()
    assert torch.equal(made(old, new, x_s, x_t, w, offload=True), found)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(ROUTES)), st.sampled_from([3, 41]), st.floats(1e-3, 1e3))
def test_it_is_the_minimum(seed: int, route: str, rows: int, w: float) -> None:
    """No step in any direction lowers the sum of the two losses: its gradient is zero, as far as rounding goes."""
    (old, new), (n_s, n_t) = weights(rows, 40, torch.float64, seed), ROUTES[route]
    x_s, x_t = activations(n_s, 40, torch.float32, seed + 2), activations(n_t, 40, torch.float32, seed + 5)
    h_s, h_t = hessian(x_s), hessian(x_t)
    between = made(old, new, x_s, x_t, w).numpy()
    of_safety, of_task = w * (between - old.numpy()) @ h_s, (between - new.numpy()) @ h_t
    size = np.linalg.norm(h_t + w * h_s) * np.linalg.norm((new - old).numpy())
    assert np.linalg.norm(of_safety + of_task) <= 1e4 * unit_roundoff(torch.float32) * size


@pytest.mark.parametrize("tokens", ROUTES.values(), ids=ROUTES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_weight_of_safety_is_new(tokens: tuple[int, int], dtype: torch.dtype) -> None:
    old, new = weights(5, 40, dtype, seed=3)
    found = made(old, new, activations(tokens[0], 40, dtype, 1), activations(tokens[1], 40, dtype, 2), 0.0)
    assert torch.equal(found, new)
    assert found.data_ptr() != new.data_ptr()


@pytest.mark.parametrize("rows", [6, 40])
@pytest.mark.parametrize("tokens", ROUTES.values(), ids=ROUTES)
def test_all_weight_of_safety_is_old_and_first_where_safety_looks(tokens: tuple[int, int], rows: int) -> None:
    old, new = weights(rows, 40, torch.float64, seed=3)
    x_s, x_t = activations(tokens[0], 40, torch.float32, seed=1), activations(tokens[1], 40, torch.float32, seed=2)
    values, directions = np.linalg.eigh(hessian(x_s))
    in_sums = 40 * unit_roundoff(torch.float32) * values.max() / values.min()
    assert float((made(old, new, x_s, x_t, 1e9) - old).norm()) <= in_sums * float((new - old).norm())
    between = made(old, new, x_s, x_t, 10.0) - old
    left = np.linalg.norm(between.numpy() @ directions, axis=0) / np.linalg.norm(
        (new - old).numpy() @ directions, axis=0
    )
    least, most = left[values > 10 * values.min()].mean(), left[values < 10 * values.min()].mean()
    assert least < most


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("tokens", ROUTES.values(), ids=ROUTES)
def test_a_lora_stays_one(tokens: tuple[int, int], rows: int) -> None:
    old, (b, a) = normal(rows, 40, seed=1).double(), (normal(rows, 2, seed=2).double(), normal(2, 40, seed=3).double())
    x_s, x_t = activations(tokens[0], 40, torch.float32, 4), activations(tokens[1], 40, torch.float32, 5)
    singular = torch.linalg.svdvals(made(old, old + b @ a, x_s, x_t, 1.0) - old)
    assert float(singular[2]) <= 1e-4 * float(singular[0])


@pytest.mark.parametrize("tokens", ROUTES.values(), ids=ROUTES)
def test_weights_that_share_an_input_do_not_depend_on_each_other(tokens: tuple[int, int]) -> None:
    """As ``q_proj`` and ``k_proj`` of grouped queries do, at two strengths, in either order."""
    sides = [gathered(activations(n, 40, torch.float32, n)).hessian(DAMPING) for n in tokens]
    calls = [(*weights(rows, 40, torch.float32, rows), w) for rows in (40, 12, 70) for w in (0.3, 3.0)]
    shared, backwards = Compromise(*sides), Compromise(*sides)
    alone = [Compromise(*sides).between(*call) for call in calls]
    assert all(torch.equal(shared.between(*call), each) for call, each in zip(calls, alone, strict=True))
    assert all(torch.equal(backwards.between(*call), each) for call, each in [*zip(calls, alone, strict=True)][::-1])


@pytest.mark.parametrize("scale", [2.0**-60, 1.0, 2.0**60])
@pytest.mark.parametrize("rows", [5, 45])
@pytest.mark.parametrize("tokens", ROUTES.values(), ids=ROUTES)
def test_the_scale_of_the_activations_cancels(tokens: tuple[int, int], rows: int, scale: float) -> None:
    old, new = weights(rows, 40, torch.float32, seed=3)
    x_s, x_t = activations(tokens[0], 40, torch.float32, 1), activations(tokens[1], 40, torch.float32, 2)
    torch.testing.assert_close(made(old, new, x_s * scale, x_t * scale, 1.0), made(old, new, x_s, x_t, 1.0))


def test_what_does_not_factor() -> None:
    old, new = weights(2, 40, torch.float32, seed=3)
    x = activations(90, 40, torch.float32, 1)
    alike = x[:, :1].expand(-1, 40).contiguous()
    barely = [gathered(each).hessian(1e-20) for each in (alike, alike)]
    with pytest.raises(SingularCompromise, match="is not positive definite"):
        Compromise(*barely).between(old, new, 1.0)


def test_shapes_that_do_not_fit() -> None:
    old, new = weights(2, 40, torch.float32, seed=3)
    few = gathered(activations(9, 30, torch.float32, 1)).hessian(DAMPING)
    with pytest.raises(ValueError, match="two Hessians of c columns expected"):
        Compromise(few, few).between(old, new, 1.0)
