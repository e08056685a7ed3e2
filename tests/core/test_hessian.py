"""The diagonal of the damped inverse against an explicit float64 inverse: both routes, every split, every fallback."""

import math
from functools import reduce

import pytest
import torch
from curvatures import assert_near, assert_textbook, gather, normal, textbook
from hypothesis import given, settings
from hypothesis import strategies as st
from precision import accumulated, inverse_diagonal_error
from torch import Tensor

from hpa_merge.core import Curvature, SingularCurvature, diagonal, hessian, triangular

deterministic = settings(max_examples=60, deadline=None, derandomize=True)

BOTH_ROUTES = pytest.mark.parametrize("n", [5, 40], ids=["dual", "primal"])  # tokens, on fewer and more than 5 columns


# --- the two routes ---


def test_by_hand():
    # Primal: (1, 0), (1, 2) give H = [[2, 2], [2, 4]] + 0.03 I, of determinant 2.03 · 4.03 − 4.
    determinant = 2.03 * 4.03 - 4
    x = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    expected = torch.tensor([4.03 / determinant, 2.03 / determinant], dtype=torch.float64)
    assert_near(gather(x).inverse_diagonal(0.01), expected, inverse_diagonal_error(x, 0.01))
    # Dual: the one token (3, 4) gives H = 2 [[9, 12], [12, 16]] + 0.25 I, of determinant 18.25 · 32.25 − 24².
    determinant = 18.25 * 32.25 - 24**2
    x = torch.tensor([[3.0, 4.0]])
    expected = torch.tensor([32.25 / determinant, 18.25 / determinant], dtype=torch.float64)
    assert_near(gather(x).inverse_diagonal(0.01), expected, inverse_diagonal_error(x, 0.01))


@pytest.mark.parametrize(
    ("n", "c", "route"),
    [
        (1, 2, "dual"),
        (3, 8, "dual"),
        (6, 8, "dual"),
        (7, 8, "primal"),
        (8, 8, "primal"),
        (9, 8, "primal"),
        (40, 8, "primal"),
        (1, 1, "primal"),
        (5, 1, "primal"),
    ],
)
def test_the_route_and_its_result(n: int, c: int, route: str, monkeypatch: pytest.MonkeyPatch):
    other = "primal" if route == "dual" else "dual"
    monkeypatch.setattr(hessian, f"inverse_diagonal_{other}", None)
    x = normal(n, c)
    found = gather(x).inverse_diagonal(0.01)
    assert found.shape == (c,)
    assert_textbook(found, x)


@BOTH_ROUTES
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_every_dtype(n: int, dtype: torch.dtype):
    x = normal(n, 12).to(dtype)
    assert_textbook(gather(x).inverse_diagonal(0.01), x)


@BOTH_ROUTES
def test_dtypes_may_be_mixed(n: int):
    x = normal(n, 12).bfloat16()
    mixed = gather(x[:1].float(), x[1:2].double(), x[2:])
    assert_textbook(mixed.inverse_diagonal(0.01), x)


@BOTH_ROUTES
def test_a_silent_column_has_only_the_damping(n: int):
    x = normal(n, 12)
    x[:, [0, 7]] = 0.0
    damp = 0.01 * 2.0 * float(x.square().mean())
    found = gather(x.float()).inverse_diagonal(0.01)
    error = inverse_diagonal_error(x, 0.01)
    assert_near(found[[0, 7]], torch.full((2,), 1.0 / damp, dtype=torch.float64), error[[0, 7]])
    assert_near(found, textbook(x), error)


# --- gathering ---


@deterministic
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any), st.booleans())
def test_any_split_gives_the_same(sizes: list[int], from_absorbed: bool):
    # At most 72 tokens on 12 columns: the switch of route comes early, late or never, and batches may be empty.
    x = normal(sum(sizes), 12).float()
    batches = x.split(sizes)
    if from_absorbed:
        parts = [gather(*batches[i : i + 3]) for i in range(0, len(batches), 3)]
        apart = Curvature(12)
        for part in parts:
            apart.absorb(part)
    else:
        apart = gather(*batches)
    together = gather(x)
    assert apart.tokens == together.tokens == len(x)
    assert apart.peak == float(x.abs().max())
    assert_textbook(apart.inverse_diagonal(0.01), x)
    assert_textbook(together.inverse_diagonal(0.01), x)


@pytest.mark.parametrize("first", [3, 20])
@pytest.mark.parametrize("second", [4, 30])
def test_absorb_leaves_the_other_as_it_is(first: int, second: int):
    # Each of the two holds tokens (fewer than 12) or a Gram matrix.
    x, y = normal(first, 12), normal(second, 12, seed=1)
    one, other = gather(x), gather(y)
    before = other.inverse_diagonal(0.01)
    one.absorb(other)
    one.add(x)
    assert_textbook(one.inverse_diagonal(0.01), torch.cat([x, y, x]))
    assert torch.equal(other.inverse_diagonal(0.01), before)
    assert (one.tokens, other.tokens) == (2 * first + second, second)


@BOTH_ROUTES
def test_asking_changes_nothing(n: int):
    x = normal(n, 12).float()
    untouched = x.clone()
    curvature = gather(x)
    assert torch.equal(curvature.inverse_diagonal(0.01), curvature.inverse_diagonal(0.01))
    curvature.add(x)
    assert_textbook(curvature.inverse_diagonal(0.01), torch.cat([x, x]))
    assert torch.equal(x, untouched)


@BOTH_ROUTES
@pytest.mark.parametrize("block", [1, 2, 5, 11, 12])
def test_blocks_change_nothing(n: int, block: int, monkeypatch: pytest.MonkeyPatch):
    x = normal(n, 12)
    x[:, 3] *= 1000.0  # in the dual form a column apart
    monkeypatch.setattr(triangular, "BLOCK", {"cpu": block})
    monkeypatch.setattr(triangular, "ROWS", {"cpu": block})
    monkeypatch.setattr(diagonal, "PANEL", block)
    monkeypatch.setattr(hessian, "CHUNK", block)
    apart = torch.arange(12) == 3
    assert_textbook(gather(x[:2], x[2:]).inverse_diagonal(0.01), x, apart=apart)


@BOTH_ROUTES
def test_never_the_inverse(n: int, monkeypatch: pytest.MonkeyPatch):
    for place, name in [
        *[(torch.linalg, name) for name in ("inv", "inv_ex", "pinv", "solve", "tensorinv")],
        *[(torch, name) for name in ("inverse", "pinverse", "cholesky_inverse", "cholesky_solve")],
    ]:
        monkeypatch.setattr(place, name, None)
    solved = []
    original = torch.linalg.solve_triangular

    def spy(factor: Tensor, right: Tensor, **options: bool) -> Tensor:
        solved.append(right.numel())
        return original(factor, right, **options)

    monkeypatch.setattr(torch.linalg, "solve_triangular", spy)
    monkeypatch.setattr(triangular, "BLOCK", {"cpu": 5})
    monkeypatch.setattr(diagonal, "PANEL", 5)
    gather(normal(n, 12)).inverse_diagonal(0.01)
    assert solved == [25, 25, 4] if n > 12 else [0, 25, 25, 10]  # never 12 columns at once


def test_primal_reads_the_lower_triangle_alone():
    x = normal(40, 12)
    gram = (x.T @ x).float()
    gram[torch.ones(12, 12, dtype=torch.bool).triu(1)] = math.nan
    assert_textbook(diagonal.inverse_diagonal_primal(gram, 40, 0.01), x)


@pytest.mark.parametrize("columns", [1, 63, 160, 161, 700, 1111])
def test_the_lower_triangle_of_a_product(columns: int):
    x = normal(9, columns)
    gram = torch.ones(columns, columns, dtype=torch.float64)
    triangular.add_gram(gram, x)
    error = 2 * accumulated(10, torch.float64) * (1.0 + x.abs().T @ x.abs())  # of this product, and of the other
    assert bool(((gram - (1.0 + x.T @ x)).abs() <= error).tril().sum() == columns * (columns + 1) / 2)


def test_half_precision_is_multiplied_into_float32(monkeypatch: pytest.MonkeyPatch):
    # As CUDA does it, where products of half-precision numbers are exact; here by a stand-in for the one routine.
    def mm(a: Tensor, b: Tensor, *, out_dtype: torch.dtype) -> Tensor:
        assert (a.dtype, b.dtype, out_dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
        return (a.double() @ b.double()).to(out_dtype)

    monkeypatch.setattr(torch, "mm", mm)
    monkeypatch.setattr(triangular, "ROWS", {"cpu": 5})
    x = normal(40, 12).bfloat16()
    gram = torch.zeros(12, 12)
    triangular.add_gram(gram, x)
    error = (accumulated(40, torch.float32)) * (x.double().abs().T @ x.double().abs())
    assert bool(((gram - x.double().T @ x.double()).abs() <= error).tril().sum() == 12 * 13 / 2)


@pytest.mark.parametrize("columns", [0, 1, 255, 256, 257, 700])
def test_the_columns_of_an_inverse_factor(columns: int):
    factor = normal(columns, columns).tril() / max(1, columns) + torch.eye(columns, dtype=torch.float64)
    found = triangular.inverse_column_norms(factor)
    if columns:
        inverse, condition = torch.linalg.inv(factor), float(torch.linalg.cond(factor))
        error = 4 * condition * accumulated(columns, torch.float64)  # of both inverses, squared
        assert_near(found, inverse.square().sum(dim=0), error)


# --- what is not finite, not there, or not of the shape ---


@pytest.mark.parametrize("n", [3, 20])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_peak_tells_what_is_not_finite(n: int, bad: float):
    x = normal(n, 12).float()
    x[1, 2] = bad
    assert not math.isfinite(gather(x).peak)
    assert not math.isfinite(gather(x[:1], x[1:]).peak)
    assert not math.isfinite(gather(x, normal(30, 12)).peak)
    with pytest.raises(SingularCurvature, match=r"^an activation is not finite$"):
        gather(x).inverse_diagonal(0.01)


def test_the_peak():
    assert gather(torch.tensor([[3.0, 0.0], [-4.0, 0.0]])).peak == 4.0
    assert gather(torch.full((1, 2), 60000.0, dtype=torch.float16)).peak == pytest.approx(60000.0, rel=1e-3)
    assert gather(torch.tensor([[1e30, 1.0]]), torch.tensor([[2.0, 3.0]])).peak == pytest.approx(1e30)
    assert Curvature(3).peak == 0.0


@pytest.mark.parametrize("batches", [(), (torch.zeros(0, 4),), (torch.zeros(2, 4),), (torch.zeros(9, 4),)])
def test_nothing_activates_the_layer(batches: tuple[Tensor, ...]):
    curvature = reduce(lambda gathered, x: gathered.add(x) or gathered, batches, Curvature(4))
    assert curvature.peak == 0.0
    with pytest.raises(SingularCurvature, match=r"^no token activates any column$"):
        curvature.inverse_diagonal(0.01)


@pytest.mark.parametrize("shape", [(3, 5), (4,), (1, 3, 4), ()])
def test_tokens_of_another_shape(shape: tuple[int, ...]):
    curvature = Curvature(4)
    with pytest.raises(ValueError, match=r"^expected tokens of shape \[n, 4\], found ") as caught:
        curvature.add(torch.ones(shape))
    assert str(caught.value).endswith(str(list(shape)))
    assert curvature.tokens == 0


@pytest.mark.parametrize("other", [torch.ones(20, 1), torch.ones(2, 5)], ids=["a Gram matrix", "tokens"])
def test_absorbing_other_columns(other: Tensor):
    with pytest.raises(ValueError, match="columns"):
        gather(normal(20, 4)).absorb(gather(other))
