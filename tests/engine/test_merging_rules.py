"""The rules that HPA is compared with, through the whole engine: agreement, sweeps, resumption, verification."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import REPORT, Call, TinyCase, content
from mixtures import gpt_oss, llama4, make, mixtral
from reference import (
    as_rows,
    captured_inputs,
    checkpoint_name,
    curvature,
    linears,
    load_model,
    load_tensors,
    module_depths,
)
from reference_methods import model_tailor, safe_delta
from safetensors.torch import load_file, save_file
from tiny_models import model_inputs
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from hpa_merge import HPAConfig, MergeReport, merge, sweep
from hpa_merge.checkpoint import Checkpoint, CheckpointWriter
from hpa_merge.checkpoint.shard import TensorInfo
from hpa_merge.cli import main
from hpa_merge.core import column_budget, retained_share
from hpa_merge.model import PausedForwards
from hpa_merge.report.schema import read_report
from hpa_merge.verification import verify

pytestmark = pytest.mark.gate

Tiny = Callable[..., TinyCase]

NAMES = pytest.mark.parametrize(
    "name", ["gpt2", "llava", *(pytest.param(name, marks=pytest.mark.gate) for name in ("phi3", "qwen2_tied"))]
)

METHODS: dict[str, dict[str, Any]] = {
    "regmean": {"safety_weight": 2.0, "safety_fade": 0.5},
    "linear": {"weight": 0.3},
    "safe-delta": {"safety_budget": 5000.0},
    "model-tailor": {"patch_share": 20.0},
    "blocks": {"blocks": "1"},
    "random": {},
    "energy": {"p_max": 30.0},
}
ALL = pytest.mark.parametrize("method", METHODS)

LIKE_REGMEAN: dict[str, dict[str, Any]] = {"cgm": {"safety_weight": 0.5}, "null-space": {"safety_energy": 0.8}}
"""They go the way of ``regmean`` through the engine, so that fewer tests run them."""


def run(case: TinyCase, out: Path, method: str, **options: Any) -> MergeReport:
    """A merge that is given the sets that its method looks at and no others."""
    config = HPAConfig(method=method, **options)
    files = {"safety_calib": case.safety, "task_calib": case.task}
    given = {name: file for name, file in files.items() if name.removesuffix("_calib") in config.sets}
    return merge(case.old, case.new, out, **given, config=config)


def weights(case: TinyCase, out: Path) -> dict[str, tuple[Tensor, Tensor, Tensor, str]]:
    """OLD's, NEW's and OUT's weight ``[r, c]`` of every linear, and its module's path, by tensor name."""
    model = load_model(case.new)
    tensors = [load_tensors(folder) for folder in (case.old, case.new, out)]
    found = {}
    for path, module in linears(model).items():
        name = checkpoint_name(model.config.model_type, path)
        axis = 0 if isinstance(module, Conv1D) else 1
        old, new, merged = (as_rows(tensor[name], axis) for tensor in tensors)
        found[name] = (old, new, merged, path)
    return found


def inputs_of(case: TinyCase, method: str) -> dict[str, list[Tensor]]:
    folder, file = (case.old, case.safety) if method == "safe-delta" else (case.new, case.task)
    return captured_inputs(load_model(folder), model_inputs(case.name, file))


# --- agreement ---


@NAMES
@pytest.mark.parametrize("method", ["safe-delta", "model-tailor"])
def test_agreement_with_the_papers(method: str, name: str, tiny: Tiny, tmp_path: Path) -> None:
    case, options = tiny(name), METHODS[method]
    report = run(case, tmp_path / "out", method, **options)
    seen = inputs_of(case, method)
    records = {record.name: record for record in report.linears}
    adapted = agreeing = 0
    for key, (old, new, merged, path) in weights(case, tmp_path / "out").items():
        record = records[key]
        if record.outcome != "adapted":
            assert torch.equal(merged, new)
            continue
        adapted += 1
        h = curvature(seen[path], 0.01)
        if method == "safe-delta":
            expected = safe_delta(old, new, h, options["safety_budget"])
            assert record.safety_budget == pytest.approx(expected.budget, rel=1e-3)
            assert record.safety_cost <= record.safety_budget
        else:
            expected = model_tailor(old, new, h, options["patch_share"])
        close = torch.isclose(merged.double(), expected.weight, rtol=1e-4, atol=2e-4 * float(new.abs().max()))
        agreeing += int(close.all())
        if bool(close.all()):
            rest = record.restored_share + (record.compensated_share if method == "safe-delta" else 0.0)
            assert rest == pytest.approx(float((~expected.mask).double().mean()), abs=1e-9)
        else:
            assert expected.margin < 1e-3, key  # a near tie was decided otherwise
    assert agreeing > 0.8 * adapted > 3


@pytest.mark.parametrize("name", ["gpt2", "llava", "phi3", "qwen2_5_vl"])
def test_agreement_with_the_exact_compromise(name: str, tiny: Tiny, tmp_path: Path) -> None:
    """``W_old + ΔW H_t (H_t + w_l H_s)⁻¹`` in float64, from whole models and plain hooks."""
    case, options = tiny(name), METHODS["regmean"]
    report = run(case, tmp_path / "out", "regmean", **options)
    safety, task = (
        captured_inputs(load_model(folder), model_inputs(case.name, file))
        for folder, file in ((case.old, case.safety), (case.new, case.task))
    )
    depths, records = module_depths(load_model(case.new)), {record.name: record for record in report.linears}
    adapted = 0
    for key, (old, new, merged, path) in weights(case, tmp_path / "out").items():
        if records[key].outcome != "adapted":
            assert torch.equal(merged, new)
            continue
        adapted += 1
        depth, of = depths[path]
        w = options["safety_weight"] * (1 - options["safety_fade"] * depth / of)
        h_s, h_t = curvature(safety[path], 0.01), curvature(task[path], 0.01)
        expected = old.double() + torch.linalg.solve(h_t + w * h_s, (new.double() - old.double()) @ h_t, left=False)
        torch.testing.assert_close(merged.double(), expected, rtol=1e-4, atol=1e-4 * float((new - old).abs().max()))
        assert not torch.equal(merged, new)
    assert adapted > 3


@NAMES
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_simple_rules(name: str, dtype: str, tiny: Tiny, tmp_path: Path) -> None:
    case = tiny(name, dtype)
    depths = module_depths(load_model(case.new))
    for method in ("linear", "blocks", "random", "energy"):
        options = METHODS[method]
        report = run(case, tmp_path / method, method, **options)
        assert (report.safety, report.task) == (None, None)
        assert report.count("uncalibrated") == 0
        records = {record.name: record for record in report.linears}
        for key, (old, new, merged, path) in weights(case, tmp_path / method).items():
            record = records[key]
            if torch.equal(old, new):
                assert record.outcome == "unchanged"
                continue
            if method == "linear":
                expected = (old.double() + 0.3 * (new.double() - old.double())).to(new.dtype)
                torch.testing.assert_close(merged, expected)
            elif method == "blocks":
                restored = "layers.1." in path.replace("transformer.h", "layers") and "vision" not in path
                assert record.outcome == ("adapted" if restored else "excluded"), key
                assert torch.equal(merged, old if restored else new)
            else:
                share = retained_share(*depths[path], options.get("p_max", 15.0), 5.0)
                count = column_budget(share, new.shape[1])
                assert len(record.restored_columns) == count == record.n_restored
                assert torch.equal(merged[:, record.restored_columns], old[:, record.restored_columns])
                energy = (new.double() - old.double()).square().sum(dim=0)
                if method == "energy":
                    ranked = sorted(range(new.shape[1]), key=lambda j: (-float(energy[j]), j))
                    assert record.restored_columns == sorted(ranked[:count])
                others = [j for j in range(new.shape[1]) if j not in record.restored_columns]
                delta, before = new.double() - old.double(), old.double()
                kappa = float((delta * before).sum() / before.square().sum())
                adjusted = (new.double() - kappa * before)[:, others].to(new.dtype)
                torch.testing.assert_close(merged[:, others], adjusted)


@pytest.mark.parametrize("build", [mixtral, gpt_oss, llama4], ids=lambda build: build.__name__)
def test_experts(build: Callable[[], Any], tmp_path: Path) -> None:
    """Experts one by one and stacked: every method writes them where they belong, and says what it did."""
    case = make(build, tmp_path / "case")
    rules = METHODS | LIKE_REGMEAN
    outs = {tmp_path / method: HPAConfig(method=method, **options) for method, options in rules.items()}
    reports = sweep(case.old, case.new, outs, safety_calib=case.safety, task_calib=case.task)
    for out, report in reports.items():
        assert verify(out, case.old, case.new).problems == ()
        assert report.count("adapted") > 10
        unreached = {"model-tailor": "task_tokens"}.get(out.name, "safety_tokens")
        for record in report.linears:
            if record.outcome == "uncalibrated":
                assert getattr(record, str(unreached)) == 0


def test_random_differs_by_seed_and_not_by_run(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama")
    restored = []
    for number, seed in enumerate((0, 0, 1)):
        report = run(case, tmp_path / str(number), "random", seed=seed)
        restored.append([record.restored for record in report.linears])
    assert restored[0] == restored[1] != restored[2]
    assert len(set(restored[0])) > len(restored[0]) / 2  # weights of the same shape get columns of their own


# --- what runs ---


@ALL
def test_only_the_sets_that_a_method_looks_at_run(
    method: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    real = PausedForwards.start

    def start(self: PausedForwards, samples: Any, **options: Any) -> None:
        started.append(len(samples))
        real(self, samples, **options)

    monkeypatch.setattr(PausedForwards, "start", start)
    case = tiny("llama")
    everything = {"safety_calib": case.safety, "task_calib": case.task}
    config = HPAConfig(method=method, **METHODS[method])
    report = merge(case.old, case.new, tmp_path / "out", **everything, config=config)
    counts = [len(file.read_text().splitlines()) for file in (case.safety, case.task)]
    of_set = dict(zip(("safety", "task"), counts, strict=True))
    assert started == [of_set[purpose] for purpose in config.sets]
    assert [record is not None for record in (report.safety, report.task)] == [p in config.sets for p in of_set]
    run(case, tmp_path / "without", method, **METHODS[method])
    assert content(tmp_path / "without") == content(tmp_path / "out")


@ALL
def test_every_byte_is_read_once(method: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    real = Checkpoint.stored_pieces

    def pieces(self: Checkpoint, info: TensorInfo, **options: Any) -> Any:
        reads.append(f"{self.role}: {info.name}")
        return real(self, info, **options)

    monkeypatch.setattr(Checkpoint, "stored_pieces", pieces)
    run(tiny("llama"), tmp_path / "out", method, **METHODS[method])
    assert len(reads) == len(set(reads))


# --- sweeps ---


@NAMES
def test_a_sweep_over_methods_is_each_of_them(name: str, tiny: Tiny, tmp_path: Path) -> None:
    case = tiny(name, "bfloat16")
    outs = {tmp_path / method: HPAConfig(method=method, **METHODS[method]) for method in METHODS}
    outs[tmp_path / "hpa"] = HPAConfig()
    reports = sweep(case.old, case.new, outs, safety_calib=case.safety, task_calib=case.task)
    (tmp_path / "alone").mkdir()
    for out, config in outs.items():
        run(case, tmp_path / "alone" / out.name, config.method, **METHODS.get(config.method, {}))
        found, expected = content(out), content(tmp_path / "alone" / out.name)
        linears_found, linears_alone = (
            {record["name"]: record for record in files[REPORT].pop("linears")} for files in (found, expected)
        )
        assert linears_found == linears_alone
        assert found == expected
        assert reports[out].config["method"] == config.method


def test_a_list_of_methods_on_the_command_line(
    make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call()
    settings = call.write(
        "methods.yaml",
        "- {}\n- {method: linear, weight: 0.3}\n- {method: safe-delta, compensation: false}\n"
        "- {method: blocks, blocks: 1}\n- {method: energy, name: control}\n",
    )
    words = [str(call.old), str(call.new), str(settings), *call.arguments[2:], "--p-max", "20", "--dry-run"]
    call = Call(call.folder, Path("sweep"), call.old, call.safety, call.task, call.out)
    assert command(["sweep", *words], capsys) == 0
    assert command(["sweep", *words[:-1]], capsys) == 0
    names = {"p_max=20" if False else "default", "method=linear,weight=0.3", "method=safe-delta,compensation=false"}
    assert {path.name for path in call.out.iterdir()} == names | {"method=blocks,blocks=1", "control"}
    configs = {path.name: read_report(path).config for path in call.out.iterdir()}
    assert {configs[name]["p_max"] for name in ("default", "control")} == {20.0}
    assert configs["method=linear,weight=0.3"]["p_max"] == 15.0
    assert configs["method=blocks,blocks=1"]["blocks"] == "1"


def command(words: list[str], capsys: pytest.CaptureFixture[str]) -> int | str | None:
    try:
        main(words)
    except SystemExit as end:
        return end.code
    printed = capsys.readouterr()
    assert "restored by blocks, energy, hpa, linear, safe-delta" in printed.out or "--dry-run" in words
    return 0


# --- resumption ---


@ALL
def test_an_interrupted_merge_goes_on(method: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case, options = tiny("llava"), METHODS[method]
    run(case, tmp_path / "whole", method, **options)
    real, left = CheckpointWriter.commit, [2]

    def commit(self: CheckpointWriter, entry: Any) -> None:
        real(self, entry)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointWriter, "commit", commit)
        with pytest.raises(KeyboardInterrupt):
            run(case, tmp_path / "out", method, **options)
    config = HPAConfig(method=method, **options)
    files = {"safety_calib": case.safety, "task_calib": case.task}
    merge(case.old, case.new, tmp_path / "out", **files, config=config, resume=True)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


# --- verification ---


@pytest.mark.parametrize("name", ["gpt2", "llava"])
@pytest.mark.parametrize(
    ("method", "compensation"), [*((m, True) for m in METHODS), ("safe-delta", False), ("model-tailor", False)]
)
def test_verify(method: str, compensation: bool, name: str, tiny: Tiny, tmp_path: Path) -> None:
    case = tiny(name, "bfloat16")
    report = run(case, tmp_path / "out", method, **METHODS[method], compensation=compensation)
    found = verify(tmp_path / "out", case.old, case.new)
    assert found.problems == ()
    assert found.checked["adapted linears"] == report.count("adapted") > 0
    beyond = found.checked.get("values that only samples can recompute", 0)
    assert (beyond > 0) == (method in ("safe-delta", "model-tailor", "regmean") and compensation)
    again = verify(tmp_path / "out", case.old, case.new, safety_calib=case.safety, task_calib=case.task)
    assert again.problems == ()


WRONG = {
    "regmean": "values differ from the merge's",
    "linear": "are not OLD + 0.3 · (NEW − OLD)",
    "safe-delta": "are NEW's in the report and not in OUT",
    "model-tailor": "values are OLD's, and",
    "blocks": "are not OLD's",
    "random": "in restored columns are not OLD's",
    "energy": "in restored columns are not OLD's",
}


@ALL
def test_verify_finds_what_is_wrong(method: str, tiny: Tiny, tmp_path: Path) -> None:
    """Every value of one adapted weight is moved by one ulp, in the file and in its digest."""
    case = tiny("llama")
    report = run(case, tmp_path / "out", method, **METHODS[method])
    name = next(record.name for record in report.linears if record.outcome == "adapted")
    with Checkpoint.open(tmp_path / "out", "OUT") as merged:
        shard = merged.tensors[name].shard
    tensors = load_file(tmp_path / "out" / shard)
    tensors[name] = torch.nextafter(tensors[name], torch.tensor(torch.inf))
    save_file(tensors, tmp_path / "out" / shard, {"format": "pt"})
    seen = (
        {"safety_calib": case.safety, "task_calib": case.task} if HPAConfig(method=method).takes == ("hessian",) else {}
    )
    problems = [p for p in verify(tmp_path / "out", case.old, case.new, **seen).problems if name in p]
    assert any(WRONG[method] in problem for problem in problems), problems


@pytest.mark.parametrize(("method", "sentence"), [("random", "that seed 0 draws"), ("energy", "that changed most")])
def test_verify_draws_the_columns_of_the_controls_again(method: str, sentence: str, tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama")
    run(case, tmp_path / "out", method)
    report = json.loads((tmp_path / "out" / REPORT).read_text())
    one, other = next(
        (a, b)
        for a, b in itertools.combinations([r for r in report["linears"] if r["outcome"] == "adapted"], 2)
        if (a["columns"], a["n_restored"]) == (b["columns"], b["n_restored"]) and a["restored"] != b["restored"]
    )
    one["restored"], other["restored"] = other["restored"], one["restored"]
    (tmp_path / "out" / REPORT).write_text(json.dumps(report))
    assert any(sentence in problem for problem in verify(tmp_path / "out", case.old, case.new).problems)
