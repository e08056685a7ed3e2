"""What a report says, in words: each fact has one wording, which terminal, page and card share."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from hpa_merge.config import OutOptions
from hpa_merge.counting import counted
from hpa_merge.methods import method_of
from hpa_merge.report.commands import changed_options
from hpa_merge.report.evaluation import ASKED, measured_in
from hpa_merge.report.planned import PlanReport
from hpa_merge.report.reached import missing_sets
from hpa_merge.report.records import (
    CalibrationRecord,
    CodeRecord,
    ComponentRecord,
    DriftRecord,
    LinearRecord,
    Outcome,
    RoundRecord,
    RoutingRecord,
    RunRecord,
)
from hpa_merge.report.rounds import round_of
from hpa_merge.report.rows import expert_of
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.words import bytes_text, counts_text, listed, percent, seconds_text

Facts = list[tuple[str, str]]
"""Rows of a label and a value."""

OUTCOMES: Mapping[Outcome, str] = {
    "adapted": "adapted",
    "unchanged": "unchanged by tuning",
    "excluded": "from NEW by the options",
    "old": "from OLD by the options",
    "uncalibrated": "uncalibrated (no {} sample reached them)",
}


def outcomes_of(report: MergeReport) -> dict[Outcome, str]:
    """What became of linear weights, after their number."""
    return {outcome: words.format(" or no ".join(missing_sets(report))) for outcome, words in OUTCOMES.items()}


def adapted_in(report: MergeReport) -> list[LinearRecord]:
    """The linears that were adapted."""
    return [record for record in report.linears if record.outcome == "adapted"]


def things_restored(report: MergeReport) -> str:
    """``columns``, or ``values`` with methods that do not restore whole columns."""
    return "columns" if any(record.restored is not None for record in report.linears) else "values"


def report_facts(report: MergeReport) -> Facts:
    """The linears, the parts of the model, the calibration sets and the round."""
    counts = [f"{count} {words}" for outcome, words in outcomes_of(report).items() if (count := report.count(outcome))]
    history = [("history", f"round {len(report.history) + 1} of this model, {drift_text(report.drift)}")]
    return [
        ("linears", ", ".join(counts) or "none"),
        *model_facts(report.run.adapter, report.components, report.passed_through),
        *dtype_facts(report.run),
        *mixture_facts(report),
        *([("OUT is", held_text(report.linears))] if report.is_adapter else []),
        *set_facts(report.safety, report.task),
        *(history if report.history else []),
    ]


def model_facts(adapter: str, components: Sequence[ComponentRecord], passed_through: Mapping[str, int]) -> Facts:
    """What NEW is, what happens to each part of it, and the tensors that are not linear weights."""
    rows = adapter_facts(adapter)
    for part in components:
        linears = f"; {listed(part.linears)}" if part.linears else ""
        rows.append((part.name, f"{part.policy}: {counted(part.tensors, 'tensor')}{linears}"))
    return [*rows, ("from NEW as they are", counts_text(passed_through))]


def mixture_facts(report: MergeReport) -> Facts:
    """Of a mixture: whose its routers are, how far its routing drifted, and which experts share a curvature."""
    policy = report.config.get("routers", "new")
    rows = []
    if report.routing:
        rows.append(("routers", {"new": "NEW's", "old": "OLD's"}.get(policy, "merged")))
        sets = (_drift_of_routing(report.routing, purpose) for purpose in ("safety", "task"))
        rows.append(("routing", "; ".join(text for text in sets if text)))
    pools = (_pooled(report, purpose) for purpose in ("safety", "task"))
    if pooled := "; ".join(text for text in pools if text):
        rows.append(("few tokens", f"{pooled}: these experts got the curvature of all experts of their layer"))
    return rows


def _drift_of_routing(routing: Sequence[RoutingRecord], purpose: str) -> str:
    """``12 % of the choices of experts on the safety set differ between OLD and NEW (25 % in layers.3.mlp)``."""
    figures = [(r.name, getattr(r, f"{purpose}_drift"), getattr(r, f"{purpose}_choices")) for r in routing]
    by_layer = {name: drift for name, drift, choices in figures if choices}
    if not by_layer:
        return ""
    mean = sum(drift * choices for _, drift, choices in figures if choices) / sum(choices for *_, choices in figures)
    layers = _by_layer({layer: (drift, percent(drift)) for layer, drift in by_layer.items()})
    return f"{percent(mean)} of the choices of experts on the {purpose} set differ between OLD and NEW ({layers})"


def _pooled(report: MergeReport, purpose: str) -> str:
    """``3 experts read fewer than 32 tokens of the safety set (3 in layers.1)``."""
    pooled = dict.fromkeys((r.unit, expert_of(r.name)) for r in report.linears if purpose in (r.pooled or "").split())
    if not pooled:
        return ""
    layers = _by_layer({unit: (count, str(count)) for unit, count in Counter(unit for unit, _ in pooled).items()})
    least = report.config.get("min_expert_tokens", 0)
    return f"{counted(len(pooled), 'expert')} read fewer than {least} tokens of the {purpose} set ({layers})"


def _by_layer(values: Mapping[str, tuple[float, str]], most: int = 4) -> str:
    """The text of each layer, or of those with the greatest values and how many more there are."""
    shown = sorted(values, key=lambda layer: -values[layer][0])[:most]
    named = ", ".join(f"{values[layer][1]} in {layer.removeprefix('model.')}" for layer in values if layer in shown)
    return named + (f", and less in {len(values) - most} more" if len(values) > most else "")


def adapter_facts(adapter: str) -> Facts:
    """What kind of adapter NEW is; empty for a checkpoint."""
    return [("NEW is", f"a PEFT adapter on OLD: {adapter}")] if adapter else []


def dtype_facts(of: RunRecord | PlanReport) -> Facts:
    """What was stored in few bits, the dtype of OUT if that is not NEW's own, and the dtype that the samples run in."""
    rows = [("dequantised", f"{role.upper()}: {what}") for role, what in of.dequantised.items()]
    rows += [("OUT is in", of.dtype)] if of.dtype else []
    words = dict.fromkeys(of.compute_dtype.values())
    each = ", ".join(f"{word} ({purpose})" for purpose, word in of.compute_dtype.items())
    return [*rows, ("samples run in", each if len(words) > 1 else next(iter(words)))] if words else rows


def held_text(linears: Sequence[LinearRecord]) -> str:
    """How exactly an OUT that is an adapter holds the updates: ``a LoRA on OLD with 28 updates, all exact``.

    The error of all together is that of one vector of their values.
    """
    held = [record for record in linears if record.adapter_error is not None]
    off = [record for record in held if record.adapter_error]
    text = f"a LoRA on OLD with {counted(len(held), 'update')}"
    if not off:
        return f"{text}, all exact"
    sizes = {record.name: record.distance or 0.0 for record in held}
    whole = math.hypot(*sizes.values())
    error = (
        math.hypot(*((record.adapter_error or 0.0) * sizes[record.name] for record in off)) / whole if whole else 0.0
    )
    worst = max(record.adapter_error or 0.0 for record in off)
    exact = f"{len(held) - len(off)} exact, " if len(off) < len(held) else ""
    return f"{text}: {exact}{len(off)} with an error of {_share(worst)} at most; {_share(error)} in all"


def _share(share: float) -> str:
    """``2.1 %``, ``4e-08``: a relative error."""
    return _exact(share) if share >= 1e-4 else f"{share:.0e}"


def set_facts(safety: CalibrationRecord | None, task: CalibrationRecord | None) -> Facts:
    """The two calibration sets."""
    return [("safety set", calibration_text(safety)), ("task set", calibration_text(task))]


def calibration_text(record: CalibrationRecord | None) -> str:
    """What was used of a calibration set."""
    if record is None:
        return "not used by this method"
    counts = ", ".join(_counts(record))
    parts = "; ".join(f"{part.samples} from {part.file} ({counted(part.tokens, 'token')})" for part in record.parts)
    origin = f": {parts}" if parts else f" from {record.file}"
    return counts + origin + (f"; passed over: {', '.join(record.passed_over)}" if record.passed_over else "")


def _counts(record: CalibrationRecord) -> Iterator[str]:
    """``8 of 40 samples``, ``272 tokens``, ``8 images``, ``2 truncated``: every count that the samples have."""
    drawn = f"{record.samples} of " if (record.available or 0) > record.samples else ""
    yield drawn + counted((record.available or 0) if drawn else record.samples, "sample")
    yield counted(record.tokens, "token")
    things = {"turn": record.turns, "image": record.images, "video": record.videos, "frame": record.frames}
    yield from (counted(count, name) for name, count in (things | {"sound": record.audios}).items() if count)
    if record.seconds:
        yield f"{seconds_text(record.seconds)} of sound"
    if record.turns and record.answers is not None and record.answers < record.samples:
        yield f"{record.answers} with an answer"
    if record.truncated:
        yield f"{record.truncated} truncated"
    yield from (f"{count} dropped ({why})" for why, count in record.dropped.items())


def input_facts(run: RunRecord) -> Facts:
    """Where the statistics and the checkpoints come from."""
    rows = []
    if "file" in run.statistics:
        halves = [f"{name} half {run.statistics[name]}" for name in ("safety", "task") if name in run.statistics]
        rows.append(("statistics", ", ".join([*halves, f"in {run.statistics['file']}"])))
    return [*rows, *hub_facts(run.commits), *code_facts(run.code)]


def code_facts(records: Sequence[CodeRecord]) -> Facts:
    """The code that the checkpoints bring, where it is from, and where it runs; empty if none is run."""
    if not records:
        return []
    said: dict[str, list[str]] = {}
    for record in records:
        origin = f"commit {record.commit}" if record.commit else f"SHA-256 {record.digest}"
        where = f" of {record.repository}" if record.repository else ""
        said.setdefault(f"{', '.join(record.files)}{where}, {origin}", []).append(record.role)
    rows = [("code of its own", f"{' and '.join(roles)}: {text}") for text, roles in said.items()]
    where = "the model's in the process of the merge itself, a tokenizer's or processor's in a child process"
    return [*rows, ("that code runs", where)]


def hub_facts(commits: Mapping[str, str]) -> Facts:
    """The commit of each checkpoint and data set from the Hub."""
    return [("from the Hub", f"{name}, commit {commit}") for name, commit in commits.items()]


def cost_facts(run: RunRecord) -> Facts:
    """Time and memory."""
    return [
        ("time", f"{seconds_text(run.seconds)} on {run.device}"),
        ("peak memory", memory_text(run.peak_host_bytes, run.peak_device_bytes)),
    ]


def memory_text(host: int, device: int | None) -> str:
    """Memory of the host and, unless it is the CPU, of the device."""
    on_device = "" if device is None else f", {bytes_text(device)} of device memory"
    return f"{bytes_text(host)} of host memory{on_device}"


def drift_text(drift: DriftRecord | None) -> str:
    """``drift 2.13 % in this round, ≤ 4.30 % from the first model``."""
    if drift is None or drift.relative is None:
        return "drift not known"
    first = from_first_text(drift)
    return f"drift {_exact(drift.relative)} in this round" + (f", {first} from the first model" if first else "")


FAR = 0.2
"""Distance from the first aligned model from which a note asks to compare with it. A random step of this length, which
points at nothing, costs the demo's aligned model 6 points of the task that it was trained for, one of half the length 2
(benchmarks/far.py, means of eight draws)."""


def far_notes(drift: DriftRecord) -> Iterator[str]:
    """A sentence if the rounds have led far away from the first aligned model, or may have."""
    known, most = drift.from_first, drift.from_first_at_most
    distance = most if known is None else known
    if distance is None or distance < FAR:
        return
    remedy = "compare OUT with the first model by hpa-merge eval, not only with OLD"
    if known is None:
        remedy = f"give --first to measure the distance, and {remedy}"
    place = "may lie up to" if known is None else "lie"
    yield (
        f"OUT's linear weights {place} {_exact(distance)} from those of the first aligned model, and from "
        f"{percent(FAR)} on even a step that points at nothing costs accuracy: {remedy}."
    )


def from_first_text(drift: DriftRecord | None) -> str:
    """How far OUT is from the first model: ``4.21 %``, or ``≤ 4.21 %`` where only a bound is known."""
    if drift is None:
        return ""
    if drift.from_first is not None:
        return _exact(drift.from_first)
    return "" if drift.from_first_at_most is None else f"≤ {_exact(drift.from_first_at_most)}"


def round_rows(report: MergeReport) -> list[dict[str, str]]:
    """The rounds of a model, the first one first and this one last; the values are empty where nothing is known."""
    return [_round(number, record) for number, record in enumerate((*report.history, round_of(report)), start=1)]


def _round(number: int, record: RoundRecord) -> dict[str, str]:
    moved = None if record.drift is None else record.drift.relative
    found = measured_in(record.evaluation)
    means = (None, None) if found is None else (found[1].asr, found[1].performance)
    adapter = f" ({record.adapter})" if record.adapter else ""
    asr, tasks = ("" if mean is None else f"{mean.value:.1f}" for mean in means)
    return {
        "round": str(number),
        "OLD": record.old,
        "NEW": f"{record.new}{adapter}",
        "finished": record.finished,
        "method": record.method,
        "options": options_text(record.config),
        "safety set": "" if record.safety is None else calibration_text(record.safety),
        "task set": "" if record.task is None else calibration_text(record.task),
        "adapted": str(record.adapted),
        "restored": _exact(record.restored_share, 1),
        "energy": _exact(record.energy_restored, 1),
        "drift": _exact(moved),
        "first": from_first_text(record.drift),
        "ASR": asr,
        "tasks": tasks,
        "evaluation": measured_text(record.evaluation),
    }


def options_of_out(config: Mapping[str, Any]) -> dict[str, str]:
    """The method, and the other options of an OUT that differ from their defaults, as text."""
    own = {item.name for item in fields(OutOptions)}
    changed = {name: text for name, text in changed_options(config).items() if name in own}
    return {"method": method_of(config), **changed}


def options_text(config: Mapping[str, Any]) -> str:
    """The method, and the options that differ from their defaults: ``hpa, p_max 20``."""
    changed = (f"{name} {text}" for name, text in changed_options(config).items() if name not in ("method", "device"))
    return ", ".join([method_of(config), *changed])


def measured_text(content: Mapping[str, Any] | None) -> str:
    """What an evaluation measured of the merged model and of the others, in one sentence; empty without one."""
    if (found := measured_in(content)) is None:
        return ""
    evaluation, merged = found
    kinds = (
        ("asr", "{:.1f} % of the attacks succeed"),
        ("performance", "{:.1f} % on the tasks, on average"),
        ("over_refusal", "{:.1f} % of the benign prompts are refused"),
    )
    said = []
    for kind, words in kinds:
        if mean := getattr(merged, kind):
            others = [(model.name, getattr(model, kind)) for model in evaluation.models if model is not merged]
            compared = ", ".join(f"{figure.value:.1f} % with {name}" for name, figure in others if figure)
            said.append(words.format(mean.value) + (f" ({compared})" if compared else ""))
    for purpose, asked in ASKED.items():
        if (share := merged.broken.get(purpose)) and share.value:
            said.append(f"{share.value:.1f} % of the answers to {asked} prompts are broken")
    return f"Measured of the merged model: {'; '.join(said)}." if said else ""


def _exact(share: float | None, decimals: int = 2) -> str:
    """A share in percent with so many decimals; empty for None."""
    return "" if share is None else f"{100 * share:.{decimals}f} %"
