"""``hpa-merge inspect``: what it prints, and what it refuses."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from cases import REPORT, TinyCase
from chains import perturb, run
from inspecting import command, csv_of
from safetensors import safe_open
from safetensors.torch import save_file

import hpa_merge
from hpa_merge.cli import main
from hpa_merge.cli.tables.layers import heat_map
from hpa_merge.errors import CheckpointError, StatisticsError
from hpa_merge.report.rows import ranges
from hpa_merge.report.schema import read_report

pytestmark = pytest.mark.usefixtures("eighty_columns")


Tiny = Callable[..., TinyCase]


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert command(*words) == 0
    found = capsys.readouterr()
    assert found.err == ""
    assert "…" not in found.out
    assert max(map(len, found.out.splitlines())) <= 80
    return found.out


def words_of(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


# --- in the terminal ---


def test_one_report_is_shown_as_after_its_merge(outs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, outs / "out2")
    assert found.startswith("LlavaForConditionalGeneration: restored columns")
    assert "round 2 of this model, drift " in " ".join(found.split())
    assert "from the first model" in " ".join(found.split())
    drift = read_report(outs / "out2").drift
    assert drift is not None
    assert f"≤ {100 * drift.from_first_at_most:.2f} % from the first model" in " ".join(found.split())
    assert "round 1" not in printed(capsys, outs / "out1")


def test_without_the_weights_and_by_the_file(outs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(outs / "out2" / REPORT, tmp_path / REPORT)
    whole, alone = ("".join(printed(capsys, folder).split()) for folder in (outs / "out2", tmp_path))
    assert whole.replace(str(outs / "out2"), "") == alone.replace(str(tmp_path), "")
    assert printed(capsys, tmp_path / REPORT, "--by", "depth") == printed(capsys, tmp_path, "--by", "depth")


def test_the_notes_of_a_report_are_shown(outs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = read_report(outs / "out1")
    report = replace(report, run=replace(report.run, notes=("beware\x1b[2Jof this.",)))
    (tmp_path / REPORT).write_text(report.to_json(), encoding="utf-8")
    assert "Note: beware\\x1b[2Jof this." in printed(capsys, tmp_path)


def test_several_side_by_side(outs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = words_of(printed(capsys, outs / "out1", outs / "out2", outs / "out3"))
    reports = [read_report(outs / name) for name in ("out1", "out2", "out3")]
    for number, report in enumerate(reports, start=1):
        (row,) = [row for row in rows if row[:2] == [str(number), f"out{number}"]]
        assert row[2] == str(report.count("adapted"))
        assert report.drift is not None
    assert ["method", "hpa", "hpa", "linear"] in rows
    assert ["p_max", "15", "20", "15"] in rows
    assert ["NEW", "new", "new2", "new3"] in rows
    assert ["round", "1", "2", "3"] in rows
    assert not any(row[:1] == ["alpha_min"] for row in rows)
    depth = [
        r for r in reports[0].linears if r.stack.endswith("language_model.layers") and r.block == 0 and r.n_restored
    ]
    share = 100 * sum(r.n_restored or 0 for r in depth) / sum(r.columns for r in depth)
    (row,) = [row for row in rows if row[:2] == ["language_model", "0/3"]]
    assert row[2] == f"{share:.1f}"
    assert row[4] == "·"  # interpolation restores no columns


def test_equal_reports_side_by_side(outs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "What differs" not in printed(capsys, outs / "out2", outs / "again")


def test_by_depth_and_by_projection(outs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = read_report(outs / "out1")
    rows = words_of(printed(capsys, outs / "out1", "--by", "projection"))
    for name in ("q_proj", "down_proj", "fc1"):
        of = [r for r in report.linears if r.name.endswith(f"{name}.weight") and r.outcome == "adapted"]
        (row,) = [row for row in rows if row[:1] == [name]]
        share = sum(r.n_restored or 0 for r in of) / sum(r.columns for r in of)
        assert row[1:3] == [str(len(of)), f"{share:.1%}"]
    rows = words_of(printed(capsys, outs / "out1", "--by", "depth", "--layer", "q_proj"))
    assert [row[:3] for row in rows if "0/3" in row] == [
        ["vision_tower", "0/3", "1"],
        ["language_model", "0/3", "1"],
    ]


def test_single_linears(outs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = read_report(outs / "out1")
    pattern = r"language_model.*layers\.0\.mlp\.up_proj"
    (record,) = [r for r in report.linears if "language_model" in r.name and r.name.endswith("0.mlp.up_proj.weight")]
    rows = words_of(printed(capsys, outs / "out1", "--layer", pattern))
    assert rows[0] == [record.name]
    assert ["alpha", f"{record.alpha:.6g}"] in rows
    assert ["distance", f"{record.distance:.6g}"] in rows
    assert ["restored", "columns", ranges(record.restored_columns)] in rows
    many = printed(capsys, outs / "out1", "--layer", "language_model")
    assert "narrow --layer" in " ".join(many.split())
    assert "unchanged" in many
    assert printed(capsys, outs / "out1", "--by", "linear", "--layer", "language_model") == many


def test_the_map_of_the_scores(outs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = read_report(outs / "out1")
    cells = "-8,-9,4,0 -7,-9,8,4 -6,-8,2,2 -6,-10,1,0"
    linears = tuple(replace(record, saliency=cells) for record in report.linears if "up_proj" in record.name)
    (tmp_path / REPORT).write_text(replace(report, linears=linears[:1]).to_json(), encoding="utf-8")
    found = printed(capsys, tmp_path, "--layer", "up_proj")
    assert heat_map(cells) in "\n".join(line.rstrip() for line in found.splitlines())
    assert heat_map(cells).splitlines() == [
        "  log10 ε̄",
        "     -1.5 · █",
        "    -1.75  ▄",
        "       -2  ·",
        "          log10 ζ̄ -2.5 to -1.75",
    ]
    assert heat_map("") == heat_map("1,2,3") == heat_map("a,b,c,d") == ""
    wide = heat_map("-4000,-9,4,0 8,300,8,8")
    assert max(map(len, wide.splitlines())) <= 60
    assert len(wide.splitlines()) <= 22


def test_the_rounds(outs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, outs / "out1", "--history")
    assert next(row for row in words_of(found) if row[:1] == ["1"])[-2:] == ["2.0", "98.0"]
    rows = words_of(printed(capsys, outs / "out3", "--history"))
    report = read_report(outs / "out3")
    drifts = [*(record.drift for record in report.history), report.drift]
    for number, drift in enumerate(drifts, start=1):
        (row,) = [row for row in rows if row[:1] == [str(number)]]
        assert drift is not None
        assert f"{100 * drift.distance / drift.norm:.2f}" in row
        assert ("≤" in row) == (number > 1)
    text = " ".join(word for row in rows for word in row)
    assert "round 2 hpa" in text
    assert "hpa, p_max 20 OLD" in text
    assert text.count("linear") >= 1


def test_a_statistics_file(outs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, outs / "stats", "--layer", "lm_head")
    with safe_open(outs / "stats", "pt") as file:
        vectors = {key: file.get_tensor(key).tolist() for key in file.keys() if "lm_head" in key}  # noqa: SIM118
    assert len(vectors) == 2
    for key, values in vectors.items():
        figures = [f"{of(values):.2e}" for of in (min, median, max)]
        assert any(row[-3:] == figures and key.partition(":")[0] in row for row in words_of(found))
    report = read_report(outs / "out2")
    assert report.safety is not None
    assert f"{report.safety.tokens} tokens; 1 of 1 linear reached" in found


# --- refusals ---


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert command(*words) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith("Error: ")
    assert found.err.count("\n") == 1
    return found.err.removeprefix("Error: ").rstrip("\n")


def test_what_is_not_there(outs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, tmp_path / "nowhere") == (
        f"{tmp_path / 'nowhere'} does not exist: give a merged folder, its {REPORT}, or a statistics file."
    )
    assert refused(capsys, tmp_path) == f"OUT {tmp_path} has no {REPORT}: give a folder that hpa-merge has made."
    (tmp_path / "other.json").write_text('{"a": 1}')
    assert "other.json is not a report of hpa-merge (it has no schema_version)" in refused(
        capsys, tmp_path / "other.json"
    )
    assert refused(capsys, outs / "out1", "--layer", "[") == (
        "layer is not a regular expression: '[' (unterminated character set at position 0)."
    )
    assert refused(capsys, outs / "out1", "--layer", "nothing").startswith(
        "no linear has 'nothing' in its name: names are like "
    )
    assert refused(capsys, outs / "out1", outs / "stats") == (
        "reports and statistics files are given together: inspect one kind at a time."
    )
    assert refused(capsys, outs / "stats", "--history").startswith("a statistics file has neither depths nor a history")


def test_what_is_no_statistics_file(outs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    save_file({"a": torch.ones(3)}, tmp_path / "weights.safetensors")
    assert refused(capsys, tmp_path / "weights.safetensors") == (
        f"{tmp_path / 'weights.safetensors'} is not a whole statistics file of hpa-merge (its metadata have no "
        "'hpa-merge statistics'): give the file that a merge wrote with --stats."
    )
    (tmp_path / "cut").write_bytes((outs / "stats").read_bytes()[:-100])
    with pytest.raises((StatisticsError, CheckpointError)):
        hpa_merge.inspect(tmp_path / "cut")


def test_words_that_contradict_one_another(outs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, sentence in (
        (["--csv", "--json"], "Give '--csv' or '--json', not both."),
        (["-o", "file"], "'--output' needs '--csv' or '--json'."),
        (["--history", "--layer", "q"], "'--history' shows whole rounds: leave out '--layer', '--by' and '--csv'."),
        (["--by", "colour"], "'colour' is not one of 'depth', 'projection', 'linear'."),
    ):
        assert command(outs / "out1", *words) == 2
        assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_nothing_is_written_over(outs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = outs / "out1" / REPORT
    before = there.read_bytes()
    assert "never written to" in refused(capsys, outs / "out1", "--json", "-o", there)
    assert "would replace" in refused(capsys, there, "--json", "-o", there)
    assert there.read_bytes() == before


def test_first_on_the_command_line(tiny: Tiny, outs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = tiny("llava")
    words = [outs / "out1", outs / "new2", "--safety-calib", case.safety, "--task-calib", case.task]
    assert command_of_merge(*words, "-o", tmp_path / "out", "--first", case.old) == 0
    exact = read_report(tmp_path / "out").drift
    assert exact is not None
    assert exact.from_first is not None
    assert f"{100 * exact.from_first:.2f} % from the first model" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "options.yaml").write_text(f"first: {case.new}\n")
    assert command_of_merge(*words, "-o", tmp_path / "b", "--config", tmp_path / "options.yaml") == 2
    assert capsys.readouterr().err.startswith(f"Error: FIRST {case.new} is not the model that this history began with")
    assert not (tmp_path / "b").exists()


def test_a_dry_run_says_which_round_it_would_be(
    tiny: Tiny, outs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = tiny("llava")
    words = ["--safety-calib", case.safety, "--task-calib", case.task, "-o", tmp_path / "out", "--dry-run"]
    words += ["--stats", tmp_path / "stats"]
    assert command_of_merge(outs / "out1", outs / "new2", *words) == 0
    found = " ".join(capsys.readouterr().out.split())
    assert "This would be round 2 of this model." in found
    shutil.copytree(outs / "out1", tmp_path / "other")
    perturb(tmp_path / "other", seed=1)
    assert command_of_merge(tmp_path / "other", outs / "new2", *words) == 0
    found = " ".join(capsys.readouterr().out.split())
    assert "the history starts again with this merge." in found
    assert "Both halves have to be computed" in found
    assert command_of_merge(case.old, case.new, *words) == 0
    assert "history" not in capsys.readouterr().out


def command_of_merge(*words: object) -> int | str | None:
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        return end.code
    return 0


def test_every_method_can_be_looked_at(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = tiny("gpt2")
    methods = ("safe-delta", "model-tailor", "random")
    for method in methods:
        run(case, case.old, case.new, tmp_path / method, method=method)
        for by in ("depth", "projection", "linear"):
            printed(capsys, tmp_path / method, "--by", by)
            csv_of(capsys, tmp_path / method, "--by", by)
        printed(capsys, tmp_path / method, "--layer", "h.0.mlp")
    printed(capsys, *(tmp_path / method for method in methods))
