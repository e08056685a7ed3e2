"""Whether an adapted weight is what its method makes of OLD's and NEW's, as far as the report says how."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from hpa_merge.config import HPAConfig
from hpa_merge.core import fuse, measure_update
from hpa_merge.methods import interpolate, most_changed, random_columns
from hpa_merge.report.records import LinearRecord, unpack_columns

__all__ = ["Recomputation", "bits", "told"]

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By the bytes of an element."""


@final
@dataclass(frozen=True)
class Recomputation:
    """The checks of adapted weights.

    Attributes:
        config: the options of the merge.
        exact: whether another machine of the kind computes the same bits; else the neighbouring number will do.
        checked: counts what cannot be recomputed.
    """

    config: HPAConfig
    exact: bool
    checked: Counter[str]

    def check(self, record: LinearRecord, old: Tensor, new: Tensor, found: Tensor) -> Iterator[str]:
        """What is wrong with the weight ``found``, ``[r, c]`` like ``old`` and ``new``."""
        check = {
            "linear": self._interpolated,
            "blocks": self._blocks,
            "safe-delta": self._safe_delta,
            "model-tailor": self._model_tailor,
        }.get(self.config.method, self._columns)
        yield from check(record, old, new, found)

    def _columns(self, record: LinearRecord, old: Tensor, new: Tensor, found: Tensor) -> Iterator[str]:
        """What is wrong with an adapted weight, ``[r, c]`` like ``old`` and ``new``."""
        try:
            columns = torch.tensor(record.kept_columns, dtype=torch.long)
        except (ValueError, IndexError):
            columns = None
        if columns is None or record.kept is None or record.kappa is None:
            yield f"{record.name} is adapted, and the report does not say readably with which columns and κ."
            return
        kept = torch.zeros(record.columns, dtype=torch.bool).index_fill_(0, columns, True)
        yield from self._control(record, old, new, kept)
        wrong = bits(found) != bits(old.to(new.dtype))
        wrong[:, ~kept] = False
        yield from told(record.name, wrong, "in columns put back are not OLD's")
        fused = fuse(old, new, kept, record.kappa)
        wrong = self._other(found, fused)
        wrong[:, kept] = False
        yield from told(record.name, wrong, f"outside the columns put back are not NEW − {record.kappa:.3g} · OLD")

    def _control(self, record: LinearRecord, old: Tensor, new: Tensor, kept: Tensor) -> Iterator[str]:
        """What is wrong with the columns that a control puts back, which take no samples to be found."""
        count = int(kept.sum())
        if self.config.method == "random" and not torch.equal(
            kept, random_columns(record.columns, count, self.config.seed, record.name)
        ):
            yield f"{record.name}: the columns put back are not those that seed {self.config.seed} draws."
        if self.config.method == "energy" and self.exact:
            energy = measure_update(old, new).energy
            if not torch.equal(kept, most_changed(energy, count)):
                yield f"{record.name}: the columns put back are not the {count} that changed most."

    def _interpolated(self, record: LinearRecord, old: Tensor, new: Tensor, found: Tensor) -> Iterator[str]:
        """What is wrong with an interpolated weight, ``[r, c]`` like ``old`` and ``new``."""
        weight = self.config.weight
        wrong = self._other(found, interpolate(old, new, weight))
        yield from told(record.name, wrong, f"are not OLD + {weight:g} · (NEW − OLD)")

    def _blocks(self, record: LinearRecord, old: Tensor, new: Tensor, found: Tensor) -> Iterator[str]:
        """What is wrong with a weight of a block that is put back."""
        yield from told(record.name, bits(found) != bits(old.to(new.dtype)), "are not OLD's")

    def _safe_delta(self, record: LinearRecord, old: Tensor, new: Tensor, found: Tensor) -> Iterator[str]:
        """What is wrong with NEW's values in a weight; the others are OLD's, or take the inverse to compensate."""
        try:
            columns = unpack_columns(record.new_columns or "", record.columns)
            mask = torch.zeros(record.columns, dtype=torch.bool).index_fill_(0, torch.tensor(columns).long(), True)
            mask = mask.expand(old.shape[0], -1).clone()
            if record.split_column is not None:
                mask[: record.split_rows or 0, record.split_column] = True
        except (ValueError, IndexError):
            yield f"{record.name} is adapted, and the report does not say readably which of its values are NEW's."
            return
        yield from told(record.name, (bits(found) != bits(new)) & mask, "that the report calls NEW's are not")
        if self.config.compensation:
            self.checked["values that only samples can recompute"] += int((~mask).sum())
        else:
            yield from told(record.name, (bits(found) != bits(old.to(new.dtype))) & ~mask, "put back are not OLD's")

    def _model_tailor(self, record: LinearRecord, old: Tensor, new: Tensor, found: Tensor) -> Iterator[str]:
        """What is wrong with a tailored weight, of which the report says only how many values are OLD's.

        Which they are would take the samples. Those that are neither are in the patch, compensated or NEW's.
        """
        kept = round((record.kept_share or 0.0) * found.numel())
        from_old = bits(found) == bits(old.to(new.dtype))
        if int(from_old.sum()) < kept:
            yield f"{record.name}: {int(from_old.sum())} of {found.numel()} values are OLD's, and {kept} have to be."
        if self.config.compensation:
            self.checked["values that only samples can recompute"] += found.numel() - kept
        else:
            yield from told(record.name, ~from_old & (bits(found) != bits(new)), "are neither OLD's nor NEW's")

    def _other(self, found: Tensor, expected: Tensor) -> Tensor:
        """Where two weights differ, as a mask; by more than one ulp where another device computed one."""
        wrong = bits(found) != bits(expected)
        if not self.exact:
            far = (ordinals(found[wrong]) - ordinals(expected[wrong])).abs() > 1
            wrong = wrong.masked_scatter(wrong, far)
        return wrong


def told(name: str, wrong: Tensor, what: str) -> Iterator[str]:
    """One sentence where any value is wrong; ``wrong`` has the tensor's shape, ``[r, c]`` for a linear."""
    count = int(wrong.sum())
    if count:
        where = ""
        if wrong.ndim == 2:
            where = f", first in column {int(wrong.any(dim=0).byte().argmax())}"
        yield f"{name}: {count} of {wrong.numel()} values {what}{where}."


def bits(x: Tensor) -> Tensor:
    """The numbers as integers of their width: −0.0 is not 0.0, and NaN is itself."""
    return x.view(INTEGERS[x.element_size()])


def ordinals(x: Tensor) -> Tensor:
    """Floating numbers as int64 that count them in ascending order: neighbours differ by one, and both zeros are 0."""
    counted = bits(x)
    return torch.where(counted < 0, torch.iinfo(counted.dtype).min - counted.long(), counted.long())
