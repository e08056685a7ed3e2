"""The logs of inspect-ai: ``*.json``, or the header of ``*.eval``.

``results.scores`` has an entry for each scorer, or each value of one that gives several, and for each reducer of
epochs. Its metrics are named; ``stderr`` among them is the standard error of their mean.
"""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from hpa_merge.report.harness.found import Found, Row, inner, items, number, score, text, whole

__all__ = ["INSPECT", "is_inspect", "read_inspect"]

INSPECT = "inspect-ai"

MEANS = ("accuracy", "mean")
"""Metrics that the standard error belongs to."""

SPREADS = ("stderr", "bootstrap_stderr", "std", "var")
"""Metrics that say how far the others may be off, and are no results."""

LINE = 40
"""The most characters of a task's argument."""

LOCAL = ("model_path", "model_name", "tokenizer_path")
"""Arguments of a model that name its folder; the first one that is given counts."""


def is_inspect(content: Mapping[str, Any]) -> bool:
    """Whether a JSON object has the shape."""
    return isinstance(content.get("eval"), dict) and isinstance(content.get("status"), str)


def read_inspect(content: Mapping[str, Any]) -> Found:
    """What the log says; see :func:`is_inspect`.

    Raises:
        ValueError: the run is not complete.
    """
    spec = inner(content, "eval")
    if content["status"] != "success":
        raise ValueError(f"its status is {content['status']!r:.40}: complete it with inspect eval-retry")
    if content.get("invalidated") is True:
        raise ValueError("it was marked as invalid")
    notes: list[str] = []
    return Found(
        harness=INSPECT,
        version=text(inner(spec, "packages").get("inspect_ai")),
        model=_model(spec),
        commit="",
        rows=tuple(_rows(content, spec, notes)),
        notes=tuple(notes),
    )


def _rows(content: Mapping[str, Any], spec: Mapping[str, Any], notes: list[str]) -> Iterator[Row]:
    """The scores of the log; what has no number, or not all samples, is noted."""
    task, setup = text(spec.get("task")) or "task", ", ".join(_setup(spec))
    found = [entry for entry in items(inner(content, "results").get("scores")) if isinstance(entry, dict)]
    if not found:
        notes.append(f"{task} has no score")
    for entry in found:
        scorer, reducer = text(entry.get("name")), text(entry.get("reducer"))
        metrics, samples = inner(entry, "metrics"), whole(entry.get("scored_samples"))
        error = inner(metrics, "stderr").get("value")
        if missing := whole(entry.get("unscored_samples")):
            notes.append(f"{task}/{scorer} has no score of {missing} samples")
        for name, metric in metrics.items():
            if name in SPREADS or not isinstance(metric, dict):
                continue
            words = f"{scorer}/{name}{f',{reducer}' if reducer not in ('', 'mean') else ''}"
            if (value := number(metric.get("value"))) is None:
                notes.append(f"{task} has no number for {words}")
                continue
            of_mean = error if name in MEANS else None
            yield Row(task, words, score(value, of_mean, samples, share=name == "accuracy"), setup)


def _setup(spec: Mapping[str, Any]) -> Iterator[str]:
    """How the task was asked."""
    version, config = spec.get("task_version"), inner(spec, "config")
    if isinstance(version, str | int) and not isinstance(version, bool) and version not in (0, ""):
        yield f"version {version}"
    if (epochs := whole(config.get("epochs"))) is not None and epochs > 1:
        yield f"{epochs} epochs"
    limit = config.get("limit")
    if limit is not None and (given := number(limit)) is not None:
        yield f"limit {given:g}"
    elif isinstance(limit, list):
        yield f"limit {'-'.join(str(whole(end) or 0) for end in limit[:2])}"
    for name, value in inner(spec, "task_args").items():
        if isinstance(value, str | int | float):
            yield f"{name}={_brief(str(value))}"


def _brief(value: str) -> str:
    """A value in a line; of a long one the beginning, and what tells it from others."""
    if len(value) <= LINE:
        return value
    return f"{value[:LINE]}… {sha256(value.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _model(spec: Mapping[str, Any]) -> str:
    """The model's folder, or its name without the provider: ``hf/org/name`` is ``org/name``."""
    arguments = inner(spec, "model_args")
    folder = next((text(arguments[name]) for name in LOCAL if text(arguments.get(name))), "")
    name = text(spec.get("model"))
    return folder or name.partition("/")[2] or name
