"""The plan of an OUT that is an adapter: what it holds, in which order and ranks, and what is refused."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mixtures
import peft
import pytest
import torch
from adapters import WEIGHTS, edit, lora, make_adapter
from cases import TinyCase
from safetensors.torch import load_file, save_file
from torch import Tensor

from hpa_merge import HPAConfig
from hpa_merge.checkpoint import Checkpoint, open_adapter
from hpa_merge.checkpoint.adapter_files import laid_out
from hpa_merge.engine.adapter_form import AdapterForm, plan_adapter
from hpa_merge.engine.plan import make_plan
from hpa_merge.errors import CheckpointError, ConfigError
from hpa_merge.inputs.applied import applied
from hpa_merge.inputs.opening import open_new
from hpa_merge.verification.adapter import Compared, OfAdapter

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")

Tiny = Callable[..., TinyCase]

EXPERTS = {"target_modules": ["q_proj"], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}


@contextmanager
def planned(old: Path, new: Path, **options: Any) -> Iterator[AdapterForm]:
    config = HPAConfig(**{"orthogonal": False, "output_format": "adapter", **options})
    with Checkpoint.open(old, "OLD") as below, open_new(new, below) as above:
        plan = make_plan(below, above, [config], torch.device("cpu"))
        yield plan_adapter(above, plan, plan.only)


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a whole checkpoint": (None, {}, "is a whole checkpoint, and OUT is an adapter only if NEW is one"),
    "another kind": (peft.LoHaConfig(r=3, target_modules=["q_proj"]), {}, "is an adapter of type LOHA, and OUT is an"),
    "DoRA": (
        lora(use_dora=True),
        {},
        "is a DoRA .* is not a product of two factors: .* approximate a DoRA with --adapter-rank",
    ),
    "a small rank": (
        lora(rank_pattern={"up_proj": 6}),
        {"adapter_rank": 5},
        "adapter_rank is 5, and .* has rank 6 at .*up_proj",
    ),
    "tokens": (
        lora(target_modules=["q_proj"], trainable_token_indices=[3]),
        {"embeddings": "old"},
        "changes model.embed_tokens.weight, which the options take from OLD",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tiny: Tiny, tmp_path: Path) -> None:
    config, options, complaint = REFUSED[case]
    pair = tiny("llama")
    new = pair.new if config is None else make_adapter(pair.old, "llama", config, tmp_path / "adapter")
    with pytest.raises((CheckpointError, ConfigError), match=complaint), planned(pair.old, new, **options):
        pass


def test_ranks_are_repeated_where_linears_share_them(tmp_path: Path) -> None:
    """``gate_proj`` and ``up_proj`` are one parameter of the model, and each has its own restored columns."""
    case = mixtures.make(mixtures.mixtral, tmp_path)
    new = make_adapter(case.old, "mixtral", lora(**EXPERTS, use_rslora=True), tmp_path / "adapter")
    with planned(case.old, new) as form:
        grown = {pair.factors.parameter.rpartition(".")[2]: (pair.own_rank, pair.rank) for pair in form.pairs}
        assert grown == {"weight": (4, 4), "gate_up_proj": (4, 8), "down_proj": (4, 4)}
        config = json.loads(form.layout.own_index or b"")
        assert set(config["rank_pattern"].values()) == {8}
        assert all(name.startswith("^model\\.layers\\.") for name in config["rank_pattern"])
        (alpha,) = {*config["alpha_pattern"].values()}
        assert alpha == pytest.approx(8 * 2**0.5)  # of 8 at rank 4, by the root
    tensors = load_file(new / WEIGHTS)
    for name, b in tensors.items():
        if (
            "base_layer.lora_B" in name and b.shape[0] == 96
        ):  # the first two ranks for gate_proj, the others for up_proj
            parts = b.reshape(96, 4, -1)
            parts[:48, 2:], parts[48:, :2] = 0.0, 0.0
            tensors[name] = parts.reshape(96, -1)
    edit(new, tensors)
    with planned(case.old, new) as form:
        assert {pair.rank for pair in form.pairs} == {4}
        assert form.layout.own_index == (new / "adapter_config.json").read_bytes()


def test_experts_are_written_in_the_present_order_of_the_factors(tmp_path: Path) -> None:
    case = mixtures.make(mixtures.mixtral, tmp_path)
    new = make_adapter(case.old, "mixtral", lora(**EXPERTS), tmp_path / "adapter")
    present = load_file(new / WEIGHTS)
    with planned(case.old, new) as form:
        wanted = {pair.a.name: pair.split(*(form.read(part) for part in (pair.a, pair.b))) for pair in form.pairs}
    former = {}
    for name in (name for name in present if "experts" in name and "lora_A" in name):
        other = name.replace("lora_A", "lora_B")
        a = present[name].reshape(6, 4, -1)
        b = present[other].reshape(len(present[other]), 4, 6).permute(2, 0, 1)
        former[name] = b.transpose(1, 2).reshape(24, -1).contiguous()
        former[other] = a.transpose(1, 2).permute(1, 2, 0).reshape(-1, 24).contiguous()
    edit(new, former)
    config = json.loads((new / "adapter_config.json").read_text())
    (new / "adapter_config.json").write_text(json.dumps(config | {"peft_version": "0.18.1"}))
    with planned(case.old, new) as form:
        assert json.loads(form.layout.own_index or b"")["peft_version"] == peft.__version__
        for pair in form.pairs:
            x, y = pair.split(*(form.read(part) for part in (pair.a, pair.b)))
            assert all(torch.equal(ours, theirs) for ours, theirs in zip((x, y), wanted[pair.a.name], strict=True))
            written = dict(zip((pair.a.name, pair.b.name), pair.join(x, y), strict=True))
            assert all(torch.equal(written[name], present[name]) for name in written)


def test_a_lora_for_each_expert_becomes_one_for_their_stack(tmp_path: Path) -> None:
    """As transformers 4 had them: peft joins the ranks of ``w1`` and ``w3``, and each of these is for one linear."""
    case = mixtures.make(mixtures.mixtral, tmp_path)
    new = tmp_path / "adapter"
    peft.LoraConfig(r=4, target_modules=["w1", "w2", "w3"]).save_pretrained(new)
    path = "base_model.model.model.layers.{}.block_sparse_moe.experts.{}.{}.lora_{}.weight"
    shapes = {"w1": (48, 32), "w2": (32, 48), "w3": (48, 32)}
    tensors = {
        path.format(layer, expert, name, side): torch.ones((4, columns) if side == "A" else (rows, 4))
        for layer in range(2)
        for expert in range(6)
        for name, (rows, columns) in shapes.items()
        for side in "AB"
    }
    save_file(tensors, new / WEIGHTS, {"format": "pt"})
    config = json.loads((new / "adapter_config.json").read_text())
    (new / "adapter_config.json").write_text(json.dumps(config | {"peft_version": "0.15.0"}))
    with planned(case.old, new) as form:
        assert [(pair.own_rank, pair.rank) for pair in form.pairs] == [(4, 4), (8, 8)] * 2
        assert form.layout.tensors.keys() == {
            f"base_model.model.model.layers.{layer}.mlp.experts.{inner}lora_{side}.weight"
            for layer in range(2)
            for inner in ("", "base_layer.")
            for side in "AB"
        }
        written = json.loads(form.layout.own_index or b"")
        assert (written["peft_version"], written["r"]) == (peft.__version__, 4)


def test_old_with_an_adapter_that_is_being_written(tiny: Tiny, tmp_path: Path) -> None:
    old = tiny("gpt2").old
    folder = make_adapter(old, "gpt2", lora(lora_bias=True), tmp_path / "adapter")
    with (
        Checkpoint.open(old, "OLD") as below,
        open_new(folder, below) as new,
        open_adapter(folder, "NEW") as own,
    ):
        layout = laid_out(own, {name: (info.dtype, info.shape) for name, info in own.tensors.items()})
        read = applied(layout, below, own.read)
        assert all(torch.equal(read(key), new.read(key)) for key in new.tensors)


def test_values_that_are_not_the_merges_are_found() -> None:
    draw = torch.Generator().manual_seed(0)
    old, update = torch.randn(8, 6, generator=draw), 0.1 * torch.randn(8, 6, generator=draw)
    new = old + update
    restored = new.where(torch.arange(6) > 1, old)
    values = OfAdapter()

    def problems(error: float, found: Tensor, expected: Tensor) -> list[str]:
        return list(values.compare(Compared("w", found, expected, old, new, error), "differ"))

    assert problems(0.0, restored, restored) == []
    other = restored.clone()
    other[3, 0] += 1e-6
    assert problems(0.0, other, restored) == ["w: 1 of 48 values differ, first in column 0."]
    other = restored.clone()
    other[3, 5] = torch.nextafter(other[3, 5], torch.tensor(9.0))
    assert problems(0.0, other, restored) == []
    assert values.rounded == 1
    mixed, near = old + 0.5 * update, old + 0.52 * update
    assert problems(0.04, near, mixed) == []
    assert values.errors == [0.04]
    assert problems(0.0, near, mixed) == [
        "w: its update differs from the merge's by 0.04 of it, and by 0 in the report."
    ]
