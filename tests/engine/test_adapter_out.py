"""OUT as an adapter on OLD: what the whole merge makes, as a LoRA that peft loads."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mixtures
import peft
import pytest
import torch
from adapters import load, lora, make_adapter
from cases import REPORT, TinyCase
from huggingface_hub.repocard import metadata_load
from interruptions import interrupt
from safetensors.torch import load_file

from hpa_merge import HPAConfig, MergeReport, merge, sweep
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.inputs.opening import open_new
from hpa_merge.verification import verify

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")

Tiny = Callable[..., TinyCase]

ADAPTER, CONFIG = "adapter_model.safetensors", "adapter_config.json"
EXPERTS = {"target_modules": ["q_proj"], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama": (
        "bfloat16",
        {"use_rslora": True, "rank_pattern": {"down_proj": 7}, "modules_to_save": ["lm_head", "norm"]},
        {"exclude": ("k_proj",)},
    ),
    "gpt2": ("float32", {"bias": "all", "target_modules": ["c_attn", "c_proj", "wte"]}, {"method": "random"}),
    "llava": ("float32", {"modules_to_save": ["multi_modal_projector"], "lora_bias": False}, {"vision": "old"}),
    "mixtral": ("float32", EXPERTS, {}),
}


class Made(NamedTuple):
    """A whole OUT and one that is an adapter, of the same merge."""

    case: TinyCase
    whole: Path
    out: Path
    report: MergeReport


def make_case(name: str, dtype: str, options: dict[str, Any], tiny: Tiny, folder: Path) -> TinyCase:
    """A case whose NEW is an adapter."""
    case = mixtures.make(getattr(mixtures, name), folder) if hasattr(mixtures, name) else tiny(name, dtype)
    return case._replace(new=make_adapter(case.old, name, lora(**options), folder / "adapter"))


def make(case: TinyCase, folder: Path, **options: Any) -> Made:
    configs = {folder / "whole": {}, folder / "out": {"output_format": "adapter"}}
    rank = options.pop("adapter_rank", 0)
    configs[folder / "out"] |= {"adapter_rank": rank}
    outs = {out: HPAConfig(**options, **more) for out, more in configs.items()}
    reports = sweep(case.old, case.new, outs, safety_calib=case.safety, task_calib=case.task, page=False)
    return Made(case, folder / "whole", folder / "out", reports[folder / "out"])


def differences(made: Made) -> dict[str, float]:
    """The greatest difference of each tensor of the whole OUT and of OLD with the adapter, where their bits differ."""
    found = {}
    with (
        Checkpoint.open(made.whole, "OUT") as whole,
        Checkpoint.open(made.case.old, "OLD") as old,
        open_new(made.out, old) as applied,
    ):
        assert whole.tensors.keys() == applied.tensors.keys()
        for key in whole.tensors:
            wanted, ours = whole.read(key), applied.read(key)
            if not torch.equal(wanted, ours):
                found[key] = float((wanted.double() - ours.double()).abs().max())
    return found


@pytest.mark.gate
@pytest.mark.parametrize("name", CASES)
def test_the_adapter_is_what_the_whole_merge_is(name: str, tiny: Tiny, tmp_path: Path) -> None:
    """Bit for bit, because restored columns are zeros in a factor, and everything else is as it was."""
    dtype, options, config = CASES[name]
    case = make_case(name, dtype, options, tiny, tmp_path)
    made = make(case, tmp_path, orthogonal=False, **config)
    assert differences(made) == {}
    assert made.report.count("adapted")
    assert {record.adapter_error for record in made.report.linears} <= {0.0, None}
    ours, theirs = load_file(made.out / ADAPTER), load_file(case.new / ADAPTER)
    assert ours.keys() == theirs.keys()
    if name != "mixtral":  # two linears share each rank of a stack
        assert (made.out / CONFIG).read_bytes() == (case.new / CONFIG).read_bytes()
        assert {key: (t.shape, t.dtype) for key, t in ours.items()} == {
            k: (t.shape, t.dtype) for k, t in theirs.items()
        }
    assert sorted(path.name for path in made.out.iterdir()) == ["README.md", CONFIG, ADAPTER, REPORT]
    assert verify(made.out).problems == ()
    found = verify(made.out, case.old, case.new)
    assert found.problems == ()
    assert found.checked["adapted linears"] == made.report.count("adapted")


@pytest.mark.gate
def test_peft_loads_it_and_it_generates_what_the_whole_merge_generates(tiny: Tiny, tmp_path: Path) -> None:
    case = make_case("llama", "float32", {}, tiny, tmp_path)
    made = make(case, tmp_path, orthogonal=False)
    model = peft.PeftModel.from_pretrained(load(case.old, "llama"), made.out)
    tokens = torch.arange(3, 40)[None]
    with torch.no_grad():
        ours, wanted = (
            each.generate(tokens, max_new_tokens=12, do_sample=False) for each in (model, load(made.whole, "llama"))
        )
    assert torch.equal(ours, wanted)
    samples = {"safety_calib": case.safety, "task_calib": case.task}
    assert verify(made.out, case.old, case.new, **samples).problems == ()
    card = metadata_load(made.out / "README.md")
    assert card["library_name"] == "peft"
    assert {"lora", "hpa-merge"} <= {*card["tags"]}
    assert "PeftModel.from_pretrained(model, model_id)" in (made.out / "README.md").read_text(encoding="utf-8")
    resumed = tmp_path / "resumed"
    options = {"orthogonal": False, "output_format": "adapter"}
    interrupt(case, resumed, **options)
    merge(case.old, case.new, resumed, **samples, config=HPAConfig(**options), resume=True, page=False)
    assert (resumed / ADAPTER).read_bytes() == (made.out / ADAPTER).read_bytes()
    assert (
        json.loads((resumed / REPORT).read_text())["linears"] == json.loads((made.out / REPORT).read_text())["linears"]
    )


@pytest.mark.gate
@pytest.mark.parametrize(
    ("name", "dtype", "options", "config"),
    [
        ("llama", "float32", {}, {"method": "regmean"}),
        ("qwen2_tied", "bfloat16", {"use_dora": True}, {"adapter_rank": 24}),
    ],
)
def test_what_is_computed_is_held_to_within_the_error_of_the_report(
    name: str, dtype: str, options: dict[str, Any], config: dict[str, Any], tiny: Tiny, tmp_path: Path
) -> None:
    case = make_case(name, dtype, options, tiny, tmp_path)
    made = make(case, tmp_path, **config)
    errors = {record.name: record.adapter_error for record in made.report.linears}
    approximated = "adapter_rank" in config
    with (
        Checkpoint.open(made.whole, "OUT") as whole,
        Checkpoint.open(case.old, "OLD") as old,
        open_new(made.out, old) as applied,
    ):
        for key, error in errors.items():
            wanted, ours, before = (part.read(key).double() for part in (whole, applied, old))
            off, size = float((ours - wanted).norm()), float((wanted - before).norm())
            assert (error is None) == (size == 0.0)
            if error is not None:
                assert (0.0 < error < 0.2) == approximated
                assert off == pytest.approx(error * size, rel=1e-3, abs=1e-3 * size)
    found = verify(made.out, case.old, case.new)
    assert found.problems == ()
    relying = [sentence for sentence in found.unchecked if "could not hold them more exactly" in sentence]
    assert len(relying) == approximated
    ranks = {t.shape[0] for key, t in load_file(made.out / ADAPTER).items() if "lora_A" in key}
    assert ranks == {config.get("adapter_rank", 4)}
    peft.PeftModel.from_pretrained(load(case.old, name), made.out)
