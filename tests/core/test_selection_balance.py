"""``α`` between its bounds, and what ``select_columns`` refuses."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpa_merge.core import select_columns
from hpa_merge.core.selection import balance

deterministic = settings(max_examples=150, deadline=None, derandomize=True)

bounds = st.tuples(st.floats(0, 2), st.floats(0, 2)).map(sorted)
log_ratio = st.floats(-30, 30)


def alpha_of(m: float, alpha_min: float, alpha_max: float) -> float:
    """``α`` of four columns whose ``log(ε̄/ζ̄)`` is ``m`` on average, spread by 1."""
    inverse_task = torch.tensor([m - 1.0, m + 1.0, m, m], dtype=torch.float64).exp()
    energy, one = torch.tensor([1.0, 0.0, 5.0, 1e-9]), torch.ones(4)
    found = select_columns(energy, one, inverse_task, n_restored=1, n_focus=2, alpha_min=alpha_min, alpha_max=alpha_max)
    return found.alpha


@deterministic
@given(log_ratio, bounds)
def test_alpha_is_the_formula_and_within_its_bounds(m: float, between: list[float]):
    alpha_min, alpha_max = between
    alpha = alpha_of(m, alpha_min, alpha_max)
    assert alpha == pytest.approx(alpha_min + (alpha_max - alpha_min) * (1 + math.tanh(m)) / 2, rel=1e-9, abs=1e-12)
    assert alpha_min <= alpha <= math.nextafter(alpha_max, math.inf)  # the formula's own rounding


@deterministic
@given(log_ratio, log_ratio, bounds)
def test_alpha_grows_with_the_safety_scores(a: float, b: float, between: list[float]):
    assert alpha_of(min(a, b), *between) <= alpha_of(max(a, b), *between) + 1e-12


def test_alpha_by_hand():
    assert alpha_of(0.0, 0.4, 0.8) == pytest.approx(0.6)
    assert alpha_of(math.atanh(0.5), 0.4, 0.8) == pytest.approx(0.7)
    assert alpha_of(-30.0, 0.4, 0.8) == pytest.approx(0.4)
    assert alpha_of(30.0, 0.4, 0.8) == pytest.approx(0.8)
    assert alpha_of(1.0, 0.5, 0.5) == 0.5


def test_alpha_turns_with_the_product():
    vectors = torch.ones(2), torch.ones(2), torch.full((2,), math.e)
    quotient = select_columns(*vectors, n_restored=1, n_focus=1)
    product = select_columns(*vectors, n_restored=1, n_focus=1, saliency="product")
    assert quotient.alpha == pytest.approx(0.6 + 0.2 * math.tanh(1))
    assert product.alpha == pytest.approx(0.6 - 0.2 * math.tanh(1))


def test_no_columns():
    none = torch.ones(0, dtype=torch.float64)
    assert balance(none, none, 0.4, 0.8) == pytest.approx(0.6)
    found = select_columns(none, none, none, n_restored=0, n_focus=0)
    assert (found.restored.shape, found.n_shared) == ((0,), 0)


# --- refusals ---

ONE = torch.ones(3)


@pytest.mark.parametrize(
    ("vectors", "sentence"),
    [
        ((torch.ones(1, 3), ONE, ONE), "expected vectors over the columns"),
        ((ONE, torch.tensor(1.0), ONE), "expected vectors over the columns"),
        ((ONE, torch.ones(2), ONE), "lengths differ: 3, 2, 3"),
        ((ONE, ONE, torch.ones(4)), "lengths differ: 3, 3, 4"),
        ((torch.tensor([1.0, math.nan, 1.0]), ONE, ONE), "column energies must be finite"),
        ((torch.tensor([1.0, math.inf, 1.0]), ONE, ONE), "column energies must be finite"),
        *[
            (vectors, "the diagonal of an inverse must be finite and positive")
            for bad in (0.0, -1.0, math.nan, math.inf)
            for spoilt in [torch.tensor([1.0, bad, 1.0])]
            for vectors in [(ONE, spoilt, ONE), (ONE, ONE, spoilt)]
        ],
    ],
)
def test_refused(vectors: tuple, sentence: str):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the whole sentence is compared)
        select_columns(*vectors, n_restored=1, n_focus=2)
    assert str(caught.value) == sentence


def test_any_dtype_and_nothing_is_written_to():
    energy, safety, task = (torch.arange(1.0, 7.0) for _ in range(3))
    wide = select_columns(energy.double(), safety.double(), task.double(), n_restored=2, n_focus=3)
    narrow = select_columns(energy, safety.bfloat16(), task.half(), n_restored=2, n_focus=3)
    assert torch.equal(wide.restored, narrow.restored)
    assert narrow.restored.dtype == torch.bool
    assert all(torch.equal(v, torch.arange(1.0, 7.0)) for v in (energy, safety, task))
