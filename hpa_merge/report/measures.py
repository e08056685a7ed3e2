"""The measures that the maps of the page show."""

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
        unit: of the colours.
        about: what it shows, in a sentence.
        good: what good looks like, in one or two sentences.
        of: its value; None if there is none.
        shown: the value as text.
        domain: the range of the colours; ``None``: that of the values.
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
        "The share of a weight's input columns (or values, with methods without columns) that are OLD's again.",
        "With whole columns it falls evenly with depth from p_max to p_min and is the same for all projections of a "
        "block. Grey cells were not adapted.",
        restored_share,
    ),
    Measure(
        "hpa_energy.png",
        "How much of the update this undoes",
        "% of ‖ΔW‖²",
        "The share of tuning's squared change to a weight that was restored.",
        "More than the share of the columns: the restored ones are among those that tuning changed most. But well "
        "below 100 %, because the rest is what remains of the new task.",
        lambda records: mean(record.energy_restored for record in records),
    ),
    Measure(
        "hpa_overlap.png",
        "How far safety and task need the same columns",
        "% of the safety focus set",
        "The share of the columns with the largest ε̄ (safety) that also have the largest ζ̄ (task).",
        "Low: safety can then be restored without touching what the task needs. Near 100 %, both need the same "
        "columns, and α decides.",
        lambda records: mean(record.overlap for record in records),
        domain=lambda config: (0.0, 1.0),
    ),
    Measure(
        "hpa_balance.png",
        "The balance α",
        "weight of the task",
        "How much the task's score counts against safety's for columns that both need: φ = ε̄ − α ζ̄.",
        "Between its bounds, and different from place to place. If all values are at one bound, one of the calibration "
        "sets activates the model far more than the other: check what is in them.",
        lambda records: mean(record.alpha for record in records),
        number,
        domain=_bounds,
    ),
    Measure(
        "hpa_kappa.png",
        "What the orthogonal step removed",
        "κ, relative to W_old",
        "The part of the update that points along the old weights and only scales them.",
        "Near 0. Large values, or one sign everywhere, mean that tuning scaled the weights as a whole, as weight decay "
        "does; the step undoes that.",
        lambda records: mean(record.kappa for record in records),
        number,
        domain=lambda config: (None, None),
        centred=True,
    ),
    Measure(
        "hpa_update.png",
        "How much tuning had changed",
        "% of ‖W_old‖",
        "The size of the update relative to the old weights, ‖ΔW‖ / ‖W_old‖.",
        "A few percent. A cell far above its neighbours was tuned much harder than the rest, and what is restored "
        "there matters most.",
        lambda records: mean(record.relative_update for record in records),
    ),
)
"""In the order of the page."""
