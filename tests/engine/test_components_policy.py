"""Each component of the model merged, NEW's, or OLD's as a whole; and the choices that are impossible."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import TinyCase, content
from changed_checkpoints import edit, same
from reference import load_tensors
from safetensors.torch import load_file, save_file
from tiny_models import ARCHITECTURES
from torch import Tensor
from transformers import LlamaForCausalLM

import hpa_merge
from hpa_merge import HPAConfig, MergeReport, merge
from hpa_merge.checkpoint import CheckpointWriter
from hpa_merge.engine.preview import preview
from hpa_merge.engine.request import MergeRequest
from hpa_merge.errors import ConfigError, NumericalError
from hpa_merge.verification import verify

pytestmark = pytest.mark.gate

Tiny = Callable[..., TinyCase]
COMPONENTS = ("vision", "projector", "language", "head", "embeddings")

NAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "llava": (
        ("vision_tower.", "vision"),
        ("multi_modal_projector.", "projector"),
        ("language_model.model.embed_tokens.", "embeddings"),
        ("language_model.lm_head.", "head"),
    ),
    "qwen2_5_vl": (
        ("visual.merger.", "projector"),
        ("visual.", "vision"),
        ("model.embed_tokens.", "embeddings"),
        ("lm_head.", "head"),
    ),
    "gpt2": (("transformer.wte.", "embeddings"), ("transformer.wpe.", "embeddings")),
    "qwen2_tied": (("model.embed_tokens.", "embeddings"),),
    "gemma3": (("model.embed_tokens.", "embeddings"),),
}
"""By the beginning of a tensor's name; the first that fits, else it is of the language."""


def part_of(case: TinyCase, name: str) -> str:
    untied = (("model.embed_tokens.", "embeddings"), ("lm_head.", "head"))
    return next((part for start, part in NAMES.get(case.name, untied) if name.startswith(start)), "language")


def run(case: TinyCase, out: Path, *, stats: Path | None = None, resume: bool = False, **options: Any) -> MergeReport:
    calibration = {"safety_calib": case.safety, "task_calib": case.task}
    return merge(case.old, case.new, out, **calibration, config=HPAConfig(**options), stats=stats, resume=resume)


@pytest.fixture(scope="module")
def plain(
    tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[dict[str, Tensor], MergeReport]]:
    """What a merge without any of these options makes; once for each model."""
    made: dict[str, tuple[dict[str, Tensor], MergeReport]] = {}

    def make(name: str) -> tuple[dict[str, Tensor], MergeReport]:
        if name not in made:
            out = tmp_path_factory.mktemp(name) / "out"
            report = run(tiny(name), out)
            made[name] = load_tensors(out), report
        return made[name]

    return make


@pytest.mark.parametrize("policy", ["new", "old"])
@pytest.mark.parametrize(("name", "component"), [(name, part) for name in ARCHITECTURES for part in COMPONENTS])
def test_one_component(
    name: str, component: str, policy: str, tiny: Tiny, plain: Callable[[str], Any], tmp_path: Path
) -> None:
    """That component is OLD's or NEW's in every byte, and every other one is what it is without the option."""
    case, (usual, usual_report) = tiny(name), plain(name)
    ours = {key for key in usual if part_of(case, key) == component}
    tied = name in ("gpt2", "qwen2_tied", "gemma3")
    if tied and component == "language":
        with pytest.raises(ConfigError, match=r"^the options leave no linear to adapt: "):
            run(case, tmp_path / "out", **{component: policy})
        return
    if not ours and (not tied or component != "head" or policy == "old"):  # a tied head is the embeddings', and NEW's
        with pytest.raises(ConfigError, match=f"^{component} is {policy}, and "):
            run(case, tmp_path / "out", **{component: policy})
        return
    report = run(case, tmp_path / "out", **{component: policy})
    merged, source = load_tensors(tmp_path / "out"), load_tensors(case.old if policy == "old" else case.new)
    for key, tensor in merged.items():
        assert same(tensor, source[key] if key in ours else usual[key]), key

    outcomes = {record.name: record.outcome for record in report.linears}
    before = {record.name: record.outcome for record in usual_report.linears}
    outcome = {"new": "excluded", "old": "old"}[policy]
    assert outcomes == {key: outcome if key in ours and was != "unchanged" else was for key, was in before.items()}
    for record in report.components:
        keys = {key for key in usual if part_of(case, key) == record.name}
        default = "new" if record.name == "embeddings" else "merge"
        assert (record.policy, record.tensors) == (policy if record.name == component else default, len(keys))
        found = [outcomes[key] for key in outcomes if key in keys]
        assert record.linears == {each: found.count(each) for each in found}
    passed = sum(report.passed_through.values()) + len(outcomes)
    assert passed == len(merged) - (len(ours - outcomes.keys()) if policy == "old" else 0)
    assert not verify(tmp_path / "out", case.old, case.new).problems


def test_old_in_news_dtype(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llava", "float32")._replace(new=tiny("llava", "bfloat16").new)
    run(case, tmp_path / "out", vision="old", embeddings="old")
    old, merged = load_tensors(case.old), load_tensors(tmp_path / "out")
    ours = [key for key in merged if part_of(case, key) in ("vision", "embeddings")]
    assert len(ours) > 50
    assert all(same(merged[key], old[key].bfloat16()) for key in ours)
    assert not verify(tmp_path / "out", case.old, case.new).problems


def test_old_does_not_fit_news_dtype(tiny: Tiny, tmp_path: Path) -> None:
    case, key = tiny("llama").copied_to(tmp_path), "model.embed_tokens.weight"
    edit(case.old, key, lambda tensor: tensor.index_fill_(0, torch.tensor([511]), 1e5))
    LlamaForCausalLM.from_pretrained(case.new, dtype=torch.float16).save_pretrained(tmp_path / "half")
    ids = tmp_path / "ids.jsonl"
    ids.write_text('{"input_ids": [3, 4, 5, 6, 7]}\n')
    with pytest.raises(NumericalError, match=rf"^OLD's {key} does not fit torch.float16: save NEW in float32 or"):
        run(case._replace(new=tmp_path / "half", safety=ids, task=ids), tmp_path / "out", embeddings="old")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("units", [1, 4])
@pytest.mark.parametrize("options", [{"vision": "old"}, {"language": "old"}, {"projector": "old", "embeddings": "old"}])
def test_resumed(options: dict[str, str], units: int, tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llava")
    run(case, tmp_path / "whole", **options)
    real, left = CheckpointWriter.commit, [units]

    def commit(self: CheckpointWriter, entry: Any) -> None:
        real(self, entry)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointWriter, "commit", commit)
        with pytest.raises(KeyboardInterrupt):
            run(case, tmp_path / "out", **options)
    run(case, tmp_path / "out", resume=True, **options)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_with_statistics(tiny: Tiny, tmp_path: Path) -> None:
    """They are of every linear, whatever the policy: a file made with one serves another."""
    case, stats = tiny("llava"), tmp_path / "stats.safetensors"
    run(case, tmp_path / "first", stats=stats, language="old", embeddings="old")
    made = stats.read_bytes()
    run(case, tmp_path / "second", stats=stats, vision="old", head="new")
    run(case, tmp_path / "third", stats=stats, language="old", embeddings="old")
    run(case, tmp_path / "plain", vision="old", head="new")
    assert stats.read_bytes() == made
    assert content(tmp_path / "second") == content(tmp_path / "plain")
    assert content(tmp_path / "third") == content(tmp_path / "first")


def test_a_sweep_of_policies(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("qwen2_5_vl")
    settings = {"a": {}, "b": {"vision": "old"}, "c": {"projector": "new", "embeddings": "old"}}
    configs = {tmp_path / name: HPAConfig(**options) for name, options in settings.items()}
    hpa_merge.sweep(case.old, case.new, configs, safety_calib=case.safety, task_calib=case.task)
    for name, options in settings.items():
        run(case, tmp_path / f"{name}-alone", **options)
        assert content(tmp_path / name) == content(tmp_path / f"{name}-alone")


def test_a_tied_head_saved_under_its_own_name(tiny: Tiny, tmp_path: Path) -> None:
    """It is the embeddings', whichever of the two names a checkpoint has it under."""
    case = tiny("gpt2").copied_to(tmp_path)
    embedding = load_tensors(case.old)["transformer.wte.weight"]
    index = case.new / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    shard = case.new / content["weight_map"]["transformer.wte.weight"]
    save_file({**load_file(shard), "lm_head.weight": embedding * 2}, shard, {"format": "pt"})
    content["weight_map"]["lm_head.weight"] = shard.name
    index.write_text(json.dumps(content))
    run(case, tmp_path / "out", embeddings="old", head="old")
    merged = load_tensors(tmp_path / "out")
    assert same(merged["lm_head.weight"], embedding)
    assert same(merged["transformer.wte.weight"], embedding)


def test_the_plan_says_it(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llava")
    config = HPAConfig(vision="old", projector="new")
    plan = preview(MergeRequest(case.old, case.new, {tmp_path / "out": config}, case.safety, (case.task,)))[
        tmp_path / "out"
    ]
    report = run(case, tmp_path / "out", vision="old", projector="new")
    assert [(each.name, each.policy, each.tensors) for each in plan.components] == [
        (each.name, each.policy, each.tensors) for each in report.components
    ]
    by_name = {each.name: each.linears for each in plan.components}
    assert by_name["vision"] == {"old": 18}
    assert by_name["projector"] == {"excluded": 2}
    assert by_name["language"] == {"changed": 20, "unchanged": 1}
    assert plan.passed_through == report.passed_through


REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "embeddings merged": (
        "llama",
        {"embeddings": "merge"},
        "embeddings is 'merge': only linear weights can be merged, so set it to new or old.",
    ),
    "no such word": ("llama", {"vision": "olds"}, "vision is 'olds': it has to be one of merge, new, old."),
    "no vision": (
        "llama",
        {"vision": "old"},
        "vision is old, and LlamaForCausalLM has no such part: leave the option out.",
    ),
    "a tied head": (
        "gpt2",
        {"head": "old"},
        "head is old, and the head of this GPT2LMHeadModel is tied to its embeddings: leave the option out, and set "
        "embeddings instead.",
    ),
    "included and not merged": (
        "llava",
        {"vision": "new", "include": ("vision_tower",)},
        "include 'vision_tower' names linears of vision only, and vision is new: leave out one of the two options.",
    ),
    "excluded and OLD's": (
        "llava",
        {"projector": "old", "exclude": ("q_proj", "projector")},
        "exclude 'projector' names linears of projector only, and projector is old: leave out one of the two options.",
    ),
    "nothing left": (
        "llama",
        {"language": "old", "head": "new"},
        "the options leave no linear to adapt: set one component that has linears to merge.",
    ),
    "nothing left by expressions": (
        "llama",
        {"include": ("nowhere",)},
        "include and exclude leave no linear to adapt: change the expressions.",
    ),
}


@pytest.mark.parametrize(("name", "options", "sentence"), REFUSALS.values(), ids=REFUSALS)
def test_refused(name: str, options: dict[str, Any], sentence: str, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        run(tiny(name), tmp_path / "out", **options)
    assert str(raised.value) == sentence
    assert not list(tmp_path.iterdir())


def test_verify_finds_what_is_not_olds(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llava")
    run(case, tmp_path / "out", vision="old")
    report = tmp_path / "out" / "hpa_report.json"
    content = json.loads(report.read_text())
    content["config"]["vision"] = "new"
    report.write_text(json.dumps(content))
    problems = verify(tmp_path / "out", case.old, case.new).problems
    values = [problem for problem in problems if problem.startswith("vision_tower.") and "are not NEW's" in problem]
    assert len(values) > 30
    assert any("outcome" in problem or "is old in the report" in problem for problem in problems)
