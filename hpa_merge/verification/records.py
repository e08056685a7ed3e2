"""Compares records of linears: the report's and the expected ones."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from typing import Any

from hpa_merge.core.rounding import close
from hpa_merge.report.records import LinearRecord

__all__ = ["compare_records"]

PACKED = ("restored", "new_columns", "saliency", "what_if")
"""Fields whose values are not shown."""


def compare_records(
    said: LinearRecord, found: LinearRecord, *, free: Collection[str] = (), slacks: Mapping[str, float] | None = None
) -> Iterator[str]:
    """A sentence for each field in which the report's record of a linear differs from the expected one.

    Args:
        free: fields that are not compared.
        slacks: tolerances relative to the greater value, by field.
    """
    for field in fields(LinearRecord):
        ours, theirs = getattr(found, field.name), getattr(said, field.name)
        if ours == theirs or field.name in free or (field.name == "what_if" and theirs is None):  # earlier versions
            continue
        most = (slacks or {}).get(field.name)
        if most is not None and ours is not None and theirs is not None and close(theirs, ours, most):
            continue
        if field.name in PACKED:
            yield f"{said.name}: {field.name} in the report is wrong."
        else:
            yield f"{said.name}: {field.name} is {_shown(theirs)} in the report, and has to be {_shown(ours)}."


def _shown(value: Any) -> str:
    return "missing" if value is None else f"{value:.17g}" if isinstance(value, float) else str(value)
