"""Adapters whose names and configuration were written for another module tree: the same tensors, and a true note."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from adapter_cases import CASES, TEXT, Case
from adapters import WEIGHTS, lora, make_adapter, save_mixture
from cases import TinyCase
from safetensors.torch import load_file, save_file
from tiny_original_llava import make_original, own_key
from torch import Tensor

from hpa_merge import merge
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.errors import CheckpointError
from hpa_merge.inputs.opening import open_new
from hpa_merge.model.adapter_names import find_modules
from hpa_merge.model.injection import PREFIX
from hpa_merge.verification import verify

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")

Tiny = Callable[..., TinyCase]


@pytest.fixture(autouse=True)
def _no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """No child process for the regular expressions here, which are harmless."""
    monkeypatch.setattr("hpa_merge.model.try_adapter", lambda *_: None)


def configure(adapter: Path, changes: Mapping[str, Any]) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rename(adapter: Path, *changes: tuple[str, str]) -> None:
    renamed = {}
    for key, tensor in load_file(adapter / WEIGHTS).items():
        for pattern, replacement in changes:
            key = re.sub(pattern, replacement, key)
        renamed[key] = tensor
    save_file(renamed, adapter / WEIGHTS, {"format": "pt"})


def read(old: Path, adapter: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Every tensor of NEW that differs from OLD's, and the notes."""
    with Checkpoint.open(old, "OLD") as below, open_new(adapter, below) as new:
        assert new.overlay is not None
        read = {key: (new.read(key), below.read(key)) for key in new.tensors}
        return {key: ours for key, (ours, was) in read.items() if not torch.equal(ours, was)}, new.overlay.notes


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_adapters_tensors_say_which_modules_it_changes(case: Case, tiny: Tiny, tmp_path: Path) -> None:
    old = tiny(case.model).old
    made = lora if case.kind == "Lora" else getattr(peft, f"{case.kind}Config")
    adapter = make_adapter(old, case.model, made(**case.options), tmp_path / "adapter")
    wanted, notes = read(old, adapter)
    assert wanted
    assert notes == ()
    configure(adapter, case.changes)
    rename(adapter, *case.renamings)
    found, notes = read(old, adapter)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert notes == ((f"NEW {adapter}: {case.note}",) if case.note else ())


TREE = {
    **{f"model.text.layers.{layer}.{part}": (8, 6) for layer in range(2) for part in ("q", "v")},
    **{f"model.tower.layers.{layer}.{part}": (8, 6) for layer in range(2) for part in ("q", "k")},
    **{f"model.sound.layers.{layer}.{part}": (5, 7) for layer in range(2) for part in ("q", "v")},
    "head": (9, 6),
}
"""Modules of a model with three towers, and the shapes of their weights."""


def places(*modules: str) -> dict[str, str]:
    """Where a LoRA on these modules belongs in ``TREE``."""
    names = {f"{PREFIX}{module}.lora_A.weight": (2, 6) for module in modules}
    found = find_modules(names, "lora_", TREE, lambda path: (), "NEW n")
    return {each.saved: each.module for each in found.values()}


def test_a_beginning_has_to_fit_every_tensor_and_only_one_place() -> None:
    assert places("layers.0.q", "layers.1.v") == {
        "layers.0.q": "model.text.layers.0.q",
        "layers.1.v": "model.text.layers.1.v",
    }
    assert places("a.b.layers.1.k", "head") == {"a.b.layers.1.k": "model.tower.layers.1.k", "head": "head"}
    for modules, reason in (
        (["layers.0.q"], r"has several modules \(model.text.… or model.tower.…\)"),
        (["layers.2.q"], "has no module"),
        (["layers.0.q", "layers.0.v", "layers.0.k"], "has no module"),
        (["elsewhere"], "has no module"),
    ):
        with pytest.raises(CheckpointError, match=f"NEW n: OLD {reason} for the adapter's tensor {PREFIX}{modules[0]}"):
            places(*modules)


OWN_LLAVA = (
    (r"\.model\.language_model\.", ".model."),
    (r"\.model\.vision_tower\.", ".model.vision_tower.vision_tower."),
    (r"\.model\.multi_modal_projector\.linear_1\.", ".model.mm_projector.0."),
    (r"\.model\.multi_modal_projector\.linear_2\.", ".model.mm_projector.2."),
)


@pytest.mark.gate
def test_a_merge_of_an_adapter_on_llavas_own_layout(tiny: Tiny, tmp_path: Path) -> None:
    """With the tower in a folder of its own."""
    original = make_original(tiny("llava"), tmp_path, inside=False)
    adapter = make_adapter(original.old_converted, "llava", lora(target_modules=TEXT), tmp_path / "adapter")
    files = {"safety_calib": original.safety_squared, "task_calib": original.task_squared}
    rename(adapter, *OWN_LLAVA)
    report = merge(original.old, adapter, tmp_path / "out", **files)
    assert any(
        "names of its tensors are translated (model -> model.language_model)" in said for said in report.warnings
    )
    assert report.count("adapted")
    with Checkpoint.open(original.old, "OLD") as old, Checkpoint.open(tmp_path / "out", "OUT") as out:
        assert out.tensors == old.tensors
    assert verify(tmp_path / "out", original.old, adapter).problems == ()


@pytest.mark.parametrize("inside", [True, False])
def test_an_adapter_on_llavas_own_layout(inside: bool, tiny: Tiny, tmp_path: Path) -> None:
    """The same as on the same weights in transformers' layout; a tower that is not in OLD cannot be changed."""
    original = make_original(tiny("llava"), tmp_path, inside=inside)
    towers = [r"|.*\.linear_[12]|.*vision_tower.*fc1", r"|.*\.linear_[12]"]
    config = lora(target_modules=TEXT + towers[not inside])
    adapter = make_adapter(original.old_converted, "llava", config, tmp_path / "adapter")
    wanted, _ = read(original.old_converted, adapter)
    configure(adapter, {"target_modules": ["q_proj", "v_proj", "0", "2", "fc1"]})
    rename(adapter, *OWN_LLAVA)
    found, notes = read(original.old, adapter)
    assert found.keys() == {own_key(key, "mlp2x_gelu") for key in wanted}
    assert all(torch.equal(found[own_key(key, "mlp2x_gelu")], tensor) for key, tensor in wanted.items())
    assert "model.vision_tower -> " not in notes[0] or inside
    if not inside:
        config = lora(target_modules=r".*vision_tower.*fc1")
        tower = make_adapter(original.old_converted, "llava", config, tmp_path / "tower")
        rename(tower, *OWN_LLAVA)
        with pytest.raises(CheckpointError, match="which is not in OLD but in the vision tower"):
            read(original.old, tower)


# --- factors of stacks of experts, by the version of peft that wrote them ---

RANK, EXPERTS = 3, 4


def write_stack_adapter(folder: Path, stack: str, sizes: tuple[int, int], version: str | None) -> dict[str, Tensor]:
    """A LoRA on one stack of each of two layers; ``sizes``: the columns of A and the rows of B."""
    generator = torch.Generator().manual_seed(5)
    tensors = {}
    for layer in range(2):
        path = f"base_model.model.model.layers.{layer}.mlp.experts"
        tensors[f"{path}.lora_A.weight"] = torch.randn(RANK * EXPERTS, sizes[0], generator=generator)
        tensors[f"{path}.lora_B.weight"] = torch.randn(sizes[1], RANK * EXPERTS, generator=generator)
    folder.mkdir()
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 6, "target_modules": [], "target_parameters": [stack]}
    config |= {} if version is None else {"peft_version": version}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return tensors


@pytest.mark.parametrize(
    ("name", "version", "turned"),
    [
        ("qwen3_moe", None, True),
        ("qwen3_moe", "0.18.1", True),
        ("qwen3_moe", "0.19.0", True),
        ("qwen3_moe", "0.19.1", False),
        ("qwen3_moe", "0.21.2.dev0@0123abc", False),
        ("gpt_oss", "0.18.0", False),
        ("gpt_oss", "0.19.0", True),
        ("gpt_oss", "0.20.0", False),
    ],
)
def test_square_experts_are_read_by_the_version(name: str, version: str | None, turned: bool, tmp_path: Path) -> None:
    """gate_up_proj is ``[experts, 32, 32]`` in both; Qwen3's inputs are its last axis, gpt-oss's its second."""
    old = save_mixture(f"{name}_square", tmp_path / "old")
    tensors = write_stack_adapter(tmp_path / "adapter", "gate_up_proj", (32, 32), version)
    found, notes = read(old, tmp_path / "adapter")
    with Checkpoint.open(old, "OLD") as below:
        for layer in range(2):
            path = f"layers.{layer}.mlp.experts"
            a, b = (tensors[f"base_model.model.model.{path}.lora_{side}.weight"] for side in "AB")
            for expert in range(EXPERTS):
                update = 2 * b[:, expert::EXPERTS] @ a[expert * RANK : (expert + 1) * RANK]  # [of B, of A]
                if (name == "qwen3_moe") == turned:  # A belongs to the second axis: [of A, of B]
                    update = update.T
                if name == "qwen3_moe":
                    keys = [f"model.{path}.{expert}.{part}_proj.weight" for part in ("gate", "up")]
                    ours = torch.cat([found[key] for key in keys])
                    was = torch.cat([below.read(key) for key in keys])
                else:
                    ours, was = (t[f"model.{path}.gate_up_proj"][expert] for t in (found, _all(below)))
                torch.testing.assert_close(ours - was, update, rtol=1e-4, atol=1e-5)
    said = "in the order of peft before 0.19.1"
    assert [said in note for note in notes] == ([True] if turned else [])


def _all(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {key: checkpoint.read(key) for key in checkpoint.tensors}


@pytest.mark.parametrize("version", ["0.17.0", "0.21.2"])
def test_shapes_that_fit_only_one_order_decide(version: str, tmp_path: Path) -> None:
    """A tool that rewrites an adapter may keep the version of another."""
    old = save_mixture("qwen3_moe", tmp_path / "old")
    sums = []
    for number, sizes in enumerate(((24, 32), (32, 24))):  # down_proj is [experts, 32, 24]
        write_stack_adapter(tmp_path / str(number), "down_proj", sizes, version)
        found, notes = read(old, tmp_path / str(number))
        assert found.keys() == {
            f"model.layers.{layer}.mlp.experts.{expert}.down_proj.weight" for layer in range(2) for expert in range(4)
        }
        sums.append(bool(notes))
    assert sums == [False, True]
    write_stack_adapter(tmp_path / "neither", "down_proj", (24, 24), version)
    with pytest.raises(CheckpointError, match="has shape"):
        read(old, tmp_path / "neither")


def test_linears_of_single_experts_with_a_shared_one(tmp_path: Path) -> None:
    """As transformers 4 had them; peft itself leaves out the tensors of the shared expert."""
    old = save_mixture("qwen2_moe", tmp_path / "old")
    generator = torch.Generator().manual_seed(5)
    tensors, wanted = {}, {}
    with Checkpoint.open(old, "OLD") as below:
        for key in (
            k for k in below.tensors if re.search(r"layers\.0\.mlp\.(experts\.\d+|shared_expert)\.|q_proj.w", k)
        ):
            before = below.read(key)
            a, b = (torch.randn(*shape, generator=generator) for shape in ((2, before.shape[1]), (before.shape[0], 2)))
            path = f"base_model.model.{key.removesuffix('.weight')}"
            tensors |= {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}
            wanted[key] = before + 1.5 * b @ a
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    targets = ["q_proj", "gate_proj", "up_proj", "down_proj"]
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": targets}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    found, notes = read(old, folder)
    assert found.keys() == wanted.keys()
    for key, expected in wanted.items():
        torch.testing.assert_close(found[key], expected, rtol=1e-4, atol=1e-5)
    assert len(notes) == 1
