"""Our section of the model card: what was restored, how to load the model and how to reproduce it."""

import shlex
from collections.abc import Mapping
from pathlib import PurePath

from hpa_merge.counting import counted
from hpa_merge.methods import find_rule, users
from hpa_merge.render.card.markdown import cell, code, plain, table
from hpa_merge.render.card.results import results_section
from hpa_merge.render.card.usage import is_original_llava, snippet_of
from hpa_merge.report.commands import changed_options, command_words
from hpa_merge.report.facts import adapted_in, report_facts, things_restored
from hpa_merge.report.over_rounds import ROUNDS_MEASURED, over_rounds
from hpa_merge.report.rows import figures_of
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.words import option_text, percent

__all__ = ["section_of"]

FOLLOWED = (
    "*hpa-merge did not write the rest of this card; what came with the model is about the model before the merge.*"
)


def section_of(report: MergeReport, figures: Mapping[str, str], *, followed: bool) -> str:
    """The section, without its marks.

    Args:
        report: without local paths (:func:`hpa_merge.report.redaction.for_others`), because the section is published.
        figures: pictures next to the card, by file name, and their alternative texts.
        followed: whether the card has other text.
    """
    new = _name(report, report.run.new)
    measured = results_section(report)
    parts = [
        f"# {cell(new)}, merged with hpa-merge",
        _verdict(report),
        _summary(report),
        *(f"![{cell(words)}]({name})" for name, words in figures.items()),
        "## What was restored",
        _facts(report),
        *(["## Evaluation", measured] if measured else []),
        *_rounds(report),
        "## How to load it",
        f"```python\n{snippet_of(report)}\n```",
        *_own_code(report),
        "## How to reproduce it",
        _reproduction(report),
        "## Limitations",
        _limitations(report, bool(measured)),
        "## Citation",
        *_citation(report),
        *([FOLLOWED] if followed else []),
    ]
    return "\n\n".join(parts) + "\n"


def _verdict(report: MergeReport) -> str:
    """The answer, the gate's and the cost; commands and advice are for the author."""
    verdict = report.verdict
    lines = [
        f"**Is it safe again?** {cell(verdict.answer)}",
        f"**Gate: {verdict.gate}.** {cell(' '.join(verdict.reasons))}",
        f"**What did it cost?** {cell(verdict.cost)}",
    ]
    measured = report.evaluation is not None or report.benchmarks is not None
    return "\n\n".join(lines if measured else lines[:1])


def _rounds(report: MergeReport) -> list[str]:
    """What was measured in the rounds of this model, with its heading."""
    found = over_rounds(report)
    if found is None:
        return []
    heads, rows = found
    return [f"## {ROUNDS_MEASURED}", table(heads, [[cell(each) for each in row] for row in rows])]


def _summary(report: MergeReport) -> str:
    """What this model is."""
    old, new = (_linked(report, name) for name in (report.run.old, report.run.new))
    adapter = f", an adapter on it ({cell(report.run.adapter)})" if report.run.adapter else ""
    what = "This adapter" if report.is_adapter else "This model"
    return (
        f"{what} is {new}{adapter}, with a part of its weights restored from {old}, the model before that tuning "
        "step. The aim is to keep the safety alignment and the earlier tasks of the one and the new task of the other. "
        f"Nothing was trained. {_restored(report)} The method is {_paper(report)}; "
        "[`hpa_report.json`](hpa_report.json) has every decision for every weight."
    )


def _restored(report: MergeReport) -> str:
    """How many linear weights were adapted, and how much of them is OLD's."""
    adapted = adapted_in(report)
    if not adapted:
        return "No linear weight was adapted."
    figures = figures_of(adapted)
    energy, share = figures["energy_restored"], figures["restored_share"]
    text = f"{len(adapted)} of its {counted(len(report.linears), 'linear weight')} were adapted"
    if share is not None:
        bits = ", bit for bit" if adapted[0].restored is not None else ""
        text += f": {percent(share)} of their {things_restored(report)} are OLD's again{bits}"
    if (compensated := figures["compensated_share"]) is not None:
        text += f", and {percent(compensated)} of the values compensate for the others"
    cost = "" if energy is None else f" What was restored held {percent(energy)} of the update's square, on average."
    return f"{text}.{cost}"


def _facts(report: MergeReport) -> str:
    """Counts, parts of the model, calibration sets and settings."""
    shared = figures_of(adapted_in(report))["shared"]
    rows = [
        ("architecture", report.architecture),
        *report_facts(report),
        *([] if shared is None else [("safety's columns that the task wants too", percent(shared))]),
    ]
    settings = ", ".join(code(f"{name} = {value}") for name, value in _settings(report).items())
    lines = [*([cell(name), cell(value)] for name, value in rows), ["settings", settings]]
    origin = f"OLD is {_linked(report, report.run.old)} and NEW is {_linked(report, report.run.new)}.\n\n"
    return origin + table(["", ""], lines, figures=False)


def _settings(report: MergeReport) -> dict[str, str]:
    """The method, its own options, and the options that are not their defaults."""
    config = report.config
    own = [name for name in config if name == "method" or report.method in users(name)]
    return {name: option_text(config[name]) for name in dict.fromkeys([*own, *changed_options(config)])}


def _reproduction(report: MergeReport) -> str:
    """The command, with file names instead of paths, and what it ran on."""
    words = ["hpa-merge", *(_pinned(report, name) for name in (report.run.old, report.run.new))]
    for flag, record in (("--safety-calib", report.safety), ("--task-calib", report.task)):
        words += [word for file in (record.files if record is not None else ()) for word in (flag, _set(report, file))]
    words += ["-o", "out", *(["--trust-remote-code"] if report.run.code else [])]
    words += command_words(report.config)
    command = plain(shlex.join(words)).replace("```", "'''")
    versions = ", ".join(f"{name} {version}" for name, version in report.run.versions.items())
    local = [_name(report, name) for name in (report.run.old, report.run.new) if name not in report.run.commits]
    tower = " config.json or --vision-tower names its vision tower." if is_original_llava(report) else ""
    folders = f" Folders on the author's machine: {cell(' and '.join(local))}." if local else ""
    return (
        f"```sh\n{command}\n```\n\n"
        f"The same inputs, settings and kind of device give the same bytes.{folders}{tower} It ran on "
        f"{cell(report.run.device)}, with {cell(versions)}. `hpa-merge verify FOLDER` compares the weights with the "
        "SHA-256 digests in `hpa_report.json`."
    )


def _own_code(report: MergeReport) -> list[str]:
    """A paragraph about the code that the model brings, if the merge ran it."""
    parts = [part for part in report.run.code if part.role == "NEW"]
    if not parts:
        return []
    files = "; ".join(
        ", ".join(map(code, part.files)) + (f" of {cell(part.repository)}" if part.repository else "") for part in parts
    )
    return [f"This model brings code of its own, which `trust_remote_code=True` runs: {files}. Read it first."]


def _limitations(report: MergeReport, measured: bool) -> str:
    samples = (
        counted(report.safety.samples, "safety sample") if report.safety else "the weights, without safety samples"
    )
    known = (
        "The figures above hold for the test sets named there and for no others."
        if measured
        else "This card came without an evaluation: nothing here shows how safe the model is or how well it does its "
        "tasks."
    )
    return (
        f"What was restored was chosen by {samples}; the method shows nothing about requests that are unlike them, and "
        f"is no proof of safety. {known} Evaluate the model on your own prompts before you use it. Any use that "
        f"{_both(report)} forbids is forbidden for this model too."
    )


def _both(report: MergeReport) -> str:
    return " or ".join(cell(_name(report, name)) for name in (report.run.old, report.run.new))


def _citation(report: MergeReport) -> list[str]:
    rule = find_rule(report.method)
    return [f"```bibtex\n{rule.bibtex}\n```" if rule and rule.bibtex else f"The method: {_paper(report)}."]


def _paper(report: MergeReport) -> str:
    """The rule and its paper; its name alone if this version does not know it."""
    rule = find_rule(report.method)
    return rule.paper if rule else report.method


def _set(report: MergeReport, given: str) -> str:
    """A calibration set on the command line: a data set on the Hub with its commit, a file without its folder."""
    commit = report.run.commits.get(given)
    return PurePath(given).name if commit is None else f"{given.partition('@')[0]}@{commit}"


def _name(report: MergeReport, given: str) -> str:
    """The name of OLD or NEW: that on the Hub, or the last part of a folder's path."""
    return given.partition("@")[0] if given in report.run.commits else PurePath(given).name or "model"


def _linked(report: MergeReport, given: str) -> str:
    name = _name(report, given)
    return f"[{cell(name)}](https://huggingface.co/{name})" if given in report.run.commits else f"**{cell(name)}**"


def _pinned(report: MergeReport, given: str) -> str:
    commit = report.run.commits.get(given)
    return _name(report, given) if commit is None else f"{_name(report, given)}@{commit}"
