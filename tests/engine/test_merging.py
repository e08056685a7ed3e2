"""``hpa_merge.merge`` from folders to a folder: what OUT holds, byte for byte, and what changes nothing."""

import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from cases import TinyCase
from changed_checkpoints import INDEX, grown, reshard
from reference import load_tensors
from safetensors import safe_open
from tiny_models import ARCHITECTURES, make_pair
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from hpa_merge import HPAConfig, MergeReport, merge
from hpa_merge.checkpoint import Checkpoint

REPORT, CARD = "hpa_report.json", "README.md"
Tiny = Callable[..., TinyCase]


def run(case: TinyCase, out: Path, **options: Any) -> MergeReport:
    config = HPAConfig(**options)
    return merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task, config=config)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def digests(*folders: Path) -> list[str]:
    return [f"{name} {hashlib.sha256(content).hexdigest()}" for f in folders for name, content in files(f).items()]


def same(a: Tensor, b: Tensor) -> bool:
    """Bit for bit, dtype and shape too."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def same_tensors(a: Path, b: Path) -> bool:
    left, right = load_tensors(a), load_tensors(b)
    return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)


def columns_of(case: TinyCase, tensor: Tensor, columns: list[int]) -> Tensor:
    """Input columns of a linear, contiguous; GPT-2's linears lie on disk the other way round."""
    return (tensor[columns] if case.name == "gpt2" else tensor[:, columns]).contiguous()


def headers(folder: Path) -> dict[str, bytes]:
    with Checkpoint.open(folder, "OLD") as checkpoint:
        return {shard: checkpoint.header_bytes(shard) for shard in checkpoint.shards}


# --- what OUT holds ---


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_out(name: str, tiny: Tiny, tmp_path: Path) -> None:
    case = tiny(name, "bfloat16")
    out = tmp_path / "out"
    inputs = digests(case.old, case.new)
    report = run(case, out)
    assert digests(case.old, case.new) == inputs
    assert [path.name for path in tmp_path.iterdir()] == ["out"]

    old, new, merged = (load_tensors(folder) for folder in (case.old, case.new, out))
    adapted = {record.name: record for record in report.linears if record.outcome == "adapted"}
    for key, tensor in merged.items():
        if key not in adapted:
            assert same(tensor, new[key]), key
            continue
        restored = adapted[key].restored_columns
        assert same(columns_of(case, tensor, restored), columns_of(case, old[key], restored)), key
        others = [j for j in range(adapted[key].columns) if j not in restored]
        assert not same(columns_of(case, tensor, others), columns_of(case, new[key], others)), key  # κ is not 0

    assert headers(out) == headers(case.new)  # the shards' names; their tensors' names, order, dtypes and shapes
    there, given = files(out), files(case.new)
    assert there.keys() == given.keys() | {REPORT, CARD}
    for path in given:
        assert there[path] == given[path] or path.endswith(".safetensors"), path


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_out_loads_and_generates(name: str, tiny: Tiny, tmp_path: Path) -> None:
    run(tiny(name), tmp_path / "out", task_samples=1, safety_samples=1, uncalibrated="new")
    architecture = getattr(transformers, AutoConfig.from_pretrained(tmp_path / "out").architectures[0])
    model, loading = architecture.from_pretrained(tmp_path / "out", dtype="auto", output_loading_info=True)
    assert not any(loading.values()), loading
    prompt = AutoTokenizer.from_pretrained(tmp_path / "out")("the red fox", return_tensors="pt")["input_ids"]
    assert model.generate(input_ids=prompt, max_new_tokens=3, do_sample=False).shape[1] > prompt.shape[1]


def test_the_report(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llava")
    report = run(case, tmp_path / "out", exclude=("q_proj",), task_samples=5)
    content = json.loads((tmp_path / "out" / REPORT).read_text(encoding="utf-8"))
    assert json.loads(report.to_json()) == content
    fields = [
        "schema_version",
        "verdict",
        "architecture",
        "config",
        "safety",
        "task",
        "linears",
        "components",
        "passed_through",
        "unmerged",
        "left_out",
        "manifest",
    ]
    assert list(content) == [*fields, "run", "history", "evaluation", "drift", "what_if", "warnings"]
    assert content["schema_version"] == 2
    assert content["architecture"] == "LlavaForConditionalGeneration"
    assert content["config"]["exclude"] == ["q_proj"]
    assert (content["safety"]["samples"], content["safety"]["images"]) == (4, 2)
    assert content["task"]["samples"] == 5
    outcomes = [record["outcome"] for record in content["linears"]]
    assert {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))} == {
        "adapted": 34,
        "excluded": 6,
        "unchanged": 2,
    }
    assert len(outcomes) + sum(content["passed_through"].values()) == len(load_tensors(case.new))
    for record in content["linears"]:
        weight = load_tensors(case.new)[record["name"]]
        assert list(weight.shape) == [record["rows"], record["columns"]]
        if record["outcome"] != "adapted":
            assert "restored" not in record
            continue
        mask = base64.b64decode(record["restored"])
        assert len(mask) == (record["columns"] + 7) // 8
        restored = [j for j in range(8 * len(mask)) if mask[j // 8] >> (j % 8) & 1]
        assert len(restored) == record["n_restored"] > 0
        assert max(restored) < record["columns"]
        assert 0 < record["energy_restored"] <= 1
        assert 0 < record["relative_update"] < 1
    assert set(content["run"]) >= {"old", "new", "device", "seconds", "peak_host_bytes", "versions"}
    assert content["warnings"] == []


def test_progress_goes_up_to_the_end(tiny: Tiny, tmp_path: Path) -> None:
    case, steps = tiny("llava"), []
    on_progress = lambda what, done, total: steps.append((done, total))  # noqa: E731
    calibration = {"safety_calib": case.safety, "task_calib": case.task}
    merge(case.old, case.new, tmp_path / "out", **calibration, on_progress=on_progress)
    total = steps[-1][1]
    opening = steps.index((0, total))
    assert set(steps[:opening]) == {(0, 1)}  # how many steps there are is not known yet
    assert [done for done, _ in steps[opening:]] == sorted(done for done, _ in steps[opening:])
    assert {each for _, each in steps[opening:]} == {total}
    assert steps[-1] == (total, total)


# --- the ends of the scale ---


@pytest.mark.parametrize("name", ["gpt2", "llava"])
def test_everything_restored_gives_old(name: str, tiny: Tiny, tmp_path: Path) -> None:
    case = tiny(name, "bfloat16")
    report = run(case, tmp_path / "out", p_max=100, p_min=100)
    old, merged = load_tensors(case.old), load_tensors(tmp_path / "out")
    adapted = [record.name for record in report.linears if record.outcome == "adapted"]
    assert len(adapted) > 10
    assert all(same(merged[name], old[name]) for name in adapted)


@pytest.mark.parametrize("name", ["gpt2", "llava"])
def test_nothing_restored_and_no_orthogonal_step_gives_new(name: str, tiny: Tiny, tmp_path: Path) -> None:
    case = tiny(name, "bfloat16")
    report = run(case, tmp_path / "out", p_max=0, p_min=0, orthogonal=False)
    assert report.count("adapted") > 10
    assert {key: value for key, value in files(tmp_path / "out").items() if key not in (REPORT, CARD)} == files(
        case.new
    )


def test_old_as_new_gives_new(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llava")
    report = run(case._replace(old=case.new), tmp_path / "out")
    assert report.count("unchanged") == len(report.linears)
    assert report.warnings == ["No linear was adapted: OUT's weights are NEW's."]
    assert {key: value for key, value in files(tmp_path / "out").items() if key not in (REPORT, CARD)} == files(
        case.new
    )


def test_include_and_exclude(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llava")
    report = run(case, tmp_path / "out", include=("_proj", "fc1"), exclude=("vision.*k_proj", r"layers\.2\."))
    new, merged = load_tensors(case.new), load_tensors(tmp_path / "out")
    for record in report.linears:
        wanted = "_proj" in record.name or "fc1" in record.name
        wanted &= not ("vision" in record.name and "k_proj" in record.name) and "layers.2." not in record.name
        if record.outcome != "unchanged":
            assert record.outcome == ("adapted" if wanted else "excluded"), record.name
        assert same(merged[record.name], new[record.name]) == (record.outcome != "adapted"), record.name
    assert report.count("adapted") > 10 < report.count("excluded")


# --- what changes nothing ---


def test_twice_gives_the_same_bytes(tiny: Tiny, tmp_path: Path) -> None:
    for out in (tmp_path / "one", tmp_path / "two"):
        run(tiny("llava", "bfloat16"), out)
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    reports = [json.loads(each.pop(REPORT)) for each in (one, two)]
    assert one == two
    for name in ("run", "verdict"):  # which name OUT
        assert reports[0].pop(name).keys() == reports[1].pop(name).keys()
    assert reports[0] == reports[1]


def test_order_of_keys_and_shards_changes_nothing(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llava")
    first = run(case, tmp_path / "first")
    other = case.copied_to(tmp_path)
    reshard(other.old, 1)
    reshard(other.new, 5)
    second = run(other, tmp_path / "second")
    assert same_tensors(tmp_path / "first", tmp_path / "second")
    assert second.linears == first.linears
    assert headers(tmp_path / "second") == headers(other.new)
    with safe_open(tmp_path / "second" / "part-5.safetensors", "pt") as shard:
        assert list(shard.offset_keys()) == sorted(shard.keys(), reverse=True)


def test_order_of_samples_changes_nothing(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llava")
    run(case, tmp_path / "first")
    folder = tmp_path / "calibration"
    shutil.copytree(case.safety.parent, folder)
    for path in folder.glob("*.jsonl"):
        path.write_text("\n".join(reversed(path.read_text().splitlines())))
    run(case._replace(safety=folder / "safety.jsonl", task=folder / "task.jsonl"), tmp_path / "second")
    assert same_tensors(tmp_path / "first", tmp_path / "second")


def test_names_of_keys_in_old_change_nothing(tiny: Tiny, tmp_path: Path) -> None:
    """GPT-2 on the Hub has no prefix; newer files of LLaVA have another one."""
    case = tiny("gpt2")
    first = run(case, tmp_path / "first")
    other = case.copied_to(tmp_path)
    for path in [*other.old.glob("*.safetensors"), other.old / INDEX]:
        content = path.read_bytes()
        path.write_bytes(content.replace(b'"transformer.', b'            "'))  # as long: the offsets stay
    assert "h.0.attn.c_attn.weight" in load_tensors(other.old)
    second = run(other, tmp_path / "second")
    assert same_tensors(tmp_path / "first", tmp_path / "second")
    assert second.linears == first.linears


# --- unlike checkpoints ---


@pytest.mark.parametrize(("old", "new"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_different_dtypes_and_shardings(old: str, new: str, tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama", old).copied_to(tmp_path)._replace(new=tiny("llama", new).new)
    reshard(case.old, 1)
    report = run(case, tmp_path / "out")
    before, after, merged = (load_tensors(folder) for folder in (case.old, case.new, tmp_path / "out"))
    assert {str(tensor.dtype) for tensor in merged.values()} == {f"torch.{new}"}
    assert headers(tmp_path / "out") == headers(case.new)
    assert report.count("adapted") >= 28
    for record in report.linears:
        cast = before[record.name].to(after[record.name].dtype)
        restored = record.restored_columns
        assert same(merged[record.name][:, restored].contiguous(), cast[:, restored].contiguous())
        if record.outcome == "unchanged":
            assert same(merged[record.name], after[record.name])


def test_a_single_file(tmp_path: Path, tiny: Tiny) -> None:
    old, new = make_pair("gpt2", tmp_path, shard_size="1GB")
    assert not (new / INDEX).exists()
    out = tmp_path / "out"
    run(tiny("gpt2")._replace(old=old, new=new), out)
    assert sorted(path.name for path in out.glob("*.safetensors*")) == ["model.safetensors"]
    run(tiny("gpt2"), tmp_path / "sharded")
    assert same_tensors(out, tmp_path / "sharded")


def test_tied_embeddings_may_have_grown(tiny: Tiny, tmp_path: Path) -> None:
    case = grown(tiny("qwen2_tied"), tmp_path / "grown")
    run(case, tmp_path / "out")
    run(tiny("qwen2_tied"), tmp_path / "plain")
    merged, plain = load_tensors(tmp_path / "out"), load_tensors(tmp_path / "plain")
    embedding = "model.embed_tokens.weight"
    assert same(merged.pop(embedding), load_tensors(case.new)[embedding])
    assert all(same(merged[name], plain[name]) for name in merged)


def test_a_head_that_has_grown_can_be_excluded(tiny: Tiny, tmp_path: Path) -> None:
    report = run(grown(tiny("llama"), tmp_path / "grown"), tmp_path / "out", exclude=("lm_head",))
    assert [record.name for record in report.linears if record.outcome == "excluded"] == ["lm_head.weight"]


def test_a_text_longer_than_the_models_positions_is_cut(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("gpt2")  # 512 learned positions; --max-length is 2048
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"text": "abc " * 200}))
    assert run(case._replace(task=path), tmp_path / "out").task.tokens == 512
