"""How exact the diagonal of the damped inverse is on unkind inputs, and when float64 takes over from float32.

The tolerances are three to ten times what was measured, with 256 columns; the reference is an explicit inverse in
float64. They hold the arithmetic where it is, so that a shortcut that costs a digit is seen.
"""

import pytest
import torch
from test_core_hessian import assert_near, gather, normal, textbook
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


@pytest.mark.parametrize(
    ("inputs", "n", "rtol"),
    [  # measured
        (plain, 64, 1e-6),  # 2e-7
        (plain, 200, 1e-5),  # 3e-6
        (plain, 256, 3e-5),  # 6e-6
        (plain, 1024, 2e-6),  # 6e-7
        (massive, 64, 5e-7),  # 1e-7
        (massive, 200, 2e-7),  # 4e-8
        (massive, 256, 2e-6),  # 3e-7
        (massive, 1024, 2e-6),  # 3e-7
        (correlated, 64, 2e-7),  # 6e-8
        (correlated, 200, 2e-7),  # 6e-8
        (correlated, 256, 8e-4),  # 2e-4
        (correlated, 1024, 8e-4),  # 2e-4
        (massive_and_correlated, 64, 2e-7),  # 5e-8
        (massive_and_correlated, 200, 2e-7),  # 2e-8
        (massive_and_correlated, 256, 5e-6),  # 6e-7
        (massive_and_correlated, 1024, 5e-6),  # 4e-7
        (massive_token, 64, 2e-6),  # 4e-7
        (massive_token, 200, 4e-6),  # 1e-6
        (massive_token, 256, 2e-2),  # 7e-3: the float32 Gram matrix has lost what the four channels do elsewhere
        (massive_token, 1024, 2e-2),  # 6e-3
    ],
)
def test_precision(inputs, n: int, rtol: float):
    x = inputs(n).float()
    assert_near(gather(x).inverse_diagonal(0.01), textbook(x), rtol)


# --- float64 takes over ---
# H = v vᵀ + λI of whole numbers is exact in float32 and loses a small λ there altogether: Cholesky meets a pivot of 0.


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
    assert_near(found, torch.full((8,), (1.0 - 1.0 / (8.0 + damping)) / damping), rtol=1e-6)


def test_dual_in_float64(factored: list[torch.dtype]):
    # All columns are strong. Two tokens of ones: H = 2 · 1 1ᵀ + λI, λ = 2 · damping; the diagonal is (1 − 2/(8 + λ))/λ.
    damping = 1e-9
    found = gather(torch.ones(2, 4)).inverse_diagonal(damping)
    assert set(factored) == {F64}
    assert_near(found, torch.full((4,), (1.0 - 2.0 / (8.0 + 2 * damping)) / (2 * damping)), rtol=1e-6)


@pytest.mark.parametrize("damping", [0.01, 1e-3])
def test_dual_treats_strong_columns_apart(damping: float, factored: list[torch.dtype]):
    # As one with the rest they would need float64: 1 − s is 1e-8 and smaller there.
    x = normal(40, 64).float()
    x[:, [2, 9]] *= 1e4
    found = gather(x).inverse_diagonal(damping)
    assert factored == [F32, F64]  # the second is their own, 2 by 2
    expected = textbook(x, damping)
    assert_near(found, expected, rtol=1e-6)
    assert_near(found[[2, 9]], expected[[2, 9]], rtol=1e-7)


def test_dual_treats_strong_columns_apart_though_they_are_one_direction():
    x = normal(40, 64).float()
    x[:, 9] = x[:, 2] * (1.0 + 1e-4 * normal(40, 1, seed=1)[:, 0]).float()
    x[:, [2, 9]] *= 1e4
    assert_near(gather(x).inverse_diagonal(1e-3), textbook(x, 1e-3), rtol=2e-4)


def test_dual_takes_everything_in_float64_where_most_columns_are_strong(factored: list[torch.dtype]):
    x = normal(40, 64).float()
    found = gather(x).inverse_diagonal(1e-6)
    assert factored[0] == F64
    assert_near(found, textbook(x, 1e-6), rtol=1e-6)


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
    assert_near(found * 4.0**power, gather(x).inverse_diagonal(0.01))
