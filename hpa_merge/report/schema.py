"""``hpa_report.json``: everything that a merge decided, tensor by tensor.

Except for ``run`` (time, memory, versions, paths) and the verdict's commands, the report is a function of the inputs,
the options and the kind of device, so that a pipeline can compare it.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from hpa_merge.counting import counted
from hpa_merge.errors import CheckpointError
from hpa_merge.files import parsing
from hpa_merge.files.inside import NotInside, find_inside
from hpa_merge.files.names import REPORT
from hpa_merge.files.weight_names import CONFIGS
from hpa_merge.methods import method_of
from hpa_merge.methods.what_if import Grid
from hpa_merge.report.benchmarks import Benchmarks
from hpa_merge.report.earlier import RENAMED, brought_up
from hpa_merge.report.reached import missing_sets
from hpa_merge.report.records import (
    CalibrationRecord,
    ComponentRecord,
    DriftRecord,
    LinearRecord,
    Outcome,
    RoundRecord,
    RoutingRecord,
    RunRecord,
)
from hpa_merge.report.rows import linear_row
from hpa_merge.report.showing import Shown
from hpa_merge.report.typed import typed
from hpa_merge.report.validity import check_lengths, check_linear, check_meaning, check_routing
from hpa_merge.report.verdict import Verdict, verdict_of
from hpa_merge.report.words import shortened

SCHEMA_VERSION = 2


@final
@dataclass(frozen=True, repr=False)
class MergeReport(Shown):
    """The report of a merge.

    Attributes:
        architecture: class name of the model.
        config: the options, by the names of :class:`hpa_merge.config.HPAConfig`.
        safety, task: the calibration sets; None if the method uses none.
        linears: every linear weight, in the order of the merge.
        components: the parts of the model.
        passed_through: tensors that are not adaptable linears and came from NEW byte for byte, by kind.
        unmerged: names of the weights among them that are not embeddings or routers: convolutions, tables, and weights
            whose inputs are not known.
        left_out: files of NEW that were not carried over (other weight formats, leftovers of training, links to other
            places), and folders from which nothing was.
        manifest: SHA-256 of every file of OUT, in hexadecimal, by its path in OUT; without the model card, which people
            edit, and this report. Reports of earlier versions name only the weight files and their index.
        run: what differs from run to run.
        history: the earlier rounds, the first one first, if a merge made OLD too.
        evaluation: the evaluation of OUT, as ``hpa-merge eval --json`` writes it; None without one.
        drift: how far the linear weights moved; None in old reports.
        routing: how far NEW sends tokens to other experts than OLD, for each mixture; empty if nothing was compared.
        benchmarks: what other harnesses measured of OLD, NEW and OUT; None without their results.
        what_if: the settings for which each linear has how much of its update they would undo; None in old reports, and
            if the method does not compute that.
    """

    architecture: str
    config: dict[str, Any]
    safety: CalibrationRecord | None
    task: CalibrationRecord | None
    linears: tuple[LinearRecord, ...]
    components: tuple[ComponentRecord, ...] = field(default=(), kw_only=True)
    passed_through: dict[str, int]
    unmerged: tuple[str, ...] = field(default=(), kw_only=True)
    left_out: tuple[str, ...]
    manifest: dict[str, str]
    run: RunRecord
    history: tuple[RoundRecord, ...] = ()
    evaluation: dict[str, Any] | None = None
    drift: DriftRecord | None = None
    routing: tuple[RoutingRecord, ...] = ()
    benchmarks: Benchmarks | None = None
    what_if: Grid | None = None

    @property
    def method(self) -> str:
        """The name of the rule."""
        return method_of(self.config)

    @property
    def is_adapter(self) -> bool:
        """Whether OUT is an adapter on OLD."""
        return self.config.get("output_format") == "adapter"

    def count(self, outcome: Outcome) -> int:
        """The number of linears with this outcome."""
        return Counter(record.outcome for record in self.linears)[outcome]

    @property
    def warnings(self) -> list[str]:
        """Sentences for the user."""
        sentences = []
        uncalibrated = [record.name for record in self.linears if record.outcome == "uncalibrated"]
        if uncalibrated:
            source = self.config["uncalibrated"].upper()
            missing = " or of the ".join(f"{name} set" for name in missing_sets(self))
            sentences.append(
                f"{len(uncalibrated)} of the changed linears came from {source}, because no token of the {missing} "
                f"reached them: {shortened(uncalibrated)}."
            )
        if experts := self.passed_through.get("expert"):
            sentences.append(
                f"{counted(experts, 'expert weight')} came from NEW: how {self.architecture} uses them is not known."
            )
        if not self.count("adapted"):
            sentences.append("No linear was adapted: OUT's weights are NEW's.")
        if self.left_out:
            sentences.append(f"Not carried over from NEW: {shortened(self.left_out)}.")
        return [*sentences, *self.run.notes]

    @property
    def verdict(self) -> Verdict:
        """Whether OUT is safe again, what that cost, and what to do next."""
        return verdict_of(self)

    def summary(self) -> tuple[str, Sequence[tuple[str, str]]]:
        """As :meth:`hpa_merge.report.showing.Shown.summary`."""
        from hpa_merge.report.summaries import summary_of

        return summary_of(self)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each linear weight."""
        return [linear_row(record) for record in self.linears]

    def to_json(self) -> str:
        """The text of the file; the verdict and the warnings in it follow from the rest."""
        content: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "verdict": dataclasses.asdict(self.verdict)}
        content |= {**dataclasses.asdict(self), "warnings": self.warnings}
        for name in ("routing", "unmerged", "what_if", "benchmarks"):
            if not content[name]:
                del content[name]
        content["linears"] = [{k: v for k, v in record.items() if v is not None} for record in content["linears"]]
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_report(folder: str | Path, role: str = "OUT") -> MergeReport:
    """The report in a merged folder, of this schema or an earlier one; unknown fields are ignored.

    Args:
        role: the folder's name in messages.

    Raises:
        CheckpointError: there is none, it cannot be read, or it has a later schema.
    """
    folder = Path(folder)
    try:
        find_inside(folder, REPORT)
    except NotInside as error:
        raise CheckpointError(error.sentence(f"{role} {folder}: {REPORT}")) from error
    except OSError:
        pass  # a missing or unreadable file is reported below
    return read_report_file(folder / REPORT, f"{role} {folder}")


def read_report_file(path: Path, place: str) -> MergeReport:
    """The report in a file, as :func:`read_report`; messages begin with ``place``."""
    try:
        content = parsing.read_json(path, parsing.REPORT, finite=True)
        if not isinstance(content, dict) or "schema_version" not in content:
            raise ValueError("it has no schema_version")
        version = content["schema_version"]
        check_lengths(content)
        content = brought_up(content)
        if content["schema_version"] == SCHEMA_VERSION:
            report: MergeReport = typed(MergeReport, content, "the report")
            check_meaning(report)
            return report
    except FileNotFoundError:
        raise CheckpointError(f"{place} has no {path.name}{_instead(path.parent)}.") from None
    except OSError as error:
        raise CheckpointError(
            f"{place}: {path.name} cannot be read ({error.strerror or error}): check its permissions."
        ) from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise CheckpointError(
            f"{place}: {path.name} is not a report of hpa-merge ({error}): fetch the folder again, or merge again."
        ) from error
    versions = " and ".join(map(str, (*RENAMED, SCHEMA_VERSION)))
    raise CheckpointError(
        f"{place}: {path.name} has schema_version {version!r} and this version reads {versions}: "
        "use the version of hpa-merge that made it."
    )


def _instead(folder: Path) -> str:
    """What a folder without a report is, and what to give."""
    model, adapter = (folder / name for name in CONFIGS)
    kind = "an adapter" if adapter.is_file() else "a checkpoint" if model.is_file() else ""
    is_one = f": it is {kind} that no merge has made, or that lost its report" if kind else ""
    return f"{is_one}: give a folder that hpa-merge has made"


def routing_of(content: Any) -> tuple[RoutingRecord, ...]:
    """The records of mixtures from the JSON of a report, a journal or a statistics file.

    Raises:
        ValueError: a field is missing, or has a wrong type or an impossible value.
    """
    records: tuple[RoutingRecord, ...] = typed(tuple[RoutingRecord, ...], content, "the routing")
    for record in records:
        check_routing(record)
    return records


def linear_of(content: Any) -> LinearRecord:
    """The record of a linear from the JSON of a report or a journal.

    Raises:
        ValueError: a field is missing, or has a wrong type or an impossible value.
    """
    record: LinearRecord = typed(LinearRecord, content, "a linear")
    check_linear(record)
    return record
