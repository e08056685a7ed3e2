"""How far the weights have moved in several rounds of tuning and merging, against a slow computation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import TinyCase
from chains import chain, distance, run, tuned, with_evaluation
from changed_checkpoints import grown
from mixtures import gpt_oss, mixtral
from mixtures import make as make_experts

from hpa_merge import MergeReport
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.report.schema import read_report

pytestmark = pytest.mark.gate

Tiny = Callable[..., TinyCase]

SCORES = {"format": "hpa-merge evaluation", "schema_version": 1, "models": [{"asr": {"value": 3.25}}]}


def names_of(report: MergeReport) -> list[str]:
    return [record.name for record in report.linears]


def digest_of(folder: Path) -> str:
    with Checkpoint.open(folder, "OUT") as checkpoint:
        return checkpoint.content_digest()


# --- three rounds ---


ROUNDS: dict[str, list[dict[str, Any]]] = {
    "llama": [{"p_max": 20.0}, {"selection": "safety", "exclude": ("q_proj",)}, {"vision_tower": None}],
    "gpt2": [{}, {"method": "linear", "weight": 0.25}, {"p_max": 30.0, "orthogonal": False}],
    "llava": [{"vision": "old"}, {"language": "old"}, {"task_samples": 3}],
}


@pytest.mark.parametrize(
    ("name", "dtype"), [("llama", "float32"), ("gpt2", "bfloat16"), ("llava", "float32"), ("llava", "bfloat16")]
)
def test_three_rounds(name: str, dtype: str, tiny: Tiny, tmp_path: Path) -> None:
    case = tiny(name, dtype)
    first = run(case, case.old, case.new, tmp_path / "out1", **ROUNDS[name][0])
    with_evaluation(tmp_path / "out1", SCORES)
    new2 = tuned(tmp_path / "out1", tmp_path / "new2", seed=2)
    second = run(case, tmp_path / "out1", new2, tmp_path / "out2", **ROUNDS[name][1])
    new3 = tuned(tmp_path / "out2", tmp_path / "new3", seed=3)
    third = run(case, tmp_path / "out2", new3, tmp_path / "out3", **ROUNDS[name][2])

    assert first.history == ()
    assert [len(report.history) for report in (second, third)] == [1, 2]
    assert second.history == third.history[:1]
    assert third.to_json() == read_report(tmp_path / "out3").to_json()
    olds, news = [case.old, tmp_path / "out1", tmp_path / "out2"], [case.new, new2, new3]
    for number, (record, report) in enumerate(zip(third.history, (first, second), strict=True)):
        assert (record.old, record.new) == (str(olds[number]), str(news[number]))
        assert record.config == json.loads(json.dumps(report.config))
        assert (record.safety, record.task) == (report.safety, report.task)
        assert record.adapted == report.count("adapted")
        assert record.versions == report.run.versions
        assert record.architecture == report.architecture
        assert record.drift == report.drift
        assert record.contents == report.run.contents
    assert [record.evaluation for record in third.history] == [SCORES, None]
    for number, report in enumerate((first, second, third)):
        out = tmp_path / f"out{number + 1}"
        found = {"old": digest_of(olds[number]), "new": digest_of(news[number]), "out": digest_of(out)}
        assert report.run.contents == found
        assert report.warnings == []
    assert first.run.contents["out"] == second.run.contents["old"]
    assert second.run.contents["out"] == third.run.contents["old"]
    assert (second.history[0].restored_share is None) == (
        name == "gpt2" and second.history[0].config["method"] == "linear"
    )


@pytest.mark.parametrize(("name", "dtype"), [("llama", "float32"), ("gpt2", "bfloat16"), ("llava", "bfloat16")])
def test_the_drift_is_that_of_a_slow_computation(name: str, dtype: str, tiny: Tiny, tmp_path: Path) -> None:
    case = tiny(name, dtype)
    reports = chain(case, tmp_path, ROUNDS[name])
    outs = [case.old, *(tmp_path / f"out{number}" for number in (1, 2, 3))]
    names = names_of(reports[0])
    _, first_norm = distance(case.old, case.old, names)
    known = 0.0
    for number, report in enumerate(reports):
        moved, norm = distance(outs[number], outs[number + 1], names)
        assert report.drift is not None
        assert report.drift.linears == len(names)
        assert report.drift.distance == pytest.approx(moved, rel=1e-12)
        assert report.drift.norm == pytest.approx(norm, rel=1e-12)
        assert report.drift.relative == pytest.approx(moved / norm, rel=1e-12)
        for record in report.linears:
            found = distance(outs[number], outs[number + 1], [record.name])
            assert (record.distance, record.old_norm) == pytest.approx(found, rel=1e-12), record.name
        known += moved / first_norm
        exact = distance(case.old, outs[number + 1], names)[0] / first_norm
        assert report.drift.from_first_at_most == pytest.approx(known, rel=1e-12)
        assert report.drift.from_first_at_most >= exact * (1 - 1e-12)
        assert report.drift.from_first == (pytest.approx(exact, rel=1e-12) if number == 0 else None)

    again = run(case, outs[2], tmp_path / "new3", tmp_path / "again", **ROUNDS[name][2], first=case.old)
    assert again.drift is not None
    assert again.drift.from_first == pytest.approx(exact, rel=1e-12)
    assert again.drift.from_first_at_most == reports[2].drift.from_first_at_most
    new4 = tuned(tmp_path / "again", tmp_path / "new4", seed=4)
    fourth = run(case, tmp_path / "again", new4, tmp_path / "out4")
    assert fourth.drift is not None
    step = distance(tmp_path / "again", tmp_path / "out4", names)[0] / first_norm
    assert fourth.drift.from_first_at_most == pytest.approx(exact + step, rel=1e-12)  # from what is known exactly
    assert fourth.drift.from_first is None


def test_what_did_not_move(tiny: Tiny, tmp_path: Path) -> None:
    """Unchanged, or OLD's: exactly zero, in one dtype."""
    case = tiny("llava", "bfloat16")
    report = run(case, case.old, case.new, tmp_path / "out", language="old")
    by_outcome = {record.outcome: record.distance for record in report.linears}
    assert by_outcome["unchanged"] == by_outcome["old"] == 0.0
    assert by_outcome["adapted"] > 0.0
    excluded = run(case, case.old, case.new, tmp_path / "excluded", exclude=("q_proj",))
    for record in excluded.linears:
        if record.outcome == "excluded":
            assert (record.distance, record.old_norm) == distance(case.old, case.new, [record.name])


def test_rounding_to_another_dtype_counts(tiny: Tiny, tmp_path: Path) -> None:
    """OLD in float32, NEW in bfloat16: what is OLD's, and what did not change, has moved by the rounding."""
    case = tiny("llama", "float32")._replace(new=tiny("llama", "bfloat16").new)
    report = run(case, case.old, case.new, tmp_path / "out", head="old")
    assert {record.outcome for record in report.linears} == {"adapted", "unchanged", "old"}
    for record in report.linears:
        found = distance(case.old, tmp_path / "out", [record.name])
        assert (record.distance, record.old_norm) == pytest.approx(found, rel=1e-12)
        assert record.distance > 0.0


def test_an_uncalibrated_linear(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llava")
    (tmp_path / "text.jsonl").write_text('{"text": "no. that would hurt people."}\n')
    case = case._replace(safety=tmp_path / "text.jsonl")
    for choice in ("new", "old"):
        report = run(case, case.old, case.new, tmp_path / choice, uncalibrated=choice)
        assert report.count("uncalibrated") > 10
        for record in report.linears:
            found = distance(case.old, tmp_path / choice, [record.name])
            assert (record.distance, record.old_norm) == pytest.approx(found, rel=1e-12)


def test_a_head_that_has_grown(tiny: Tiny, tmp_path: Path) -> None:
    """Compared in the rows that both have; of one whose columns are others nothing is said."""
    case = tiny("llama")
    reports = chain(grown(case, tmp_path / "grown"), tmp_path, [{}, {"first": case.old}])
    for number, out in enumerate((tmp_path / "out1", tmp_path / "out2")):
        head = next(record for record in reports[number].linears if record.name == "lm_head.weight")
        old = case.old if number == 0 else tmp_path / "out1"
        assert (head.distance, head.old_norm) == pytest.approx(distance(old, out, ["lm_head.weight"]), rel=1e-12)
    exact, norm = distance(case.old, tmp_path / "out2", names_of(reports[0]))
    assert reports[1].drift is not None
    assert reports[1].drift.from_first == pytest.approx(exact / norm, rel=1e-12)
    assert reports[1].drift.from_first_at_most > reports[1].drift.from_first


@pytest.mark.parametrize("build", [mixtral, gpt_oss])
def test_experts(build: Callable[[], Any], tmp_path: Path) -> None:
    """One by one on disk, or slices of one tensor that lies the other way round."""
    case = make_experts(build, tmp_path)
    reports = chain(case, tmp_path, [{}, {"first": case.old}])
    names = names_of(reports[0])
    assert any("experts" in name for name in names)
    moved, norm = distance(case.old, tmp_path / "out1", names)
    assert reports[0].drift is not None
    assert (reports[0].drift.distance, reports[0].drift.norm) == pytest.approx((moved, norm), rel=1e-12)
    assert reports[1].drift is not None
    exact, _ = distance(case.old, tmp_path / "out2", names)
    assert reports[1].drift.from_first == pytest.approx(exact / norm, rel=1e-12)
