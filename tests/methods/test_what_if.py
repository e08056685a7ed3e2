"""What a rule says that other settings would undo, against the rule with these settings."""

from dataclasses import replace
from math import prod
from typing import Any

import pytest
import torch

from hpa_merge.config import HPAConfig
from hpa_merge.core import Curvature
from hpa_merge.methods import RULES
from hpa_merge.methods.applying import Curved, adapt
from hpa_merge.methods.weight import Adapted
from hpa_merge.methods.what_if import Slider, grid_of, with_own

OPTIONS: list[dict[str, Any]] = [
    {},
    {"p_max": 12.3, "p_min": 12.3, "alpha_min": 0.1, "alpha_max": 3.0, "focus_ratio": 3.0},
    {"selection": "safety", "p_max": 60.0, "p_min": 0.0, "depth_range": "full"},
    {"selection": "shared", "saliency": "product", "averaging": "log-mean"},
    {"excess": "keep", "hessian_scale": "sum", "orthogonal": False, "p_max": 0.0, "p_min": 0.0},
    {"method": "random", "seed": 7},
    {"method": "energy", "p_max": 33.0, "p_min": 11.0, "depth_range": "one-based"},
    {"method": "linear", "weight": 0.42},
    {"method": "safe-delta", "compensation": False, "safety_budget": 2000.0},
    {"method": "safe-delta", "safety_floor": 15.0, "safety_budget": 7.0},
    {"method": "cgm", "safety_weight": 2.0, "safety_fade": 0.3},
]


def made(config: HPAConfig, columns: int = 48) -> tuple[Adapted, torch.Tensor, torch.Tensor]:
    """A weight with these options, and before and after tuning."""
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    old, change = normal(24, columns), 0.1 * normal(24, columns) * normal(columns).exp()
    curved = []
    for tokens in (columns // 2, 3 * columns):
        curvature = Curvature(columns)
        curvature.add(normal(tokens, columns) * normal(columns).exp())
        hessian = curvature.hessian(config.damping)
        curved.append(Curved(curvature.inverse_diagonal(config.damping), hessian=hessian, tokens=tokens))
    (adapted,) = adapt(old, old + change, *curved, block=1, blocks=4, configs=[config], name="layers.1.q.weight")
    return adapted, old, old + change


def undone(config: HPAConfig) -> float:
    """What a merge undoes: the share that it restores, or the square of the share that it takes back."""
    adapted, old, new = made(config)
    if adapted.energy_restored is not None:
        return adapted.energy_restored
    return float((new - adapted.weight).square().sum() / (new - old).square().sum())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_what_a_merge_with_the_setting_undoes(options: dict[str, Any]) -> None:
    config = HPAConfig(**options)
    assert config.rule.grid is not None
    grid, (adapted, _, _) = config.rule.grid(config), made(config)
    shares = adapted.figures["what_if"]
    assert len(shares) == len(grid.settings) == prod(grid.sizes)
    assert grid.settings[grid.own].items() <= vars(config).items()
    assert {name for slider in grid.sliders for name in slider.options} == {*grid.settings[0]}
    assert len({*shares}) > 4
    for place in {grid.own, 0, len(shares) - 1, *range(3, len(shares), 7)}:
        expected = undone(replace(config, **grid.settings[place]))
        assert shares[place] == pytest.approx(expected, rel=1e-9, abs=1e-12), grid.settings[place]


def test_every_rule_has_it_or_a_reason_why_not() -> None:
    assert [rule.name for rule in RULES if (rule.grid is None) == (not rule.no_grid)] == []
    assert {options.get("method", "hpa") for options in OPTIONS} == {r.name for r in RULES if r.grid is not None}


def test_a_merges_own_value_takes_the_place_of_one_that_is_close_to_it() -> None:
    assert with_own((5, 10, 15), 10) == ((5, 10, 15), 1)
    assert with_own((5, 10, 15), 9.9) == ((5, 9.9, 15), 1)
    assert with_own((5, 10, 15), 70) == ((5, 10, 15, 70), 3)
    assert with_own(((0, 0), (0.2, 0.4)), (0, 0.4)) == (((0, 0), (0, 0.4), (0.2, 0.4)), 1)


def test_a_slider_without_a_choice_is_left_out() -> None:
    axes = ((Slider("a", ("a",)), ((1, 2), 1)), (Slider("b", ("b",)), ((3,), 0)), (Slider("c", ("c",)), ((4, 5, 6), 2)))
    grid = grid_of(axes, lambda a, b, c: {"a": a, "b": b, "c": c})
    assert [slider.label for slider in grid.sliders] == ["a", "c"]
    assert grid.sizes == (2, 3)
    assert grid.settings[grid.own] == {"a": 2, "b": 3, "c": 6}


def test_an_update_of_nothing_is_not_undone() -> None:
    old = torch.zeros(2, 4)
    inverse = Curved(torch.ones(4))
    for method in ("hpa", "random", "energy", "safe-delta"):
        config = HPAConfig(method=method, compensation=False) if method == "safe-delta" else HPAConfig(method=method)
        (adapted,) = adapt(old, old, inverse, inverse, block=0, blocks=1, configs=[config])
        assert {*adapted.figures["what_if"]} == {0.0}
