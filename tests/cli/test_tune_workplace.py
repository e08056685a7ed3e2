"""The folder where ``hpa-merge tune`` works: after an interruption or an error, and what others put into it."""

import sys
from typing import Any

import pytest
from tunings import ONE, SETTINGS, Job

from hpa_merge.evaluation import tuning
from hpa_merge.report.evaluation import read_evaluation

pytestmark = pytest.mark.gate


def test_a_tuning_that_is_interrupted_is_resumed(
    job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*words: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "evaluate", interrupted)
        assert job.run("--max-asr", 100) == 130
    assert capsys.readouterr().err.strip() == "Error: interrupted: the same command with --resume continues."
    assert job.left() == ["out.tune"]
    assert job.run("--max-asr", 100) == 2
    assert "out.tune is there from a run that was interrupted: resume it with --resume" in capsys.readouterr().err

    def never(*words: object, **options: object) -> None:
        raise AssertionError("what is complete is not merged again")

    monkeypatch.setattr("hpa_merge.core.select_columns", never)
    assert job.run("--max-asr", 100, "--resume") == 0
    assert job.left() == ["out"]


def test_a_folder_of_that_name_is_not_taken_up(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    """Not without the mark of a tuning, whatever it holds; an empty one is what a kill left."""
    (theirs := job.folder / "out.tune").mkdir()
    (theirs / "thesis.tex").write_text("work")
    assert job.run("--max-asr", 100, "--resume") == 2
    assert "out.tune is not the folder of a tuning that was interrupted: move it away, or choose another OUT." in (
        capsys.readouterr().err
    )
    assert [path.name for path in theirs.iterdir()] == ["thesis.tex"]
    (theirs / "thesis.tex").unlink()
    (theirs / ".answers").symlink_to(job.folder)
    assert job.run("--max-asr", 100, "--resume") == 2
    assert "(.answers is a link or a mount point)" in capsys.readouterr().err
    (theirs / ".answers").unlink()
    assert job.run("--max-asr", 100, "--resume", settings=ONE) == 0
    assert job.left() == ["out"]


def test_what_somebody_puts_into_the_workplace_stays(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tuning.evaluate

    def evaluate(*words: Any, **options: Any) -> Any:
        found = real(*words, **options)
        for name in ("notes.txt", ".answers/notes.txt", ".answers/old/notes.txt", "half/notes.txt"):
            (job.folder / "out.tune" / name).write_text("work")
        return found

    monkeypatch.setattr(tuning, "evaluate", evaluate)
    assert job.run("--max-asr", 100, "--keep-all", "-q") == 0  # all-new becomes OUT
    kept = set((job.folder / "out.tune").rglob("*"))
    assert job.run("--max-asr", 100, "--resume", "--overwrite", "-q") == 0
    left = {path.relative_to(job.folder / "out.tune").as_posix() for path in (job.folder / "out.tune").rglob("*")}
    assert len(left) < len(kept)
    assert {path for path in left if path.endswith(".txt")} == {
        "notes.txt",
        ".answers/notes.txt",
        ".answers/old/notes.txt",
        "half/notes.txt",
    }
    assert not [path for path in left if path.endswith(".jsonl") or path.startswith("all-")]


@pytest.mark.parametrize("out", [".", "..", "here/.."])
def test_an_out_without_a_name(out: str, job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    (job.folder / "here").mkdir()
    assert job.run("--max-asr", 100, "--dry-run", "-o", out, settings=ONE) == 0
    assert job.run("--max-asr", 100, "-o", out, settings=ONE) == 2
    assert "overlaps the input" in capsys.readouterr().err
    assert not list(job.folder.parent.glob("*.tune"))


def test_a_tuning_that_failed_is_no_obstacle(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    """The corrected command takes up what is merged, in a dry run too, and what it does not want is gone."""
    judge = (job.folder / "own_judge.py").read_text()
    (job.folder / "own_judge.py").write_text("def unsafe(prompt, answer): raise ValueError(prompt)\n")
    assert job.run("--max-asr", 100) == 2
    assert "the judge own_judge:unsafe fails on" in capsys.readouterr().err
    assert job.left() == ["out.tune"]
    kept = {name: (job.folder / "out.tune" / name).stat().st_ino for name in ("all-new", "half")}
    (job.folder / "own_judge.py").write_text(judge)
    del sys.modules["own_judge"]
    corrected = "".join(SETTINGS.splitlines(keepends=True)[:2]) + ONE + "\n- {p-max: 7}"
    corrected = corrected.replace("p-max: 100, p-min: 100", "p-max: 90, p-min: 90")  # the same name, another setting
    assert job.run("--max-asr", 100, "--dry-run", settings=corrected) == 0
    assert job.run("--max-asr", 100, "--keep-all", "--json", job.folder / "r.json", "-q", settings=corrected) == 0
    found = read_evaluation(job.folder / "r.json")
    assert [model.name for model in found.choice[2:]] == ["all-old", "all-new", "p_max=7"]
    assert found.run["settings"]["all-old"]["p_max"] == "90"
    assert job.out.stat().st_ino == kept["all-new"]  # not merged again
    assert not (job.folder / "out.tune" / "half").exists()
