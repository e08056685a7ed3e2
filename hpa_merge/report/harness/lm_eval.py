"""``results_*.json`` of lm-evaluation-harness, and ``*_results.json`` of lmms-eval, which has its shape.

A task has values by ``metric,filter`` and their standard errors by ``metric_stderr,filter``; versions before 0.4 have
no filters. A group is one more task, and ``group_subtasks`` says what it is the mean of.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from hpa_merge.report.benchmarks import Better
from hpa_merge.report.harness.found import Found, Row, inner, items, number, score, text, whole

__all__ = ["is_lm_eval", "read_lm_eval"]

LM_EVAL, LMMS_EVAL = "lm-evaluation-harness", "lmms-eval"

SHARES = ("acc", "acc_norm", "acc_bytes", "exact_match", "em")
"""Metrics of lm-evaluation-harness that are 0 or 1 for each sample."""

ERRORS = ("_stderr", "_stderr_clt", "_stderr_clustered")
"""Ends of the names of standard errors. Those of lmms-eval that end otherwise may have another unit than the value."""

NO_METRICS = ("alias", "name", "sample_len", "sample_count", "samples", " ")

MODEL_ARGUMENTS = ("peft", "delta", "pretrained", "model", "model_version", "model_name", "model_id", "path", "engine")
"""Arguments of a model that name it, the first one that is given counts; as both harnesses look for them."""


def is_lm_eval(content: Mapping[str, Any]) -> bool:
    """Whether a JSON object has the shape; that of lighteval is like it, and means something else."""
    results = content.get("results")
    described = any(name in content for name in ("versions", "configs", "config"))
    return (
        described
        and "config_general" not in content
        and isinstance(results, dict)
        and all(isinstance(task, dict) for task in results.values())
    )


def read_lm_eval(content: Mapping[str, Any]) -> Found:
    """What the file says; see :func:`is_lm_eval`."""
    lmms = "lmms_eval_version" in content
    config = inner(content, "config")
    notes: list[str] = []
    return Found(
        harness=LMMS_EVAL if lmms else LM_EVAL,
        version=text(content.get("lmms_eval_version" if lmms else "lm_eval_version")),
        model=_model(content, config),
        commit=text(config.get("peft_sha")) or text(config.get("model_sha")),
        rows=tuple(_rows(content, notes, shares=() if lmms else SHARES)),
        notes=tuple(notes),
    )


def _rows(content: Mapping[str, Any], notes: list[str], shares: tuple[str, ...]) -> Iterator[Row]:
    """The scores of every task; what has none is noted."""
    groups = _groups(content)
    everywhere = _everywhere(content)
    for task, values in content["results"].items():
        filtered = any("," in key for key in values)
        better, unscored = inner(content, "higher_is_better", task), []
        setup = ", ".join([*_setup(content, task), *everywhere])
        there = False
        for key, value in values.items():
            metric, comma, of = key.partition(",")
            if key in NO_METRICS or (filtered and not comma) or metric.endswith(ERRORS):
                continue
            if (found := number(value)) is None:
                unscored.append(key)
                continue
            there = True
            name = metric if of in ("", "none") else key
            error = values.get(f"{metric}_stderr{comma}{of}")
            samples = _samples(content, task, values, key)
            is_share = metric in shares and not inner(content, "group_subtasks").get(task)
            kind = _better(better.get(metric))
            yield Row(task, name, score(found, error, samples, share=is_share), setup, kind, groups.get(task, ""))
        if unscored:
            notes.append(f"{task} has no number for {', '.join(unscored)}")
        elif not there and task not in inner(content, "group_subtasks"):
            notes.append(f"{task} has no score")


def _groups(content: Mapping[str, Any]) -> dict[str, str]:
    """The group that each task is a part of, as far as that group has a mean."""
    found: dict[str, str] = {}
    for group, tasks in inner(content, "group_subtasks").items():
        values = inner(content, "results", group) or inner(content, "groups", group)
        has_mean = any(number(value) is not None for key, value in values.items() if key not in NO_METRICS)
        if has_mean:
            found |= {task: group for task in items(tasks) if isinstance(task, str) and task != group}
    return found


def _samples(content: Mapping[str, Any], task: str, values: Mapping[str, Any], key: str) -> int | None:
    """The number of samples of a metric."""
    of_task = inner(content, "n-samples", task).get("effective")
    of_group = values.get("sample_count")
    of_metric = of_group.get(key) if isinstance(of_group, dict) else None
    return whole(of_metric) or whole(of_task) or whole(values.get("sample_len"))


def _setup(content: Mapping[str, Any], task: str) -> Iterator[str]:
    """How a task was asked."""
    shots, version = (inner(content, place).get(task) for place in ("n-shot", "versions"))
    if type(shots) is int:
        yield f"{shots}-shot"
    if isinstance(version, str | int | float) and not isinstance(version, bool):
        yield f"version {version:g}" if isinstance(version, float) else f"version {version}"


def _everywhere(content: Mapping[str, Any]) -> list[str]:
    """How every task of a file was asked."""
    words = ["chat template"] if content.get("chat_template") or content.get("chat_template_sha") else []
    words += ["system prompt"] if content.get("system_instruction") or content.get("system_instruction_sha") else []
    words += ["examples as turns"] if content.get("fewshot_as_multiturn") is True and words else []
    limit = number(inner(content, "config").get("limit"))
    return [*words, *([f"limit {limit:g}"] if limit is not None and limit > 0 else [])]


def _better(higher: Any) -> Better:
    return {True: "more", False: "less"}.get(higher, "") if isinstance(higher, bool) else ""  # type: ignore[return-value]


def _model(content: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The model's name or folder."""
    arguments = config.get("model_args")
    if isinstance(arguments, str):
        arguments = dict(part.strip().partition("=")[::2] for part in arguments.split(","))
    named = arguments if isinstance(arguments, dict) else {}
    given = next((text(named[name]) for name in MODEL_ARGUMENTS if text(named.get(name))), "")
    return given or text(content.get("model_name"))
