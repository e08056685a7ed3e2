"""The report's record of one linear weight: what happened to it, and how."""

from typing import Any

from torch import Tensor

from hpa_merge.engine.drift import Moved
from hpa_merge.engine.plan import LinearPair
from hpa_merge.methods.applying import Adapted
from hpa_merge.outline import Unit
from hpa_merge.report.packing import pack_columns, saliency_cells
from hpa_merge.report.records import LinearRecord, Outcome
from hpa_merge.report.saliency import pack_cells
from hpa_merge.report.what_if import pack_shares

__all__ = ["record_of", "record_of_adapted"]


def record_of(unit: Unit, pair: LinearPair, weight: Tensor, outcome: Outcome, **details: Any) -> LinearRecord:
    """The record of a linear; ``weight`` is ``[r, c]``."""
    rows, columns = weight.shape
    if pair.shared_rows is not None:
        details["shared_rows"] = pair.shared_rows
    return LinearRecord(pair.new.name, outcome, unit.name, unit.stack, rows=rows, columns=columns, **details)


def record_of_adapted(unit: Unit, pair: LinearPair, adapted: Adapted, moved: Moved, **details: Any) -> LinearRecord:
    """The record of an adapted linear; ``moved`` measures how far its weight lies from OLD's."""
    return record_of(
        unit,
        pair,
        adapted.weight,
        "adapted",
        relative_update=adapted.relative_update,
        **moved.to(adapted.weight, adapted.update.old_norm),
        **_decisions(adapted),
        **details,
    )


def _decisions(adapted: Adapted) -> dict[str, Any]:
    """How a weight was adapted, by field of the record."""
    decisions = {"share": adapted.share, "kappa": adapted.kappa, **adapted.figures}
    decisions["energy_restored"] = adapted.energy_restored
    if (selection := adapted.selection) is not None:
        decisions |= {name: getattr(selection, name) for name in ("n_restored", "n_focus", "n_shared", "alpha")}
        decisions["restored"] = pack_columns(selection.restored)
        if selection.epsilon is not None and selection.zeta is not None:
            decisions["saliency"] = pack_cells(saliency_cells(selection.epsilon, selection.zeta, selection.restored))
    if "new_columns" in decisions:
        decisions["new_columns"] = pack_columns(decisions["new_columns"])
    if "what_if" in decisions:
        decisions["what_if"] = pack_shares(decisions["what_if"])
    return decisions
