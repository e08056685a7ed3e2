"""Runs of MLflow: a run with its parameters, metrics, tags and artifacts, and a nested run for each child."""

import os
import posixpath
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpa_merge.tracking.content import Tracked

__all__ = ["check", "write"]

BATCH = 100
"""The most values that a server takes at once: MLflow's limit for parameters and tags."""

NAME, VALUE = 250, 500
"""The most characters of a name, and of a value in servers of any age."""

OTHER = re.compile(r"[^\w\-./: ]")
"""What the name of a value must not have."""

DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # MLflow's own 7 take minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
"""What holds for MLflow if the environment says nothing else."""


def check(name: str) -> None:
    """Check that MLflow is installed and its store answers.

    Raises:
        ImportError: it is not installed.
        Exception: the store does not answer, or the experiment was deleted.
    """
    with _defaults():
        from mlflow import MlflowClient

        try:
            found = MlflowClient().get_experiment_by_name(name)
        except ImportError as error:
            raise RuntimeError(
                f"a store on this machine needs the whole of mlflow: {error}; pip install mlflow, or name a server"
            ) from error
        if found is not None and found.lifecycle_stage != "active":
            raise RuntimeError(f"the experiment {name} is deleted: restore it, or name another one")


def write(run: "Tracked", name: str) -> str:
    """Write a run and its children to the experiment ``name``, which is made if it is missing; returns where it is."""
    with _defaults():
        from mlflow import MlflowClient

        client = MlflowClient()
        found = client.get_experiment_by_name(name)
        experiment = client.create_experiment(name) if found is None else found.experiment_id
        _write(client, experiment, run, None)
    return f"run {run.name} of experiment {name}"


def _write(client: Any, experiment: str, run: "Tracked", parent: str | None) -> None:
    """Write a run, and its children as nested runs; one that cannot be written whole is marked as failed."""
    from mlflow.entities import Metric, Param, RunTag

    tags = {"mlflow.source.name": "hpa-merge", "mlflow.note.content": run.tags.get("answer", "")}
    tags |= {"mlflow.parentRunId": parent} if parent else {}
    made = client.create_run(experiment, run_name=run.name, tags={name: text for name, text in tags.items() if text})
    number, now = made.info.run_id, int(time.time() * 1000)
    values = [(name, step, value) for name, points in run.series.items() for step, value in points]
    values += [(name, 0, value) for name, value in run.metrics.items()]
    names = _allowed([*(name for name, _, _ in values), *run.parameters, *run.tags])
    metrics = [Metric(names[name], value, now, step) for name, step, value in values]
    parameters = [Param(names[name], value[:VALUE]) for name, value in run.parameters.items()]
    texts = [RunTag(names[name], text[:VALUE]) for name, text in run.tags.items()]
    try:
        for part in _batches(metrics):
            client.log_batch(number, metrics=part)
        for part in _batches(parameters):
            client.log_batch(number, params=part)
        for part in _batches(texts):
            client.log_batch(number, tags=part)
        _files(client, number, run.files)
        for child in run.children:
            _write(client, experiment, child, number)
    except BaseException:
        client.set_terminated(number, "FAILED")
        raise
    client.set_terminated(number)


def _files(client: Any, number: str, files: Mapping[str, bytes]) -> None:
    """Write artifacts."""
    with TemporaryDirectory() as folder:
        for name, content in files.items():
            path = Path(folder) / name
            path.write_bytes(content)
            client.log_artifact(number, str(path))


def _allowed(names: Sequence[str]) -> dict[str, str]:
    """Each name as MLflow accepts it: without some characters, as a path inside, and not that of another."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        text = posixpath.normpath(OTHER.sub("_", name)).strip("/.")[: NAME - 4] or "_"
        taken, number = text, 1
        while taken in found.values():
            number += 1
            taken = f"{text} {number}"
        found[name] = taken
    return found


def _batches(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[start : start + BATCH] for start in range(0, len(values), BATCH))


@contextmanager
def _defaults() -> Iterator[None]:
    """With :data:`DEFAULTS` in the environment."""
    added = {name: value for name, value in DEFAULTS.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
