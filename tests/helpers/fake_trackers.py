"""Modules in the place of mlflow and trackio, which the tests do not install: they keep what they are given.

They refuse what the real ones refuse (MLflow 3.17, trackio 0.43): names of values, sizes of batches, reserved keys.
"""

import posixpath
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ALLOWED = re.compile(r"[/\w.\- :]{1,250}")
ARTIFACT = re.compile(r"[A-Za-z0-9._-]+")
RESERVED = {"project", "run", "timestamp", "step", "time", "metrics"}


@dataclass
class Run:
    """A run that was written."""

    name: str
    place: str
    values: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    parent: str | None = None
    status: str = "RUNNING"

    @property
    def text(self) -> str:
        """Everything that was sent."""
        return f"{self.name} {self.values} {self.parameters} {self.tags} {self.files}"


@dataclass
class Trackers:
    """What both modules were given; ``broken``: what writing raises."""

    runs: list[Run] = field(default_factory=list)
    experiments: dict[str, Any] = field(default_factory=dict)
    unreachable: Exception | None = None
    broken: Exception | None = None
    options: list[dict[str, Any]] = field(default_factory=list)


def install(monkeypatch: pytest.MonkeyPatch) -> Trackers:
    """Put both modules in place."""
    found = Trackers()
    mlflow, entities, trackio = (ModuleType(name) for name in ("mlflow", "mlflow.entities", "trackio"))
    mlflow.MlflowClient = lambda: _Client(found)  # type: ignore[attr-defined]
    for name in ("Metric", "Param", "RunTag"):
        setattr(entities, name, lambda *values: values)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    _fill(trackio, found)
    return found


class _Client:
    """Of MLflow."""

    def __init__(self, found: Trackers) -> None:
        self._found = found
        if found.unreachable is not None:
            raise found.unreachable

    def get_experiment_by_name(self, name: str) -> Any:
        return self._found.experiments.get(name)

    def create_experiment(self, name: str) -> str:
        self._found.experiments[name] = SimpleNamespace(experiment_id=name, lifecycle_stage="active")
        return name

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
        print("View run at http://user:secret@host")  # noqa: T201 - as the real one does
        run = Run(run_name, experiment, tags=dict(tags), parent=tags.get("mlflow.parentRunId"))
        self._found.runs.append(run)
        return SimpleNamespace(info=SimpleNamespace(run_id=str(len(self._found.runs) - 1)))

    def log_batch(self, number: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        if self._found.broken is not None:
            raise self._found.broken
        assert len(metrics) <= 1000
        assert len(params) <= 100
        assert len(tags) <= 100
        run = self._found.runs[int(number)]
        for name in [each[0] for each in (*metrics, *params, *tags)]:
            assert ALLOWED.fullmatch(name), name
            assert posixpath.normpath(name) == name, name
        for name, value, _, step in metrics:
            run.values.setdefault(name, []).append((step, value))
        assert not [name for name, _ in params if name in run.parameters]  # a parameter is written once
        assert all(len(value) <= 500 for _, value in (*params, *tags))
        run.parameters |= dict(params)
        run.tags |= dict(tags)

    def log_artifact(self, number: str, path: str) -> None:
        self._found.runs[int(number)].files[Path(path).name] = Path(path).read_bytes()

    def set_terminated(self, number: str, status: str = "FINISHED") -> None:
        self._found.runs[int(number)].status = status


def _fill(trackio: ModuleType, found: Trackers) -> None:
    """The functions of trackio."""
    open_runs: list[Run] = []

    def init(project: str, *, name: str, group: str, config: dict[str, str], **options: Any) -> Any:
        print("* Trackio project initialized")  # noqa: T201 - as the real one does
        assert not [key for key in config if key.startswith("_")]
        found.options.append(options)
        taken = any(run.name == name for run in found.runs)
        run = Run(f"{name}-2" if taken else name, project, parameters=dict(config), parent=group)
        found.runs.append(run)
        open_runs.append(run)
        return run

    def log(metrics: dict[str, float], step: int) -> None:
        if found.broken is not None:
            raise found.broken
        assert not RESERVED & metrics.keys()
        for name, value in metrics.items():
            open_runs[-1].values.setdefault(name, []).append((step, value))

    def log_artifact(path: Path, name: str, type: str) -> None:
        assert ARTIFACT.fullmatch(name), name
        open_runs[-1].files[Path(path).name] = Path(path).read_bytes()

    def finish() -> None:
        open_runs.pop().status = "FINISHED"

    for function in (init, log, log_artifact, finish):
        setattr(trackio, function.__name__, function)
