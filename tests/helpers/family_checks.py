"""What is checked of every family: the stream, the merge against the textbook, OUT's bytes, and that it loads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from agreement import Merged, check_decisions, check_values
from family_pairs import Family, Inputs, Pair
from family_reference import Seen, compromise_of, matrices, reference_of, seen_in
from precision import unit_roundoff
from reference import curvature, load_tensors
from safetensors import safe_open
from streaming import check as check_stream
from torch import Tensor

from hpa_merge import HPAConfig, MergeReport, sweep
from hpa_merge.calibration import Encoded, EncoderProcess
from hpa_merge.records import Sample

__all__ = ["QUIET", "check_family"]

WEIGHT = 2.0
"""Of safety in the exact compromise."""

QUIET = (
    "ignore:.*torch.jit.script:DeprecationWarning",
    "ignore:__array_.*:DeprecationWarning",
    "ignore:`hidden_state` is deprecated:FutureWarning",
)
"""What transformers itself warns of, in the processors and models of some families."""


def check_family(pair: Pair, out: Path, monkeypatch: pytest.MonkeyPatch, *, compromise: bool = False) -> MergeReport:
    """Everything of one pair, with the exact ``compromise`` too; the report of its merge."""
    for folder, samples in ((pair.old, pair.safety_inputs), (pair.new, pair.task_inputs)):
        check_stream(folder, samples, pair.family.unvisited, loops=pair.family.loops)
    if pair.family.by_hand is not None:
        _give_by_hand(pair, monkeypatch)
    options: dict[str, Any] = {"device": "cpu", "min_expert_tokens": 0}
    outs, exact = {out: HPAConfig(**options)}, out.with_name("exact")
    if compromise:
        outs[exact] = HPAConfig(method="regmean", safety_weight=WEIGHT, **options)
    reports = sweep(pair.old, pair.new, outs, safety_calib=pair.safety, task_calib=pair.task)
    report, seen = reports[out], seen_in(pair)
    if compromise:
        check_compromise(reports[exact], exact, seen)
    expected = reference_of(seen)
    tensors = load_tensors(out)
    merged = Merged(report, dict(matrices(tensors)) | tensors, expected)
    check_decisions(merged)
    assert check_values(merged) >= 0.99
    _check_unreached(pair.family, report)
    _check_bytes(pair.new, out, report)
    _check_loads(out)
    assert not [note for note in report.run.notes if report.architecture in note], "a whole pair needs no such note"
    return report


def check_compromise(report: MergeReport, out: Path, seen: Mapping[str, Seen]) -> None:
    """Every weight of the exact compromise against float64: as far off as its condition and its dtype allow."""
    tensors = load_tensors(out)
    merged = dict(matrices(tensors)) | tensors
    for record in report.linears:
        if record.outcome != "adapted":
            continue
        each, found = seen[record.name], merged[record.name].double()
        expected = compromise_of(each, WEIGHT)
        values = torch.linalg.eigvalsh(curvature(each.task, 0.01) + WEIGHT * curvature(each.safety, 0.01))
        condition, moved = float(values[-1] / values[0]), float((each.new.double() - each.old.double()).norm())
        in_sums = len(values) * unit_roundoff(torch.float32) * condition * moved
        rounding = unit_roundoff(merged[record.name].dtype) * expected.abs()
        assert bool(((found - expected).abs() <= in_sums + 1.01 * rounding).all()), record.name


def _give_by_hand(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the samples encoded as they were made: by the ids that stand in the calibration file."""
    inputs: dict[tuple[int, ...], Inputs] = {
        tuple(sample["input_ids"][0].tolist()): sample for sample in (*pair.safety_inputs, *pair.task_inputs)
    }

    def prepare(self: EncoderProcess, sample: Sample, max_length: int) -> Encoded:
        assert sample.input_ids is not None
        return Encoded(dict(inputs[tuple(sample.input_ids)]))

    monkeypatch.setattr(EncoderProcess, "prepare", prepare)


def _check_unreached(family: Family, report: MergeReport) -> None:
    """Nothing is uncalibrated but experts that no token came to, and what the row says."""
    names = [record.name for record in report.linears if record.outcome == "uncalibrated"]
    unexpected = [
        name
        for name in names
        if "experts" not in name and not name.removesuffix(".weight").endswith(family.unreached or ("\0",))
    ]
    assert not unexpected
    left = [record.name for record in report.linears if record.outcome in ("uncalibrated", "unchanged")]
    for ending in family.unreached:
        assert any(name.removesuffix(".weight").endswith(ending) for name in left), ending
    assert report.count("adapted") > len(names)


def _layout(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as shard:
        return {
            "metadata": shard.metadata(),
            "tensors": {k: (shard.get_slice(k).get_dtype(), shard.get_slice(k).get_shape()) for k in shard.keys()},  # noqa: SIM118
        }


def _check_bytes(new: Path, out: Path, report: MergeReport) -> None:
    """Names, shards, dtypes and shapes are NEW's, and so is every byte of what was not adapted."""
    shards = sorted(path.name for path in new.glob("*.safetensors"))
    assert sorted(path.name for path in out.glob("*.safetensors")) == shards
    for shard in shards:
        assert _layout(out / shard) == _layout(new / shard), shard
    files = {path.name for path in new.iterdir()} - set(shards)
    for name in files:
        assert (out / name).read_bytes() == (new / name).read_bytes(), name
    adapted = {record.name for record in report.linears if record.outcome == "adapted"}
    before, after = load_tensors(new), load_tensors(out)
    parts: Mapping[str, Tensor] = dict(matrices(before))
    for key, value in before.items():
        if key not in adapted and f"{key}[0]" not in parts:
            assert torch.equal(after[key], value), key
    found = dict(matrices(after))
    for name in parts.keys() - adapted:
        assert torch.equal(found[name], parts[name]), name
    assert all(not torch.equal(found[name], parts[name]) for name in adapted)


def _check_loads(out: Path) -> None:
    config = transformers.AutoConfig.from_pretrained(out)
    _, info = getattr(transformers, config.architectures[0]).from_pretrained(out, output_loading_info=True)
    assert not any(info.values()), info
