"""The figures of a report as rows: one for each linear, depth or projection.

Shares are of 1, not percent. A value that was not computed is None or missing.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from itertools import groupby
from math import hypot
from statistics import fmean
from typing import Any, Literal

from hpa_merge.report.records import LinearRecord

By = Literal["depth", "projection", "linear"]

PACKED = ("restored", "new_columns", "what_if")
"""Fields that a row does not have; it has the ranges of the restored columns instead of their mask."""

DERIVED = ("projection", "drift", "restored_columns")

COLUMNS = (*(item.name for item in fields(LinearRecord) if item.name not in PACKED), *DERIVED)
"""The columns of a linear's row."""

FIGURES = (
    *(
        "linears",
        "share",
        "restored_share",
        "compensated_share",
        "energy_restored",
        "shared",
        "alpha",
        "kappa",
        "relative_update",
    ),
    *("distance", "old_norm", "drift"),
)

GROUP_COLUMNS = {"depth": ("where", "block", "blocks", *FIGURES), "projection": ("projection", *FIGURES)}
"""The columns of a group's row."""


def linear_row(record: LinearRecord) -> dict[str, Any]:
    """Every figure of a linear by its name in the report, and the derived ones."""
    return {name: getattr(record, name) for name in COLUMNS if name not in DERIVED} | {
        "projection": projection_of(record.name),
        "restored_share": record.share_of_old,
        "drift": record.drift,
        "restored_columns": None if record.restored is None else ranges(record.restored_columns),
    }


def group_rows(records: Sequence[LinearRecord], by: By) -> list[dict[str, Any]]:
    """The adapted linears by depth or projection, in the order of the merge; or every linear alone."""
    if by == "linear":
        return [linear_row(record) for record in records]
    adapted = [record for record in records if record.outcome == "adapted"]
    if by == "depth":
        groups = [
            ({"where": where, "block": block, "blocks": blocks}, of_group)
            for (where, block, blocks), of_group in _grouped(
                adapted, lambda record: (short(record.stack or record.unit), record.block, record.blocks)
            ).items()
        ]
    else:
        groups = [
            ({"projection": name}, of_group)
            for name, of_group in _grouped(adapted, lambda record: projection_of(record.name)).items()
        ]
    return [key | figures_of(of_group) for key, of_group in groups]


def figures_of(records: Sequence[LinearRecord]) -> dict[str, Any]:
    """Means over linears; the distance is that of all of them as one vector."""
    compared = [(r.distance, r.old_norm) for r in records if r.distance is not None and r.old_norm is not None]
    distance, norm = (hypot(*column) for column in zip(*compared, strict=True)) if compared else (None, None)
    return {
        "linears": len(records),
        "share": mean(r.share for r in records),
        "restored_share": restored_share(records),
        "compensated_share": _weighted((r.compensated_share, r.columns * r.rows) for r in records),
        "energy_restored": mean(r.energy_restored for r in records),
        "shared": mean(r.overlap for r in records),
        "alpha": mean(r.alpha for r in records),
        "kappa": mean(r.kappa for r in records),
        "relative_update": mean(r.relative_update for r in records),
        "distance": distance,
        "old_norm": norm,
        "drift": distance / norm if distance is not None and norm else None,
    }


def restored_share(records: Sequence[LinearRecord]) -> float | None:
    """The share of the columns (or of the values, for rules without columns) that are OLD's; None if none is."""
    by_columns = all(record.restored is not None for record in records)
    return _weighted((r.share_of_old, r.columns * (1 if by_columns else r.rows)) for r in records)


def _weighted(shares: Iterable[tuple[float | None, int]]) -> float | None:
    """The mean of shares of so many things each, those that are None left out; None if there is no other."""
    sizes = [(share, of) for share, of in shares if share is not None]
    if not sizes:
        return None
    size = sum(of for _, of in sizes)
    return sum(share * of for share, of in sizes) / size if size else 0.0


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None."""
    there = [value for value in values if value is not None]
    return fmean(there) if there else None


def projection_of(name: str) -> str:
    """The last part of a linear's name without block and expert: ``q_proj``."""
    parts = [part for part in re.sub(r"\[\d+\]$", "", name).removesuffix(".weight").split(".") if not part.isdigit()]
    return parts[-1] if parts else name


def expert_of(name: str) -> str:
    """The number of the expert that a linear's name has after its block's: ``3`` of ``layers.1.mlp.experts.3.w1``."""
    if name.endswith("]"):
        return name[name.rindex("[") + 1 : -1]
    _, found, place = f".{name}".rpartition(".experts.")
    number = re.search(r"\d+", place) if found else None
    return name if number is None else number[0]


def short(path: str) -> str:
    """A module's path without common parts: ``model.vision_tower.encoder.layers`` is ``vision_tower``."""
    parts = [
        part for part in path.split(".") if part not in ("model", "transformer", "encoder", "layers", "blocks", "h")
    ]
    return ".".join(parts) or path


def ranges(columns: Sequence[int]) -> str:
    """Ascending numbers as text: ``0-3,7``."""
    spans = []
    for _, run in groupby(enumerate(columns), lambda item: item[1] - item[0]):
        numbers = [number for _, number in run]
        spans.append(str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}")
    return ",".join(spans)


def _grouped(records: Iterable[LinearRecord], key: Callable[[LinearRecord], Any]) -> dict[Any, list[LinearRecord]]:
    groups: dict[Any, list[LinearRecord]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups
