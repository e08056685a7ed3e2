"""The factors of a LoRA: scaled and multiplied, they are what the adapter adds to OLD."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import MIXTURES, lora, make_adapter, save_mixture
from cases import TinyCase
from torch import Tensor

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.checkpoint.adapter_files import open_adapter
from hpa_merge.model.adapter import Adapter
from hpa_merge.model.adapter_factors import Factors

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")

Tiny = Callable[..., TinyCase]

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "rsLoRA": ("llama", {"use_rslora": True, "target_modules": ["q_proj", "embed_tokens"]}),
    "Conv1D": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "rank_pattern": {"c_proj": 7}}),
    "experts": ("qwen3_moe", {"target_modules": [], "target_parameters": ["gate_up_proj", "experts.down_proj"]}),
    "gpt-oss": ("gpt_oss", {"target_modules": ["q_proj"], "target_parameters": ["experts.down_proj"]}),
}


def split(factors: Factors, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """``left`` and ``right`` of the update ``scaling * left @ right``, in the parameter's own orientation.

    Returns:
        Views of shape ``[rows, r]`` and ``[r, columns]``, with the experts in front for a stack.
    """
    if factors.experts is not None:
        a = a.reshape(factors.experts, -1, a.shape[1])
        b = b.reshape(b.shape[0], -1, factors.experts).permute(2, 0, 1)
    return (b, a) if factors.crossed else (a.transpose(-2, -1), b.transpose(-2, -1))


@pytest.mark.parametrize("case", CASES)
def test_factors(case: str, tiny: Tiny, tmp_path: Path) -> None:
    name, options = CASES[case]
    old = save_mixture(name, tmp_path / "old") if name in MIXTURES else tiny(name).old
    folder = make_adapter(old, name, lora(**options), tmp_path / "adapter")
    with Checkpoint.open(old, "OLD") as below, open_adapter(folder, "NEW") as own:
        headers = [{key: (i.dtype, i.shape) for key, i in part.tensors.items()} for part in (own, below)]
        adapter = Adapter(folder, own.config, headers[0], old, headers[1])
        assert {name for each in adapter.factors for name in (each.a, each.b)} <= own.tensors.keys()
        changed = set()
        for each in adapter.factors:
            a, b = (adapter.tensor(name, own.read) for name in (each.a, each.b))
            left, right = split(each, a, b)
            conversion = adapter._on_disk[each.parameter]
            read = {key: below.read(key) for key in adapter.keys_of(each.parameter)}
            before = conversion.apply(read, adapter._model)[each.parameter]
            merged = {key: adapter.merged(key, below.read(key), below.read, own.read) for key in read}
            after = conversion.apply(merged, adapter._model)[each.parameter]
            torch.testing.assert_close(before + each.scaling * left @ right, after, rtol=1e-5, atol=1e-6)
            assert not torch.equal(before, after)
            assert each.plain
            changed.update(read)
        assert changed <= adapter.keys
