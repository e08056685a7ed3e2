"""Adapters that cannot be merged: one sentence, before any work, nothing written, and no code of theirs run."""

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from adapter_cases import LEFT_OUT, NEIGHBOURS
from adapters import WEIGHTS, edit, lora, make_adapter
from cases import Call, assert_refused, assert_refused_cheaply, status
from safetensors.torch import load_file, save_file

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.errors import CheckpointError
from hpa_merge.inputs.opening import open_new
from hpa_merge.isolation import Limits

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")

NAME = "model.layers.1.self_attn.q_proj.weight"
KEY = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"
TRAINED_ON = "give as OLD the model that it was trained on"


@pytest.fixture
def make(make_call: Callable[..., Call], tmp_path: Path) -> Callable[..., Call]:
    """``make(name, **options)``: a call whose NEW is a sound LoRA."""

    def call(name: str = "llama", **options: Any) -> Call:
        made = make_call(name)
        made.new = make_adapter(made.old, name, lora(**options), tmp_path / "adapter")
        return made

    return call


def configure(call: Call, **changes: Any) -> None:
    path = call.new / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


CONFIGURATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "prompt": ({"peft_type": "PROMPT_TUNING"}, "is an adapter of type PROMPT_TUNING, which cannot be merged into the"),
    "prefix": ({"peft_type": "PREFIX_TUNING"}, "is an adapter of type PREFIX_TUNING, which cannot be merged into the"),
    "unknown": ({"peft_type": "XYZ"}, "is an adapter of type XYZ, which cannot be merged into the"),
    "no type": ({"peft_type": None}, "is an adapter of type None, which cannot be merged into the"),
    "a list": ({"peft_type": ["LORA"]}, "is an adapter of type ['LORA'], which cannot be merged into the"),
    "pissa": ({"init_lora_weights": "pissa_niter_4"}, "began as pissa_niter_4, which changes the base weights too"),
    "loftq": ({"init_lora_weights": "loftq"}, "began as loftq, which changes the base weights too"),
    "no start": ({"init_lora_weights": {"a": 1}}, "began as {'a': 1}, which changes the base weights too"),
    "replication": ({"layer_replication": [[0, 2], [1, 3]]}, "repeats layers of its base (layer_replication)"),
    "rank": ({"r": 10**12}, "has a rank that no tensor of the adapter has"),
    "a rank": ({"rank_pattern": {"q_proj": 10**12}}, "has a rank that no tensor of the adapter has"),
    "smaller": ({"r": 2}, "has shape [4, 112] where OLD needs [2, 112]"),
    "newer": ({"new_trick": 3}, "understands (it has new_trick)"),
    "nonsense": ({"lora_alpha": {}}, "that peft cannot merge into OLD ("),
    "negative": ({"r": -4}, "that peft cannot merge into OLD (`r` should be a positive integer value"),
    "invocation": ({"alora_invocation_tokens": [1, 2]}, "that peft cannot merge into OLD ("),
}


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_a_configuration(case: str, make: Callable[..., Call]) -> None:
    changes, complaint = CONFIGURATIONS[case]
    call = make()
    configure(call, **changes)
    assert_refused_cheaply(call, complaint)


TENSORS: dict[str, tuple[dict[str, torch.Tensor | None], str]] = {
    "missing": ({KEY: None}, "lacks the adapter's tensor lora_B.default.weight for model.layers.1.self_attn.q_proj: "),
    "another depth": (
        {KEY.replace("layers.1.", "layers.77."): torch.ones(64, 4)},
        f"OLD has no module for the adapter's tensor {KEY.replace('layers.1.', 'layers.77.')}: {TRAINED_ON}",
    ),
    "another width": (
        {KEY: torch.ones(80, 4)},
        f"the adapter's tensor {KEY} has shape [80, 4] where OLD needs [64, 4]: {TRAINED_ON}",
    ),
    "a grown vocabulary": (
        {"base_model.model.model.embed_tokens.weight": torch.ones(600, 64)},
        "has shape [600, 64] where OLD needs [512, 64]: give as OLD the model that it was trained on, with the "
        "vocabulary of that time if it was resized.",
    ),
    "infinity": ({KEY: torch.full((64, 4), float("inf"))}, f"the tensor {KEY} of the adapter "),
    "nan": ({KEY: torch.full((64, 4), float("nan"))}, "holds NaN or infinity: the file is damaged or the training"),
}


def test_other_weights_next_to_an_adapter(make: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    """Refused by name, before peft is called. What a training resumes from, and other formats, are left out."""
    call = make()
    for name in ("optimizer.pt", "rng_state_0.pth", "training_args.bin", "adapter_model.bin", "lora.gguf", ".x.bin"):
        (call.new / name).write_bytes(b"x")
    with Checkpoint.open(call.old, "OLD") as old:
        open_new(call.new, old).close()
        for name, remedy in NEIGHBOURS.items():
            (call.new / name).write_bytes(b"x")
            sentence = f"NEW {call.new} holds {name} next to its adapter, and {LEFT_OUT}: {remedy}"
            with pytest.raises(CheckpointError, match=f"^{re.escape(sentence)}$"):
                open_new(call.new, old)
            (call.new / name).unlink()
    (call.new / "vit.safetensors").write_bytes(b"x")
    assert_refused(call, capsys, "holds vit.safetensors next to its adapter")


def test_nothing_in_it(make: Callable[..., Call]) -> None:
    call = make()
    tensors = load_file(call.new / WEIGHTS)
    with Checkpoint.open(call.old, "OLD") as old:
        for changed, reason in (
            ({}, "holds no tensor: save the adapter again"),
            (tensors | {KEY: torch.ones(0)}, f"{KEY} has shape [0], so DeepSpeed ZeRO-3 saved it ungathered"),
            (tensors | {KEY: torch.ones(64, 0)}, f"{KEY} has shape [64, 0], so DeepSpeed ZeRO-3 saved it ungathered"),
            (
                tensors | {KEY.replace("q_proj.lora_B", "q_proj.lora_C"): torch.ones(4)},
                "OLD has no module for the adapter's tensor base_model.model.model.layers.1.self_attn.q_proj.lora_C",
            ),
            (tensors | {"epoch": torch.ones(1)}, "OLD has no module for the adapter's tensor epoch"),
        ):
            save_file(changed, call.new / WEIGHTS, {"format": "pt"})
            with pytest.raises(CheckpointError, match=re.escape(reason)):
                open_new(call.new, old)


def test_updates_that_are_zero_are_noted(make: Callable[..., Call]) -> None:
    call = make()
    tensors = load_file(call.new / WEIGHTS)
    zero = {key: torch.zeros_like(tensor) for key, tensor in tensors.items() if ".lora_B." in key}
    some = {key: tensor for key, tensor in zero.items() if "q_proj" in key}
    for changed, note in (
        (zero, "all its updates are zero (as lora_B is before the first step), so that NEW is equal to OLD."),
        (some, "4 of its 28 low-rank updates are zero, so that NEW has OLD's weights there."),
    ):
        save_file(tensors | changed, call.new / WEIGHTS, {"format": "pt"})
        with Checkpoint.open(call.old, "OLD") as old, open_new(call.new, old) as new:
            assert new.overlay is not None
            assert new.overlay.notes == (f"NEW {call.new}: {note}",)
            assert torch.equal(new.read(NAME), old.read(NAME))


@pytest.mark.parametrize("case", TENSORS)
def test_tensors(case: str, make: Callable[..., Call]) -> None:
    change, complaint = TENSORS[case]
    call = make()
    edit(call.new, change)
    assert_refused_cheaply(call, complaint)


@pytest.mark.parametrize(
    ("old", "of"), [("gpt2", "llama"), ("llama", "gpt2"), ("qwen2_tied", "llama"), ("llava", "qwen2_5_vl")]
)
def test_an_adapter_of_another_model(
    old: str, of: str, tiny: Any, make_call: Callable[..., Call], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call(old)
    call.new = make_adapter(tiny(of).old, of, lora(), tmp_path / "adapter")
    assert_refused(call, capsys, TRAINED_ON)


@pytest.mark.parametrize("name", ["gpt2", "qwen2_tied"])
def test_an_adapter_that_unties(name: str, make: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    call = make(name, modules_to_save=["wte" if name == "gpt2" else "embed_tokens"])
    assert_refused(call, capsys, "and lm_head.weight, which are one tensor in OLD: ")


def test_two_layers_on_one_tensor(make: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    call = make("qwen2_tied", target_modules=["q_proj", "embed_tokens", "lm_head"])
    assert_refused(call, capsys, "layers at model.embed_tokens and at lm_head, which are one tensor in OLD")


def test_pickles_are_not_read(make: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    call = make()
    (call.new / WEIGHTS).rename(call.new / "adapter_model.bin")
    assert_refused(call, capsys, f"NEW {call.new} has adapter_model.bin and no {WEIGHTS}, and pickles are not read: ")
    (call.new / "adapter_model.bin").unlink()
    assert_refused(call, capsys, f"NEW {call.new} has no {WEIGHTS}: fetch or save the adapter again.")


def test_several_adapters(make: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    call = make()
    outer = call.folder / "several"
    outer.mkdir()
    for name in ("polite", "brief"):
        (outer / name).mkdir()
        for path in call.new.iterdir():
            (outer / name / path.name).write_bytes(path.read_bytes())
    call.new = outer
    assert_refused(
        call, capsys, f"NEW {outer} holds several adapters, in the folders brief, polite: give one of these."
    )
    call.new = outer / "brief"
    assert status(call) == 0


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("{", "adapter_config.json is not valid JSON"), ("[1]", "adapter_config.json holds a JSON list instead of an")],
)
def test_a_broken_configuration(
    content: str, complaint: str, make: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    call = make()
    (call.new / "adapter_config.json").write_text(content)
    assert_refused(call, capsys, complaint)


def test_a_truncated_file(make: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    call = make()
    content = (call.new / WEIGHTS).read_bytes()
    (call.new / WEIGHTS).write_bytes(content[:-100])
    assert_refused(call, capsys, f"{WEIGHTS} is truncated")


def test_without_peft(
    make: Callable[..., Call], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = make()
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "peft" else real(name, *a))
    assert_refused(
        call, capsys, "is a PEFT adapter, and peft is not installed: pip install '.[peft]' in hpa-merge's checkout"
    )


def test_a_quantised_base(make: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    call = make()
    config = json.loads((call.old / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "hqq"}
    (call.old / "config.json").write_text(json.dumps(config))
    assert_refused(call, capsys, "an adapter that was trained on the quantised one fits it too.")


def test_no_code_of_the_adapters_is_run(
    make: Callable[..., Call], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = make()
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\nclass Trap: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    trap = {
        "auto_mapping": {"base_model_class": "Trap", "parent_library": "trap"},
        "megatron_core": "trap",
        "megatron_config": {"a": 1},
    }
    configure(call, **trap, base_model_name_or_path="somebody/elsewhere", revision="main")
    assert status(call) == 0
    assert not (tmp_path / "sprung").exists()


def test_vera_without_its_projections(
    make_call: Callable[..., Call], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They would have to be drawn again, and another version of torch draws others."""
    call = make_call()
    config = peft.VeraConfig(r=4, target_modules=["q_proj"], save_projection=False)
    call.new = make_adapter(call.old, "llama", config, tmp_path / "adapter")
    assert_refused(call, capsys, "lacks the adapter's tensor vera_A.default")


def test_a_tensor_twice_under_two_names(make: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    call = make()
    tensors = load_file(call.new / WEIGHTS)
    tensors[KEY.replace("base_model.model.", "")] = tensors[KEY].clone()
    save_file(tensors, call.new / WEIGHTS)
    assert_refused(call, capsys, f"holds a tensor twice, as {KEY} and as {KEY.replace('base_model.model.', '')}: save")


@pytest.mark.gate
def test_a_hundred_thousand_plain_names(
    make: Callable[..., Call], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No regular expression among them; peft holds each against each of the model's modules, in a child."""
    monkeypatch.setattr("hpa_merge.model.adapter_trial.BUILDING", Limits(2.0, 600.0))
    call = make()
    configure(call, target_modules=[f"layer{i}" for i in range(100_000)])
    assert_refused(call, capsys, "does not come to an end within 2 seconds of computing")
