"""Rounds of tuning and merging: what a report says of those before it, and how far the weights have moved."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adapters import lora, make_adapter
from cases import REPORT, TinyCase, content
from chains import chain, distance, perturb, run, tuned, with_evaluation
from changed_checkpoints import grown, reshard
from interruptions import interrupt
from mixtures import gpt_oss, mixtral
from mixtures import make as make_experts
from tiny_original_llava import make_original

from hpa_merge import HPAConfig, MergeReport, sweep
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.errors import CheckpointError, OutputError
from hpa_merge.report.records import RoundRecord
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


# --- other ways of working ---


def test_resumed_with_the_same_history(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama")
    chain(case, tmp_path, [{}])
    new = tuned(tmp_path / "out1", tmp_path / "new2", seed=2)
    options: dict[str, Any] = {"first": case.old}
    whole = run(case, tmp_path / "out1", new, tmp_path / "whole", **options)
    for units in (1, 3, 5):
        out = tmp_path / f"resumed{units}"
        interrupt(case._replace(old=tmp_path / "out1", new=new), out, units)
        report = run(case, tmp_path / "out1", new, out, resume=True, **options)
        assert content(out) == content(tmp_path / "whole")
        assert report.run.contents == whole.run.contents
        assert (report.history, report.drift) == (whole.history, whole.drift)


def test_each_out_of_a_sweep_has_its_own(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llava", "bfloat16")
    chain(case, tmp_path, [{}])
    old, new = tmp_path / "out1", tuned(tmp_path / "out1", tmp_path / "new2", seed=2)
    configs = {"a": HPAConfig(), "b": HPAConfig(p_max=50.0, p_min=50.0), "c": HPAConfig(exclude=("mlp",))}
    outs = {tmp_path / name: config for name, config in configs.items()}
    (tmp_path / "runs").mkdir()
    reports = sweep(old, new, outs, safety_calib=case.safety, task_calib=case.task, first=case.old)
    names = names_of(reports[tmp_path / "a"])
    for out, config in outs.items():
        report = reports[out]
        alone = run(case, old, new, tmp_path / "runs" / out.name, **vars(config), first=case.old)
        assert (report.drift, report.history) == (alone.drift, alone.history)
        assert report.run.contents == alone.run.contents
        exact, norm = distance(case.old, out, names)
        assert report.drift is not None
        assert report.drift.from_first == pytest.approx(exact / norm, rel=1e-12)
    assert len({report.run.contents["out"] for report in reports.values()}) == 3


def test_with_statistics(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama")
    chain(case, tmp_path, [{}])
    old, new = tmp_path / "out1", tuned(tmp_path / "out1", tmp_path / "new2", seed=2)
    reports = [run(case, old, new, tmp_path / name, stats=tmp_path / "stats", first=case.old) for name in "ab"]
    assert reports[0].drift == reports[1].drift
    assert reports[0].history == reports[1].history


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_an_adapter_as_new(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama", "bfloat16")
    chain(case, tmp_path, [{}])
    old = tmp_path / "out1"
    adapter = make_adapter(old, "llama", lora(), tmp_path / "adapter")
    second = run(case, old, adapter, tmp_path / "out2")
    assert second.history[0].contents["out"] == digest_of(old) == second.run.contents["old"]
    assert second.run.contents["new"] not in (digest_of(old), digest_of(tmp_path / "out2"))
    third = run(case, tmp_path / "out2", tuned(tmp_path / "out2", tmp_path / "new3", 3), tmp_path / "out3")
    assert [record.adapter for record in third.history] == ["", second.run.adapter]
    assert second.run.adapter
    moved, norm = distance(old, tmp_path / "out2", names_of(second))
    assert second.drift is not None
    assert (second.drift.distance, second.drift.norm) == pytest.approx((moved, norm), rel=1e-12)


def test_llavas_own_layout_with_its_tower_apart(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "pair").mkdir()
    pair = make_original(tiny("llava"), tmp_path / "pair", inside=False)
    case = TinyCase("llava", pair.old, pair.new, pair.safety, pair.task)
    options: dict[str, Any] = {"vision_tower": pair.tower}
    reports = chain(case, tmp_path, [options, options | {"first": pair.old}])
    assert len(reports[1].history) == 1
    exact, norm = distance(pair.old, tmp_path / "out2", names_of(reports[0]))
    assert reports[1].drift is not None
    assert reports[1].drift.from_first == pytest.approx(exact / norm, rel=1e-12)


# --- is OLD what its report is of? ---


@pytest.fixture
def merged(tiny: Tiny, tmp_path: Path) -> tuple[TinyCase, Path, Path]:
    """A case, an OUT that has an OUT before it, and what that was tuned to."""
    case = tiny("gpt2")
    chain(case, tmp_path, [{}, {}])
    return case, tmp_path / "out2", tuned(tmp_path / "out2", tmp_path / "new", seed=5)


def test_old_was_saved_over(merged: tuple[TinyCase, Path, Path], tmp_path: Path) -> None:
    case, old, new = merged
    was = digest_of(old)
    perturb(old, seed=9, size=1e-3)
    report = run(case, old, new, tmp_path / "out")
    assert report.history == ()
    assert report.warnings == [
        f"OLD {old} has a hpa_report.json of other weights than those in the folder (content digest {was[:12]} in the "
        f"report, {digest_of(old)[:12]} found), as after tuning in the same folder: the history starts again with this "
        "merge."
    ]
    assert report.drift is not None
    assert report.drift.from_first == report.drift.from_first_at_most == report.drift.relative


def as_json(**changes: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda report: json.dumps(report | changes).encode()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda report: b"", "hpa_report.json is not a report of hpa-merge (Expecting value"),
        (lambda report: b"[" * 100_000, "hpa_report.json is not a report of hpa-merge"),
        (as_json(schema_version=99), "hpa_report.json has schema_version 99 and this version reads 1 and 2"),
        (as_json(linears=3), "hpa_report.json is not a report of hpa-merge (linears cannot be 3)"),
        (as_json(evaluation={"asr": float("nan")}), "hpa_report.json is not a report of hpa-merge (NaN is no finite"),
        (
            lambda report: as_json(evaluation={"asr": 7})(report).replace(b" 7}", b" 1e999}"),
            "1e999 is not a finite number",
        ),
        (as_json(evaluation={"name": "\ud800"}), "half a pair of surrogates"),
    ],
)
def test_a_broken_report_in_old_stops_nothing(
    damage: Callable[[dict[str, Any]], bytes], reason: str, merged: tuple[TinyCase, Path, Path], tmp_path: Path
) -> None:
    case, old, new = merged
    path = old / REPORT
    path.write_bytes(damage(json.loads(path.read_bytes())))
    report = run(case, old, new, tmp_path / "out")
    assert report.history == ()
    (note,) = report.warnings
    assert note.startswith(f"OLD {old} has a report that cannot be used (")
    assert reason in note
    assert note.endswith("): the history starts again with this merge.")
    assert read_report(tmp_path / "out").to_json() == report.to_json()


def test_a_folder_in_the_place_of_the_report(merged: tuple[TinyCase, Path, Path], tmp_path: Path) -> None:
    case, old, new = merged
    (old / REPORT).unlink()
    (old / REPORT).mkdir()
    report = run(case, old, new, tmp_path / "out")
    assert "cannot be read (Is a directory)" in report.warnings[0]


def test_a_report_from_before_there_were_digests(merged: tuple[TinyCase, Path, Path], tmp_path: Path) -> None:
    case, old, new = merged
    report = json.loads((old / REPORT).read_bytes())
    del report["run"]["contents"]
    (old / REPORT).write_text(json.dumps(report))
    again = run(case, old, new, tmp_path / "out")
    assert again.history == ()
    assert again.warnings == [
        f"OLD {old} has a hpa_report.json that does not say which weights it describes: the history starts again with "
        "this merge."
    ]


def test_the_report_of_new_plays_no_role(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("gpt2")
    chain(case, tmp_path, [{}])
    new = tuned(tmp_path / "out1", tmp_path / "new", seed=1)
    assert (new / REPORT).is_file()
    report = run(case, case.old, new, tmp_path / "out")
    assert report.history == ()
    assert report.warnings == []


def test_a_copy_elsewhere_is_the_same_model(merged: tuple[TinyCase, Path, Path], tmp_path: Path) -> None:
    """Times of files and names of shards play no part."""
    case, old, new = merged
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for path in old.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    reshard(copy, 1)
    report = run(case, copy, new, tmp_path / "out")
    assert report.run.contents["old"] == digest_of(old)
    assert len(report.history) == 2


# --- the first model ---


def refused(*arguments: Any, **options: Any) -> str:
    *_, out = arguments
    there = sorted(out.parent.iterdir())
    with pytest.raises(CheckpointError) as caught:
        run(*arguments, **options)
    assert sorted(out.parent.iterdir()) == there
    return str(caught.value)


def test_first_is_another_model(merged: tuple[TinyCase, Path, Path], tmp_path: Path) -> None:
    case, old, new = merged
    out = tmp_path / "out"
    wanted, found = (digest_of(folder)[:12] for folder in (case.old, case.new))
    assert refused(case, old, new, out, first=case.new) == (
        f"FIRST {case.new} is not the model that this history began with: round 1 had {case.old} as OLD, with the "
        f"content digest {wanted}, and this one has {found}: give that model, or leave out --first."
    )
    assert refused(case, case.old, new, out, first=case.new) == (
        f"FIRST {case.new} is not OLD, and no history names it as the first model (OLD is no OUT of hpa-merge, so "
        "this merge is the first round and OLD the first model): leave out --first."
    )
    assert refused(case, old, new, out, first=tmp_path / "nowhere").startswith(f"FIRST {tmp_path / 'nowhere'} does not")
    (old / REPORT).write_text("{}")
    assert "(OLD " in refused(case, old, new, out, first=case.old)


def test_first_in_the_first_round(tiny: Tiny, tmp_path: Path) -> None:
    """OLD is the first model, so that there is nothing to compare."""
    case = tiny("gpt2")
    a = run(case, case.old, case.new, tmp_path / "a")
    b = run(case, case.old, case.new, tmp_path / "b", first=case.old)
    assert a.drift == b.drift
    assert a.drift is not None
    assert a.drift.from_first == a.drift.relative


def test_first_is_never_written_to(merged: tuple[TinyCase, Path, Path], tmp_path: Path) -> None:
    case, old, new = merged
    first = tmp_path / "first"
    shutil.copytree(case.old, first)
    with pytest.raises(OutputError, match="overlaps the input"):
        run(case, old, new, first / "out", first=first)


def test_a_first_model_that_is_damaged_loses_nothing(merged: tuple[TinyCase, Path, Path], tmp_path: Path) -> None:
    """Both ends of its tensors are as they were, and something between is not finite: what is merged can be kept."""
    case, old, new = merged
    first, out = tmp_path / "first", tmp_path / "out"
    shutil.copytree(case.old, first)
    with Checkpoint.open(first, "FIRST") as checkpoint:
        info = checkpoint.tensors["transformer.h.0.mlp.c_fc.weight"]
    with (first / info.shard).open("r+b") as file:
        file.seek((info.start + info.stop) // 2)
        file.write(b"\xff\xff\xff\x7f")
    with pytest.raises(CheckpointError, match=r"FIRST's tensor transformer.h.0.mlp.c_fc.weight holds NaN or infinity"):
        run(case, old, new, out, first=first)
    report = run(case, old, new, out, resume=True)
    assert report.drift is not None
    assert report.drift.from_first is None
    assert len(report.history) == 2


def test_a_round_is_read_from_json_as_it_was_written(merged: tuple[TinyCase, Path, Path], tmp_path: Path) -> None:
    case, old, new = merged
    report = run(case, old, new, tmp_path / "out")
    found = read_report(tmp_path / "out")
    assert found.to_json() == report.to_json()
    assert found.history == report.history
    assert all(isinstance(record, RoundRecord) for record in found.history)
