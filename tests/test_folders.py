"""What is in a folder of OLD or NEW is decided as transformers decides it: the situations of docs/layouts.md."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from adapters import save_mixture
from cases import TinyCase
from changed_folders import INDEX, configured, indexed, marked, moved, stale, with_head, without_head
from folder_cases import CASES, Case
from published import run
from reference import load_tensors

from hpa_merge import HPAConfig
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.engine.plan import make_plan
from hpa_merge.errors import CheckpointError
from hpa_merge.model.architecture import candidates
from hpa_merge.verification import verify

Tiny = Callable[..., TinyCase]


@pytest.fixture(name="pair")
def changed_pair(tiny: Tiny, tmp_path: Path) -> Callable[[Case], tuple[Path, Path]]:
    def make(case: Case) -> tuple[Path, Path]:
        made = tiny(case.model).copied_to(tmp_path)
        case.change(made.old, made.new)
        return made.old, made.new

    return make


def load(folder: Path, name: str) -> Any:
    """The model if ``from_pretrained`` loads all of it; None otherwise."""
    try:
        model, info = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    except Exception:  # whatever transformers raises
        return None
    return None if info["missing_keys"] or info["mismatched_keys"] else model


@pytest.mark.parametrize("name", CASES)
def test_a_folder(name: str, pair: Callable[[Case], tuple[Path, Path]]) -> None:
    case = CASES[name]
    old_folder, new_folder = pair(case)
    places = {"old": old_folder, "new": new_folder}
    if case.refused:
        with pytest.raises(CheckpointError) as raised:
            make_plan(
                Checkpoint.open(old_folder, "OLD"),
                Checkpoint.open(new_folder, "NEW"),
                [HPAConfig()],
                torch.device("cpu"),
            )
        assert str(raised.value) == case.refused.replace("{new}", str(new_folder)).replace("{old}", str(old_folder))
        auto = "AutoModelForImageTextToText" if case.model == "llava" else "AutoModelForCausalLM"
        assert (load(new_folder, auto) is not None) == bool(case.loads)
        return
    with Checkpoint.open(old_folder, "OLD") as old, Checkpoint.open(new_folder, "NEW") as new:
        plan = make_plan(old, new, [HPAConfig()], torch.device("cpu"))
        said = (*old.notes, *new.notes, *plan.notes)
        assert said == tuple(note.format(**places) for note in case.notes)
        for checkpoint, meta in ((old, plan.old), (new, plan.new)):
            model = load(checkpoint.folder, plan.architecture)
            assert (model is not None) == (checkpoint.role == "OLD" or case.loads is not False)
            for linear in meta.linears.values() if model is not None else ():
                assert torch.equal(model.get_parameter(meta.places[linear.key][0]), checkpoint.read(linear.key))


def test_a_class_that_has_all_of_the_model_is_tried_first() -> None:
    """An encoder-decoder before its decoder alone, a vision-language model before its text, a head before none."""
    for config, names in (
        (transformers.BartConfig(), ["BartForConditionalGeneration", "BartForCausalLM", "BartModel"]),
        (transformers.Gemma3Config(), ["Gemma3ForConditionalGeneration", "Gemma3Model"]),
        (transformers.LlamaConfig(architectures=["LlamaModel"]), ["LlamaForCausalLM", "LlamaModel"]),
        (
            transformers.LlamaConfig(architectures=["LlamaForTokenClassification"]),
            ["LlamaForTokenClassification", "LlamaForCausalLM"],
        ),
    ):
        assert [each.__name__ for each in candidates(config)] == names


def test_experts_that_only_one_of_the_two_stacks(tmp_path: Path) -> None:
    """As transformers holds them, and as it saves them by default; what the sentence advises helps."""
    places = [save_mixture("qwen3_moe", tmp_path / name) for name in ("old", "new")]

    def plan() -> int:
        with Checkpoint.open(places[0], "OLD") as old, Checkpoint.open(places[1], "NEW") as new:
            return len(make_plan(old, new, [HPAConfig()], torch.device("cpu")).pairs)

    for place in places:
        model = transformers.AutoModelForCausalLM.from_pretrained(place)
        if place == places[1]:
            with pytest.raises(CheckpointError) as raised:
                plan()
            assert str(raised.value) == (
                "model.layers.0.mlp.experts.down_proj is made of 1 of OLD's tensors, such as "
                "model.layers.0.mlp.experts.down_proj, and of 4 of NEW's, such as "
                "model.layers.0.mlp.experts.0.down_proj.weight: load both with from_pretrained, and save them with "
                "save_pretrained(…, save_original_format=False)."
            )
        model.save_pretrained(place, save_original_format=False)
    assert plan() > 2 * 3 * 4


# --- OUT ---


def check_out(out: Path, name: str) -> dict[str, torch.Tensor]:
    """Load OUT with nothing missing and nothing left; its tensors."""
    _, info = getattr(transformers, name).from_pretrained(out, output_loading_info=True)
    assert not any(info.values()), info
    return load_tensors(out)


def test_nothing_of_an_earlier_save_or_of_a_training(sound: Callable[..., Any], tmp_path: Path) -> None:
    """OUT is that of the same pair in a clean folder."""
    case = sound().case.copied_to(tmp_path)
    for folder in (case.old, case.new):
        stale(folder, shards=True)
    left = ["optimizer.pt", "trainer_state.json", "finetune_config.json", "logs_config.json", "training_loss.png"]
    for name in left:
        (case.new / name).write_text("{}")
    report = run(case, tmp_path / "out")
    assert {path.name for path in case.new.glob("model-*")} | {INDEX, *left} == set(report.left_out)
    out = check_out(tmp_path / "out", "AutoModelForCausalLM")
    assert [path.name for path in (tmp_path / "out").glob("model*")] == ["model.safetensors"]
    expected = load_tensors(sound().out)
    assert out.keys() == expected.keys()
    assert all(torch.equal(out[name], value) for name, value in expected.items())


def test_an_index_that_is_wrong_in_everything(sound: Callable[..., Any], tmp_path: Path) -> None:
    case = sound().case.copied_to(tmp_path)
    configured(case.old, architectures=None)
    indexed(case.new, lambda index: (index.pop("metadata"), moved(index), index.update(own="kept")))
    indexed(case.new, lambda index: index["weight_map"].update({"mtp.fc.weight": "model-00001-of-00002.safetensors"}))
    marked(case.new, INDEX)
    report = run(case, tmp_path / "out")
    assert any("mtp.fc.weight" in note for note in report.run.notes)
    out = check_out(tmp_path / "out", "AutoModelForCausalLM")
    assert all(torch.equal(out[name], value) for name, value in load_tensors(sound().out).items())
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert index["weight_map"].keys() == out.keys()
    assert index["own"] == "kept"
    assert index["metadata"] == {"total_size": sum(value.nbytes for value in out.values())}
    assert not verify(tmp_path / "out", case.old, case.new).problems


def test_without_a_head(sound: Callable[..., Any], tmp_path: Path) -> None:
    """What is below the head is merged as with it."""
    case = sound().case.copied_to(tmp_path)
    without_head(case.new, "LlamaModel")
    report = run(case, tmp_path / "out")
    assert report.architecture == "LlamaModel"
    out, expected = check_out(tmp_path / "out", "AutoModel"), load_tensors(sound().out)
    assert all(torch.equal(value, expected[f"model.{name}"]) for name, value in out.items())
    assert not verify(tmp_path / "out", case.old, case.new).problems


def test_a_head_of_its_own(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("qwen2_tied").copied_to(tmp_path)
    with_head(case.new, equal=False)
    report = run(case, tmp_path / "out")
    out, new = check_out(tmp_path / "out", "AutoModelForCausalLM"), load_tensors(case.new)
    assert torch.equal(out["lm_head.weight"], new["lm_head.weight"])
    assert report.passed_through["head"] == 1
    assert report.count("adapted") > 0
    assert not verify(tmp_path / "out", case.old, case.new).problems


def test_the_page_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).resolve().parent.parent / "docs"
    monkeypatch.syspath_prepend(folder)
    text = (folder / "layouts.md").read_text(encoding="utf-8")
    assert importlib.import_module("layouts").page(text) == text, "python docs/layouts.py writes it anew"
