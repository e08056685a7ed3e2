"""Draws the page and the pictures of a merged folder again, with the results of an evaluation."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from hpa_merge.arguments import checked
from hpa_merge.checkpoint.output import telling
from hpa_merge.checkpoint.sidefiles import MADE
from hpa_merge.errors import CheckpointError, EvaluationError, OutputError
from hpa_merge.files.disk import sync_folder, write_whole
from hpa_merge.files.inside import NotInside, TooLong, read_inside
from hpa_merge.files.names import CARD, CARD_BYTES, REPORT
from hpa_merge.files.weight_names import is_checkpoint_folder
from hpa_merge.records.given import several
from hpa_merge.render import folder
from hpa_merge.render.card import remake
from hpa_merge.report.evaluation import Evaluation, read_evaluation
from hpa_merge.report.harness import given_of, read_results, with_safety
from hpa_merge.report.manifest import completed, names_weights_alone
from hpa_merge.report.schema import MergeReport, read_report

__all__ = ["with_evaluation", "write_report"]


@checked
def write_report(
    out: str | Path,
    *,
    evaluation: str | Path | Sequence[str | Path] | None = None,
    name: str | None = None,
    to: str | Path | None = None,
    safety_metrics: str | Sequence[str] = (),
) -> MergeReport:
    """Write the report of a merged folder again: page, pictures, model card and JSON.

    Each file is replaced atomically, the JSON last: if this is killed, the same call completes the folder. Pictures
    that the report no longer has are removed. The manifest gets the new digests; a report of an earlier version, whose
    manifest names the weights alone, also gets those of the other files.

    Args:
        out: the folder.
        evaluation: files whose results become part of the report: one of ``hpa-merge eval --json`` or ``tune --json``,
            and any of lm-evaluation-harness, lmms-eval and inspect-ai, or folders of them. The model that a file names
            says whether it is about OLD, NEW or OUT, or ``old=``, ``new=`` or ``out=`` before its path. Results of
            other harnesses replace all earlier ones of the report.
        name: the name of ``out``'s model in that file, if the file does not name the folder.
        to: another folder to write into, created if missing; ``out`` then stays unchanged. It may hold nothing but a
            report of this merge.
        safety_metrics: metrics of other harnesses that measure safety, as ``TASK/METRIC``, with ``=less`` or ``=more``
            for what is better if the file does not say it. Without them these harnesses say nothing about safety.

    Returns:
        The written report.

    Raises:
        CheckpointError: ``out`` has no readable report.
        EvaluationError: the file cannot be read, or has no model that is ``out``.
        OutputError: a library is missing or broken, or a file cannot be written.
    """
    out, place = Path(out), Path(out if to is None else to)
    report, card = read_report(out), _card(out)
    report = replace(report, run=replace(report.run, out=str(out)))
    report = _measured(report, out, several(evaluation or ()), name, several(safety_metrics))
    if to is not None:
        _check_other(place, out, report)
    try:
        drawing = folder.draw(report)
    except folder.NotDrawn as error:
        raise OutputError(
            f"the report cannot be drawn ({error}): check that vl-convert-python works (pip install "
            "--force-reinstall vl-convert-python) and that there is enough memory."
        ) from error
    if names_weights_alone(report):
        with telling(f"{out} cannot be read"):
            report = completed(report, out)
    report = folder.with_drawing(report, drawing)
    if to is not None:
        with telling(f"the folder {place} cannot be made"):
            place.mkdir(exist_ok=True)
    written = remake(report, card, drawing.pictures).encode("utf-8", "surrogateescape")
    for file, content in {**drawing.files, CARD: written}.items():
        with telling(f"{place / file} cannot be written"):
            write_whole(place / file, content)
    with telling(f"{place} cannot be written"):
        for file in MADE.difference(drawing.files, [REPORT]):
            (place / file).unlink(missing_ok=True)
        sync_folder(place)
        write_whole(place / REPORT, report.to_json().encode("utf-8", "surrogateescape"))
    return report


def _measured(
    report: MergeReport, out: Path, given: Iterable[str | Path], name: str | None, safety_metrics: Iterable[str]
) -> MergeReport:
    """A report with the results in some files; the arguments are those of :func:`write_report`.

    Raises:
        EvaluationError: a file cannot be used, or an argument is for files that were not given.
    """
    files, metrics = [given_of(file) for file in given], list(safety_metrics)
    found = read_results(files, report, out)
    if found.own is not None:
        report = with_evaluation(report, out, found.own, name)
    elif name is not None:
        raise EvaluationError(
            f"the name {name} needs an evaluation: give --evaluation too, or leave --name out."
            if not files
            else f"the name {name} is for a file of hpa-merge eval: say whose results others are as out=FILE."
        )
    if found.benchmarks is not None:
        report = replace(report, benchmarks=found.benchmarks)
    if metrics:
        report = replace(report, benchmarks=with_safety(report.benchmarks, metrics))
    return report


def _check_other(place: Path, out: Path, report: MergeReport) -> None:
    """Check that a folder may be written to: it is OUT, new, empty, or holds a report of the same merge.

    Raises:
        OutputError: it may not.
    """
    with telling(f"the folder {place} cannot be read"):
        if not place.is_dir() or place.resolve() == out.resolve():
            return
        checkpoint, names = is_checkpoint_folder(place), sorted(path.name for path in place.iterdir())
    if checkpoint:
        raise OutputError(f"{place} is another checkpoint, which is never written to: give another folder as --to.")
    if not names:
        return
    try:
        there = read_report(place)
    except CheckpointError:
        raise OutputError(f"{place} holds {names[0]} and no report of this merge: give a new folder as --to.") from None
    if not _of_one_merge(there, report):
        raise OutputError(f"{place} holds the report of another merge: give another folder as --to.")


def _of_one_merge(there: MergeReport, report: MergeReport) -> bool:
    """Whether two reports are of the same OUT."""
    ours, theirs = (each.run.contents.get("out") for each in (report, there))
    prints = {report.run.fingerprint, there.run.fingerprint}
    return (ours is not None and ours == theirs) or (len(prints) == 1 and "" not in prints)


def with_evaluation(report: MergeReport, out: Path, file: Path, name: str | None = None) -> MergeReport:
    """A report with the results of an evaluation; its ``out`` is the name of the merged model.

    Raises:
        EvaluationError: the file cannot be read, or has no model that is ``out``.
    """
    found = read_evaluation(file)
    content = json.loads(found.to_json()) | {"out": _merged(found, out, file, name)}
    return replace(report, evaluation=content)


def _merged(evaluation: Evaluation, out: Path, file: Path, name: str | None) -> str:
    """The name of the model in ``out``: the given one, or that of its folder."""
    names = [model.name for model in evaluation.models]
    if name is not None:
        if name in names:
            return name
        raise EvaluationError(f"{file} has no model {name}: give one of {', '.join(names)} as --name.")
    for model in evaluation.models:
        if Path(model.model).resolve() == out.resolve():
            return model.name
    raise EvaluationError(
        f"{file} has {', '.join(f'{model.name} ({model.model})' for model in evaluation.models)}, and none of them is "
        f"{out}: evaluate that folder, or name its model with --name."
    )


def _card(out: Path) -> str:
    """The model card of a folder, with any bytes; empty without one.

    Raises:
        OutputError: it cannot be read, or is too long.
    """
    try:
        return read_inside(out, CARD, CARD_BYTES).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""
    except (NotInside, TooLong) as error:
        raise OutputError(error.sentence(str(out / CARD))) from error
    except OSError as error:
        raise OutputError(f"{out / CARD} cannot be read ({error.strerror or error}): check its permissions.") from error
