"""What the maps of the page show: one figure for each measure that a report has at its depths and projections."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from hpa_merge.report.records import LinearRecord
from hpa_merge.report.rows import mean, restored_share
from hpa_merge.report.words import number, percent

__all__ = ["MEASURES", "Measure"]


@final
@dataclass(frozen=True)
class Measure:
    """A figure of a linear, or of the experts of a block.

    Attributes:
        file: name of its picture.
        title: of its map.
        unit: what a colour stands for.
        about: one sentence that says what is shown.
        good: one or two that say what good looks like.
        of: its value; None where there is none.
        shown: the value as text.
        domain: the ends of the colours; ``None`` is where the values end.
        centred: whether 0 is the middle of the colours.
    """

    file: str
    title: str
    unit: str
    about: str
    good: str
    of: Callable[[Sequence[LinearRecord]], float | None]
    shown: Callable[[float], str] = percent
    domain: Callable[[Mapping[str, Any]], tuple[float | None, float | None]] = lambda config: (0.0, None)
    centred: bool = False


def _bounds(config: Mapping[str, Any]) -> tuple[float | None, float | None]:
    return config.get("alpha_min"), config.get("alpha_max")


MEASURES = (
    Measure(
        "hpa_columns.png",
        "What was restored",
        "% of the columns",
        "The share of a weight's input columns (of its values, with methods that do not go by columns) that is OLD's "
        "again.",
        "Where whole columns are restored it falls evenly with depth, from p_max to p_min, alike for all "
        "projections of a block. A grey cell was not adapted.",
        restored_share,
    ),
    Measure(
        "hpa_energy.png",
        "How much of the update that undoes",
        "% of ‖ΔW‖²",
        "The share of the squared change that tuning made to a weight which lies in what was restored.",
        "More than the share of the columns: the restored ones are among those that tuning changed most. But well "
        "under 100 %, for the rest is what is left of the new task.",
        lambda records: mean(record.energy_restored for record in records),
    ),
    Measure(
        "hpa_overlap.png",
        "How far safety and task want the same columns",
        "% of the safety focus set",
        "The share of the columns of largest ε̄ (safety) that are among those of largest ζ̄ (task) too.",
        "Low: then safety can be restored without touching what the task rests on. Near 100 % every column that safety "
        "wants is one that the task wants, and α decides.",
        lambda records: mean(record.overlap for record in records),
        domain=lambda config: (0.0, 1.0),
    ),
    Measure(
        "hpa_balance.png",
        "The balance α",
        "weight of the task",
        "How much the task's score counts against safety's where both want a column: φ = ε̄ − α ζ̄.",
        "Between its bounds, and different from place to place. If all of it lies at one bound, one of the calibration "
        "sets excites the model far more than the other: look at what is in them.",
        lambda records: mean(record.alpha for record in records),
        number,
        domain=_bounds,
    ),
    Measure(
        "hpa_kappa.png",
        "What the orthogonal step took off",
        "κ, relative to W_old",
        "The part of the update that points along the old weights and only scales them; it is removed.",
        "Near 0. Far from it, or of one sign everywhere, tuning shrank or grew the weights as a whole, as weight decay "
        "does, and the step takes that back.",
        lambda records: mean(record.kappa for record in records),
        number,
        domain=lambda config: (None, None),
        centred=True,
    ),
    Measure(
        "hpa_update.png",
        "How much tuning had changed",
        "% of ‖W_old‖",
        "The size of the update beside that of the old weights, ‖ΔW‖ / ‖W_old‖.",
        "A few percent, and no cell far above its neighbours: such a one was tuned much harder than the rest, and what "
        "is done there matters most.",
        lambda records: mean(record.relative_update for record in records),
    ),
)
"""In the order of the page."""
