"""``hpa-merge report``: a folder's page drawn anew, with an evaluation, elsewhere, and what it refuses."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cases import CARD, REPORT, TinyCase
from harness_files import inspect_ai, inspect_score, lm_eval, share, write
from report_samples import results

from hpa_merge import merge, write_report
from hpa_merge.cli import main
from hpa_merge.errors import OutputError
from hpa_merge.files.disk import UNFINISHED
from hpa_merge.render import redraw
from hpa_merge.render.folder import Drawing
from hpa_merge.report.schema import read_report
from hpa_merge.verification import verify

ROLES = ("OLD", "NEW", "OUT")

PAGE, BARS = "hpa_report.html", "hpa_evaluation.png"

pytestmark = pytest.mark.usefixtures("drawing")


def status(*words: object) -> int | str | None:
    try:
        main([str(word) for word in ("report", *words)])
    except SystemExit as end:
        return end.code
    return 0


@pytest.fixture(scope="module")
def merged(tiny: Callable[..., TinyCase], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OUT without a page; not to be written to."""
    case, out = tiny("llama"), tmp_path_factory.mktemp("merged") / "out"
    merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task, page=False)
    return out


@pytest.fixture
def out(merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(merged, tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "out"


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    (tmp_path / "eval.json").write_text(results("out", folder=str(tmp_path / "." / "out")).to_json())
    return tmp_path / "eval.json"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith((".", "hpa_"))}


def test_the_page_is_drawn_anew(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_report(out)
    assert status("out") == 0
    assert capsys.readouterr().out == f"{Path('out') / PAGE} is drawn.\n"
    after, there = read_report(out), names(out)
    assert after.manifest.keys() - before.manifest.keys() == there - {REPORT}  # what is drawn is named from now on
    run = replace(after.run, drawn_with=before.run.drawn_with, out=before.run.out)  # what draws is named too
    assert replace(after, manifest=before.manifest, run=run) == before
    assert {PAGE, "hpa_columns.png", "hpa_saliency.png"} < there
    assert BARS not in there
    page = (out / PAGE).read_bytes()
    assert status("out", "-q") == 0
    assert (out / PAGE).read_bytes() == page
    assert names(out) == there
    assert not verify(out).problems
    assert capsys.readouterr().out == ""


@pytest.mark.gate
def test_an_evaluation_becomes_part_of_the_report(out: Path, evaluation: Path) -> None:
    assert status(out, "--evaluation", evaluation) == 0
    report = read_report(out)
    assert report.evaluation == {**json.loads(evaluation.read_text()), "out": "out"}
    assert BARS in names(out)
    assert "2.0 % of them succeed (0.0 % with old, 78.0 % with new)" in (out / PAGE).read_text()
    assert status(out) == 0  # it stays
    assert read_report(out) == report
    assert not verify(out).problems


@pytest.mark.gate
def test_a_picture_that_is_no_longer_drawn_goes_away(out: Path, evaluation: Path) -> None:
    without = (out / REPORT).read_bytes()
    assert status(out, "--evaluation", evaluation) == 0
    (out / REPORT).write_bytes(without)
    assert status(out) == 0
    assert BARS not in names(out)


def test_elsewhere(out: Path, evaluation: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    report = write_report(out, evaluation=evaluation, to=tmp_path / "pages")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    written = {path.name for path in (tmp_path / "pages").iterdir()}
    assert names(tmp_path / "pages") | {CARD} == written > {PAGE, BARS, REPORT}
    assert f"]({BARS})" in (tmp_path / "pages" / CARD).read_text(encoding="utf-8")
    assert (tmp_path / "pages" / REPORT).read_text() == report.to_json()


def test_the_model_by_its_name(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "e.json").write_text(results("served", folder="llama-8b").to_json())
    assert status(out, "--evaluation", "e.json") == 2
    complaint = f"none of them is {out}: evaluate that folder, or name its model with --name."
    assert complaint in capsys.readouterr().err
    assert PAGE not in names(out)
    assert status(out, "--evaluation", "e.json", "--name", "servde") == 2
    assert "e.json has no model servde: give one of old, new, served as --name." in capsys.readouterr().err
    assert status(out, "--evaluation", "e.json", "--name", "served") == 0
    assert read_report(out).evaluation["out"] == "served"  # type: ignore[index]


def test_results_of_other_harnesses(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Together with those of ``hpa-merge eval``, as a shell's pattern gives them; what was measured stays with both."""
    run = read_report(out).run
    for name, model, successes in (("1", run.old, 2), ("2", run.new, 90), ("3", out, 4)):
        write(
            tmp_path / f"results_{name}.json", lm_eval(f"pretrained={model}", {"attacks": share(successes, 200, "asr")})
        )
    scores = [inspect_score("refused", mean=0.5, stderr=0.1)]
    write(tmp_path / "log.json", inspect_ai("served/model", scores))
    words = ("results_1.json", "results_2.json", "results_3.json", "out=log.json")
    assert status("out", "--evaluation", *words, "--safety-metric", "attacks/asr=less") == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        *(
            f"{role}: results_{name}.json, by lm-evaluation-harness 0.4.13"
            for name, role in zip("123", ROLES, strict=True)
        ),
        "OUT: log.json, by inspect-ai 0.3.285",
        "Is out safe again? Yes, by attacks/asr of lm-evaluation-harness, 200 samples, less is better: 0.020 (0.450 "
        "with NEW, 0.010 with OLD).",
        f"{Path('out') / PAGE} is drawn.",
    ]
    report = read_report(out)
    assert report.benchmarks is not None
    assert [row.name for row in report.benchmarks.rows] == ["attacks/asr", "inspect_evals/refusals/refused/mean"]
    assert report.evaluation is None
    for file in (out / PAGE, out / CARD):
        assert "0.020 (0.008–0.050)" in file.read_text(encoding="utf-8")
    assert not verify(out).problems
    assert status("out", "--safety-metric", "attacks/none") == 2
    assert "Error: --safety-metric attacks/none is not among the metrics of the files" in capsys.readouterr().err
    assert status("out", "results_1.json") == 2
    assert "Error: results_1.json is one argument too many" in capsys.readouterr().err
    assert status("out", "--evaluation", "old=results_9.json") == 2
    assert "Error: results_9.json cannot be read (No such file or directory)" in capsys.readouterr().err
    assert read_report(out) == report


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["gone"], "OUT gone has no hpa_report.json: give a folder that hpa-merge has made."),
        (["out", "--name", "x"], "the name x needs an evaluation: give --evaluation too, or leave --name out."),
        (["out", "--evaluation", "gone.json"], "gone.json cannot be read (No such file or directory): check the path."),
        (["out", "--evaluation", "out/config.json"], "out/config.json holds no results of an evaluation"),
        (["out", "--to", "no/where"], "the folder no/where cannot be made (No such file or directory)"),
        (["out", "--to", "file"], "the folder file cannot be made (File exists)"),
    ],
)
def test_refusals(words: list[str], complaint: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (out.parent / "file").write_text("")
    there = names(out)
    assert status(*words) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"Error: {complaint}")
    assert printed.count("\n") == 1
    assert names(out) == there


@pytest.mark.usefixtures("without_pictures")
def test_without_the_libraries(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(out) == 2
    printed = capsys.readouterr().err
    assert "the report cannot be drawn (ModuleNotFoundError: no vl_convert): " in printed
    assert "pip install --force-reinstall vl-convert-python" in printed
    assert PAGE not in names(out)


@pytest.mark.gate
def test_a_file_that_cannot_be_replaced_stays(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\)"):
        write_report(out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("file", [0, 1, 2, 3])
def test_killed_between_two_files(file: int, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report names what is drawn when all of it is there; until then ``verify`` says how it gets there."""

    def drawn(text: bytes, *names: str) -> None:
        monkeypatch.setattr(redraw.folder, "draw", lambda report: Drawing(dict.fromkeys(names, text), {}))

    drawn(b"first", PAGE, "hpa_kappa.png")
    write_report(out)
    drawn(b"second", PAGE, BARS)
    real, left = redraw.write_whole, [file]

    def write_whole(path: Path, content: bytes) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(redraw, "write_whole", write_whole)
        with pytest.raises(KeyboardInterrupt):
            write_report(out)
    problems = verify(out).problems
    assert [sentence.split()[0] for sentence in problems] == [PAGE, BARS][:file]
    assert all(sentence.endswith(": draw it again with hpa-merge report.") for sentence in problems)
    write_report(out)
    assert verify(out).problems == ()
    assert {PAGE, BARS, REPORT} == names(out)


def test_a_file_that_another_process_is_writing_stays(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redraw.folder, "draw", lambda report: Drawing({PAGE: b"page"}, {}))
    write_report(out, to=out.parent / "pages")
    (theirs := out.parent / "pages" / f"{UNFINISHED}0123").write_text("theirs")
    write_report(out, to=theirs.parent)
    assert theirs.read_text() == "theirs"


@pytest.mark.parametrize("kind", ["checkpoint", "another merge", "README.md", "pictures", "forged", "link"])
def test_another_folder_is_not_written_to(kind: str, out: Path, tmp_path: Path) -> None:
    """What is not of this merge stays, whatever it is called."""
    place = tmp_path / "place"
    place.mkdir()
    if kind == "checkpoint":
        shutil.copytree(out, place, dirs_exist_ok=True)
    elif kind == "another merge":
        content = json.loads((out / REPORT).read_text())
        content["run"] |= {"fingerprint": "", "contents": {"out": "0" * 64}}
        (place / REPORT).write_text(json.dumps(content))
    elif kind == "forged":
        (place / REPORT).write_text("{}")
    elif kind == "link":
        (place / REPORT).symlink_to(out / REPORT)
    else:
        (place / kind.replace("pictures", "hpa_kappa.png")).write_text("work")
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    with pytest.raises(OutputError, match=r"give (another|a new) folder as --to"):
        write_report(out, to=place)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


def test_a_report_of_the_same_merge_is_drawn_again_elsewhere(out: Path, tmp_path: Path, evaluation: Path) -> None:
    (tmp_path / "pages").mkdir()
    write_report(out, to=tmp_path / "pages")
    report = write_report(out, evaluation=evaluation, to=tmp_path / "pages")
    assert read_report(tmp_path / "pages") == report
    write_report(out, to=out)
