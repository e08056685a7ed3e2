"""The figures of several models, their differences, and the file that keeps them.

Imports no torch: ``hpa-merge score`` reads such files and nothing else.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, final

from hpa_merge.errors import EvaluationError
from hpa_merge.files.parsing import CONFIG, read_json
from hpa_merge.report.showing import Shown
from hpa_merge.report.typed import typed

SCHEMA_VERSION = 1

MARK = "hpa-merge evaluation"

MAX_BROKEN = 10.0
"""From this percentage of broken answers on, a figure of refusals means little."""

ASKED = {"safety": "unsafe", "benign": "benign"}
"""The purposes whose broken answers are counted, and their prompts in words."""


Estimated = Literal["score", "bootstrap"]
"""How an interval is computed: by a score interval (Wilson's of a share, Tango's of a paired difference), or by the
percentile bootstrap where some scores are neither 0 nor 1."""


@final
@dataclass(frozen=True)
class Figure:
    """A percentage.

    Attributes:
        value: the mean.
        low, high: its 95 % interval.
        samples: the number of scores.
        interval: how it was computed; ``bootstrap`` in files of earlier versions.
    """

    value: float
    low: float
    high: float
    samples: int
    interval: Estimated = "bootstrap"


@final
@dataclass(frozen=True)
class Difference:
    """How far a figure of a model is above that of an earlier model, on the same prompts.

    Attributes:
        than: the name of the earlier model.
        kind: ``safety``, ``tasks`` or ``benign``.
        name: of the set; None for the mean over the sets.
        value: in points; negative if the model's figure is lower.
        low, high: its 95 % interval, for pairs of answers to the same prompt.
        samples: the number of pairs.
        interval: how it was computed.
    """

    than: str
    kind: str
    name: str | None
    value: float
    low: float
    high: float
    samples: int
    interval: Estimated = "bootstrap"


@final
@dataclass(frozen=True)
class ModelResult:
    """The figures of one model, in percent.

    Attributes:
        name: its name in tables.
        model: its folder, or its name on the server.
        safety: attack success rate, by the name of the set.
        tasks: performance, by the name of the task.
        benign: share of benign prompts that are refused, by the name of the set.
        metrics: the metric of each task.
        asr, performance, over_refusal: means over the sets, with equal weights; None if there is no set.
        broken: share of answers that say nothing (empty, looping, thinking that does not end), which are neither
            successes nor refusals; by purpose, ``safety`` and ``benign``. Empty in old files.
        differences: from each earlier model, for each set and for the means; empty in old files.
    """

    name: str
    model: str
    safety: dict[str, Figure]
    tasks: dict[str, Figure]
    benign: dict[str, Figure]
    metrics: dict[str, str]
    asr: Figure | None = None
    performance: Figure | None = None
    over_refusal: Figure | None = None
    broken: dict[str, Figure] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()

    def difference(self, than: str, kind: str, name: str | None = None) -> Difference | None:
        """The difference from an earlier model on a set, or of the means; None if it was not measured."""
        asked = (than, kind, name)
        return next((each for each in self.differences if (each.than, each.kind, each.name) == asked), None)


@final
@dataclass(frozen=True)
class Bounds:
    """The bounds of the gate; None: no bound.

    Attributes:
        max_asr: percent of the attacks that may succeed, whatever the first model does.
        max_dasr: points that the mean attack success rate may be above the first model's.
        max_task_drop: points that a task may be below the first model's.
        max_over_refusal: percent of benign prompts that may be refused, whatever the first model refuses.
        max_broken: percent of broken answers with which a model still passes bounds of attacks and of refusals.
        confident: each bound holds for the worse end of the 95 % interval, not for the measured value.
    """

    max_dasr: float | None = None
    max_task_drop: float | None = None
    max_over_refusal: float | None = None
    max_broken: float = MAX_BROKEN
    max_asr: float | None = None
    confident: bool = False

    @property
    def given(self) -> bool:
        """Whether anything is bounded."""
        return (self.max_asr, self.max_dasr, self.max_task_drop, self.max_over_refusal) != (None,) * 4

    @property
    def flags(self) -> list[str]:
        """The options of the command line that give these bounds."""
        named = ["max_asr", "max_dasr", "max_task_drop", "max_over_refusal"]
        named += ["max_broken"] if self.max_broken != MAX_BROKEN else []
        bounds = ((f"--{name.replace('_', '-')}", getattr(self, name)) for name in named)
        words = [word for flag, bound in bounds if bound is not None for word in (flag, f"{bound:g}")]
        return [*words, *(["--confident"] if self.confident else [])]


@final
@dataclass(frozen=True, repr=False)
class Evaluation(Shown):
    """The results of ``hpa-merge eval``.

    Attributes:
        models: in the order in which they were given.
        judge: the judge of the answers to unsafe prompts: ``phrases``, a guard model, or a function.
        files: the test files, by purpose and name.
        failures: a sentence for each bound of the gate that a model exceeds.
        run: seconds, device, versions, options.
        bounds: of the gate, or of ``tune``; None in files of earlier versions.
        choice: of ``tune``, OLD, NEW and every setting on the prompts that one was chosen by, if ``models`` has the
            figures of OLD, NEW and the chosen one on other prompts.
    """

    models: tuple[ModelResult, ...]
    judge: str
    files: dict[str, dict[str, str]]
    failures: tuple[str, ...] = ()
    run: dict[str, Any] = field(default_factory=dict)
    bounds: Bounds | None = None
    choice: tuple[ModelResult, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each model and purpose with more broken answers than :data:`MAX_BROKEN`."""
        return tuple(
            f"{figure.value:.1f} % of {model.name}'s answers to {asked} prompts are broken (empty, looping, "
            "or thinking that does not end), and count as no success and no refusal: look at them with --answers, and "
            "raise --max-new-tokens if they are cut off."
            for model in self.models
            for purpose, asked in ASKED.items()
            if (figure := model.broken.get(purpose)) and beyond(figure.value, MAX_BROKEN)
        )

    def summary(self) -> tuple[str, Sequence[tuple[str, str]]]:
        """As :meth:`hpa_merge.report.showing.Shown.summary`."""
        from hpa_merge.report.summaries import summary_of_evaluation

        return summary_of_evaluation(self)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each figure of each model, in percent with its 95 % interval."""
        from hpa_merge.report.summaries import result_rows

        return result_rows(self.models)

    def to_json(self) -> str:
        """The text of the file."""
        content = {"format": MARK, "schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        return text.encode("utf-8", "replace").decode("utf-8")  # names may hold bytes that are not UTF-8


def apart(model: ModelResult, other: ModelResult, kind: str, name: str | None = None) -> Difference | None:
    """How far a model's figure is above another's, whichever of them was asked first; None if it was not measured."""
    found = model.difference(other.name, kind, name)
    if found is not None or (reverse := other.difference(model.name, kind, name)) is None:
        return found
    return replace(reverse, than=other.name, value=0.0 - reverse.value, low=-reverse.high, high=-reverse.low)


def read_evaluation(path: str | Path) -> Evaluation:
    """Read a file of :meth:`Evaluation.to_json`.

    Raises:
        EvaluationError: it cannot be read, is not such a file, or has another version.
    """
    try:
        return _evaluation(read_json(Path(path), CONFIG, finite=True))
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read ({error.strerror or error}): check the path.") from error
    except (ValueError, OverflowError) as error:
        raise EvaluationError(
            f"{path} holds no results of an evaluation ({error}): write it again with --json."
        ) from error


def measured_in(content: Mapping[str, Any] | None) -> tuple[Evaluation, ModelResult] | None:
    """The evaluation that a report holds, and the merged model in it; None if there is none that this version reads.

    The merged model is the report's ``out``, the setting that ``tune`` chose, or the last one.
    """
    try:
        evaluation = _evaluation(content)
    except (ValueError, OverflowError):
        return None
    assert content is not None
    name = content.get("out", evaluation.run.get("chosen"))
    return evaluation, next((model for model in evaluation.models if model.name == name), evaluation.models[-1])


def beyond(value: float, bound: float) -> bool:
    """Whether a difference of percentages exceeds the bound by more than rounding."""
    return value > bound and not math.isclose(value, bound, abs_tol=1e-9)


def _evaluation(content: Any) -> Evaluation:
    """An evaluation from JSON.

    Raises:
        ValueError: it is none, or has another version.
    """
    if not isinstance(content, dict) or content.get("format") != MARK:
        raise ValueError("hpa-merge eval --json did not write it")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"it has schema_version {content.get('schema_version')!r}, and this version reads {SCHEMA_VERSION}"
        )
    evaluation: Evaluation = typed(Evaluation, content, "the evaluation")
    if not evaluation.models:
        raise ValueError("it has no model")
    return evaluation
