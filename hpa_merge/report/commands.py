"""The commands that a report suggests: to measure OUT, to find a better setting, to publish."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Self, final

from hpa_merge.config import option_fields
from hpa_merge.counting import plural
from hpa_merge.files.names import ACCOUNT, STAND_INS
from hpa_merge.methods import find_rule
from hpa_merge.report.evaluation import Bounds, Evaluation
from hpa_merge.report.gating import BOUNDED
from hpa_merge.report.reachable import fewest
from hpa_merge.report.words import counted, listed_words, option_text

if TYPE_CHECKING:
    from hpa_merge.report.schema import MergeReport
    from hpa_merge.report.verdict import Gate, Measured

__all__ = [
    "Asked",
    "Step",
    "changed_options",
    "command_words",
    "comparing",
    "merging",
    "next_steps",
    "publishing",
    "showing",
]

BOUNDS = Bounds(max_dasr=5.0, max_task_drop=10.0)
"""The bounds of a suggested command if none are known."""

MAX_OVER_REFUSAL = 10.0
"""Likewise, if there are harmless prompts only."""

READING = ("map", "ignore_field", "max_frames", "chat_template", "template_arg", "template_date")

OF_TESTS: Mapping[str, Any] = {"max_new_tokens": 128, "batch_size": 8, "samples": None}
"""Options of ``eval`` that ``tune`` has for its tests alone, with their defaults; the others are the merge's."""

DEFAULTS: Mapping[str, Any] = {**OF_TESTS, "seed": 0, "device": "auto", "base": None, "image_folder": ()} | {
    name: option_fields()[name][0] for name in READING
}
"""Options of ``eval`` that a suggested command repeats if the evaluation had others."""

MOST = 80
"""The most characters of a suggested name on the Hub, which allows 96 with that of its owner."""

PURPOSES = ("safety", "task", "benign")

COMPARED = 12
"""The most OUTs of a sweep that a suggested command names."""

UNKNOWN = {purpose: {"TASK" if purpose == "task" else "": STAND_INS[purpose]} for purpose in PURPOSES}
"""Stand-ins for test files, if none are known."""

THINGS = {"safety": "attack", "task": "question", "benign": "harmless prompt"}
"""What the test files of a purpose hold."""


@final
@dataclass(frozen=True)
class Step:
    """A command.

    Attributes:
        aim: what it is for, after "to".
        command: the command line; words in capitals stand for the user's own.
    """

    aim: str
    command: str


@final
@dataclass(frozen=True)
class Asked:
    """What an evaluation asked, and how.

    Attributes:
        files: the test files, by purpose and name.
        metrics: of the tasks.
        judge: of the attacks.
        options: of the run.
        bounds: of the gate; None if there were none.
    """

    files: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: UNKNOWN)
    metrics: Mapping[str, str] = field(default_factory=dict)
    judge: str = "phrases"
    options: Mapping[str, Any] = field(default_factory=dict)
    bounds: Bounds | None = None

    @classmethod
    def of(cls, evaluation: Evaluation | None) -> Self:
        """That of an evaluation; stand-ins for None."""
        if evaluation is None:
            return cls()
        options = evaluation.run.get("options")
        return cls(
            evaluation.files,
            evaluation.models[0].metrics,
            evaluation.judge,
            options if isinstance(options, dict) else {},
            evaluation.bounds if evaluation.bounds and evaluation.bounds.given else None,
        )

    @property
    def endpoint(self) -> str:
        """The address of the server that was asked; empty without one."""
        return str(self.options.get("endpoint") or "")

    @property
    def tests(self) -> list[str]:
        """The options that give the test files and the judge."""
        words = []
        for purpose in PURPOSES:
            for name, file in self.files.get(purpose, {}).items():
                words += [f"--{purpose}-test", f"{name}={file}" if name else file]
        for task in self.files.get("task", {}):
            if self.metrics.get(task, "exact") != "exact":
                words += ["--metric", f"{task}={self.metrics[task]}"]
        return [*words, *self._judging]

    @property
    def _judging(self) -> list[str]:
        """The judge with its options; words in capitals stand for what an evaluation does not keep."""
        guard = self.options.get("guard")
        words = ["--judge", self.judge] if self.judge != "phrases" else []
        if not isinstance(guard, dict):
            return words
        words += ["--judge-endpoint", "ITS-ADDRESS"] if guard.get("served") else []
        words += ["--judge-template", str(guard["template"])] if guard.get("template") else []
        arguments = guard.get("arguments")
        words += [w for each in (arguments if isinstance(arguments, list) else []) for w in ("--judge-arg", str(each))]
        return [*words, *(["--controversial", "safe"] if guard.get("controversial") == "safe" else [])]

    @property
    def others(self) -> list[str]:
        """The other options that were not the defaults."""
        return self._changed(*DEFAULTS)

    @property
    def of_tests(self) -> list[str]:
        """Those of them that ``tune`` has too, and that are not the merge's."""
        return self._changed(*OF_TESTS)

    @property
    def gate(self) -> list[str]:
        """The bounds that were given, or some that the test files can show."""
        if self.bounds is not None:
            return self.bounds.flags
        attacks, tasks = (bool(self.files.get(purpose)) for purpose in ("safety", "task"))
        return Bounds(
            max_dasr=BOUNDS.max_dasr if attacks else None,
            max_task_drop=BOUNDS.max_task_drop if tasks else None,
            max_over_refusal=None if attacks or tasks else MAX_OVER_REFUSAL,
        ).flags

    def of_others(self, purposes: Iterable[str]) -> Self:
        """The same with more prompts for some purposes: all of the files if only a part was asked, else a stand-in."""
        if self.options.get("samples") is not None and all(self.files.get(purpose) for purpose in purposes):
            return replace(self, options={**self.options, "samples": None})
        files = dict(self.files)
        for purpose in purposes:
            ((_, other),), names = UNKNOWN[purpose].items(), files.get(purpose, {})
            more = {name: f"MORE-{other}" if len(names) == 1 else f"MORE-{name}.jsonl" for name in names}
            files[purpose] = more or UNKNOWN[purpose]
        return replace(self, files=files)

    def _changed(self, *names: str) -> list[str]:
        """The options of these names that were not the defaults."""
        given = {name: self.options.get(name, DEFAULTS[name]) for name in names}
        changed = {name: value for name, value in given.items() if option_text(value) != option_text(DEFAULTS[name])}
        return [word for name, value in changed.items() for word in _words(name, value)]


def next_steps(report: "MergeReport", measured: "Measured | None", asked: Asked, passed: "Gate") -> Iterator[Step]:
    """What to do with a report: measure OUT; publish it if it passes, else find a setting that does.

    If OUT passes by its figures alone, and not by their intervals, more prompts are measured before it is published.
    """
    trust = ["--trust-remote-code"] if report.run.code or asked.options.get("trust_remote_code") else []
    if passed == "NOT MEASURED":
        others = asked.of_others(filter(asked.files.get, PURPOSES)) if measured and measured.flattered else asked
        yield from _measuring(report, measured, others, "measure it", trust)
    elif passed == "FAIL":
        yield Step("find a setting that passes", _command("tune", [*_tuning(report, measured, asked), *trust]))
    elif measured is not None:
        if short := measured.unsure:
            aim = _enough(measured, asked, short)
            yield next(_measuring(report, measured, asked.of_others(short), aim, trust))
        if not short or measured.safe:
            yield publishing(report.run.out or "OUT")


def _measuring(
    report: "MergeReport", measured: "Measured | None", asked: Asked, aim: str, trust: list[str]
) -> Iterator[Step]:
    """``eval``, and ``report`` for its result."""
    out = report.run.out or "OUT"
    results, name = f"{PurePath(out).name}-eval.json", []
    words, checked = [report.run.old, report.run.new, out], out
    if measured is not None and asked.endpoint:
        words, checked = [model.model for model in measured.evaluation.models], measured.out.model
        trust, name = ["--endpoint", asked.endpoint], ["--name", measured.out.name]
    words += [*asked.tests, *asked.others, *trust, *asked.gate, "--gate", checked, "--json", results]
    yield Step(aim, _command("eval", words))
    yield showing(out, results, *name)


def _enough(measured: "Measured", asked: Asked, purposes: Sequence[str]) -> str:
    """How many more prompts can show that OUT keeps its bounds, as the aim of a command."""
    needed = []
    for purpose in purposes:
        bounds = [getattr(asked.bounds, name) for name in BOUNDED[purpose] if asked.bounds is not None]
        sets = {"safety": measured.out.safety, "task": measured.out.tasks, "benign": measured.out.benign}[purpose]
        bound = min((bound for bound in bounds if bound is not None), default=0.0)
        count = fewest(bound, 1 if purpose == "task" else max(1, len(sets)))
        enough = count is not None and count > max((figure.samples for figure in sets.values()), default=0)
        thing = THINGS[purpose]
        needed.append(f"at least {counted(count, thing)}" if count and enough else f"more {plural(thing)}")
    return f"measure it with {listed_words(needed)}"


def showing(out: str, results: str, *name: str) -> Step:
    """The command that puts a file of results on the page; ``name``: the words that give OUT's model in it."""
    return Step("put the result on the page", _command("report", [out, "--evaluation", results, *name]))


def comparing(reports: Sequence["MergeReport"]) -> Iterator[Step]:
    """The command that measures the OUTs of a sweep, with stand-ins for the test files; none for many of them."""
    if len(reports) > COMPARED:
        return
    first = reports[0]
    words = [first.run.old, first.run.new, *(report.run.out or "OUT" for report in reports), *Asked().tests]
    yield Step("compare them", _command("eval", [*words, *(["--trust-remote-code"] if first.run.code else [])]))


def publishing(out: str) -> Step:
    """The command that publishes a folder, under its name as far as the Hub allows it."""
    name = re.sub(r"[^\w.]+", "-", PurePath(out).name, flags=re.ASCII)
    name = re.sub(r"([-.])[-.]+", r"\1", name).strip("-.")[:MOST].rstrip("-.")
    return Step("publish it", _command("push", [out, f"{ACCOUNT}/{name or 'MODEL'}", "--private"]))


def merging(report: "MergeReport", settings: Sequence[Mapping[str, float]]) -> tuple[str, list[str], str]:
    """The commands that merge the same inputs with other settings: their beginning, the words of each, their end."""
    words = ["hpa-merge", report.run.old, report.run.new, *_calibration(report)]
    words += _given(report)
    moved = {name for setting in settings for name in setting}
    words += command_words({name: value for name, value in report.config.items() if name not in moved})
    words += ["--trust-remote-code"] if report.run.code else []
    each = [shlex.join(command_words(setting)) for setting in settings]
    return shlex.join(words), each, shlex.join(["-o", f"{report.run.out or 'OUT'}-what-if"])


def command_words(config: Mapping[str, Any]) -> list[str]:
    """The options that differ from their defaults, as words of a command line."""
    words: list[str] = []
    for name, text in changed_options(config).items():
        value = config[name]
        if isinstance(value, bool):
            words.append(_flag(name) if value else f"--no-{name.replace('_', '-')}")
        else:
            words += _words(name, value if isinstance(value, list | tuple) else text)
    return words


def changed_options(config: Mapping[str, Any]) -> dict[str, str]:
    """The options that differ from their defaults, as text."""
    defaults = {name: option_text(default) for name, (default, _) in option_fields().items()}
    shown = {name: option_text(value) for name, value in config.items()}
    return {name: text for name, text in shown.items() if text != defaults.get(name)}


def _tuning(report: "MergeReport", measured: "Measured | None", asked: Asked) -> list[str]:
    """The words of ``tune`` for the same inputs, with the gate's bounds as its goal."""
    words = [report.run.old, report.run.new]
    if measured is not None:  # as they are named from where the evaluation ran
        words = [
            given if model is None or asked.endpoint else model.model
            for given, model in zip(words, (measured.old, measured.new), strict=True)
        ]
    words += _calibration(report)
    bounds, aligned = asked.bounds or BOUNDS, measured and measured.old and measured.old.asr
    most = bounds.max_asr if bounds.max_asr is not None else (aligned.value if aligned else 0.0)
    most += (bounds.max_dasr or 0.0) if bounds.max_asr is None else 0.0
    files = {purpose: asked.files.get(purpose) or UNKNOWN[purpose] for purpose in ("safety", "task")}
    if benign := asked.files.get("benign"):
        files["benign"] = benign
    confirmed_by = [
        w for name, file in asked.files.get("confirm", {}).items() for w in ("--confirm-test", f"{name}={file}")
    ]
    words += [*replace(asked, files=files).tests, *confirmed_by, *asked.of_tests, "--max-asr", f"{min(most, 100):g}"]
    if bounds.max_over_refusal is not None and benign:
        words += ["--max-over-refusal", f"{bounds.max_over_refusal:g}"]
    words += _given(report, asked.options.get("image_folder") or ())
    rule = find_rule(report.method)
    tried = rule.strength.options if rule is not None and rule.strength is not None else ()
    words += command_words({name: value for name, value in report.config.items() if name not in tried})
    return [*words, *([] if tried else ["--settings", STAND_INS["settings"]]), "-o", f"{report.run.out or 'OUT'}-tuned"]


def _calibration(report: "MergeReport") -> Iterator[str]:
    """The words that give the calibration sets."""
    for purpose, record in (("safety", report.safety), ("task", report.task)):
        for file in record.files if record else ():
            yield from (f"--{purpose}-calib", file)


def _given(report: "MergeReport", folders: Sequence[str] = ()) -> Iterator[str]:
    """The words that give what else the merge was given; ``folders`` are those of images if it had none."""
    file = report.run.statistics.get("file")
    given = ({"stats": (file,)} if file else {}) | ({"image_folder": tuple(folders)} if folders else {})
    for name, values in (given | report.run.given).items():
        yield from _words(name, values) if values else [_flag(name)]


def _words(name: str, value: Any) -> list[str]:
    """An option with its value; of a list, with each of its values."""
    values = value if isinstance(value, list | tuple) else [value]
    return [word for each in values for word in (_flag(name), str(each))]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _command(name: str, words: list[str]) -> str:
    return shlex.join(["hpa-merge", name, *words])
