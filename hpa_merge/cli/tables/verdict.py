"""The verdict after an evaluation or a merge."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hpa_merge.errors import CheckpointError
from hpa_merge.printable import printable
from hpa_merge.report.commands import showing
from hpa_merge.report.evaluation import Evaluation
from hpa_merge.report.paths import from_here, with_places
from hpa_merge.report.schema import read_report
from hpa_merge.report.verdict import Verdict, verdict_lines, verdict_of_evaluation

__all__ = ["verdict_of_models", "verdict_of_out", "verdict_text"]


def verdict_of_models(evaluation: Evaluation, gated: Sequence[str] = (), results: Path | None = None) -> Verdict:
    """The verdict of an evaluation, with the report of the merged model if it is a folder that has one.

    Args:
        gated: the models that the gate was asked of, as they were given; a single one is OUT, else it is the last.
        results: the file that has the evaluation. If the gate was measured, the page is to show it before what is next.
    """
    out = evaluation.models[-1]
    if len(gated) == 1:
        out = next((model for model in evaluation.models if gated[0] in (model.model, model.name)), out)
    try:
        return verdict_of_out(out.model, out.name, evaluation, results)
    except CheckpointError:
        return verdict_of_evaluation(evaluation, out.name)


def verdict_of_out(out: str, name: str, evaluation: Evaluation, results: Path | None = None) -> Verdict:
    """The verdict of a merged folder with this evaluation.

    Args:
        out: the folder.
        name: of its model in the evaluation.
        results: as in :func:`verdict_of_models`.

    Raises:
        CheckpointError: the folder has no report.
    """
    content = json.loads(evaluation.to_json()) | {"out": name}
    report = replace(from_here(read_report(Path(out)), Path(out)), evaluation=content)
    verdict = replace(report, run=replace(report.run, out=out)).verdict
    verdict = replace(verdict, next=with_places(report, verdict.next))
    if results is None or verdict.gate == "NOT MEASURED":
        return verdict
    return replace(verdict, next=(showing(out, str(results)), *verdict.next))


def verdict_text(verdict: Verdict) -> list[str]:
    """The lines of the verdict below an empty one, without its figures, which a table shows."""
    return ["", *map(printable, verdict_lines(verdict, figures=False))]
