"""One adapted weight against the reference: the curvature, the selection and the fused weight together."""

from dataclasses import replace

import pytest
import torch
from precision import accumulated
from reference import LinearResult, Settings, merge_linear
from torch import Tensor

from hpa_merge.config import HPAConfig
from hpa_merge.core import Curvature
from hpa_merge.methods.applying import Curved, adapt, differ
from hpa_merge.methods.weight import Adapted

DEPTH = (1, 4)


def problem(seed: int, c: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """A weight before and after tuning, and correlated activations of uneven size on either side."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    old = normal(24, c)
    safety, task = ((normal(n, c) @ normal(c, c) / c**0.5 * normal(c).exp()).to(dtype) for n in (c // 2, 3 * c))
    return {"old": old.to(dtype), "new": (1.1 * old + 0.1 * normal(24, c)).to(dtype), "safety": safety, "task": task}


def adapted(old: Tensor, new: Tensor, safety: Tensor, task: Tensor, config: HPAConfig) -> Adapted:
    inverses = []
    for x in (safety, task):
        curvature = Curvature(x.shape[1])
        for batch in x.split(7):
            curvature.add(batch)
        inverses.append(curvature.inverse_diagonal(config.damping))
    (result,) = adapt(old, new, *map(Curved, inverses), block=DEPTH[0], blocks=DEPTH[1], configs=[config])
    return result


def reference(old: Tensor, new: Tensor, safety: Tensor, task: Tensor, options: dict) -> LinearResult:
    return merge_linear(old, new, safety.split(7), task.split(7), DEPTH, replace(Settings(), **options))


@pytest.mark.parametrize("seed", [1, 8, 31])  # free of near ties
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"selection": "safety"},
        {"selection": "shared"},
        {"orthogonal": False},
        {"saliency": "product"},
        {"p_max": 50.0, "p_min": 30.0},  # S∖O does not suffice
        {"p_max": 7.3, "p_min": 7.3, "focus_ratio": 3.5, "alpha_min": 0.0, "alpha_max": 1.5, "damping": 0.1},
    ],
    ids=str,
)
def test_adapt_is_the_reference(options: dict, dtype: torch.dtype, seed: int):
    arguments = problem(seed, 60, dtype)
    found = adapted(**arguments, config=HPAConfig(**options))
    expected = reference(**arguments, options=options)

    restored = found.selection.restored.nonzero().flatten().tolist()
    assert expected.margin > expected.rtol, "the seed gives a near tie: take another"
    assert set(restored) == expected.restored
    assert (found.selection.n_restored, found.selection.n_focus) == (expected.n_restored, expected.n_focus)
    assert found.share == expected.share
    span = HPAConfig(**options).alpha_max - HPAConfig(**options).alpha_min
    assert found.selection.alpha == pytest.approx(expected.alpha, abs=span * expected.rtol)  # of a mean log of scores
    in_sum = 2 * accumulated(arguments["old"].numel(), torch.float64)  # here, and in the reference
    torch.testing.assert_close(found.update.energy, expected.energy, rtol=in_sum, atol=0)
    assert found.update.kappa == pytest.approx(expected.kappa, rel=in_sum)
    assert found.kappa == (found.update.kappa if options.get("orthogonal", True) else 0.0)

    assert found.weight.dtype == dtype
    assert torch.equal(found.weight[:, restored], arguments["old"][:, restored])
    torch.testing.assert_close(found.weight, expected.weight.to(dtype))  # by the dtype's tolerance: one rounding


def test_the_share_restored_falls_with_the_depth():
    old, new, one = torch.zeros(2, 60), torch.ones(2, 60), Curved(torch.ones(60))
    depths = [next(adapt(old, new, one, one, block=block, blocks=4, configs=[HPAConfig()])) for block in range(5)]
    restored = [int(found.selection.restored.sum()) for found in depths]
    assert [found.share for found in depths] == [15.0, 12.5, 10.0, 7.5, 5.0]
    assert restored == [9, 8, 6, 5, 3]  # 9, 7.5, 6, 4.5, 3


def test_everything_and_nothing():
    arguments = problem(0, 60)
    everything = adapted(**arguments, config=HPAConfig(p_max=100.0, p_min=100.0))
    assert torch.equal(everything.weight, arguments["old"])
    assert everything.energy_restored == 1.0
    nothing = adapted(**arguments, config=HPAConfig(p_max=0.0, p_min=0.0, orthogonal=False))
    assert torch.equal(nothing.weight, arguments["new"])
    assert nothing.energy_restored == 0.0


def test_what_the_report_is_told():
    old = torch.tensor([[1.0, 2.0, 2.0, 0.0]])
    new = torch.tensor([[1.0, 2.0, 4.0, 1.0]])  # ‖ΔW‖² = 5, ‖W_old‖² = 9
    config = HPAConfig(p_max=25.0, p_min=25.0, focus_ratio=1.0)
    (found,) = adapt(old, new, Curved(torch.ones(4)), Curved(torch.ones(4)), block=0, blocks=1, configs=[config])
    assert found.selection.restored.tolist() == [False, False, True, False]
    assert found.energy_restored == pytest.approx(4 / 5)
    assert found.relative_update == pytest.approx((5 / 9) ** 0.5)
    assert found.kappa == pytest.approx(4 / 9)

    one = Curved(torch.ones(4))
    (unchanged,) = adapt(old, old, one, one, block=0, blocks=1, configs=[config])
    assert (unchanged.energy_restored, unchanged.relative_update) == (0.0, 0.0)
    (from_zero,) = adapt(torch.zeros(1, 4), new, one, one, block=0, blocks=1, configs=[config])
    assert (from_zero.kappa, from_zero.relative_update) == (0.0, None)


def test_a_weight_that_tuning_changed() -> None:
    """Compared eight bytes at a time where the weight lies in that way; zeros of either sign are equal."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        for shape in ((4, 8), (3, 5), (1, 1)):
            old = torch.arange(1.0, 1.0 + shape[0] * shape[1]).reshape(shape).to(dtype)
            in_stack = torch.cat([old.new_ones(1), old.flatten()])[1:].view(shape)  # begins at an odd place
            for same in (old.clone(), old.T.contiguous().T, in_stack, torch.cat([old, old])):
                assert not differ(old, same)
                for row, column in ((0, 0), (shape[0] - 1, shape[1] - 1)):
                    changed = same.clone()
                    changed[row, column] *= -1
                    assert differ(old, changed)
            zeros = torch.zeros(shape, dtype=dtype)
            assert not differ(zeros, -zeros)
    assert not differ(torch.tensor([[1.0, 1.0 + 2.0**-20]]), torch.tensor([[1.0, 1.0]], dtype=torch.bfloat16))
    assert differ(torch.tensor([[1.0, 1.01]]), torch.tensor([[1.0, 1.0]], dtype=torch.bfloat16))
