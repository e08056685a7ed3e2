"""Checkpoints in LLaVA's own layout: the same numbers as in transformers' layout, under their own names."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import CARD, REPORT, TinyCase, content
from tiny_original_llava import Original, edit_config, make_original, own_key, read_tensors
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

import hpa_merge
from hpa_merge.calibration import read_samples
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.cli import main
from hpa_merge.config import HPAConfig
from hpa_merge.engine.encoding import encoding
from hpa_merge.engine.machine import resolve_device
from hpa_merge.engine.plan import make_plan
from hpa_merge.inputs.tower import with_tower

CASES: dict[str, dict[str, Any]] = {
    "inside": {},
    "outside": {"inside": False},
    "linear": {"projector": "linear", "whole_clip": False},
    "linear, outside": {"projector": "linear", "inside": False, "whole_clip": False, "mm_projector_type": None},
    "mistral": {"text": "mistral"},
    "class token": {"mm_vision_select_feature": "cls_patch"},
    "older names": {"architectures": ["LlavaLLaMAForCausalLM"], "model_type": "llava"},
}


@pytest.fixture(name="original")
def original_pair(tiny: Callable[..., TinyCase], tmp_path: Path) -> Callable[..., Original]:
    def make(dtype: str = "float32", **settings: Any) -> Original:
        return make_original(tiny("llava", dtype), tmp_path, **settings)

    return make


def merge(pair: Original, out: Path, **options: Any) -> hpa_merge.MergeReport:
    return hpa_merge.merge(pair.old, pair.new, out, **{"safety_calib": pair.safety, "task_calib": pair.task, **options})


def merge_converted(pair: Original, out: Path) -> hpa_merge.MergeReport:
    calibration = {"safety_calib": pair.safety_squared, "task_calib": pair.task_squared}
    return hpa_merge.merge(pair.old_converted, pair.new_converted, out, **calibration)


@pytest.mark.parametrize(
    ("case", "dtype"), [*((case, "float32") for case in CASES), ("inside", "bfloat16"), ("linear, outside", "bfloat16")]
)
def test_the_result_is_that_of_the_converted_layout_bit_for_bit(
    case: str, dtype: str, original: Callable[..., Original], tmp_path: Path
) -> None:
    settings = CASES[case]
    pair = original(dtype, **settings)
    if case == "class token":
        for folder in (pair.old_converted, pair.new_converted):
            edit_config(folder, vision_feature_select_strategy="full")
            path = folder / "processor_config.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"vision_feature_select_strategy": "full"}))
    report, converted = merge(pair, tmp_path / "out"), merge_converted(pair, tmp_path / "out_converted")

    found, expected = read_tensors(tmp_path / "out"), read_tensors(tmp_path / "out_converted")
    projector = settings.get("projector", "mlp2x_gelu")
    compared = {own_key(key, projector): value for key, value in expected.items()}
    new = read_tensors(pair.new)
    assert found.keys() == new.keys()
    assert found.keys() - compared.keys() == {"model.layers.0.self_attn.rotary_emb.inv_freq"}
    for key in found.keys() & compared.keys():
        assert torch.equal(found[key], compared[key]), key
    assert any(key.startswith("model.vision_tower.") for key in found) == settings.get("inside", True)

    records = {own_key(record.name, projector): record for record in converted.linears}
    assert {record.name for record in report.linears} == records.keys() & found.keys()
    for record in report.linears:
        assert record.restored == records[record.name].restored
        assert record.safety_tokens == records[record.name].safety_tokens
    adapted = {record.name for record in report.linears if record.outcome == "adapted"}
    assert {name for name in adapted if "mm_projector" in name} == {
        key for key in found if "mm_projector" in key and key.endswith("weight")
    }
    for path in ("config.json", "model.safetensors.index.json", "tokenizer.json"):
        assert (tmp_path / "out" / path).read_bytes() == (pair.new / path).read_bytes()


@pytest.mark.parametrize("settings", [{}, {"projector": "linear", "inside": False}])
def test_the_forward_is_that_of_the_code_base(
    settings: dict[str, Any], original: Callable[..., Original], tmp_path: Path
) -> None:
    """CLIP's features of the selected layer, the projector, the language model, put together by hand."""
    pair = original(**settings)
    config = HPAConfig()
    with Checkpoint.open(pair.old, "OLD") as old, Checkpoint.open(pair.new, "NEW") as new:
        sources = [with_tower(checkpoint, None, config) for checkpoint in (old, new)]
        meta = make_plan(sources[0], sources[1], [config], resolve_device("cpu")).new
        with encoding(sources[1], read_samples(pair.task, 10, 0), "task", config) as begun:
            inputs = begun.inputs(meta)
        for unit in (None, *meta.units):
            meta.load(unit, sources[1].read)
        with torch.inference_mode():
            found = [meta.model(**sample).logits for sample in inputs]

    raw = json.loads((pair.new / "config.json").read_text())
    tensors = read_tensors(pair.new)
    tower = CLIPVisionModel(CLIPVisionConfig.from_pretrained(pair.tower))
    vision = {key.partition("vision_model.")[2]: value for key, value in tensors.items() if "vision_model." in key}
    if not vision:
        clip = read_tensors(pair.tower)
        vision = {key.removeprefix("vision_model."): value for key, value in clip.items() if "vision_model." in key}
    tower.load_state_dict(vision)
    widths = raw["mm_hidden_size"], raw["hidden_size"]
    projector: nn.Module = nn.Linear(*widths)
    if raw.get("mm_projector_type") == "mlp2x_gelu":
        projector = nn.Sequential(nn.Linear(*widths), nn.GELU(), nn.Linear(widths[1], widths[1]))
    start = "model.mm_projector."
    projector.load_state_dict({k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)})
    text = LlamaForCausalLM(LlamaConfig.from_dict(raw | {"model_type": "llama"})).eval()
    text.load_state_dict({key: tensors[key] for key in text.state_dict()})
    assert any("pixel_values" in sample for sample in inputs)
    for sample, logits in zip(inputs, found, strict=True):
        (ids,) = sample["input_ids"]
        pieces = [text.model.embed_tokens(ids.clamp(min=0))]
        if "pixel_values" in sample:
            with torch.inference_mode():
                features = tower(sample["pixel_values"], output_hidden_states=True).hidden_states[-2][:, 1:]
                place = ids.tolist().index(-200)
                assert (ids == -200).sum() == features.shape[1]
                after = pieces[0][place + features.shape[1] :]
                pieces = [pieces[0][:place], projector(features)[0], after]
        with torch.inference_mode():
            expected = text(inputs_embeds=torch.cat(pieces)[None]).logits
        assert torch.equal(logits, expected)


def test_a_tower_that_was_unfrozen_is_merged_with_the_one_that_it_began_as(
    original: Callable[..., Original], tmp_path: Path
) -> None:
    """OLD's lies in the CLIP folder alone, NEW's in the checkpoint."""
    pair = original()
    whole = merge(pair, tmp_path / "whole")
    outside = tmp_path / "outside"
    outside.mkdir()
    frozen = make_original(TinyCase("llava", *_converted(pair), pair.safety, pair.task), outside, inside=False)
    report = merge(pair, tmp_path / "out", vision_tower=pair.tower)
    shutil.rmtree(pair.old)
    frozen.old.rename(pair.old)
    mixed = merge(pair, tmp_path / "mixed", vision_tower=pair.tower)
    assert content(tmp_path / "whole") == content(tmp_path / "out") == content(tmp_path / "mixed")
    assert whole.linears == report.linears == mixed.linears


def _converted(pair: Original) -> tuple[Path, Path]:
    return pair.old_converted, pair.new_converted


def test_statistics_of_a_tower_that_is_not_merged_are_not_taken_for_one_that_is(
    original: Callable[..., Original], tmp_path: Path
) -> None:
    pair = original()
    outside = tmp_path / "outside"
    outside.mkdir()
    frozen = make_original(TinyCase("llava", *_converted(pair), pair.safety, pair.task), outside, inside=False)
    stats = tmp_path / "stats.safetensors"
    calibration = {"safety_calib": pair.safety, "task_calib": pair.task, "vision_tower": pair.tower}
    hpa_merge.merge(frozen.old, frozen.new, tmp_path / "first", stats=stats, **calibration)
    report = hpa_merge.merge(frozen.old, pair.new, tmp_path / "second", stats=stats, **calibration)
    assert report.run.statistics["safety"] == "computed"
    plain = hpa_merge.merge(frozen.old, pair.new, tmp_path / "plain", **calibration)
    assert report.linears == plain.linears
    assert not [record.name for record in plain.linears if record.outcome == "uncalibrated"]


@pytest.mark.parametrize("inside", [True, False])
def test_the_command_does_all_that_it_does_with_others(
    inside: bool, original: Callable[..., Original], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = original(inside=inside, mm_vision_tower="openai/clip-vit-large-patch14-336")
    stats, out, again = tmp_path / "stats.safetensors", tmp_path / "out", tmp_path / "again"
    yaml = tmp_path / "options.yaml"
    yaml.write_text(f"vision-tower: {pair.tower}\nstats: {stats}\nconversation: v1\n")
    files = [str(pair.old), str(pair.new), "--safety-calib", str(pair.safety), "--task-calib", str(pair.task)]
    before = {path: path.read_bytes() for path in pair.folder.rglob("*.*") if path.is_file()}

    main([*files, "-o", str(out), "--config", str(yaml), "--dry-run"])
    assert not out.exists()
    main([*files, "-o", str(out), "--config", str(yaml)])
    main([*files, "-o", str(again), "--vision-tower", str(pair.tower), "--stats", str(stats), "--p-max", "15"])
    first, second = content(out), content(again)
    assert first.pop(REPORT)["linears"] == second.pop(REPORT)["linears"]
    cards = [each.pop(CARD).decode() for each in (first, second)]
    assert "--conversation v1\n" in cards[0]
    assert "from llava.model.builder import load_pretrained_model" in cards[1]
    assert "library_name" not in cards[1]
    assert first == second
    assert {path: path.read_bytes() for path in before} == before

    capsys.readouterr()
    words = ["verify", str(out), "--old", str(pair.old), "--new", str(pair.new), "--vision-tower", str(pair.tower)]
    main([*words, "--safety-calib", str(pair.safety), "--task-calib", str(pair.task)])
    assert "is as its merge wrote it" in capsys.readouterr().out
    main(words)
    said = capsys.readouterr().out
    assert "is as its merge wrote it" in said
    adapted = sum(record["outcome"] == "adapted" for record in json.loads((out / REPORT).read_text())["linears"])
    assert f"{adapted} adapted linears" in said

    settings = tmp_path / "settings.yaml"
    settings.write_text("- {}\n- {p-max: 30}\n")
    sweep = tmp_path / "sweep"
    main(["sweep", files[0], files[1], str(settings), *files[2:], "-o", str(sweep), "--vision-tower", str(pair.tower)])
    assert read_equal(sweep / "default", out)
    assert not read_equal(sweep / "p_max=30", out)


def read_equal(one: Path, other: Path) -> bool:
    first, second = read_tensors(one), read_tensors(other)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("inside", [True, False])
def test_an_interrupted_run_goes_on(
    inside: bool, original: Callable[..., Original], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = original(inside=inside)
    merge(pair, tmp_path / "whole")

    def interrupt(what: str, done: int, total: int) -> None:
        if what.endswith("language_model.layers.1"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(pair, tmp_path / "out", on_progress=interrupt)
    assert (tmp_path / "out.partial").is_dir()
    merge(pair, tmp_path / "out", resume=True)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_another_tower_is_another_run(original: Callable[..., Original], tmp_path: Path) -> None:
    """The tower counts for what a run, and a statistics file, depends on; its place does not."""
    pair = original(inside=False)
    stats = tmp_path / "stats.safetensors"
    merge(pair, tmp_path / "first", stats=stats)
    moved = tmp_path / "moved"
    shutil.copytree(pair.tower, moved)
    report = merge(pair, tmp_path / "second", stats=stats, vision_tower=moved)
    assert report.run.statistics["safety"] == report.run.statistics["task"] == "read"
    edit_config(moved, note="another one")
    report = merge(pair, tmp_path / "third", stats=stats, vision_tower=moved)
    assert report.run.statistics["safety"] == report.run.statistics["task"] == "computed"
