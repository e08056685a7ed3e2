"""The rules that HPA is compared with, against slow float64 versions written from their papers."""

import pytest
import torch
from curvatures import assert_near
from precision import inverse_diagonal_error, inverse_rows_error, unit_roundoff
from reference_mathematics import curvature
from reference_methods import Spread as Reference
from reference_methods import left_to_right, model_tailor, safe_delta, summed
from torch import Tensor

from hpa_merge.config import HPAConfig
from hpa_merge.core import Curvature, InverseHessian, SingularCurvature, measure_update, respond, reversed_factor
from hpa_merge.methods import RULES
from hpa_merge.methods.applying import Curved, adapt
from hpa_merge.methods.columns import largest
from hpa_merge.methods.control_random import random_columns
from hpa_merge.methods.linear import interpolate
from hpa_merge.methods.model_tailor import model_patch
from hpa_merge.methods.safe_delta import select_deltas
from hpa_merge.methods.surgery import Spread, free_values, operate

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
ROUTES = pytest.mark.parametrize("tokens", [11, 90], ids=["dual", "primal"])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def problem(rows: int, columns: int, tokens: int, dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A weight before and after tuning, and correlated activations of unequal size."""
    old = normal(rows, columns, seed=seed)
    new = old + 0.1 * normal(rows, columns, seed=seed + 1) * normal(1, columns, seed=seed + 2).exp()
    mixing = normal(columns, columns, seed=seed + 3) / columns**0.5 + torch.eye(columns)
    x = normal(tokens, columns, seed=seed + 4) @ mixing * normal(columns, seed=seed + 5).exp()
    return old.to(dtype), new.to(dtype), x.to(dtype)


def gathered(x: Tensor) -> Curvature:
    curvature = Curvature(x.shape[1])
    for batch in x.split(7):
        curvature.add(batch)
    return curvature


def inverse_of(x: Tensor, damping: float = 0.01) -> InverseHessian:
    return gathered(x).inverse(damping)


def spread_error(given: Tensor, x: Tensor, inverse: Tensor) -> Tensor:
    """Of ``given @ inverse``, each entry of ``given`` being as exact as the diagonal that it was divided by; ``given``
    ``[r, c]``, ``inverse`` ``[c, c]``, of tokens ``x``."""
    diagonal = (given.abs() * inverse_diagonal_error(x, 0.01)) @ inverse.abs()
    if len(x) <= 0.8 * x.shape[1]:  # the dual form is in float64
        return diagonal + 4 * unit_roundoff(torch.float32) * (given @ inverse).abs()
    scale = float(inverse[0, 0] / torch.linalg.inv(gram(x))[0, 0])
    return diagonal + inverse_rows_error(given * scale, x, 0.01)


def gram(x: Tensor, damping: float = 0.01) -> Tensor:
    """``xᵀx + μI``, ``[c, c]`` float64."""
    product = x.double().T @ x.double()
    return product + damping * product.diagonal().mean() * torch.eye(x.shape[1], dtype=torch.float64)


# --- the inverse ---


@ROUTES
@pytest.mark.parametrize("scale", [1.0, 1e-18, 1e15])
def test_the_inverse_spreads_what_is_given(tokens: int, scale: float) -> None:
    _, _, x = problem(6, 30, tokens, torch.float32, seed=0)
    expected = torch.linalg.inv(curvature([x * scale], 0.01))
    found = inverse_of(x * scale)
    assert_near(found.diagonal, expected.diagonal(), inverse_diagonal_error(x, 0.01))
    a = normal(5, 30, seed=9)
    given = a.double() / expected.diagonal()
    error = spread_error(given, x, expected)
    assert float(((found.spread(a).double() - given @ expected).abs() / error).max()) <= 1.0


@ROUTES
def test_its_diagonal_is_the_one_that_the_scores_use(tokens: int) -> None:
    _, _, x = problem(6, 30, tokens, torch.float32, seed=1)
    gathered = Curvature(30)
    gathered.add(x)
    offloaded = Curvature(30, offload=True)
    offloaded.add(x)
    assert torch.equal(gathered.inverse(0.01).diagonal, gathered.inverse_diagonal(0.01))
    assert torch.equal(offloaded.inverse(0.01).spread(x), gathered.inverse(0.01).spread(x))


def test_an_inverse_that_there_is_not() -> None:
    for x, reason in ((torch.zeros(3, 4), "no token activates"), (torch.full((3, 4), torch.nan), "not finite")):
        with pytest.raises(SingularCurvature, match=reason):
            inverse_of(x)


@ROUTES
def test_nothing_makes_up_for_one_move_better(tokens: int) -> None:
    """Theorem 4.1: of all rows with that one entry ``C_m`` has the least loss ``½ Δᵀ H Δ``: ``δ²/(2[H⁻¹])``."""
    _, _, x = problem(1, 30, tokens, torch.float32, seed=2)
    h, inverse = curvature([x], 0.01), inverse_of(x)
    given = torch.zeros(1, 30)
    given[0, 4] = 0.7
    move = inverse.spread(given).double()
    exact = torch.linalg.inv(h)
    error = spread_error(given / exact.diagonal(), x, exact)
    assert float(move[0, 4]) == pytest.approx(0.7, abs=float(error[0, 4]))
    least = float(0.5 * move @ h @ move.T)
    bound = float(error.abs() @ (h @ move.T).abs() + error @ h.abs() @ error.T)
    assert least == pytest.approx(0.7**2 / (2 * float(exact[4, 4])), abs=bound)
    for seed in range(20):
        other = move + 1e-2 * move.abs().max() * normal(1, 30, seed=seed)
        other[0, 4] = 0.7
        assert float(0.5 * other @ h @ other.T) > least


# --- compensation ---

ORDERS: dict[str, Reference] = {"left-to-right": left_to_right, "sum": summed}


def spread_of(order: str, x: Tensor) -> Spread:
    if order == "sum":
        inverse = inverse_of(x)
        return lambda moves, given: inverse.spread(moves)
    factor = reversed_factor(gathered(x).hessian(0.01))
    return lambda moves, given: respond(moves, given, factor)


def assert_compensated(found: Tensor, expected: Tensor, base: Tensor, x: Tensor) -> None:
    """To the rounding of the result, and of a factor in float32 whose error grows with the condition number."""
    h = curvature([x], 0.01)
    values = torch.linalg.eigvalsh(h)
    moved = (expected - base.double()).norm(dim=1, keepdim=True)
    in_factor = len(h) * unit_roundoff(torch.float32) * float(values[-1] / values[0]) * moved
    rounding = unit_roundoff(found.dtype) * expected.abs() + unit_roundoff(torch.float32) * base.double().abs()
    tiny = torch.finfo(found.dtype).smallest_normal
    assert bool(((found.double() - expected).abs() <= in_factor + 1.01 * rounding + tiny).all())


@ROUTES
def test_the_steps_from_left_to_right(tokens: int) -> None:
    """More columns than are brought up to date at once; masks of all kinds."""
    _, _, x = problem(3, 150, tokens, torch.float32, seed=5)
    h, moves = curvature([x], 0.01), normal(1100, 150, seed=6).double()
    mask = normal(1100, 150, seed=7) > normal(1100, 1, seed=8)
    mask[0], mask[1], mask[2, :149] = False, True, False
    found = respond(moves.where(mask, 0.0), mask, reversed_factor(gathered(x).hessian(0.01)))
    expected = torch.where(mask, moves, left_to_right(moves, mask, h))
    base = torch.zeros_like(moves)
    assert_compensated(found.where(~mask, moves.float()), expected.float().double(), base, x)
    first = mask.int().argmax(dim=1, keepdim=True).where(mask.any(dim=1, keepdim=True), 150)
    assert not bool(found[torch.arange(150) < first].any())  # nothing has moved yet
    with pytest.raises(ValueError, match=r"found \[1100, 150\], \[1100, 150\] and \[3, 3\]"):
        respond(moves, mask, torch.eye(3))


@pytest.mark.parametrize(
    ("given", "ratios"), [(0.0, {"left-to-right": 0.81, "sum": 1.25}), (2.3, {"left-to-right": 0.46, "sum": 0.18})]
)
def test_the_sum_overshoots_where_many_values_are_given(given: float, ratios: dict[str, float]) -> None:
    """Of correlated inputs, half of the values given, or one of a hundred; docs/methods.md has the first two ratios."""
    losses: dict[str, float] = dict.fromkeys(("none", *ORDERS), 0.0)
    for seed in range(5):
        old = normal(20, 60, seed=seed)
        new = old + 0.1 * normal(20, 60, seed=seed + 50)
        x = normal(300, 60, seed=seed + 9) @ (normal(60, 60, seed=seed + 7) / 60**0.5 + 0.5 * torch.eye(60))
        h, mask = curvature([x], 0.01), normal(20, 60, seed=seed) > given
        for order in losses:
            made = operate(old, new, mask, None if order == "none" else spread_of(order, x), torch.float32)
            move = (made - old).double()
            losses[order] += float((move @ h * move).sum())
    assert {order: losses[order] / losses["none"] for order in ORDERS} == pytest.approx(ratios, abs=0.01)


@pytest.mark.parametrize("order", ORDERS)
def test_where_compensation_may_change_a_value(order: str) -> None:
    old, new, x = problem(9, 30, 90, torch.float32, seed=3)
    mask = normal(9, 30, seed=1) > 1.5
    new[4] = old[4]  # given values that do not move
    mask[5] = False
    options = HPAConfig(method="safe-delta", compensation_order=order)  # type: ignore[arg-type]
    free = free_values(mask, old != new, options)
    made = operate(old, new, mask, spread_of(order, x), torch.float32)
    assert torch.equal(made != old, (free | mask) & (made != old))
    assert float((made != old)[free].double().mean()) > 0.9
    assert not bool(free[4:6].any())
    assert not bool(free_values(mask, old != new, HPAConfig(method="safe-delta", compensation=False)).any())


# --- Safe Delta ---

SIZE = 4096**2 / (7 * 30)
"""``s`` is given for layers of 4096 × 4096; here, layers have 7 × 30 values."""


@DTYPES
@ROUTES
@pytest.mark.parametrize(("s", "floor"), [(0.0, 0.0), (0.02, 0.0), (0.3, 0.0), (0.3, 60.0), (4.0, 15.0), (1e6, 15.0)])
def test_safe_delta(s: float, floor: float, tokens: int, dtype: torch.dtype) -> None:
    old, new, x = problem(7, 30, tokens, dtype, seed=26)
    rtol = 2 * float(inverse_diagonal_error(x, 0.01).max())  # of two scores that are compared
    inverse = inverse_of(x)
    found = select_deltas(old, new, measure_update(old, new).energy, inverse.diagonal, s * SIZE, floor)
    mask = found.mask(7)
    for order, spread in ORDERS.items():
        expected = safe_delta(old, new, curvature([x], 0.01), s * SIZE, spread, floor)
        assert expected.margin > rtol, "a near tie: take another seed"
        assert torch.equal(mask, expected.mask)
        assert found.cost == pytest.approx(expected.cost, rel=rtol)
        assert found.budget == pytest.approx(expected.budget, rel=rtol)
        weight = operate(old, new, mask, spread_of(order, x), dtype)
        assert weight.dtype == dtype
        assert torch.equal(weight[mask], new[mask])
        assert_compensated(weight, expected.weight, old, x)
    assert found.cost <= found.budget
    if s == 0.0:
        assert torch.equal(weight, old)
    if s == 1e6:
        assert int((~mask).sum()) == 31  # of 210 values 15 %, rounded down


def test_the_budgets_reach_every_case() -> None:
    """The settings above have no change, a split column, and all changes among them."""
    old, new, x = problem(7, 30, 90, torch.float32, seed=20)
    update, inverse = measure_update(old, new), inverse_of(x)
    splits = [select_deltas(old, new, update.energy, inverse.diagonal, s * SIZE) for s in (0.0, 0.02, 0.3, 4.0, 1e6)]
    assert [int(found.mask(7).sum()) for found in (splits[0], splits[-1])] == [0, 210]
    assert any(found.split is not None and 0 < found.rows < 7 and bool(found.whole.any()) for found in splits)


def test_a_budget_means_the_same_at_every_size() -> None:
    """Twice the same rows: the same share of each column is kept."""
    old, new, x = problem(8, 30, 90, torch.float32, seed=20)
    inverse, counts = inverse_of(x).diagonal, []
    for times in (1, 4):
        before, after = old.repeat(times, 1), new.repeat(times, 1)
        found = select_deltas(before, after, measure_update(before, after).energy, inverse, 1.0 * SIZE)
        counts.append(int(found.mask(8 * times).sum()) / times)
    assert 0 < counts[0] < 240
    assert counts[0] == pytest.approx(counts[1], abs=1)


def test_without_compensation_the_rest_is_old() -> None:
    old, new, _ = problem(7, 30, 11, torch.bfloat16, seed=22)
    mask = normal(7, 30) > 0
    found = operate(old, new, mask, None, torch.bfloat16)
    assert torch.equal(found, torch.where(mask, new, old))


# --- Model Tailor ---


@DTYPES
@ROUTES
@pytest.mark.parametrize("share", [0.0, 10.0, 33.3, 100.0])
@pytest.mark.parametrize("omega", [0.8, 0.5])
def test_model_tailor(omega: float, share: float, tokens: int, dtype: torch.dtype) -> None:
    old, new, x = problem(9, 30, tokens, dtype, seed=31)
    patch = model_patch(old, new, inverse_of(x).diagonal, share, salience=omega)
    for order, spread in ORDERS.items():
        expected = model_tailor(old, new, curvature([x], 0.01), share, spread, omega)
        assert expected.margin > 2 * float(inverse_diagonal_error(x, 0.01).max()), "a near tie: take another seed"
        assert torch.equal(patch, expected.mask)
        weight = operate(new, old, ~patch, spread_of(order, x), dtype)
        assert torch.equal(weight[~patch], old[~patch])
        assert_compensated(weight, expected.weight, new, x)


def test_a_row_that_did_not_change_scores_by_its_sensitivity_alone() -> None:
    old, new, x = problem(4, 30, 90, torch.float32, seed=32)
    new[2] = old[2]
    expected = model_tailor(old, new, curvature([x], 0.01), 20.0)
    assert torch.equal(model_patch(old, new, inverse_of(x).diagonal, 20.0), expected.mask)


def test_ties_go_to_the_lower_row_then_the_lower_column() -> None:
    old = torch.zeros(2, 4)
    new = torch.tensor([[1.0, 0.0, 1.0, 0.0]]).expand(2, -1).contiguous()
    patch = model_patch(old, new, torch.ones(4), 37.5)
    assert patch.tolist() == [[True, False, True, False], [True, False, False, False]]


# --- rows that OLD has not ---


@pytest.mark.parametrize("method", [rule.name for rule in RULES])
def test_a_vocabulary_that_grew(method: str) -> None:
    old, new, x = problem(6, 30, 90, torch.bfloat16, seed=50)
    longer = torch.cat([new, normal(3, 30).to(torch.bfloat16)])
    known = Curved(inverse=inverse_of(x), hessian=gathered(x).hessian(0.01))
    results = [
        next(adapt(old, after, known, known, block=0, blocks=1, configs=[HPAConfig(method=method)]))
        for after in (new, longer)
    ]
    assert torch.equal(results[1].weight[:6], results[0].weight)
    assert torch.equal(results[1].weight[6:], longer[6:])
    assert results[1].energy_restored == results[0].energy_restored


# --- interpolation and the controls ---


@DTYPES
def test_interpolation(dtype: torch.dtype) -> None:
    old, new, _ = problem(5, 12, 3, dtype, seed=40)
    for weight in (0.1, 0.5, 0.9):
        expected = (old.double() + weight * (new.double() - old.double())).to(dtype)
        torch.testing.assert_close(interpolate(old, new, weight), expected)
    assert torch.equal(interpolate(old, new, 0.0), old)
    assert torch.equal(interpolate(old, new, 1.0), new)
    assert interpolate(old.T, new.T, 1.0).is_contiguous()


def test_the_columns_that_changed_most() -> None:
    energy = torch.tensor([1.0, 3.0, 2.0, 3.0, 2.0], dtype=torch.float64)
    assert largest(energy, 3).tolist() == [False, True, True, True, False]
    assert not largest(energy, 0).any()


def test_random_columns_depend_on_the_seed_and_the_name() -> None:
    drawn = random_columns(200, 30, 0, "model.layers.0.mlp.up_proj.weight")
    assert int(drawn.sum()) == 30
    assert torch.equal(drawn, random_columns(200, 30, 0, "model.layers.0.mlp.up_proj.weight"))
    for seed, name in ((1, "model.layers.0.mlp.up_proj.weight"), (0, "model.layers.1.mlp.up_proj.weight")):
        assert not torch.equal(drawn, random_columns(200, 30, seed, name))
    counts = sum(random_columns(50, 10, seed, "w").double() for seed in range(400))
    assert 50 < float(counts.min()) <= float(counts.max()) < 112  # 80 on average, within four deviations of 8
