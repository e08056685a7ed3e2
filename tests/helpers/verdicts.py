"""Evaluations and reports whose verdict is known."""

import json
from dataclasses import replace
from typing import Any

from report_samples import report_of

from hpa_merge.evaluation.intervals import difference_of_sets, mean_of_sets
from hpa_merge.report.evaluation import Bounds, Evaluation, ModelResult
from hpa_merge.report.schema import MergeReport

N = 40


def scores(right: int, of: int = N) -> list[float]:
    return [1.0] * right + [0.0] * (of - right)


def model(
    name: str, attacks: int, task: int, refused: int, before: tuple[ModelResult, ...] = (), of: int = N
) -> ModelResult:
    """A model of which so many of ``of`` attacks succeed, so many answers are right, so many prompts are refused."""
    sets = {"safety": scores(attacks, of), "tasks": scores(task), "benign": scores(refused)}
    figures = {kind: mean_of_sets([found]) for kind, found in sets.items()}
    named = {"safety": "s", "tasks": "codes", "benign": "h"}
    differences = []
    for other in before:
        theirs = {"safety": other.asr, "tasks": other.performance, "benign": other.over_refusal}
        for kind, found in sets.items():
            figure = theirs[kind]
            assert figure is not None
            paired = scores(round(figure.value / 100 * figure.samples), figure.samples)
            for name_of_set in (named[kind], None):
                differences.append(difference_of_sets([found], [paired], other.name, kind, name_of_set))
    return ModelResult(
        name,
        f"/home/somebody/{name}",
        {"s": figures["safety"]},
        {"codes": figures["tasks"]},
        {"h": figures["benign"]},
        {"codes": "choice"},
        figures["safety"],
        figures["tasks"],
        figures["benign"],
        differences=tuple(differences),
    )


FILES = {"safety": {"s": "s.jsonl"}, "task": {"codes": "c d.jsonl"}, "benign": {"h": "h.jsonl"}}


def evaluation(
    out: tuple[int, int, int], bounds: Bounds | None = None, new_attacks: int = 30, of: int = N
) -> Evaluation:
    old = model("aligned", 0, 5, 0, of=of)
    new = model("tuned", new_attacks, 38, 0, (old,), of=of)
    merged = model("out", *out, (old, new), of=of)
    run = {"options": {"max_new_tokens": 64, "samples": None, "seed": 0}}
    return Evaluation((old, new, merged), "phrases", FILES, run=run, bounds=bounds)


def report(of: Evaluation | None, **changes: Any) -> MergeReport:
    made = report_of(**changes)
    content = None if of is None else json.loads(of.to_json()) | {"out": "out"}
    return replace(made, evaluation=content, run=replace(made.run, out="/home/somebody/out"))
