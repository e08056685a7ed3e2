"""Our section of the model card, for people: what was restored, what that cost, how to load it and make it again."""

import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import PurePath

from hpa_merge.config import HPAConfig
from hpa_merge.methods import find_rule, users
from hpa_merge.render.card.markdown import cell, code, plain, table
from hpa_merge.render.card.results import results_section
from hpa_merge.render.card.usage import is_original_llava, snippet_of
from hpa_merge.report.records import CalibrationRecord, Outcome
from hpa_merge.report.rows import mean, restored_share
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.words import from_first_text, set_text

__all__ = ["section_of"]

FOLLOWED = (
    "*The rest of this card was not written by hpa-merge; where it came with the model, it speaks of the model before "
    "the merge.*"
)


def section_of(report: MergeReport, figures: Mapping[str, str], *, followed: bool) -> str:
    """The section, without its marks.

    Args:
        report: as others may read it (:func:`hpa_merge.report.sharing.for_others`), for the section is published.
        figures: pictures that lie beside the card, by file name, and what they show in words.
        followed: another card's text stands around it.
    """
    new = _name(report, report.run.new)
    measured = results_section(report)
    parts = [
        f"# {cell(new)}, merged with hpa-merge",
        _summary(report),
        *(f"![{cell(words)}]({name})" for name, words in figures.items()),
        "## What was restored",
        _facts(report),
        *(["## Evaluation", measured] if measured else []),
        "## How to load it",
        f"```python\n{snippet_of(report)}\n```",
        "## How to make it again",
        _reproduction(report),
        "## Limitations",
        _limitations(report, bool(measured)),
        "## Citation",
        *_citation(report),
        *([FOLLOWED] if followed else []),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(report: MergeReport) -> str:
    """What this model is, in words."""
    old, new = (_linked(report, name) for name in (report.run.old, report.run.new))
    adapter = f", an adapter on it ({cell(report.run.adapter)})" if report.run.adapter else ""
    return (
        f"This model is {new}{adapter}, with a part of its weights restored from {old}, the model before that "
        "tuning step. The aim is to keep the safety alignment and the earlier tasks of the one and the new task of the "
        f"other. Nothing was trained. {_told(report)} The method is {_paper(report)}; "
        "[`hpa_report.json`](hpa_report.json) says for every weight what was decided."
    )


def _told(report: MergeReport) -> str:
    """What became of the linear weights, in a sentence or two."""
    adapted = [record for record in report.linears if record.outcome == "adapted"]
    if not adapted:
        return "No linear weight was adapted."
    count = f"{len(adapted)} of its {len(report.linears)} linear weights were adapted"
    energy, share = mean(record.energy_restored for record in adapted), restored_share(adapted)
    cost = "" if energy is None else f" What was restored held {100 * energy:.1f} % of the update's square, on average."
    if share is None:
        return f"{count}.{cost}"
    if adapted[0].restored is not None:
        return f"{count}: {100 * share:.1f} % of their input columns have the old values again, bit for bit.{cost}"
    return f"{count}: {100 * share:.1f} % of their values are old ones.{cost}"


def _rounds(report: MergeReport) -> str:
    """How many there were, and how far the model has come from the first; empty for a first round."""
    if not report.history:
        return ""
    first = from_first_text(report.drift)
    away = f"; the linear weights lie {first} of their norm from the first model's" if first else ""
    return f"{len(report.history) + 1}, this one included{away}"


def _facts(report: MergeReport) -> str:
    """Counts, parts of the model, calibration sets and settings."""
    unreached = f"that no sample reached, taken from {str(report.config.get('uncalibrated')).upper()}"
    outcomes: dict[Outcome, str] = {
        "adapted": "adapted",
        "unchanged": "that tuning did not change",
        "excluded": "taken from NEW by the settings",
        "old": "taken from OLD by the settings",
        "uncalibrated": unreached,
    }
    counts = [f"{report.count(outcome)} {words}" for outcome, words in outcomes.items() if report.count(outcome)]
    adapted = [record for record in report.linears if record.outcome == "adapted"]
    shared = mean(record.overlap for record in adapted)
    parts = [f"{part.name}: {part.policy}" for part in report.components]
    others = [f"{count} {kind}" for kind, count in report.passed_through.items()]
    rows = [
        ["architecture", cell(report.architecture)],
        ["linear weights", ", ".join(counts)],
        ["parts", cell(", ".join(parts))],
        ["taken from NEW as they are", cell(", ".join(others))],
        ["safety's columns that the task wants too", "" if shared is None else f"{100 * shared:.0f} %"],
        ["safety samples", _calibration(report, report.safety)],
        ["task samples", _calibration(report, report.task)],
        ["rounds", _rounds(report)],
        ["settings", ", ".join(code(f"{name} = {value}") for name, value in _settings(report).items())],
    ]
    told = f"OLD is {_linked(report, report.run.old)} and NEW is {_linked(report, report.run.new)}.\n\n"
    return told + table(["", ""], [row for row in rows if row[1]], figures=False)


def _settings(report: MergeReport) -> dict[str, str]:
    """The options that shaped the weights, by name: the method's own, and what is not as usual."""
    shown = {}
    for item in fields(HPAConfig):
        value = report.config.get(item.name, item.default)
        own = report.method in users(item.name)
        if item.name == "method" or own or _word(value) != _word(item.default):
            shown[item.name] = _word(value)
    return shown


def _reproduction(report: MergeReport) -> str:
    """The command, with the names of the files alone, and what it ran on."""
    inputs = [_pinned(report, name) for name in (report.run.old, report.run.new)]
    words = ["hpa-merge", *inputs]
    for flag, record in (("--safety-calib", report.safety), ("--task-calib", report.task)):
        words += [word for file in (record.files if record is not None else ()) for word in (flag, _set(report, file))]
    words += ["-o", "out"]
    for item in fields(HPAConfig):
        value = report.config.get(item.name, item.default)
        flag = item.name.replace("_", "-")
        if _word(value) == _word(item.default):
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list | tuple):
            words += [word for text in value for word in (f"--{flag}", str(text))]
        else:
            words += [f"--{flag}", _word(value)]
    command = plain(shlex.join(words)).replace("```", "'''")
    versions = ", ".join(f"{name} {version}" for name, version in report.run.versions.items())
    local = [_name(report, name) for name in (report.run.old, report.run.new) if name not in report.run.commits]
    tower = " Its vision tower is that which config.json names, or --vision-tower." if is_original_llava(report) else ""
    folders = f" Folders of whoever made it: {cell(' and '.join(local))}." if local else ""
    return (
        f"```sh\n{command}\n```\n\n"
        f"The same inputs, settings and kind of device give the same bytes.{folders}{tower} It ran on "
        f"{cell(report.run.device)}, with {cell(versions)}. `hpa-merge verify FOLDER` compares the weights with the "
        "SHA-256 digests in `hpa_report.json`."
    )


def _limitations(report: MergeReport, measured: bool) -> str:
    samples = f"{report.safety.samples} safety samples" if report.safety else "the weights, without any safety sample"
    known = (
        "The figures above are of the test sets named there and of no others."
        if measured
        else "No evaluation of it came with this card: nothing here shows how safe it is or how well it does its tasks."
    )
    return (
        f"What is restored was chosen by {samples}; the method shows nothing about requests that are unlike them, and "
        f"is no proof of safety. {known} Evaluate the model on your own prompts before you use it. What "
        f"{_both(report)} may not be used for, this model may not be used for either."
    )


def _both(report: MergeReport) -> str:
    return " or ".join(cell(_name(report, name)) for name in (report.run.old, report.run.new))


def _citation(report: MergeReport) -> list[str]:
    rule = find_rule(report.method)
    return [f"```bibtex\n{rule.bibtex}\n```" if rule and rule.bibtex else f"The method: {_paper(report)}."]


def _paper(report: MergeReport) -> str:
    """What the rule is and where it comes from; its name where this version has no such rule."""
    rule = find_rule(report.method)
    return rule.paper if rule else report.method


def _calibration(report: MergeReport, record: CalibrationRecord | None) -> str:
    if record is None:
        return ""
    parts = [f"{part.samples} from {code(_set(report, part.file))}" for part in record.parts]
    files = ", ".join(parts) or f"from {code(_set(report, record.file))}"
    return f"{cell(set_text(record))}{': ' if parts else ' '}{files}"


def _set(report: MergeReport, given: str) -> str:
    """A calibration set as the command line takes it: of a data set on the Hub its commit, of a file its name alone."""
    commit = report.run.commits.get(given)
    return PurePath(given).name if commit is None else f"{given.partition('@')[0]}@{commit}"


def _name(report: MergeReport, given: str) -> str:
    """What OLD or NEW is called: its name on the Hub, or of a folder the last part alone."""
    return given.partition("@")[0] if given in report.run.commits else PurePath(given).name or "model"


def _linked(report: MergeReport, given: str) -> str:
    name = _name(report, given)
    return f"[{cell(name)}](https://huggingface.co/{name})" if given in report.run.commits else f"**{cell(name)}**"


def _pinned(report: MergeReport, given: str) -> str:
    commit = report.run.commits.get(given)
    return _name(report, given) if commit is None else f"{_name(report, given)}@{commit}"


def _word(value: object) -> str:
    """An option's value as the command line takes it."""
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
