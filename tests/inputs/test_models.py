"""An adapter where a model is asked: the model that transformers loads is the one that a merged checkpoint gives."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from adapters import FURTHER_MIXTURES, load, lora, make_adapter, merge_first, save_mixture
from cases import TinyCase
from evaluation_cases import jsonl, lines, status
from quantised import dequantise, quantise

from hpa_merge.errors import CheckpointError
from hpa_merge.evaluation.generate import _load
from hpa_merge.inputs.models import loadable

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")

Tiny = Callable[..., TinyCase]

OPTIONS = {
    "qwen2_tied": {"target_modules": ["q_proj", "embed_tokens"], "use_rslora": True},
    "qwen2_5_vl": {"target_modules": ["q_proj"], "modules_to_save": ["merger"]},
    "qwen2_moe": {"target_modules": ["q_proj"], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_loaded_model_is_the_merged_one(name: str, tiny: Tiny, tmp_path: Path) -> None:
    old = save_mixture(name, tmp_path / "old") if name in FURTHER_MIXTURES else tiny(name, "bfloat16").old
    adapter = make_adapter(old, name, lora(**OPTIONS[name]), tmp_path / "adapter")
    with loadable(adapter, None, None) as found:
        assert found.side == found.weights == old
        assert found.merge_into is not None
        model = _load(found.weights, torch.device("cpu"), None, None, None)
        found.merge_into(model)
    state = model.state_dict()
    wanted = load(merge_first(old, name, adapter, tmp_path / "merged"), name).state_dict()
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("name", ["qwen2_tied", "qwen2_moe"])
def test_on_a_quantised_base_it_is_that_of_the_dequantised_one(name: str, tiny: Tiny, tmp_path: Path) -> None:
    old = save_mixture(name, tmp_path / "old") if name in FURTHER_MIXTURES else tiny(name, "bfloat16").old
    adapter = make_adapter(old, name, lora(**OPTIONS[name]), tmp_path / "adapter")
    with loadable(adapter, quantise(old, tmp_path / "base", "fp8-tensor"), None) as found:
        assert found.tensors is not None
        assert found.merge_into is None
        state = _load(found.weights, torch.device("cpu"), None, found.tensors, found.side).state_dict()
    held = dequantise(old, tmp_path / "held", "fp8-tensor")
    wanted = load(merge_first(held, name, adapter, tmp_path / "merged"), name).state_dict()
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[key], wanted[key]) for key in wanted)


def test_the_base_of_an_adapter(tiny: Tiny, tmp_path: Path) -> None:
    """What is given, what its configuration names if that is a folder, the first model, in this order."""
    case = tiny("llama").copied_to(tmp_path)
    adapter = make_adapter(case.old, "llama", lora(target_modules=["q_proj"]), tmp_path / "adapter")
    others = [shutil.copytree(case.old, tmp_path / name) for name in ("given", "first")]

    def base(given: Path | None, otherwise: Path | None) -> Path:
        with loadable(adapter, given, otherwise) as found:
            return found.weights

    assert base(others[0], others[1]) == others[0]
    assert base(None, others[1]) == case.old
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text())
    for name in ("lab/elsewhere", "x" * 5000):
        path.write_text(json.dumps(config | {"base_model_name_or_path": name}))
        assert base(None, others[1]) == others[1]
        with pytest.raises(
            CheckpointError, match=r"the model that it was trained on is not known \(.*: give that model"
        ):
            base(None, None)
    with pytest.raises(CheckpointError, match=r"^MODEL .*: give as its base the model that it was trained on"):
        base(tiny("gpt2").old, None)
    (adapter / "chat_template.jinja").write_text("{{ messages }}")
    with loadable(adapter, case.old, None) as found:
        assert found.side not in (case.old, adapter)
        assert (found.side / "chat_template.jinja").read_text() == "{{ messages }}"
        assert (found.side / "tokenizer.json").read_bytes() == (case.old / "tokenizer.json").read_bytes()
    with loadable(case.old, None, None) as found:
        assert (found.side, found.weights, found.merge_into) == (case.old, case.old, None)


def test_a_folder_with_the_name_of_a_role(tiny: Tiny, tmp_path: Path) -> None:
    """The roles of a merge are replaced in a message, and not in a path."""
    made = make_adapter(tiny("llama").old, "llama", lora(target_modules=["q_proj"]), tmp_path / "adapter")
    adapter = shutil.copytree(made, tmp_path / "OLD" / "NEW")
    with pytest.raises(CheckpointError) as raised, loadable(adapter, tiny("gpt2").old, None):
        pass
    assert str(raised.value).startswith(f"MODEL {adapter}: ")
    assert "give as its base the model that it was trained on" in str(raised.value)


def test_the_commands_take_an_adapter(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = tiny("llama")
    adapter = make_adapter(case.old, "llama", lora(target_modules=["q_proj", "down_proj"]), tmp_path / "adapter")
    merged = shutil.copytree(case.old, tmp_path / "merged", ignore=shutil.ignore_patterns("*.safetensors*"))
    merge_first(case.old, "llama", adapter, merged)
    prompts = jsonl(tmp_path / "p.jsonl", *({"prompt": f"how {n} times?"} for n in range(4)))
    words = ["--benign-test", f"b={prompts}", "--max-new-tokens", 6, "--device", "cpu", "--answers", tmp_path / "said"]
    assert status("eval", adapter, merged, *words, "-q") == 0
    said = {path.parent.name: lines(path) for path in (tmp_path / "said").rglob("*.jsonl")}
    assert said.keys() == {"adapter", "merged"}
    assert said["adapter"] == said["merged"]
    assert status("samples", case.safety, "--model", adapter, "--purpose", "safety") == 0
    calib = ["calib", adapter, "--prompts", prompts, "-o", tmp_path / "safety.jsonl", "--max-new-tokens", 2]
    assert status(*calib, "--base", tmp_path / "nothing") == 2
    assert "BASE" in capsys.readouterr().err
    assert status(*calib, "--device", "cpu") == 2  # it was asked, and is no model that refuses
    assert "of the 4 prompts of" in capsys.readouterr().err
