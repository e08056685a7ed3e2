"""A vocabulary that grew or was cut between OLD and NEW: shared rows of a head are merged, the others stay NEW's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from agreement import SUM
from cases import TinyCase, content
from changed_checkpoints import edit
from reference import Settings, captured_inputs, load_model, load_tensors, merge_linear
from tiny_models import model_inputs, processor_of
from torch import Tensor
from transformers import AutoConfig

from hpa_merge import HPAConfig, MergeReport, merge
from hpa_merge.engine.preview import preview
from hpa_merge.engine.request import MergeRequest
from hpa_merge.errors import CheckpointError, ConfigError
from hpa_merge.verification import verify

Tiny = Callable[..., TinyCase]

HEADS = {"llama": "lm_head.weight", "phi3": "lm_head.weight", "llava": "language_model.lm_head.weight"}
HEADS["qwen2_5_vl"] = "lm_head.weight"


def resized(case: TinyCase, folder: Path, size: int) -> TinyCase:
    """NEW with a vocabulary of another size, as people add tokens or pad it for a task."""
    architecture = getattr(transformers, AutoConfig.from_pretrained(case.new).architectures[0])
    model = architecture.from_pretrained(case.new, dtype="auto")
    with torch.random.fork_rng(devices=[]):
        model.resize_token_embeddings(size, mean_resizing=False)
    model.save_pretrained(folder)
    processor_of(case.name).save_pretrained(folder)
    return case._replace(new=folder)


def run(case: TinyCase, out: Path, *, stats: Path | None = None, **options: Any) -> MergeReport:
    calibration = {"safety_calib": case.safety, "task_calib": case.task}
    return merge(case.old, case.new, out, **calibration, config=HPAConfig(**options), stats=stats)


def same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(torch.uint8), b.view(torch.uint8))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_grew(name: str, dtype: str, tiny: Tiny, tmp_path: Path) -> None:
    """The shared rows are as the merge without growth makes them, and every other tensor of the model is."""
    case, key = tiny(name, dtype), HEADS[name]
    larger = resized(case, tmp_path / "new", 576)
    report = run(larger, tmp_path / "out")
    run(case, tmp_path / "plain")
    merged, plain, new = (load_tensors(folder) for folder in (tmp_path / "out", tmp_path / "plain", larger.new))
    assert merged[key].shape[0] == 576
    assert same(merged[key][:512], plain[key])
    assert same(merged[key][512:], new[key][512:])
    embedding = next(name for name in merged if "embed_tokens" in name)
    assert same(merged.pop(embedding), new[embedding])
    assert all(same(merged[other], plain[other]) for other in merged if other != key)
    record = next(record for record in report.linears if record.name == key)
    assert (record.outcome, record.rows, record.shared_rows) == ("adapted", 576, 512)
    assert [each.name for each in report.linears if each.shared_rows is not None] == [key]
    assert not verify(tmp_path / "out", larger.old, larger.new).problems


@pytest.mark.parametrize("name", ["llama", "qwen2_5_vl"])
def test_against_the_reference(name: str, tiny: Tiny, tmp_path: Path) -> None:
    """``e_j`` and ``κ`` over the shared rows, the curvatures over the inputs of the whole head, in float64."""
    case, key = resized(tiny(name), tmp_path / "new", 576), HEADS[name]
    report = run(case, tmp_path / "out")
    inputs = [model_inputs(name, path) for path in (case.safety, case.task)]
    safety, task = (
        captured_inputs(load_model(folder), samples)["lm_head"]
        for folder, samples in zip((case.old, case.new), inputs, strict=True)
    )
    blocks = AutoConfig.from_pretrained(case.new).get_text_config().num_hidden_layers
    old, new = load_tensors(case.old)[key], load_tensors(case.new)[key]
    expected = merge_linear(old, new[:512], safety, task, (blocks, blocks), Settings())
    record = next(record for record in report.linears if record.name == key)
    assert expected.margin > expected.rtol, "a near tie: another vocabulary"
    assert set(record.restored_columns) == expected.restored
    assert record.kappa == pytest.approx(expected.kappa, abs=SUM)
    assert record.alpha == pytest.approx(expected.alpha, abs=0.4 * expected.rtol)
    found = load_tensors(tmp_path / "out")[key]
    torch.testing.assert_close(found[:512].double(), expected.weight, rtol=1e-6, atol=1e-6)
    restored = record.restored_columns
    restored_share = float(expected.energy[restored].sum() / expected.energy.sum())
    assert record.energy_restored == pytest.approx(restored_share, rel=SUM)
    everything = (new - torch.cat([old, torch.zeros(64, old.shape[1])])).double().square().sum(dim=0)
    assert record.energy_restored != pytest.approx(float(everything[restored].sum() / everything.sum()), abs=1e-6)


def test_padding_is_growth_and_olds_padding_too(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama")
    padded = resized(case, tmp_path / "new", 640)
    back = TinyCase("llama", padded.new, tmp_path / "larger", case.safety, case.task)
    back = back._replace(new=resized(back._replace(new=padded.new), tmp_path / "larger", 704).new)
    report = run(back, tmp_path / "out")
    assert [record.shared_rows for record in report.linears if record.shared_rows] == [640]


@pytest.mark.parametrize("source", ["new", "old"])
def test_uncalibrated(source: str, tiny: Tiny, tmp_path: Path) -> None:
    """A head that no token reaches: OLD's rows, or NEW's, and in either case NEW's further ones."""
    case, key = tiny("llama").copied_to(tmp_path), "model.norm.weight"
    edit(case.old, key, torch.zeros_like)
    case = resized(case, tmp_path / "larger", 520)
    report = run(case, tmp_path / "out", uncalibrated=source)
    assert [record.name for record in report.linears if record.outcome == "uncalibrated"] == ["lm_head.weight"]
    old, new, merged = (load_tensors(folder)["lm_head.weight"] for folder in (case.old, case.new, tmp_path / "out"))
    assert same(merged[:512], old if source == "old" else new[:512])
    assert same(merged[512:], new[512:])


def test_unchanged_in_the_shared_rows(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama")
    case = resized(case._replace(old=case.new), tmp_path / "new", 520)
    report = run(case, tmp_path / "out")
    assert report.count("unchanged") == len(report.linears)
    assert same(load_tensors(tmp_path / "out")["lm_head.weight"], load_tensors(case.new)["lm_head.weight"])


def test_the_plan_and_statistics(tiny: Tiny, tmp_path: Path) -> None:
    case, stats = resized(tiny("llama"), tmp_path / "new", 520), tmp_path / "stats.safetensors"
    plan = preview(MergeRequest(case.old, case.new, {tmp_path / "out": HPAConfig()}, case.safety, (case.task,)))[
        tmp_path / "out"
    ]
    assert plan.reshaped == (
        "lm_head.weight is [512, 64] in OLD and [520, 64] in NEW: the first 512 rows are merged.",
        "model.embed_tokens.weight is [512, 64] in OLD and [520, 64] in NEW: NEW's is taken.",
    )
    run(case, tmp_path / "out")
    run(case, tmp_path / "first", stats=stats)
    run(case, tmp_path / "second", stats=stats)
    assert content(tmp_path / "out") == content(tmp_path / "first") == content(tmp_path / "second")


def test_components_that_are_olds_cannot_have_grown(tiny: Tiny, tmp_path: Path) -> None:
    case = resized(tiny("llama"), tmp_path / "new", 520)
    for component, key in (("head", "lm_head.weight"), ("embeddings", "model.embed_tokens.weight")):
        with pytest.raises(ConfigError) as raised:
            run(case, tmp_path / "out", **{component: "old"})
        assert str(raised.value) == (
            f"{component} is old, and {key} has shape [512, 64] in OLD and [520, 64] in NEW: set {component} to new."
        )
    assert run(case, tmp_path / "out", head="new").count("excluded") == 1


# --- what shrank, and what is in another order ---


def test_a_head_that_was_cut(tiny: Tiny, tmp_path: Path) -> None:
    """Its rows are as the merge without the cut makes them; the embeddings are NEW's."""
    case = tiny("llama")
    cut = case._replace(old=resized(case._replace(new=case.old), tmp_path / "larger", 576).new)
    report = run(cut, tmp_path / "out")
    run(case, tmp_path / "plain")
    merged, plain = load_tensors(tmp_path / "out"), load_tensors(tmp_path / "plain")
    assert merged.keys() == plain.keys()
    assert all(same(merged[name], plain[name]) for name in plain)
    record = next(record for record in report.linears if record.name == "lm_head.weight")
    assert (record.outcome, record.rows, record.shared_rows) == ("adapted", 512, None)
    assert not verify(tmp_path / "out", cut.old, cut.new).problems
    plan = preview(MergeRequest(cut.old, cut.new, {tmp_path / "o": HPAConfig()}, case.safety, (case.task,)))
    assert plan[tmp_path / "o"].reshaped[0] == (
        "lm_head.weight is [576, 64] in OLD and [512, 64] in NEW: the first 512 rows are merged."
    )


def test_tied_embeddings_that_were_cut(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("qwen2_tied")
    cut = case._replace(old=resized(case._replace(new=case.old), tmp_path / "larger", 576).new)
    plan = preview(MergeRequest(cut.old, cut.new, {tmp_path / "o": HPAConfig()}, case.safety, (case.task,)))
    assert plan[tmp_path / "o"].reshaped == (
        "model.embed_tokens.weight is [576, 64] in OLD and [512, 64] in NEW: NEW's is taken.",
    )


def retokenised(folder: Path, change: Callable[[dict[str, int]], None]) -> None:
    """Edit the vocabulary of a folder's tokenizer."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    change(tokenizer["model"]["vocab"])
    path.write_text(json.dumps(tokenizer))


def swap(vocabulary: dict[str, int]) -> None:
    a, b = sorted(vocabulary, key=vocabulary.__getitem__)[-2:]
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]


def rename(vocabulary: dict[str, int]) -> None:
    vocabulary["a-new-name"] = vocabulary.pop(max(vocabulary, key=vocabulary.__getitem__))


def test_another_order_is_refused_where_rows_are_mixed(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama").copied_to(tmp_path)
    retokenised(case.new, swap)
    with pytest.raises(
        CheckpointError, match=r"^the token '.*' has the number \d+ in OLD's tokenizer\.json and \d+ in N"
    ):
        run(case, tmp_path / "out")
    assert run(case, tmp_path / "out", head="new").count("adapted") > 0
    tied = tiny("qwen2_tied").copied_to(tmp_path / "tied")
    retokenised(tied.new, swap)
    with pytest.raises(CheckpointError, match="and 2 tokens have another number in all, so the rows of the two"):
        run(tied, tmp_path / "tied-out", embeddings="old")
    assert run(tied, tmp_path / "tied-out").count("adapted") > 0


def test_a_reserved_token_with_a_new_name(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama").copied_to(tmp_path)
    retokenised(case.new, rename)
    assert run(case, tmp_path / "out").count("adapted") == run(tiny("llama"), tmp_path / "plain").count("adapted")
