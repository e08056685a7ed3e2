"""Rounds of tuning and merging: what a report says of those before it, and how far the weights have moved."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adapters import lora, make_adapter
from cases import REPORT, TinyCase, content
from chains import chain, distance, perturb, run, tuned
from changed_checkpoints import reshard
from interruptions import interrupt
from tiny_original_llava import make_original

from hpa_merge import HPAConfig, MergeReport, sweep
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.errors import CheckpointError, OutputError
from hpa_merge.report.records import RoundRecord
from hpa_merge.report.schema import read_report

pytestmark = pytest.mark.gate

Tiny = Callable[..., TinyCase]


def names_of(report: MergeReport) -> list[str]:
    return [record.name for record in report.linears]


def digest_of(folder: Path) -> str:
    with Checkpoint.open(folder, "OUT") as checkpoint:
        return checkpoint.content_digest()


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
        (
            as_json(evaluation={"asr": float("nan")}),
            "hpa_report.json is not a report of hpa-merge (NaN is not a finite number)",
        ),
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
        f"FIRST {case.new} is not OLD, and no history names it as the first model (OLD is not an OUT of hpa-merge, so "
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
