"""What a tracker gets: figures with the ends of their intervals, nothing local or secret; and what it may refuse."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fake_trackers import Trackers, install
from report_samples import HOSTILE, evaluated, evaluation, hostile, mixture, report_of, results

from hpa_merge.errors import ConfigError
from hpa_merge.report.benchmarks import Benchmark, Benchmarks, Score, Source
from hpa_merge.report.evaluation import Bounds, Figure, ModelResult
from hpa_merge.tracking import to_mlflow, to_trackio
from hpa_merge.tracking.content import Tracked, of_evaluation, of_report, of_reports, of_tuning
from hpa_merge.tracking.tracker import open_tracker

SECRET = "somebody"
"""A part of every local path of :func:`report_of`."""


@pytest.fixture
def trackers(monkeypatch: pytest.MonkeyPatch) -> Trackers:
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    return install(monkeypatch)


def measured() -> Any:
    """A report with local paths, an evaluation and results of another harness."""
    score = Score(0.5, 40, 0.35, 0.65, "Wilson")
    row = Benchmark("inspect-ai", "x/y", "judge/mean", "2 epochs", old=score, out=replace(score, low=None, high=None))
    sources = (Source("out", f"/home/{SECRET}/logs/x.eval", "inspect-ai", "", f"/home/{SECRET}/repaired"),)
    parts = replace(row, group="all", task="part")
    made = report_of(evaluation=evaluated(options={"endpoint": f"http://{SECRET}:8000"}) | {"out": "repaired"})
    return replace(made, benchmarks=Benchmarks((row, parts), sources, (f"/home/{SECRET}/x was left out.",)))


def test_a_merge() -> None:
    run = of_report(measured())
    assert run.name == "repaired"
    given = [run.parameters[name] for name in ("p_max", "old", "safety_calib")]
    assert given == ["15", "aligned", "safety.jsonl"]
    assert "patch_share" not in run.parameters  # the method does not use it
    assert run.metrics["merge/energy_restored"] == 0.25
    assert run.metrics["verdict/task codes/out"] == 88.0
    harness = "inspect-ai/x/y/judge/mean/2 epochs/"
    assert [run.metrics[f"{harness}old{end}"] for end in ("", " low", " high")] == [0.5, 0.35, 0.65]
    assert f"{harness}out low" not in run.metrics
    assert not [name for name in run.metrics if "part" in name]
    assert run.tags["gate"] == "NOT MEASURED"
    assert run.files.keys() == {"hpa_report.json", "hpa_report.html"}
    assert of_report(measured(), page=False).files.keys() == {"hpa_report.json"}
    assert SECRET not in f"{run}"
    attacks = of_report(report_of(evaluation=evaluation()), page=False).metrics
    for role, ends in {"old": (0.0, 0.0, 5.0), "new": (78.0, 73.0, 83.0), "out": (2.0, 0.0, 7.0)}.items():
        name = f"verdict/attacks that succeed/{role}"
        assert (attacks[name], attacks[f"{name} low"], attacks[f"{name} high"]) == ends


def test_figures_by_depth() -> None:
    run = of_report(mixture(blocks=3, experts=2), page=False)
    assert [step for step, _ in run.series["depth/model.layers/kappa"]] == [0, 1, 2]
    assert run.series["depth/model.layers/alpha"] == [(0, 0.5), (1, pytest.approx(0.501)), (2, pytest.approx(0.502))]
    assert run.metrics["merge/kappa"] == pytest.approx(0.01)


def tuned() -> Any:
    """An evaluation as ``tune`` makes it."""
    figure = Figure(2.0, 0.5, 7.0, 32, "score")
    models = [
        ModelResult(name, f"/home/{SECRET}/{name}", {"a": figure}, {"t": figure}, {}, {}, figure, figure)
        for name in ("old", "new", "weak", "strong")
    ]
    settings = {name: {"p_max": value} for name, value in (("weak", "5"), ("strong", "30"))}
    return replace(
        results(),
        models=tuple(each for each in models if each.name != "weak"),
        choice=tuple(models),
        run={"chosen": "strong", "settings": settings},
        bounds=Bounds(max_asr=5.0),
    )


def test_a_tuning() -> None:
    """The settings are children, with their options; the chosen merge is the parent's."""
    run = of_tuning(tuned(), report_of(), f"/home/{SECRET}/OUT")
    assert (run.name, run.parameters["chosen"], run.parameters["max_asr"], run.tags["gate"]) == (
        *("tune OUT", "strong", "5", "PASS"),
    )
    assert run.parameters["p_max"] == "15"
    assert [child.name for child in run.children] == ["old", "new", "weak", "strong"]
    assert [child.parameters.get("p_max") for child in run.children] == [None, None, "5", "30"]
    assert {name: value for name, value in run.children[3].metrics.items() if name.startswith("attacks/a")} == {
        **{"attacks/a": 2.0, "attacks/a low": 0.5, "attacks/a high": 7.0}
    }
    assert run.files.keys() == {"hpa_report.json", "hpa_report.html", "hpa_evaluation.json"}
    assert of_tuning(tuned(), None, "OUT").files.keys() == {"hpa_evaluation.json"}
    assert SECRET not in f"{run}"


def test_an_evaluation_and_a_sweep() -> None:
    run = of_evaluation(replace(results(folder=f"/home/{SECRET}/out"), failures=(f"/home/{SECRET}/out is bad.",)))
    assert [child.name for child in run.children] == ["old", "new", "out"]
    assert run.parameters["judge"] == "phrases"
    assert run.tags["failure 1"] == "out is bad."
    assert SECRET not in f"{run}"
    sweep = of_reports({"a": report_of(), "b": report_of()}, f"/home/{SECRET}/runs", page=False)
    assert (sweep.name, [child.name for child in sweep.children]) == ("runs", ["a", "b"])


RUNS: dict[str, Callable[[], Tracked]] = {
    "a merge": lambda: of_report(measured()),
    "a mixture": lambda: of_report(mixture(blocks=30, experts=1), page=False),
    "a tuning": lambda: of_tuning(tuned(), report_of(), "OUT"),
    "other people's names": lambda: of_report(hostile()),
    "names that are alike": lambda: Tracked("x", {"a?": "1", "a!": "2"}, {"../a//b": 1.0, "a/b": 2.0, "": 3.0}),
}


@pytest.mark.parametrize("kind", ["mlflow", "trackio"])
@pytest.mark.parametrize("name", RUNS)
def test_every_value_arrives(kind: str, name: str, trackers: Trackers, capsys: pytest.CaptureFixture[str]) -> None:
    """Under names that the tracker takes; nothing is printed, and nothing of the environment is left changed."""
    run, before = RUNS[name](), dict(os.environ)
    place = open_tracker(f"{kind}:mine").write(run)
    assert dict(os.environ) == before
    assert capsys.readouterr().out == ""
    assert place.endswith("mine")
    written, *children = trackers.runs
    assert (written.place, written.status) == ("mine", "FINISHED")
    assert len(children) == len(run.children)
    points = sum(len(values) for values in written.values.values())
    assert points == len(run.metrics) + sum(len(values) for values in run.series.values())
    assert len(written.parameters) == len(run.parameters) + (len(run.tags) if kind == "trackio" else 0)
    assert written.files == run.files
    assert {child.parent for child in children} <= ({"0"} if kind == "mlflow" else {run.name})


def test_where_mlflow_has_it(trackers: Trackers, monkeypatch: pytest.MonkeyPatch) -> None:
    open_tracker("mlflow").write(Tracked("x"))
    open_tracker("mlflow").write(Tracked("x"))  # one merge that is made again is another run
    assert [run.place for run in trackers.runs] == ["hpa-merge", "hpa-merge"]
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "ours")
    assert open_tracker("mlflow").name == "ours"
    assert [open_tracker(each).name for each in ("mlflow:mine", "trackio")] == ["mine", "hpa-merge"]
    trackers.experiments["gone"] = type("E", (), {"lifecycle_stage": "deleted"})()
    with pytest.raises(ConfigError, match=r"mlflow cannot be written to \(the experiment gone is deleted: restore it"):
        open_tracker("mlflow:gone")


def test_a_space_that_is_made_is_private(trackers: Trackers, monkeypatch: pytest.MonkeyPatch) -> None:
    open_tracker("trackio").write(Tracked("x"))
    monkeypatch.setenv("TRACKIO_SPACE_ID", "lab/board")
    monkeypatch.setattr("hpa_merge.tracking.to_trackio.get_token", lambda: "a token")
    open_tracker("trackio").write(Tracked("x"))
    assert [options.get("private") for options in trackers.options] == [None, True]
    assert [run.name for run in trackers.runs] == ["x", "x-2"]
    monkeypatch.setattr("hpa_merge.tracking.to_trackio.get_token", lambda: None)
    with pytest.raises(ConfigError, match=r"TRACKIO_SPACE_ID names a Space, and there is no token: run hf auth login"):
        open_tracker("trackio")


@pytest.mark.parametrize("kind", ["mlflow", "trackio"])
def test_refusals(kind: str, trackers: Trackers, monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ("wandb", "", f"{kind.upper()}:x"):
        with pytest.raises(ConfigError, match=r"is not known: give mlflow or trackio, such as mlflow:EXPERIMENT\."):
            open_tracker(given)
    trackers.unreachable = RuntimeError("the client gave up")
    trackers.unreachable.__cause__ = ConnectionError("refused\nby a wall")
    monkeypatch.setenv("TRACKIO_SERVER_URL", "http://127.0.0.1:9/?write_token=t")
    reason = "refused by a wall" if kind == "mlflow" else r"\[Errno 111\] Connection refused"
    with pytest.raises(ConfigError, match=rf"{kind} cannot be written to \({reason}\): check (MLFLOW|TRACKIO)_.*, or"):
        open_tracker(kind)
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(ConfigError, match=rf"{kind} cannot be imported .*: pip install '\.\[{kind}\]' in "):
        open_tracker(kind)


@pytest.mark.parametrize("kind", ["mlflow", "trackio"])
def test_a_run_that_cannot_be_written_whole(kind: str, trackers: Trackers) -> None:
    trackers.broken = ConnectionError("lost")
    with pytest.raises(ConnectionError):
        open_tracker(kind).write(of_report(report_of(), page=False))
    assert [run.status for run in trackers.runs] == ["FAILED" if kind == "mlflow" else "FINISHED"]


def test_other_peoples_names_are_texts() -> None:
    assert "<img" not in of_report(replace(hostile(), evaluation=evaluation(HOSTILE))).files["hpa_report.html"].decode()


def test_the_libraries_are_imported_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both modules can be imported without them, and a refusal needs no torch."""
    for name, module in {"mlflow": to_mlflow, "trackio": to_trackio}.items():
        monkeypatch.setitem(sys.modules, name, None)
        importlib.reload(module)
    script = "from hpa_merge.tracking.tracker import open_tracker as o\ntry: o('x')\nexcept Exception: pass\n"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{script}print('torch' in sys.modules)"], check=True, capture_output=True
    )
    assert done.stdout == b"False\n"
