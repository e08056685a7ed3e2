"""HPA by the other readings of its paper, each against the textbook."""

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from hpa_merge.config import HPAConfig
from hpa_merge.core import Selection, select_columns
from hpa_merge.methods.applying import Adapted, Curved, adapt
from hpa_merge.methods.hpa import share_at

TOKENS = {"safety": 8, "task": 128}


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


OLD = normal(6, 40, seed=1)
NEW = OLD + 0.1 * normal(6, 40, seed=2) + 0.05 * OLD * normal(6, 1, seed=3)
SAFETY, TASK = (normal(40, seed=seed).double().exp() for seed in (4, 5))


def merged(**options: object) -> Adapted:
    config = HPAConfig(p_max=20.0, **options)  # type: ignore[arg-type]
    sides = Curved(SAFETY, tokens=TOKENS["safety"]), Curved(TASK, tokens=TOKENS["task"])
    return next(adapt(OLD, NEW, *sides, block=1, blocks=4, configs=[config]))


def selected(**options: object) -> Selection:
    found = merged(**options).selection
    assert found is not None
    return found


@pytest.mark.parametrize("by", ["row", "column"])
def test_the_orthogonal_step_by_row_and_by_column(by: str) -> None:
    found, others = merged(orthogonal_by=by), ~selected(orthogonal_by=by).restored
    axis = 1 if by == "row" else 0
    old, delta = OLD.double(), NEW.double() - OLD.double()
    kappa = (delta * old).sum(axis, keepdim=True) / old.square().sum(axis, keepdim=True)
    expected = (NEW.double() - kappa * old).float()
    torch.testing.assert_close(found.weight[:, others], expected[:, others])
    assert torch.equal(found.weight[:, ~others], OLD[:, ~others])
    left = (found.weight.double() - old) * others
    if by == "column":  # what is left of each column is orthogonal to the old one
        assert float((left * old).sum(0).abs().max()) <= 1e-6 * float((delta * old).sum(0).abs().max())
    assert found.kappa == pytest.approx(float((kappa * old.square()).sum() / old.square().sum()))
    assert merged(orthogonal_by=by, orthogonal=False).weight[:, others].equal(NEW[:, others])


def test_a_row_of_zeros_has_no_kappa() -> None:
    old = OLD.clone()
    old[2] = 0.0
    config = HPAConfig(orthogonal_by="row", p_max=0.0, p_min=0.0)
    (found,) = adapt(old, NEW, Curved(SAFETY), Curved(TASK), block=0, blocks=1, configs=[config])
    assert torch.equal(found.weight[2], NEW[2])


@pytest.mark.parametrize(
    ("reading", "shares"),
    [
        ("zero-based", {0: 15, 1: Fraction(25, 2), 3: Fraction(15, 2), 4: 5}),
        ("one-based", {0: Fraction(25, 2), 1: 10, 3: 5, 4: 5}),
        ("full", {0: 15, 1: Fraction(35, 3), 3: 5, 4: 5}),
    ],
)
def test_the_range_of_the_depth(reading: str, shares: dict[int, Fraction]) -> None:
    """Block 4 of 4 is a head."""
    config = HPAConfig(depth_range=reading)  # type: ignore[arg-type]
    assert {block: share_at(config, block, 4) for block in shares} == shares
    assert share_at(config, 0, 1) == (5 if reading == "one-based" else 15)
    assert config.rule.share(config, 1, 4) == float(shares[1])


def test_the_hessian_as_a_sum() -> None:
    """``H`` grows by its number of tokens, and ``[H⁻¹]_jj`` falls by it; the task has sixteen times as many."""
    mean, total = selected(), selected(hessian_scale="sum")
    for score, purpose in (("epsilon", "safety"), ("zeta", "task")):
        torch.testing.assert_close(getattr(total, score), TOKENS[purpose] * getattr(mean, score))
    assert mean.alpha is not None
    rho = math.atanh(2 * (mean.alpha - 0.4) / 0.4 - 1) - math.log(16)
    assert total.alpha == pytest.approx(0.4 + 0.4 * (1 + math.tanh(rho)) / 2)


def test_the_logarithm_of_the_mean() -> None:
    found = selected(averaging="log-mean")
    assert found.epsilon is not None
    assert found.zeta is not None
    ratio = float((found.epsilon / found.zeta).mean())
    assert found.alpha == pytest.approx(0.4 + 0.4 * (1 + math.tanh(math.log(ratio))) / 2)
    assert found.alpha != pytest.approx(selected().alpha)


def test_columns_that_only_safety_needs_beyond_the_share() -> None:
    cut, keep = selected(), selected(excess="keep")
    assert cut.n_focus is not None
    assert cut.n_shared is not None
    alone = cut.n_focus - cut.n_shared
    assert int(cut.restored.sum()) == cut.n_restored < alone == int(keep.restored.sum())
    assert bool((keep.restored | ~cut.restored).all())
    energy = torch.arange(1.0, 11.0, dtype=torch.float64)  # the same columns matter to both: the share is filled up
    same = select_columns(energy, *2 * [torch.ones(10)], n_restored=3, n_focus=6, excess="keep")
    assert same.restored.tolist() == [False] * 7 + [True] * 3
