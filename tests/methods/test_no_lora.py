"""Each rule says whether its result is ``W_old + ΔW M``, and gives ``M`` if it is."""

import pytest
import torch
from torch import Tensor

from hpa_merge import HPAConfig
from hpa_merge.core import Hessian
from hpa_merge.core.inverse import InverseHessian
from hpa_merge.errors import ConfigError
from hpa_merge.methods import RULES, Rule
from hpa_merge.methods.applying import Adapted, Curved, adapt


def curved(columns: int, draw: torch.Generator) -> Curved:
    x = torch.randn(3 * columns, columns, generator=draw)
    gram = x.T @ x
    damped = gram + torch.eye(columns)
    diagonal = torch.linalg.inv(damped.double()).diagonal()
    inverse = InverseHessian(diagonal, torch.linalg.cholesky(damped), scale=1.0, tokens=None, damp=1.0)
    return Curved(diagonal, inverse, Hessian(None, gram, scale=2.0 / len(x), damp=1.0))


def adapted(config: HPAConfig) -> tuple[Tensor, Tensor, Adapted]:
    """OLD, the update, and the result."""
    draw = torch.Generator().manual_seed(0)
    old, update = (torch.randn(12, 16, generator=draw, dtype=torch.float64) for _ in range(2))
    sides = [curved(16, draw) for _ in range(2)]
    (made,) = adapt(old, old + update, *sides, block=1, blocks=4, configs=[config], name="w")
    return old, update, made


def options(rule: Rule, **others: object) -> dict[str, object]:
    """The options of a rule, without the steps that no LoRA holds."""
    found: dict[str, object] = {"method": rule.name, **others}
    if "orthogonal" in rule.options:
        found |= {"orthogonal": False, "p_max": 40.0}
    if "safety_energy" in rule.options:
        found["safety_energy"] = 0.4
    if "blocks" in rule.options:
        found["blocks"] = "0"
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_what_a_rule_says_of_its_result(rule: Rule) -> None:
    config = HPAConfig(**options(rule))
    old, update, made = adapted(config)
    if reason := rule.no_lora(config):
        assert made.times is None, reason
        with pytest.raises(
            ConfigError, match=r"output_format is adapter.*or approximate the update with --adapter-rank"
        ):
            HPAConfig(**options(rule, output_format="adapter"))
        assert HPAConfig(**options(rule, output_format="adapter", adapter_rank=4)).adapter_rank == 4
        return
    assert HPAConfig(**options(rule, output_format="adapter")).output_format == "adapter"
    assert made.times is not None
    left, right = torch.linalg.qr(update.float())
    torch.testing.assert_close(old + (left @ made.times(right)).double(), made.weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["hpa", "random", "energy"])
def test_the_orthogonal_step(method: str) -> None:
    with pytest.raises(ConfigError, match=r"orthogonal step subtracts .*: leave it out with --no-orthogonal, or "):
        HPAConfig(method=method, output_format="adapter")
    assert adapted(HPAConfig(method=method))[2].times is None


def test_a_rank_is_for_an_adapter() -> None:
    with pytest.raises(ConfigError, match="adapter_rank is 8, and OUT is a whole model"):
        HPAConfig(adapter_rank=8)
    with pytest.raises(ConfigError, match="adapter_rank is -1: it has to be at least 0"):
        HPAConfig(adapter_rank=-1, output_format="adapter")
