"""``--track``: a merge in a tracker too; what is impossible is refused before the work, what fails later is told."""

import sys
from collections.abc import Callable

import pytest
from cases import Call, assert_refused, status
from evaluation_cases import status as command
from fake_trackers import Trackers, install

from hpa_merge.report.schema import read_report


@pytest.fixture
def trackers(monkeypatch: pytest.MonkeyPatch) -> Trackers:
    return install(monkeypatch)


def test_a_merge_is_a_run(
    make_call: Callable[..., Call], trackers: Trackers, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its options, its figures and its files; a dry run is none, and ``report`` writes it once more."""
    call = make_call("gpt2")
    call.options = ("--track", "mlflow:lab", "--no-page")
    dry = Call(**{**vars(call), "options": (*call.options, "--dry-run")})
    assert status(dry) == 0
    assert trackers.runs == []
    capsys.readouterr()
    assert status(call) == 0
    assert "\nmlflow has it as run out of experiment lab.\n" in capsys.readouterr().out
    (run,) = trackers.runs
    report = read_report(call.out)
    assert (run.name, run.place, run.status) == ("out", "lab", "FINISHED")
    assert run.values["merge/linears_adapted"] == [(0, report.count("adapted"))]
    assert run.files.keys() == {"hpa_report.json"}
    assert str(call.folder) not in run.text

    trackers.broken = ConnectionError("http://me:password@tracker/api\ndoes not answer")
    assert command("report", call.out, "--track", "trackio") == 0
    printed = capsys.readouterr()
    assert printed.err == (
        "Warning: the result was not written to trackio (http://tracker/api does not answer); it is complete without.\n"
    )
    trackers.broken = None
    assert command("report", call.out, "--track", "trackio", "-q") == 0
    assert trackers.runs[-1].files.keys() == {"hpa_report.json", "hpa_report.html"}
    assert capsys.readouterr() == ("", "")


def test_refused_before_the_work(
    make_call: Callable[..., Call],
    trackers: Trackers,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call = make_call("gpt2")
    call.options = ("--track", "mlflow")
    monkeypatch.setattr("hpa_merge.engine.run.merge_all", None)  # nothing is merged
    trackers.unreachable = ConnectionError("connection refused")
    assert_refused(call, capsys, "mlflow cannot be written to (connection refused): check MLFLOW_TRACKING_URI, or")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert_refused(call, capsys, "pip install '.[mlflow]' in hpa-merge's checkout.")
    call.options = ("--track", "wandb")
    assert_refused(call, capsys, "the tracker 'wandb' is not known: give mlflow or trackio, such as mlflow:EXPERIMENT.")


def test_only_the_first_of_several_processes_tracks(trackers: Trackers, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpa_merge.cli.tracking import tracker_of

    for name, value in {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "x",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    assert tracker_of("mlflow") is None
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert tracker_of("mlflow") is not None
