"""Every family of the matrix end to end; in bfloat16 those whose loading or forward depends on the dtype most."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from families import FAMILIES, IN_BFLOAT16
from family_checks import QUIET, check_family
from family_pairs import Family, make_pair
from family_reference import located
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3NextConfig, Qwen3NextForCausalLM

from hpa_merge.model.routing import find_routers

QUICK = 4
"""Of so many families in float32 one runs in plain ``pytest``, the others in the gate."""

THIRD = 3
"""Of so many families in float32 one is merged by the exact compromise too."""

RUNS = [
    pytest.param(family, torch.float32, marks=[pytest.mark.gate] if place % QUICK else [], id=f"{family.id}-float32")
    for place, family in enumerate(FAMILIES)
]
RUNS += [
    pytest.param(family, torch.bfloat16, id=f"{family.id}-bfloat16")
    for family in FAMILIES
    if family.name in IN_BFLOAT16
]

pytestmark = [pytest.mark.filterwarnings(warning) for warning in QUIET]


@pytest.mark.parametrize(("family", "dtype"), RUNS)
def test_family(family: Family, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compromise = dtype == torch.float32 and FAMILIES.index(family) % THIRD == 0
    pair = make_pair(family, tmp_path, dtype=dtype)
    report = check_family(pair, tmp_path / "out", monkeypatch, compromise=compromise)
    if family.kind == "mixture":
        assert report.passed_through["router"] > 0
    if family.images:
        tokens = Counter((record.stack, record.task_tokens) for record in report.linears if record.stack)
        assert len({stack for stack, _ in tokens}) > 1


def test_the_table_is_up_to_date() -> None:
    script = Path(__file__).resolve().parent.parent / "docs" / "families.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or "python docs/families.py writes it anew"


def test_names_are_unique_and_the_subset_is_there() -> None:
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    assert set(IN_BFLOAT16) <= set(names)


def test_a_projection_with_as_many_rows_as_there_are_experts_is_no_router() -> None:
    """Qwen3-Next as published has 512 experts, and 512 rows in its k_proj and v_proj."""
    config = Qwen3NextConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8, vocab_size=64,
        num_experts=16, num_experts_per_tok=2, moe_intermediate_size=8, shared_expert_intermediate_size=8,
        linear_num_key_heads=2, linear_num_value_heads=16, linear_key_head_dim=8, linear_value_head_dim=8,
        layer_types=["full_attention", "linear_attention"],
    )  # fmt: skip
    with torch.device("meta"):
        model = Qwen3NextForCausalLM(config)
    assert model.get_parameter("model.layers.0.self_attn.k_proj.weight").shape[0] == 16
    assert find_routers(model).keys() == {f"model.layers.{n}.mlp.gate.weight" for n in (0, 1)}


def test_the_reference_finds_places_by_value_alone() -> None:
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=32
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
        unknown = torch.randn(24, 16)
    names = [f"model.layers.0.mlp.{x}_proj" for x in ("gate", "up", "down")]
    gate, up, down = (model.get_parameter(f"{name}.weight").detach() for name in names)
    disk = {
        "fused": torch.cat([gate, up]),
        "interleaved": torch.stack([gate, up], dim=1).flatten(0, 1),
        "transposed": down.T.contiguous(),
        "permuted": gate[torch.randperm(24)],
        "columns moved": gate.roll(1, dims=1),
        "partly unknown": torch.cat([gate, unknown]),
    }
    assert located(model, disk) == {
        "fused": ((names[0], names[1]), 1),
        "interleaved": ((names[0], names[1]), 1),
        "transposed": ((names[2],), 0),
        "permuted": ((names[0],), 1),
    }
