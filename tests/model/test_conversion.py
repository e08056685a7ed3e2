"""Weights are merged as they lie on disk: under other names, fused, split or transposed they come out the same.

transformers' conversion mapping is replaced in some tests by the one that a checkpoint of another layout would have, so
that every kind of operation is met without an architecture that happens to use it.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cases import TinyCase
from reference import load_tensors
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM, PreTrainedModel
from transformers.core_model_loading import Chunk, Concatenate, Transpose, WeightConverter

from hpa_merge import HPAConfig, MergeReport, merge
from hpa_merge.model import conversion

SIZES = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 512,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}
NAMES_IN_MEMORY = (
    ("language_model.lm_head", "lm_head"),
    ("language_model.model", "model.language_model"),
    ("vision_tower.", "model.vision_tower."),
    ("multi_modal_projector", "model.multi_modal_projector"),
)


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Replace the weights of a checkpoint by what ``change`` makes of them, in one file."""
    tensors = change(load_tensors(folder))
    for file in (*folder.glob("*.safetensors"), *folder.glob("*.index.json")):
        file.unlink()
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "model.safetensors")


def tuned_pair(model: PreTrainedModel, tuned: str, folder: Path) -> TinyCase:
    """A pair in which only the parameters whose name holds ``tuned`` changed, with token ids to calibrate on."""
    old, new = folder / "old", folder / "new"
    model.save_pretrained(old)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if tuned in name:
                parameter += 0.02 * torch.randn_like(parameter) + 0.01 * parameter
    model.save_pretrained(new)
    safety, task = (folder / f"{name}.jsonl" for name in ("safety", "task"))
    for path, count in ((safety, 3), (task, 9)):
        rows = torch.randint(0, 512, (count, 20)).tolist()
        path.write_text("".join(f'{{"input_ids": {row}}}\n' for row in rows))
    return TinyCase("pair", old, new, safety, task)


def run(case: TinyCase, out: Path, **options: object) -> MergeReport:
    config = HPAConfig(**options)
    return merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task, config=config)


@pytest.fixture
def layout(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``layout(converter)``: from now on checkpoints are laid out so that loading them takes this conversion."""

    def use(converter: WeightConverter) -> None:
        monkeypatch.setattr(conversion, "get_model_conversion_mapping", lambda model: [converter])

    return use


def test_old_and_new_may_call_their_tensors_by_different_names(tiny: Callable[..., TinyCase], tmp_path: Path) -> None:
    case = tiny("llava").copied_to(tmp_path)
    expected = run(case, tmp_path / "expected")

    def rename(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        renamed = {}
        for name, value in tensors.items():
            before, after = next(pair for pair in NAMES_IN_MEMORY if name.startswith(pair[0]))
            renamed[after + name.removeprefix(before)] = value
        assert not renamed.keys() & tensors.keys()
        return renamed

    rewrite(case.old, rename)
    assert run(case, tmp_path / "out").linears == expected.linears
    for shard in (tmp_path / "expected").glob("*.safetensors"):
        assert (tmp_path / "out" / shard.name).read_bytes() == shard.read_bytes()


def test_a_tensor_that_is_split_on_load(layout: Callable[..., None], tmp_path: Path) -> None:
    """q, k and v in one tensor on disk. Only q changed, so the fused columns rank as q's alone."""
    torch.manual_seed(0)
    case = tuned_pair(LlamaForCausalLM(LlamaConfig(**SIZES)), "q_proj", tmp_path)
    run(case, tmp_path / "apart", orthogonal=False)
    apart = load_tensors(tmp_path / "apart")

    def fuse(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        rest = {name: value for name, value in tensors.items() if not any(f".{x}_proj" in name for x in "qkv")}
        for block in range(2):
            prefix = f"model.layers.{block}.self_attn"
            parts = [tensors[f"{prefix}.{x}_proj.weight"] for x in "qkv"]
            rest[f"{prefix}.qkv_proj.weight"] = torch.cat(parts)
        return rest

    for folder in (case.old, case.new):
        rewrite(folder, fuse)
    split = [f"self_attn.{x}_proj.weight" for x in "qkv"]
    layout(WeightConverter("self_attn.qkv_proj.weight", split, [Chunk(dim=0)]))
    report = run(case, tmp_path / "fused", orthogonal=False)
    assert sorted(r.name for r in report.linears if r.outcome == "adapted") == [
        f"model.layers.{block}.self_attn.qkv_proj.weight" for block in range(2)
    ]
    found, expected = load_tensors(tmp_path / "fused"), fuse(apart)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_tensors_that_are_fused_on_load(layout: Callable[..., None], tmp_path: Path) -> None:
    """gate and up apart on disk and one module in memory. Only gate changed, so up stays as it is."""
    torch.manual_seed(0)
    case = tuned_pair(Phi3ForCausalLM(Phi3Config(**SIZES)), "gate_up_proj", tmp_path)

    def restore_up(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        old = load_tensors(case.old)
        return {
            name: torch.cat([value[:64], old[name][64:]]) if "gate_up" in name else value
            for name, value in tensors.items()
        }

    rewrite(case.new, restore_up)
    run(case, tmp_path / "fused", orthogonal=False)
    fused = load_tensors(tmp_path / "fused")

    def split(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        rest = {name: value for name, value in tensors.items() if "gate_up" not in name}
        for block in range(2):
            prefix = f"model.layers.{block}.mlp"
            gate, up = tensors[f"{prefix}.gate_up_proj.weight"].chunk(2)
            rest |= {f"{prefix}.gate_proj.weight": gate, f"{prefix}.up_proj.weight": up}
        return rest

    for folder in (case.old, case.new):
        rewrite(folder, split)
    parts = ["mlp.gate_proj.weight", "mlp.up_proj.weight"]
    layout(WeightConverter(parts, "mlp.gate_up_proj.weight", [Concatenate(dim=0)]))
    report = run(case, tmp_path / "apart", orthogonal=False)
    outcomes = {r.name: r.outcome for r in report.linears if "mlp" in r.name and "down" not in r.name}
    assert set(outcomes.values()) == {"adapted", "unchanged"}
    assert all((outcome == "adapted") == ("gate" in name) for name, outcome in outcomes.items())
    found, expected = load_tensors(tmp_path / "apart"), split(fused)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_tensor_that_is_transposed_on_load(layout: Callable[..., None], tmp_path: Path) -> None:
    torch.manual_seed(0)
    case = tuned_pair(LlamaForCausalLM(LlamaConfig(**SIZES)), "down_proj", tmp_path)
    expected = run(case, tmp_path / "upright")

    def transpose(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.T if "down_proj" in name else value for name, value in tensors.items()}

    for folder in (case.old, case.new):
        rewrite(folder, transpose)
    layout(WeightConverter("mlp.down_proj.weight", "mlp.down_proj.weight", [Transpose(0, 1)]))
    report = run(case, tmp_path / "transposed")
    assert [r.restored for r in report.linears] == [r.restored for r in expected.linears]
    found, upright = load_tensors(tmp_path / "transposed"), transpose(load_tensors(tmp_path / "upright"))
    assert all(torch.equal(found[name], upright[name]) for name in upright)
