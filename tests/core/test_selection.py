"""Budgets, scores and restored columns: by hand, against the reference, and the properties that the method implies."""

import math
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference import choose_columns
from torch import Tensor

from hpa_merge.core import column_budget, retained_share, select_columns

deterministic = settings(max_examples=150, deadline=None, derandomize=True)

percent = st.decimals(0, 100, places=2)
SELECTIONS = ("balanced", "safety", "shared")


@st.composite
def tied_problems(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of ``select_columns`` whose scores are exact in binary, full of ties and zeros."""
    c = draw(st.integers(1, 14))
    vectors = {
        "energy": st.sampled_from([0.0, 1.0, 2.0, 3.0]),
        "inverse_safety": st.sampled_from([0.5, 1.0, 2.0]),
        "inverse_task": st.sampled_from([0.5, 1.0, 2.0]),
    }
    drawn = {name: torch.tensor(draw(st.lists(of, min_size=c, max_size=c))) for name, of in vectors.items()}
    n_restored = draw(st.integers(0, c))
    return drawn | {"n_restored": n_restored, "n_focus": draw(st.integers(n_restored, c))}


def random_problem(c: int, seed: int) -> dict[str, Tensor]:
    """Three positive vectors without ties."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(3, c, generator=generator, dtype=torch.float64).exp()
    return dict(zip(("energy", "inverse_safety", "inverse_task"), vectors, strict=True))


def columns(mask: Tensor) -> set[int]:
    return set(mask.nonzero().flatten().tolist())


def ranked(score: Tensor) -> list[int]:
    """Columns by descending score; ties go to the lower index."""
    return sorted(range(len(score)), key=lambda j: (-float(score[j]), j))


def focus_sets(energy: Tensor, inverse_safety: Tensor, inverse_task: Tensor, n_focus: int) -> tuple[set, set]:
    return set(ranked(energy / inverse_safety)[:n_focus]), set(ranked(energy / inverse_task)[:n_focus])


# --- budgets ---


@pytest.mark.parametrize(
    ("share", "c", "budget"),
    [
        (15, 64, 10),  # 9.6
        (5, 10, 1),  # 0.5 goes up
        (15, 10, 2),  # 1.5 goes up
        (7.3, 500, 37),  # 36.5 goes up, where 7.3 in binary is a little less
        (12.3, 500, 62),  # 61.5
        (0.1, 499, 0),  # 0.499
        (0, 4096, 0),
        (100, 4096, 4096),
        (33.3, 1, 0),
        (50, 1, 1),
        (15, 0, 0),
    ],
)
def test_budgets_by_hand(share: float, c: int, budget: int):
    assert column_budget(retained_share(0, 1, share, 0), c) == budget


def test_focus_budgets_by_hand():
    assert column_budget(Fraction(10), 50, 2.3) == 12  # 11.5 goes up, where 2.3 in binary is a little less
    assert column_budget(Fraction(60), 50, 2.0) == 50  # no more than there are


@deterministic
@given(percent, percent, st.integers(0, 80), st.integers(1, 80), st.integers(0, 20000), st.decimals(1, 9, places=1))
def test_budgets_are_decimal_arithmetic(a: Decimal, b: Decimal, block: int, blocks: int, c: int, ratio: Decimal):
    p_max, p_min, block = max(a, b), min(a, b), min(block, blocks)
    share = retained_share(block, blocks, float(p_max), float(p_min))
    hundredfold = p_max * blocks - block * (p_max - p_min)  # p·L, without a division
    n_restored = int((2 * hundredfold * c + 100 * blocks) // (200 * blocks))
    n_focus = int((2 * ratio * hundredfold * c + 100 * blocks) // (200 * blocks))
    assert column_budget(share, c) == n_restored
    assert column_budget(share, c, float(ratio)) == min(c, n_focus)
    assert n_restored <= min(c, n_focus)


@deterministic
@given(percent, percent, st.integers(1, 100))
def test_retained_share_falls_from_end_to_end(a: Decimal, b: Decimal, blocks: int):
    p_max, p_min = float(max(a, b)), float(min(a, b))
    shares = [retained_share(block, blocks, p_max, p_min) for block in range(blocks + 1)]
    assert (shares[0], shares[-1]) == (Fraction(max(a, b)), Fraction(min(a, b)))
    assert all(above - below == (shares[0] - shares[-1]) / blocks for above, below in pairwise(shares))
    assert shares == sorted(shares, reverse=True)


def test_retained_share_by_hand():
    assert retained_share(2, 3, 15, 5) == Fraction(25, 3)
    assert retained_share(0, 0, 7.3, 5) == Fraction(73, 10)  # no stack of blocks


# --- restored columns, by hand ---

# ε̄ = 8 7 6 5 1 1 1 1, ζ̄ = 1 1 16 8 4 4 1 1; with n_focus = 4: S = 0 1 2 3, T = 2 3 4 5, O = 2 3.
# m = log(1680/2048)/8, α = 0.595, φ of O = 6 − 16α, 5 − 8α = −3.5, 0.24: column 3 before column 2.
EPSILON = torch.tensor([8.0, 7.0, 6.0, 5.0, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
ZETA = torch.tensor([1.0, 1.0, 16.0, 8.0, 4.0, 4.0, 1.0, 1.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("selection", "n_restored", "restored"),
    [
        ("balanced", 0, set()),
        ("balanced", 1, {0}),
        ("balanced", 2, {0, 1}),  # S∖O is enough
        ("balanced", 3, {0, 1, 3}),  # and then the largest φ of O
        ("balanced", 4, {0, 1, 2, 3}),
        ("safety", 3, {0, 1, 2}),
        ("shared", 1, {3}),
        ("shared", 2, {2, 3}),
        ("shared", 3, {2, 3}),  # O has no more
    ],
)
def test_selections_by_hand(selection: Any, n_restored: int, restored: set[int]):
    found = select_columns(
        EPSILON, torch.ones(8), EPSILON / ZETA, n_restored=n_restored, n_focus=4, selection=selection
    )
    assert columns(found.restored) == restored
    assert (found.n_restored, found.n_focus, found.n_shared) == (n_restored, 4, 2)
    assert found.alpha == pytest.approx(0.4 + 0.4 * (1 + math.tanh(math.log(1680 / 2048) / 8)) / 2, rel=1e-12)


def test_saliency_by_hand():
    inverse_safety, inverse_task = torch.tensor([4.0, 1.0, 2.0]), torch.tensor([1.0, 4.0, 2.0])
    arguments = {"energy": torch.ones(3), "inverse_safety": inverse_safety, "inverse_task": inverse_task}
    assert columns(select_columns(**arguments, n_restored=1, n_focus=1).restored) == {1}  # the largest quotient
    assert columns(select_columns(**arguments, n_restored=1, n_focus=1, saliency="product").restored) == {0}


@pytest.mark.parametrize("selection", SELECTIONS)
def test_all_columns_equal(selection: Any):
    one = torch.ones(6)
    found = select_columns(one, one, one, n_restored=2, n_focus=4, selection=selection)
    assert columns(found.restored) == {0, 1}  # ties go to the lower index
    assert (found.n_shared, found.alpha) == (4, pytest.approx(0.6))


def test_ties_among_many_columns_go_to_the_lower_index():
    one = torch.ones(5000)
    assert columns(select_columns(one, one, one, n_restored=700, n_focus=1400).restored) == set(range(700))


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize(("n_restored", "n_focus", "restored"), [(0, 0, set()), (0, 1, set()), (1, 1, {0})])
def test_one_column(selection: Any, n_restored: int, n_focus: int, restored: set[int]):
    one = torch.ones(1)
    found = select_columns(one, one, one, n_restored=n_restored, n_focus=n_focus, selection=selection)
    assert columns(found.restored) == restored


def test_a_column_that_did_not_change_comes_last():
    energy = torch.tensor([0.0, 1e-30, 0.0, 1e-30])
    assert columns(select_columns(energy, torch.ones(4), torch.ones(4), n_restored=2, n_focus=4).restored) == {1, 3}
    # In O an unchanged column has φ = 0 and goes before one that the task needs more: φ = 1 − 8α.
    energy, inverse_task = torch.tensor([1.0, 0.0]), torch.tensor([1 / 8, 1 / 8])
    assert columns(select_columns(energy, torch.ones(2), inverse_task, n_restored=1, n_focus=2).restored) == {1}


# --- restored columns, properties ---


@deterministic
@given(tied_problems(), st.sampled_from(SELECTIONS))
def test_agrees_with_the_reference(problem: dict[str, Any], selection: Any):
    found = select_columns(**problem, selection=selection)
    epsilon = (problem["energy"].double() / problem["inverse_safety"]).tolist()
    zeta = (problem["energy"].double() / problem["inverse_task"]).tolist()
    n_restored, n_focus = problem["n_restored"], problem["n_focus"]
    expected = choose_columns(epsilon, zeta, found.alpha, n_restored, n_focus, selection)
    assert columns(found.restored) == expected.restored
    assert found.n_shared == len(expected.focus_safety & expected.focus_task)


@deterministic
@given(tied_problems())
def test_balanced_fills_its_budget_from_the_safety_focus(problem: dict[str, Any]):
    vectors = [problem[name] for name in ("energy", "inverse_safety", "inverse_task")]
    safety, task = focus_sets(*vectors, problem["n_focus"])
    restored = columns(select_columns(**problem).restored)
    assert len(restored) == problem["n_restored"]
    assert restored <= safety
    assert not restored & task or safety - task <= restored  # a shared column only after all of S∖O


@deterministic
@given(tied_problems())
def test_the_ablations(problem: dict[str, Any]):
    vectors = [problem[name] for name in ("energy", "inverse_safety", "inverse_task")]
    n_restored, (safety, task) = problem["n_restored"], focus_sets(*vectors, problem["n_focus"])
    assert columns(select_columns(**problem, selection="safety").restored) == focus_sets(*vectors, n_restored)[0]
    shared = columns(select_columns(**problem, selection="shared").restored)
    assert shared <= safety & task
    assert len(shared) == min(n_restored, len(safety & task))


@deterministic
@given(tied_problems(), st.sampled_from(SELECTIONS))
def test_nothing_everything_and_a_focus_on_everything(problem: dict[str, Any], selection: Any):
    c = len(problem["energy"])
    vectors = {name: problem[name] for name in ("energy", "inverse_safety", "inverse_task")}
    assert not select_columns(**vectors, n_restored=0, n_focus=0, selection=selection).restored.any()
    assert select_columns(**vectors, n_restored=c, n_focus=c, selection=selection).restored.all()
    found = select_columns(**vectors, n_restored=problem["n_restored"], n_focus=c, selection=selection)
    assert found.n_shared == c
    assert int(found.restored.sum()) == problem["n_restored"]


@deterministic
@given(tied_problems(), st.sampled_from(SELECTIONS), st.integers(-40, 40))
def test_the_size_of_the_update_does_not_matter(problem: dict[str, Any], selection: Any, power: int):
    found = select_columns(**problem, selection=selection)
    scaled = select_columns(**problem | {"energy": problem["energy"] * 2.0**power}, selection=selection)
    assert torch.equal(found.restored, scaled.restored)
    assert found.alpha == scaled.alpha


@deterministic
@given(tied_problems(), st.sampled_from(SELECTIONS))
def test_product_is_the_quotient_by_the_reciprocal(problem: dict[str, Any], selection: Any):
    turned = {name: problem[name].reciprocal() for name in ("inverse_safety", "inverse_task")}
    quotient = select_columns(**problem, selection=selection)
    product = select_columns(**problem | turned, selection=selection, saliency="product")
    assert torch.equal(quotient.restored, product.restored)
    assert quotient.alpha == product.alpha


@deterministic
@given(st.integers(1, 60), st.integers(0, 10**6), st.sampled_from(SELECTIONS), st.data())
def test_the_order_of_the_columns_does_not_matter(c: int, seed: int, selection: Any, data: st.DataObject):
    problem = random_problem(c, seed)
    order = torch.tensor(data.draw(st.permutations(range(c))))
    budgets = {"n_restored": c // 5, "n_focus": c // 3}
    found = select_columns(**problem, **budgets, selection=selection)
    epsilon, zeta = (problem["energy"] / problem[f"inverse_{side}"] for side in ("safety", "task"))
    assume(choose_columns(epsilon.tolist(), zeta.tolist(), found.alpha, *budgets.values(), selection).margin > 1e-9)
    moved = select_columns(**{name: v[order] for name, v in problem.items()}, **budgets, selection=selection)
    assert torch.equal(moved.restored, found.restored[order])
    assert moved.alpha == pytest.approx(found.alpha, rel=1e-12)
