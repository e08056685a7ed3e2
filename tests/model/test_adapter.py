"""NEW as a PEFT adapter: every tensor bit for bit as if it had been merged and saved first, whatever its kind."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from adapters import MIXTURES, WEIGHTS, lora, make_adapter, merge_first, save_mixture
from cases import TinyCase
from safetensors.torch import load_file, save_file

from hpa_merge.checkpoint import Checkpoint, Prefetch
from hpa_merge.inputs.opening import open_new
from hpa_merge.model.injection import TYPES

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")

Tiny = Callable[..., TinyCase]

LINEARS = ["q_proj", "down_proj"]

LORAS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "plain": ("llama", "float32", {}),
    "bfloat16": ("llama", "bfloat16", {"use_rslora": True, "lora_alpha": 3}),
    "dora": ("qwen2_5_vl", "bfloat16", {"use_dora": True}),
    "patterns": ("llama", "float32", {"rank_pattern": {"down_proj": 7}, "alpha_pattern": {"layers.1.*q_proj": 5}}),
    "layers": ("llama", "float32", {"target_modules": LINEARS, "layers_to_transform": [0, 2]}),
    "fan_in_fan_out": ("gpt2", "float32", {}),
    "fan_in_fan_out, dora": ("gpt2", "bfloat16", {"use_dora": True}),
    "every bias": ("gpt2", "float32", {"bias": "all"}),
    "biases of the targets": ("qwen2_tied", "bfloat16", {"bias": "lora_only"}),
    "a bias of its own": ("gpt2", "float32", {"lora_bias": True}),
    "embeddings": ("llama", "float32", {"target_modules": [*LINEARS, "embed_tokens", "lm_head"]}),
    "tied embedding": ("qwen2_tied", "float32", {"target_modules": [*LINEARS, "embed_tokens"]}),
    "tokens": ("qwen2_tied", "float32", {"target_modules": LINEARS, "trainable_token_indices": [3, 17]}),
    "saved modules": ("llama", "bfloat16", {"modules_to_save": ["embed_tokens", "lm_head", "norm"]}),
    "a saved projector": ("llava", "float16", {"modules_to_save": ["multi_modal_projector"]}),
    "saved and tied": ("qwen2_tied", "float32", {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
    "a saved merger": ("qwen2_5_vl", "float32", {"modules_to_save": ["merger"], "target_modules": LINEARS}),
    "fused": ("phi3", "bfloat16", {}),
    "a regular expression": ("llava", "float32", {"target_modules": r".*language_model.*\.(q|v)_proj"}),
    "parameters": ("gemma3", "bfloat16", {"target_modules": LINEARS, "target_parameters": ["mlp.up_proj.weight"]}),
}

OTHERS: dict[str, Callable[[], peft.PeftConfig]] = {
    "BOFT": lambda: peft.BOFTConfig(boft_block_size=4, target_modules=LINEARS),
    "C3A": lambda: peft.C3AConfig(block_size=16, target_modules=LINEARS),
    "DELORA": lambda: peft.DeloraConfig(r=4, target_modules=LINEARS),
    "FOURIERFT": lambda: peft.FourierFTConfig(n_frequency=40, target_modules=LINEARS),
    "GRALORA": lambda: peft.GraloraConfig(r=4, gralora_k=2, target_modules=LINEARS),
    "HRA": lambda: peft.HRAConfig(r=4, target_modules=LINEARS),
    "IA3": lambda: peft.IA3Config(target_modules=LINEARS, feedforward_modules=["down_proj"]),
    "LN_TUNING": lambda: peft.LNTuningConfig(target_modules=["input_layernorm", "norm"]),
    "LOHA": lambda: peft.LoHaConfig(r=3, target_modules=LINEARS, init_weights=False),
    "LOKR": lambda: peft.LoKrConfig(r=3, target_modules=LINEARS, init_weights=False),
    "LORA": lora,
    "MISS": lambda: peft.MissConfig(r=4, target_modules=LINEARS),
    "OFT": lambda: peft.OFTConfig(r=4, oft_block_size=0, target_modules=LINEARS),
    "RANDLORA": lambda: peft.RandLoraConfig(r=4, target_modules=["q_proj"]),
    "ROAD": lambda: peft.RoadConfig(group_size=8, target_modules=LINEARS),
    "TRAINABLE_TOKENS": lambda: peft.TrainableTokensConfig(token_indices=[2, 9], target_modules=["embed_tokens"]),
    "VERA": lambda: peft.VeraConfig(r=4, target_modules=["q_proj"]),
}


def assert_as_merged_first(old: Path, name: str, adapter: Path, folder: Path) -> None:
    """Each tensor of OLD under the adapter is that of the merged model, and the adapter changes some."""
    assert_as(merge_first(old, name, adapter, folder), old, adapter)


def assert_as(merged: Path, old: Path, adapter: Path) -> None:
    changed = 0
    with (
        Checkpoint.open(old, "OLD") as below,
        open_new(adapter, below) as new,
        Checkpoint.open(merged, "NEW") as wanted,
    ):
        assert new.tensors.keys() == wanted.tensors.keys()
        for key in new.tensors:
            found, expected, before = new.read(key), wanted.read(key), below.read(key)
            assert found.dtype == expected.dtype == before.dtype, key
            assert torch.equal(found, expected), key
            assert new.computes(key) or torch.equal(found, before), key
            changed += not torch.equal(found, before)
    assert changed


@pytest.mark.parametrize("case", LORAS)
def test_lora(case: str, tiny: Tiny, tmp_path: Path) -> None:
    name, dtype, options = LORAS[case]
    old = tiny(name, dtype).old
    assert_as_merged_first(old, name, make_adapter(old, name, lora(**options), tmp_path / "adapter"), tmp_path / "new")


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("name", "dtype"), [("qwen2_tied", "bfloat16"), ("qwen2_5_vl", "float32")])
def test_other_kinds(kind: str, name: str, dtype: str, tiny: Tiny, tmp_path: Path) -> None:
    old = tiny(name, dtype).old
    adapter = make_adapter(old, name, OTHERS[kind](), tmp_path / "adapter")
    assert_as_merged_first(old, name, adapter, tmp_path / "new")


# --- mixtures of experts: a parameter of the model, and many tensors on disk ---


@pytest.fixture(params=MIXTURES)
def mixture(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save_mixture(request.param, tmp_path / "old")


@pytest.mark.parametrize("parameters", [["experts.gate_up_proj", "experts.down_proj"], ["experts.down_proj"]])
def test_experts(parameters: list[str], mixture: Path, tmp_path: Path) -> None:
    config = lora(target_modules=["q_proj"], target_parameters=parameters)
    adapter = make_adapter(mixture, "mixture", config, tmp_path / "adapter")
    assert_as_merged_first(mixture, "mixture", adapter, tmp_path / "new")


@pytest.mark.filterwarnings(
    "ignore:The following rank_pattern:RuntimeWarning", "ignore:The following alpha:RuntimeWarning"
)
def test_experts_of_an_adapter_from_before_they_were_stacked(tmp_path: Path) -> None:
    """Adapters of transformers 4 have a LoRA for each expert; peft makes one for the stack of them."""
    old, adapter = save_mixture("mixtral", tmp_path / "old"), tmp_path / "adapter"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tensors = {
            f"base_model.model.model.layers.{layer}.block_sparse_moe.experts.{expert}.{part}.lora_{side}.weight": (
                torch.randn((4, columns) if side == "A" else (rows, 4))
            )
            for layer in range(2)
            for expert in range(4)
            for part, rows, columns in (("w1", 48, 32), ("w2", 32, 48), ("w3", 48, 32))
            for side in "AB"
        }
    adapter.mkdir()
    save_file(tensors, adapter / "adapter_model.safetensors", {"format": "pt"})
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["w1", "w2", "w3"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert_as_merged_first(old, "mixtral", adapter, tmp_path / "new")


FORMER = {
    "qwen2_5_vl": {".model.language_model.": ".model.", ".model.visual.": ".visual."},
    "llava": {
        ".model.language_model.": ".language_model.model.",
        ".model.vision_tower.": ".vision_tower.",
        ".model.multi_modal_projector.": ".multi_modal_projector.",
        "base_model.model.lm_head.": "base_model.model.language_model.lm_head.",
    },
}


@pytest.mark.parametrize("name", FORMER)
def test_an_adapter_with_names_of_transformers_4(name: str, tiny: Tiny, tmp_path: Path) -> None:
    """peft leaves out what it finds no module for; here it is known where it belongs."""
    old = tiny(name).old
    saved = {"modules_to_save": ["multi_modal_projector", "lm_head"]} if name == "llava" else {}
    adapter = make_adapter(old, name, lora(target_modules=LINEARS, **saved), tmp_path / "adapter")
    merged = merge_first(old, name, adapter, tmp_path / "new")
    renamed = {}
    for key, tensor in load_file(adapter / WEIGHTS).items():
        for present, former in FORMER[name].items():
            if present in key:
                key = key.replace(present, former)
                break
        renamed[key] = tensor
    save_file(renamed, adapter / WEIGHTS, {"format": "pt"})
    assert_as(merged, old, adapter)


# --- how it is read ---


def test_in_any_order_ahead_and_again(tiny: Tiny, tmp_path: Path) -> None:
    old = tiny("gpt2").old
    adapter = make_adapter(old, "gpt2", lora(lora_bias=True), tmp_path / "adapter")
    with Checkpoint.open(old, "OLD") as below, open_new(adapter, below) as new:
        expected = {key: new.read(key) for key in new.tensors}
        keys = list(new.tensors)
        for order in (keys, keys[::-1], keys[::2] + keys[::3]):
            with Prefetch(new, order, 10**6) as prefetch:
                for key in order:
                    assert torch.equal(prefetch.read(key), expected[key]), key


def test_nothing_is_loaded_when_it_is_opened(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One layer at a time: OLD's tensors are read as they are asked for, and each of the adapter's for its layer."""
    old = tiny("llama").old
    adapter = make_adapter(old, "llama", lora(), tmp_path / "adapter")
    with Checkpoint.open(old, "OLD") as below, open_new(adapter, below) as new:
        read: list[str] = []
        real = Checkpoint.pieces
        monkeypatch.setattr(
            Checkpoint, "pieces", lambda self, name, *a, **k: read.append(name) or real(self, name, *a, **k)
        )
        new.read("model.layers.1.mlp.up_proj.weight")
    path = "model.layers.1.mlp.up_proj"
    assert sorted(read) == [f"base_model.model.{path}.lora_{side}.weight" for side in "AB"] + [f"{path}.weight"]


def test_what_came_of_the_adapter_stays_as_it_was(tiny: Tiny, tmp_path: Path) -> None:
    old = tiny("llama").old
    adapter = make_adapter(old, "llama", lora(), tmp_path / "adapter")
    before = {path.name: path.read_bytes() for folder in (old, adapter) for path in folder.iterdir()}
    with Checkpoint.open(old, "OLD") as below, open_new(adapter, below) as new:
        for key in new.tensors:
            new.read(key)
    assert before == {path.name: path.read_bytes() for folder in (old, adapter) for path in folder.iterdir()}


def test_a_checkpoint_beside_the_configuration_of_an_adapter_is_a_checkpoint(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama").copied_to(tmp_path)
    adapter = make_adapter(case.old, "llama", lora(), tmp_path / "adapter")
    shutil.copy(adapter / "adapter_config.json", case.new)
    with Checkpoint.open(case.old, "OLD") as old, open_new(case.new, old) as new:
        assert new.folder == case.new
        assert new.overlay is None
