"""Checks that the values of a report are possible: counts, shares, masks of columns, names of files.

A report may come from anyone, and be forged. After these checks no number is negative or unbounded, a mask has a bit
for each column, and a name in the manifest is a path inside OUT.
"""

import base64
import dataclasses
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

from hpa_merge.files.names import REPORT
from hpa_merge.report.benchmarks import BENCHMARKS, Benchmarks
from hpa_merge.report.records import LinearRecord, RoutingRecord
from hpa_merge.report.saliency import unpack_cells
from hpa_merge.report.what_if import are_shares, check_grid

__all__ = ["ROUNDS", "check_lengths", "check_linear", "check_meaning", "check_routing"]

ROUNDS = 1000
"""The most earlier rounds: with one a month, 83 years."""

LINEARS = 300_000
"""The most linears of a report: the limit for tensors of a checkpoint."""

MOST = 2**53
"""The greatest count: larger numbers in JSON are not exact in every reader."""

AXIS = 2**31
"""The most rows or columns of a weight."""

FIGURES = ("alpha", "kappa", "relative_update", "distance", "old_norm", "safety_cost", "safety_budget")
"""Figures of a linear that are neither counts nor shares."""

LEAST, GREATEST = 1e-100, 1e100
"""Bounds of every figure that is not 0, so that sums of squares and quotients are finite."""

CELLS = 2**16
"""The most characters of the cells of one weight, enough for 64 decades of both scores."""

DIGEST = re.compile(r"[0-9a-f]{64}")


def check_lengths(content: dict[str, Any]) -> None:
    """Check the number of linears and rounds, before the records are made.

    Raises:
        ValueError: there are too many.
    """
    for name, most in (("linears", LINEARS), ("routing", LINEARS), ("history", ROUNDS)):
        if isinstance(content.get(name), list) and len(content[name]) > most:
            raise ValueError(f"it has {len(content[name])} entries of {name}, and at most {most} are possible")


def check_meaning(report: Any) -> None:
    """Check every bounded field of a :class:`~hpa_merge.report.schema.MergeReport`.

    Raises:
        ValueError: a value is impossible; names the field.
    """
    for record in report.linears:
        check_linear(record)
    parts = [report.safety, report.task, report.run, report.drift, *report.components, *report.history]
    parts += [part for past in report.history for part in (past.safety, past.task, past.drift)]
    for part in parts:
        if part is not None and (wrong := next(_of_part(part), None)):
            raise ValueError(f"{wrong} of a {type(part).__name__} cannot be")
    for record in report.routing:
        check_routing(record)
    if report.benchmarks is not None:
        _check_benchmarks(report.benchmarks)
    if report.what_if is not None:
        check_grid(report.what_if)
    counts = [*report.passed_through.values(), *(n for part in report.components for n in part.linears.values())]
    if not all(0 <= count <= MOST for count in counts):
        raise ValueError("a count of tensors cannot be")
    for name, digest in report.manifest.items():
        if not _is_path(name) or not DIGEST.fullmatch(digest):
            raise ValueError(f"manifest cannot have {name[:80]!r}: {digest[:80]!r}")


def _check_benchmarks(benchmarks: Benchmarks) -> None:
    """Check the scores of other harnesses, which may be negative.

    Raises:
        ValueError: a value is impossible, or there are too many.
    """
    if max(len(benchmarks.rows), len(benchmarks.sources), len(benchmarks.notes)) > BENCHMARKS:
        raise ValueError(f"it has more than {BENCHMARKS} benchmarks")
    for row in benchmarks.rows:
        for score in filter(None, (row.old, row.new, row.out)):
            ends = (score.low, score.value, score.high) if score.low is not None and score.high is not None else ()
            possible = abs(score.value) <= GREATEST and (score.samples is None or 0 < score.samples <= MOST)
            if not possible or list(ends) != sorted(ends) or not all(abs(end) <= 2 * GREATEST for end in ends):
                raise ValueError(f"a score of {row.name[:80]!r} cannot be")


def check_routing(record: RoutingRecord) -> None:
    """Check every field of a mixture.

    Raises:
        ValueError: a value is impossible; names the field.
    """
    shares = {"safety_drift": record.safety_drift, "task_drift": record.task_drift}
    impossible = (name for name, share in shares.items() if share is not None and not 0.0 <= share <= 1.0)
    if wrong := next(chain(_of_part(record), impossible), None):
        raise ValueError(f"{wrong} of {record.name[:80]!r} cannot be")


def check_linear(record: LinearRecord) -> None:
    """Check every bounded field of a linear.

    Raises:
        ValueError: a value is impossible; names the field.
    """
    if wrong := next(_of_linear(record), None):
        raise ValueError(f"{wrong} of {record.name[:80]!r} cannot be")


def _of_linear(record: LinearRecord) -> Iterator[str]:
    """The impossible fields of a linear."""
    rows, columns = record.rows, record.columns
    shares = ("energy_restored", "restored_share", "compensated_share")
    most: dict[str, float | None] = {
        **dict.fromkeys(("rows", "columns"), AXIS),
        **dict.fromkeys(("n_restored", "n_focus", "n_shared"), columns),
        **{"shared_rows": rows, "split_rows": rows, "split_column": columns - 1, "block": record.blocks},
        **dict.fromkeys(shares, 1.0 + 1e-6),  # at most 1, apart from rounding
        "share": 100.0,
    }
    for field in dataclasses.fields(LinearRecord):
        name, value = field.name, getattr(record, field.name)
        if not isinstance(value, int | float):
            continue
        if name in FIGURES:
            possible = abs(value) <= GREATEST if name == "kappa" else 0 <= value <= GREATEST
        else:
            bound = most.get(name)
            possible = 0 <= value <= (MOST if bound is None else bound)
        if not possible:
            yield name
    for name in ("restored", "new_columns"):
        packed = getattr(record, name)
        if packed is not None and not _is_mask(packed, columns):
            yield name
    if record.saliency is not None and not _are_cells(record.saliency, columns):
        yield "saliency"
    if record.what_if is not None and not are_shares(record.what_if):
        yield "what_if"


def _of_part(part: Any) -> Iterator[str]:
    """The impossible counts and sizes of a record: none may be negative."""
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if isinstance(value, int) and not 0 <= value <= MOST:
            yield field.name
        if isinstance(value, float) and value and not LEAST <= value <= GREATEST:
            yield field.name


def _is_mask(packed: str, columns: int) -> bool:
    """Whether a text is the canonical form of a mask of so many columns."""
    size = (columns + 7) // 8
    if len(packed) != 4 * ((size + 2) // 3):
        return False
    try:
        content = base64.b64decode(packed, validate=True)
    except ValueError:
        return False
    padding = content[-1] >> (columns % 8) if columns % 8 and content else 0
    return len(content) == size and not padding and base64.b64encode(content).decode("ascii") == packed


def _are_cells(packed: str, columns: int) -> bool:
    """Whether the cells have at most ``columns`` columns, and each at most as many restored ones as it holds."""
    if len(packed) > max(CELLS, 64 * columns):
        return False
    try:
        cells = unpack_cells(packed).values()
    except ValueError:
        return False
    return all(0 <= restored <= count for count, restored in cells) and sum(count for count, _ in cells) <= columns


def _is_path(name: str) -> bool:
    """Whether a name is the canonical path of a visible file in OUT."""
    path = PurePosixPath(name)
    plain = bool(name) and name.isprintable() and "\\" not in name and path.as_posix() == name
    return plain and not path.is_absolute() and not any(part.startswith(".") for part in path.parts) and name != REPORT
