"""The data of ``hpa-merge inspect``: reports, or statistics files. Imports no torch.

docs/formats.md describes the JSON and the CSV.
"""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from hpa_merge.arguments import checked
from hpa_merge.counting import counted
from hpa_merge.errors import CheckpointError, ConfigError
from hpa_merge.files.names import REPORT
from hpa_merge.printable import printable
from hpa_merge.report.records import LinearRecord
from hpa_merge.report.rows import COLUMNS, GROUP_COLUMNS, By, group_rows
from hpa_merge.report.schema import MergeReport, read_report_file
from hpa_merge.report.showing import Shown
from hpa_merge.report.statistics_summary import StatisticsSummary, is_statistics, read_summary
from hpa_merge.report.walking import mapped

FORMAT = "hpa-merge inspection"

SCHEMA_VERSION = 2


@final
@dataclass(frozen=True)
class Named:
    """A report with its name.

    Attributes:
        name: its name in tables: the folder's name, or the path if two folders have the same name.
        path: as it was given.
        report: the whole report.
        linears: the chosen linears.
    """

    name: str
    path: str
    report: MergeReport
    linears: tuple[LinearRecord, ...]


@final
@dataclass(frozen=True, repr=False)
class Inspection(Shown):
    """Reports, or statistics files.

    Attributes:
        reports: in the given order.
        statistics: likewise; there are either reports or statistics.
        layer: the regular expression that chose the linears; None: all of them.
        by: what a row stands for: a depth, a projection, or a linear.
    """

    reports: tuple[Named, ...]
    statistics: tuple[StatisticsSummary, ...]
    layer: str | None = None
    by: By = "linear"

    def printable(self) -> "Inspection":
        """The same with control characters escaped: a report may come from anywhere."""
        return Inspection(mapped(self.reports, _escaped), mapped(self.statistics, _escaped), self.layer, self.by)

    def to_json(self) -> str:
        """The figures as JSON."""
        content: dict[str, Any] = {"format": FORMAT, "schema_version": SCHEMA_VERSION}
        if self.statistics:
            content["statistics"] = [dataclasses.asdict(summary) for summary in self.statistics]
        else:
            content["by"] = self.by
            content["reports"] = [_as_json(each, self.by) for each in self.reports]
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def summary(self) -> tuple[str, Sequence[tuple[str, str]]]:
        """As :meth:`hpa_merge.report.showing.Shown.summary`."""
        if self.statistics:
            return counted(len(self.statistics), "statistics file"), [("file", each.path) for each in self.statistics]
        title = f"{counted(len(self.reports), 'report')}, a row for each {self.by}"
        return title, [(each.name, each.report.summary()[0]) for each in self.reports]

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the CSV."""
        if self.statistics:
            return [
                {"file": summary.path} | dataclasses.asdict(linear)
                for summary in self.statistics
                for half in summary.halves
                for linear in half.linears
            ]
        return [{"out": each.name} | row for each in self.reports for row in group_rows(each.linears, self.by)]

    def to_csv(self) -> str:
        """The figures as CSV: a line for each row of each report or file; a missing figure is an empty cell."""
        if self.statistics:
            headings = ["file", "half", "name", "tokens", "columns", "minimum", "median", "maximum"]
        else:
            headings = ["out", *(COLUMNS if self.by == "linear" else GROUP_COLUMNS[self.by])]
        file = io.StringIO()
        writer = csv.DictWriter(file, headings, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows())
        return file.getvalue()


@checked
def inspect(*paths: str | Path, layer: str | None = None, by: By = "linear") -> Inspection:
    """Read the reports of merges, or statistics files.

    Args:
        paths: merged folders, folders with ``hpa_report.json`` alone, such files, or files of ``--stats``.
        layer: only linears whose name matches this regular expression.
        by: what a row of the CSV and the JSON stands for: ``depth``, ``projection`` or ``linear``.

    Raises:
        CheckpointError: there is no report, or it cannot be read.
        StatisticsError: a file is not a statistics file, or is damaged.
        ConfigError: reports and statistics are mixed; the expression is invalid, or matches no linear.
    """
    given = [Path(path) for path in paths]
    if not given:
        raise ConfigError("no path is given: give a merged folder or a statistics file.")
    kinds = {path: _is_statistics(path) for path in given}
    if len(set(kinds.values())) > 1:
        raise ConfigError("reports and statistics files are given together: inspect one kind at a time.")
    reports: tuple[Named, ...] = ()
    statistics: tuple[StatisticsSummary, ...] = ()
    if kinds[given[0]]:
        statistics = tuple(read_summary(path) for path in given)
    else:
        found = [_read(path) for path in given]
        reports = tuple(Named(n, str(p), r, r.linears) for n, p, r in zip(_names(given), given, found, strict=True))
    inspection = Inspection(reports, statistics, layer, by)
    return inspection if layer is None else _only(inspection, layer)


def _is_statistics(path: Path) -> bool:
    """Whether a path is that of a safetensors file.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        return path.is_file() and is_statistics(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}): check its permissions.") from error


def _read(path: Path) -> MergeReport:
    """The report in a folder, or in a file."""
    if path.is_dir():
        return read_report_file(path / REPORT, f"OUT {path}")
    if not path.exists():
        raise CheckpointError(f"{path} does not exist: give a merged folder, its {REPORT}, or a statistics file.")
    return read_report_file(path, f"the folder {path.absolute().parent}")


def _names(paths: Sequence[Path]) -> list[str]:
    """The names of the OUTs in tables."""
    folders = [path.parent if path.name == REPORT else path for path in map(Path.absolute, paths)]
    short = [folder.name or str(folder) for folder in folders]
    return [name if short.count(name) == 1 else str(path) for name, path in zip(short, paths, strict=True)]


def _only(inspection: Inspection, layer: str) -> Inspection:
    """Keep only the linears whose name matches the expression.

    Raises:
        ConfigError: the expression is invalid, or matches no linear.
    """
    try:
        pattern = re.compile(layer)
    except re.error as error:
        raise ConfigError(f"layer is not a regular expression: {layer!r} ({error}).") from None
    reports = tuple(
        dataclasses.replace(each, linears=tuple(record for record in each.linears if pattern.search(record.name)))
        for each in inspection.reports
    )
    statistics = tuple(
        dataclasses.replace(
            summary,
            halves=tuple(
                dataclasses.replace(half, linears=tuple(x for x in half.linears if pattern.search(x.name)))
                for half in summary.halves
            ),
        )
        for summary in inspection.statistics
    )
    if not any(each.linears for each in reports) and not any(h.linears for s in statistics for h in s.halves):
        example = next(
            (record.name for each in inspection.reports for record in each.linears),
            next((x.name for s in inspection.statistics for h in s.halves for x in h.linears), ""),
        )
        raise ConfigError(f"no linear has {layer!r} in its name: names are like {example}.")
    return dataclasses.replace(inspection, reports=reports, statistics=statistics)


def _as_json(named: Named, by: By) -> dict[str, Any]:
    """A report for programs: its fields but for the linears, and the rows."""
    report = dataclasses.replace(named.report, linears=())
    content = dataclasses.asdict(report)
    del content["linears"]
    rows = [{k: v for k, v in row.items() if v is not None} for row in group_rows(named.linears, by)]
    return {
        "name": named.name,
        "path": named.path,
        "round": len(report.history) + 1,
        **content,
        "warnings": named.report.warnings,
        "rows": rows,
    }


def _escaped(value: Any) -> Any:
    """A text with the characters escaped that would move a terminal's cursor."""
    return printable(value) if isinstance(value, str) else value
