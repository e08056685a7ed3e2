"""The words and the tables of the page: what was done, what was left, what it cost, how to do it again."""

from typing import Any

from hpa_merge.config import option_fields, uses
from hpa_merge.render.figures import Table
from hpa_merge.report.evaluation import ASKED
from hpa_merge.report.records import CalibrationRecord, Outcome
from hpa_merge.report.rounds import round_of
from hpa_merge.report.rows import mean, restored_share
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.words import bytes_text, counted, from_first_text, listed, percent, seconds_text, set_text

__all__ = [
    "cost",
    "evaluation_facts",
    "history_table",
    "inputs",
    "left_names",
    "left_tables",
    "options_table",
    "summary",
    "tiles",
    "versions_table",
]

NAMES = 200
"""Of linears that were not adapted so many are named on the page, for each reason."""

LEFT: dict[Outcome, str] = {
    "unchanged": "did not change in tuning",
    "excluded": "came from NEW, as the options want it",
    "old": "came from OLD, as the options want it",
    "uncalibrated": "changed in tuning, and no token of the samples came there",
}

Facts = list[tuple[str, str]]


def tiles(report: MergeReport) -> Facts:
    """The figures that stand at the top, each with what it is."""
    adapted = [record for record in report.linears if record.outcome == "adapted"]
    found = [(f"of {counted(len(report.linears), 'linear weight')} adapted", f"{len(adapted):,}")]
    if (share := restored_share(adapted)) is not None:
        found.append((f"of their {_things(report)} restored", percent(share)))
    if (energy := mean(record.energy_restored for record in adapted)) is not None:
        found.append(("of the update's energy undone, mean", percent(energy)))
    if (shared := mean(record.overlap for record in adapted)) is not None:
        found.append(("of safety's columns wanted by the task too, mean", percent(shared)))
    run = report.run
    memory = run.peak_host_bytes if run.peak_device_bytes is None else run.peak_device_bytes
    found.append(("of memory at most" if run.peak_device_bytes is None else "of device memory", bytes_text(memory)))
    return [*found, (f"on {run.device}", seconds_text(run.seconds))]


def summary(report: MergeReport) -> list[str]:
    """What happened, in plain words, a paragraph each."""
    adapted = [record for record in report.linears if record.outcome == "adapted"]
    first = (
        f"{report.architecture} has {counted(len(report.linears), 'linear weight')}; "
        f"{len(adapted)} of them were adapted by the method {report.method}."
    )
    share, energy = restored_share(adapted), mean(record.energy_restored for record in adapted)
    if share is not None:
        first += (
            f" Of these, {percent(share)} of the {_things(report)} have the values of OLD, the model before tuning."
        )
    if energy is not None:
        first += f" What was restored held {percent(energy)} of the change that tuning had made, on average; the rest"
        first += " of it stayed" + (", but for what the orthogonal step took off." if _turned(report) else ".")
    left = [f"{count} {LEFT[outcome]}" for outcome in LEFT if (count := report.count(outcome))]
    others = sum(report.passed_through.values())
    second = f"Of the other linear weights, {'; '.join(left)}. " if left else ""
    if others:
        second += f"{counted(others, 'tensor')} that cannot be adapted, such as norms and embeddings, came from NEW"
        second += " byte for byte."
    third = f"It took {seconds_text(report.run.seconds)} on {report.run.device} and at most "
    third += f"{bytes_text(report.run.peak_host_bytes)} of host memory"
    if report.run.peak_device_bytes is not None:
        third += f" and {bytes_text(report.run.peak_device_bytes)} of device memory"
    measured = _measured(report.evaluation)
    return [text for text in (first, second.strip(), measured, f"{third}.") if text]


def evaluation_facts(evaluation: dict[str, Any]) -> Facts:
    """How the answers were judged, what of, and what a gate found."""
    named = [
        (f"{purpose} set {name}", str(file))
        for purpose, of_purpose in evaluation.get("files", {}).items()
        if isinstance(of_purpose, dict)
        for name, file in of_purpose.items()
    ]
    sizes = {
        figure["samples"]
        for model in evaluation.get("models", [])
        for kind in ("safety", "tasks", "benign")
        for figure in model.get(kind, {}).values()
    }
    ends = " to ".join(str(size) for size in sorted({min(sizes, default=0), max(sizes, default=0)}))
    prompts = [("prompts of a set", ends)] if sizes else []
    judge = [("judge of attacks", str(evaluation["judge"]))] if evaluation.get("judge") else []
    return [*judge, *prompts, *named, *(("gate", str(sentence)) for sentence in evaluation.get("failures", ()))]


def left_tables(report: MergeReport) -> list[Table]:
    """The parts of the model, and what of it is no linear."""
    parts = tuple(
        (part.name, part.policy, str(part.tensors), listed(part.linears) if part.linears else "none")
        for part in report.components
    )
    kinds = tuple((kind, str(count)) for kind, count in report.passed_through.items())
    files = tuple((name,) for name in report.left_out)
    tables = (
        Table("Parts of the model", ("part", "taken", "tensors", "linear weights"), parts, words=True),
        Table("Other tensors, from NEW byte for byte", ("kind", "tensors"), kinds),
        Table("Files of NEW that were not carried over", ("file",), files, words=True),
    )
    return [table for table in tables if table.rows]


def left_names(report: MergeReport) -> list[tuple[str, list[str], int]]:
    """For each reason the linears that were not adapted: a heading, names, and how many more there are."""
    found = []
    for outcome, reason in LEFT.items():
        names = [record.name for record in report.linears if record.outcome == outcome]
        if names:
            heading = f"{counted(len(names), 'linear weight')} {reason}"
            found.append((heading, names[:NAMES], max(0, len(names) - NAMES)))
    return found


def history_table(report: MergeReport) -> Table | None:
    """The rounds before, and this one; None where there were none."""
    if not report.history:
        return None
    rows = []
    for place, record in enumerate((*report.history, round_of(report)), start=1):
        moved = None if record.drift is None else record.drift.relative
        rows.append(
            (
                *(str(place), record.old, record.new, record.finished, record.method),
                *(str(record.adapted), _percent(record.restored_share), _percent(record.energy_restored)),
                *(_percent(moved), from_first_text(record.drift), _measured(record.evaluation)),
            )
        )
    head = ("round", "OLD", "NEW", "finished", "method", "adapted", "restored", "energy")
    return Table("The rounds, the first one first", (*head, "moved", "from the first", "evaluation"), tuple(rows), True)


def cost(report: MergeReport) -> Facts:
    """Time and memory."""
    run = report.run
    device = [] if run.peak_device_bytes is None else [("peak memory of the device", bytes_text(run.peak_device_bytes))]
    finished = [("finished (UTC)", run.finished)] if run.finished else []
    return [
        ("time", f"{seconds_text(run.seconds)}, without the drawing of this page"),
        ("device", run.device),
        ("peak memory of the host", bytes_text(run.peak_host_bytes)),
        *device,
        *finished,
    ]


def inputs(report: MergeReport) -> Facts:
    """The two checkpoints, the two sets, and what else the result depends on."""
    run = report.run
    rows = [("OLD", run.old), ("NEW", run.new), *((f"commit of {name}", c) for name, c in run.commits.items())]
    if run.adapter:
        rows.append(("NEW is", f"a PEFT adapter on OLD: {run.adapter}"))
    rows += [("safety set", _calibration(report.safety)), ("task set", _calibration(report.task))]
    if run.statistics:
        rows.append(("statistics", ", ".join(f"{name} {value}" for name, value in run.statistics.items())))
    if run.fingerprint:
        rows.append(("fingerprint", run.fingerprint))
    return rows


def options_table(report: MergeReport) -> Table:
    """The options that the method uses, with their defaults."""
    defaults = option_fields()
    rows = [
        (f"--{name.replace('_', '-')}", _value(value), _value(defaults[name][0]) if name in defaults else "")
        for name, value in report.config.items()
        if uses(report.method, name)
    ]
    return Table("Options of the method", ("option", "value", "default"), tuple(rows), words=True)


def versions_table(report: MergeReport) -> Table:
    """The libraries that the merge ran with."""
    return Table("Libraries", ("library", "version"), tuple((n, v) for n, v in report.run.versions.items()), words=True)


def _things(report: MergeReport) -> str:
    """What is restored as a whole: columns, or values with methods that do not go by columns."""
    return "columns" if any(record.restored is not None for record in report.linears) else "values"


def _turned(report: MergeReport) -> bool:
    """Whether the orthogonal step was taken."""
    return any(record.kappa for record in report.linears)


def _measured(evaluation: dict[str, Any] | None) -> str:
    """What was measured of the merged model, beside the first one of the evaluation, in one sentence."""
    if not evaluation:
        return ""
    models = evaluation.get("models", [])
    found = next((model for model in models if model["name"] == evaluation.get("out")), None)
    if found is None:
        return ""
    kinds = (
        ("asr", "{:.1f} % of the attacks succeed"),
        ("performance", "{:.1f} % on the tasks, on average"),
        ("over_refusal", "{:.1f} % of the benign prompts are refused"),
    )
    told = []
    for kind, words in kinds:
        if figure := found.get(kind):
            others = [f"{m[kind]['value']:.1f} % with {m['name']}" for m in models if m is not found and m.get(kind)]
            told.append(words.format(figure["value"]) + (f" ({', '.join(others)})" if others else ""))
    for purpose, figure in (found.get("broken") or {}).items():
        if purpose in ASKED and figure["value"]:
            told.append(f"{figure['value']:.1f} % of the answers to {ASKED[purpose]} prompts are broken")
    return f"Measured of the merged model: {'; '.join(told)}." if told else ""


def _calibration(record: CalibrationRecord | None) -> str:
    if record is None:
        return "not looked at by this method"
    parts = "".join(f"; {counted(part.samples, 'sample')} of {part.file}" for part in record.parts)
    passed = f"; passed over: {', '.join(record.passed_over)}" if record.passed_over else ""
    return f"{record.file}: {set_text(record)}{parts}{passed}"


def _percent(share: float | None) -> str:
    return "" if share is None else percent(share)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
