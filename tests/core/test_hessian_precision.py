"""How exact the diagonal of the damped inverse is on unkind inputs, and when float64 takes over from float32.

The reference is an explicit inverse in float64; the bounds are those of precision.py, some ten to a hundred times what
was measured on several processors, so that a shortcut that costs two digits is seen.
"""

import pytest
import torch
from curvatures import assert_near, assert_textbook, gather, normal
from precision import accumulated, inverse_diagonal_error
from torch import Tensor

from hpa_merge.core import SingularCurvature

F32, F64 = torch.float32, torch.float64
COLUMNS = 256


def plain(n: int) -> Tensor:
    return normal(n, COLUMNS)


def massive(n: int) -> Tensor:
    """Four channels a thousand times the rest."""
    x = normal(n, COLUMNS)
    x[:, :4] *= 1000.0
    return x


def correlated(n: int) -> Tensor:
    """Eight directions and a thousandth of noise."""
    return normal(n, 8, seed=1) @ normal(8, COLUMNS, seed=2) + 1e-3 * normal(n, COLUMNS)


def massive_and_correlated(n: int) -> Tensor:
    x = correlated(n)
    x[:, :4] *= 1000.0
    return x


def massive_token(n: int) -> Tensor:
    """One token, as a first token is in a language model, of 3000 in four channels: these are then one direction."""
    x = normal(n, COLUMNS)
    x[0, :4] = 3000.0
    return x


FIRST_FOUR = torch.arange(COLUMNS) < 4
CASES = {
    "plain": (plain, {}),
    "massive": (massive, {"apart": FIRST_FOUR}),
    "correlated": (correlated, {"dtype": F64}),
    "massive and correlated": (massive_and_correlated, {"apart": FIRST_FOUR}),
    "massive token": (massive_token, {"apart": FIRST_FOUR}),
}
"""With what the dual form does about them; the primal one factors all in float32."""


@pytest.mark.parametrize("n", [64, 200, 256, 1024])
@pytest.mark.parametrize("case", CASES)
def test_precision(case: str, n: int):
    inputs, dual = CASES[case]
    x = inputs(n).float()
    assert_textbook(gather(x).inverse_diagonal(0.01), x, **(dual if n < 0.8 * COLUMNS else {}))


# --- float64 takes over ---
# H = v vᵀ + λI of whole numbers is exact in float32 and loses a small λ there altogether: Cholesky meets a pivot of 0.
# Its condition is 1 + vᵀv/λ.


@pytest.fixture
def factored(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """The dtypes of the matrices that were given to Cholesky, in order."""
    dtypes: list[torch.dtype] = []
    original = torch.linalg.cholesky_ex

    def spy(matrix: Tensor, **options: bool) -> tuple[Tensor, Tensor]:
        dtypes.append(matrix.dtype)
        return original(matrix, **options)

    monkeypatch.setattr(torch.linalg, "cholesky_ex", spy)
    return dtypes


def test_primal_falls_back_to_float64(factored: list[torch.dtype]):
    # Half the tokens are ones: H = 1 1ᵀ + λI, and by Sherman-Morrison the diagonal is (1 − 1/(8 + λ))/λ.
    x = torch.zeros(32, 8)
    x[::2] = 1.0
    damping = 1e-9
    found = gather(x).inverse_diagonal(damping)
    assert factored == [F32, F64]
    expected = torch.full((8,), (1.0 - 1.0 / (8.0 + damping)) / damping, dtype=F64)
    assert_near(found, expected, (1 + 8 / damping) * accumulated(8, F64))


def test_dual_in_float64(factored: list[torch.dtype]):
    # All columns are strong. Two tokens of ones: H = 2 · 1 1ᵀ + λI, λ = 2 · damping; the diagonal is (1 − 2/(8 + λ))/λ.
    damping = 1e-9
    found = gather(torch.ones(2, 4)).inverse_diagonal(damping)
    assert set(factored) == {F64}
    expected = torch.full((4,), (1.0 - 2.0 / (8.0 + 2 * damping)) / (2 * damping), dtype=F64)
    assert_near(found, expected, (1 + 8 / (2 * damping)) * accumulated(4, F64))


TWO = torch.zeros(64, dtype=torch.bool).index_fill(0, torch.tensor([2, 9]), True)


@pytest.mark.parametrize("damping", [0.01, 1e-3])
def test_dual_treats_strong_columns_apart(damping: float, factored: list[torch.dtype]):
    # As one with the rest they would need float64: 1 − s is 1e-8 and smaller there.
    x = normal(40, 64).float()
    x[:, [2, 9]] *= 1e4
    found = gather(x).inverse_diagonal(damping)
    assert factored == [F32, F64]  # the second is their own, 2 by 2
    assert_textbook(found, x, damping, apart=TWO)


def test_dual_treats_strong_columns_apart_though_they_are_one_direction():
    x = normal(40, 64).float()
    x[:, 9] = x[:, 2] * (1.0 + 1e-4 * normal(40, 1, seed=1)[:, 0]).float()
    x[:, [2, 9]] *= 1e4
    assert_textbook(gather(x).inverse_diagonal(1e-3), x, 1e-3, apart=TWO)


def test_dual_takes_everything_in_float64_where_most_columns_are_strong(factored: list[torch.dtype]):
    x = normal(40, 64).float()
    found = gather(x).inverse_diagonal(1e-6)
    assert factored[0] == F64
    assert_textbook(found, x, 1e-6, dtype=F64)


@pytest.mark.parametrize("n", [6, 40])
def test_float32_is_enough_for_kind_inputs(n: int, factored: list[torch.dtype]):
    gather(normal(n, 12)).inverse_diagonal(0.01)
    assert factored[0] == F32
    assert n < 12 or factored == [F32]


# --- float64 is not enough ---


def test_primal_singular_in_float64_too(factored: list[torch.dtype]):
    x = torch.zeros(32, 8)
    x[::2] = 1.0
    with pytest.raises(SingularCurvature, match=r"^the leading minor of order 2 is not positive definite$"):
        gather(x).inverse_diagonal(1e-30)
    assert factored == [F32, F64]


def test_dual_singular_in_float64_too(factored: list[torch.dtype]):
    with pytest.raises(SingularCurvature, match=r"^the Gram matrix of the tokens is not positive definite$"):
        gather(torch.ones(2, 4)).inverse_diagonal(1e-30)
    assert factored == [F64]


def test_dual_column_that_float64_cannot_tell_from_its_limit():
    with pytest.raises(SingularCurvature, match=r"^a column's curvature exceeds the damping beyond float64's prec"):
        gather(torch.tensor([[1.0, 0.0]])).inverse_diagonal(1e-30)


# --- scale ---


@pytest.mark.parametrize("n", [6, 40], ids=["dual", "primal"])
@pytest.mark.parametrize("power", [-80, -20, 20, 66])
def test_scaling_the_inputs_scales_the_result(n: int, power: int):
    # H of s·x is s² H of x. At 2⁻⁸⁰ and 2⁶⁶ the squares leave float32's range, the tokens do not.
    x = normal(n, 12).float()
    found = gather(x * 2.0**power).inverse_diagonal(0.01)
    assert_near(found * 4.0**power, gather(x).inverse_diagonal(0.01), 2 * inverse_diagonal_error(x, 0.01))
