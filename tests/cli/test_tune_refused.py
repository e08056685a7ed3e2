"""What ``hpa-merge tune`` refuses before it merges."""

import pytest
from evaluation_cases import jsonl, lines, status
from tunings import ONE, Job

from hpa_merge.render import curve

pytestmark = pytest.mark.gate


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["--max-asr", 5, "--plot", "curve.txt"],
            "--plot curve.txt is not a picture: give a name that ends with .png,",
        ),
        (["--max-asr", 5, "--plot", "gone/curve.png"], "gone does not exist: create it first."),
        (["--max-asr", 5, "--max-over-refusal", 5], "--max-over-refusal needs --benign-test: give it, or leave the"),
        (["--max-asr", 5, "--json", "gone/r.json"], "gone does not exist: create it first."),
        (["--max-asr", 5, "--p-max", 101], "p_max is 101.0: it has to be a percentage between 0 and 100."),
        (
            ["--max-asr", 5, "--methods", "hpa,linear", "--weight", 0.4],
            "weight is given, and a tuning with methods varies it: leave it out, or list settings of linear",
        ),
        (["--max-asr", 5, "--methods", "linear,regmeam"], "methods has 'regmeam', and there is no such method: choose"),
        (["--max-asr", 5, "--judge", "nobody"], "the judge nobody is no checkpoint folder"),
        (["--max-asr", 5, "--benign-test", "b=gone.jsonl"], "the test file gone.jsonl does not exist"),
        (["--max-asr", 5, "--confirm-test", "s=gone.jsonl"], "the test file gone.jsonl does not exist"),
        (
            ["--max-asr", 5, "--confirm-test", "x=task.jsonl"],
            "for x, and the tests are s, t: give the name of one test.",
        ),
        (["--max-asr", 5, "--confirm-test", "t=task.jsonl"], "the confirmation of t is the test file"),
    ],
)
def test_what_is_refused(job: Job, capsys: pytest.CaptureFixture[str], options: list[object], sentence: str) -> None:
    assert job.run(*options) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("Error: ")
    assert sentence in printed
    assert printed.count("\n") == 1
    assert job.left() == []


def test_test_files_are_held_out(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run("--max-asr", 5, "--benign-test", job.case.task) == 2
    assert "is a calibration file too, and says nothing about other samples: give held-out ones." in (
        capsys.readouterr().err
    )
    copied = jsonl(job.folder / "copied.jsonl", *lines(job.case.task))
    assert job.run("--max-asr", 100, "--benign-test", copied, settings=ONE) == 0
    assert capsys.readouterr().err == (
        "Note: 6 of the 6 prompts of copied stand in a calibration file too: a test of held-out samples says more.\n"
    )


def test_a_plot_without_a_library_that_draws(
    job: Job, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curve, "find_spec", lambda name: None if name == "vl_convert" else name)
    assert job.run("--max-asr", 5, "--plot", "curve.png") == 2
    complaint = "--plot needs vl-convert-python: pip install vl-convert-python, or leave it out."
    assert complaint in capsys.readouterr().err


def test_the_required_options(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run() == 2
    assert "Missing option '--max-asr'." in capsys.readouterr().err
    words = ["tune", "old", "new", "--safety-calib", "s", "--task-calib", "t", "-o", "out", "--max-asr", 5]
    assert status(*words) == 2
    assert "Missing option '--safety-test'." in capsys.readouterr().err
