"""Wrong values of a weight as a sentence, and the report's record of a weight, unpacked."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from hpa_merge.counting import counted
from hpa_merge.report.records import LinearRecord, unpack_columns
from hpa_merge.report.saliency import unpack_cells

__all__ = ["mask_of", "said_of", "told"]


def told(name: str, wrong: Tensor, what: str) -> Iterator[str]:
    """A sentence if any value is wrong; ``wrong`` has the tensor's shape, ``[r, c]`` for a linear."""
    count = int(wrong.sum())
    if count:
        where = ""
        if wrong.ndim == 2:
            where = f", first in column {int(wrong.any(dim=0).byte().argmax())}"
        yield f"{name}: {count} of {counted(wrong.numel(), 'value')} {what}{where}."


def mask_of(packed: str | None, columns: int) -> Tensor:
    """The columns of a bit mask of the report, ``[c]`` bool; none if there is no mask."""
    mask = torch.zeros(columns, dtype=torch.bool)
    if packed is not None:
        mask[torch.tensor(unpack_columns(packed, columns), dtype=torch.long)] = True
    return mask


def said_of(record: LinearRecord) -> dict[str, Any]:
    """The report's record of a linear, by field, for :attr:`hpa_merge.methods.Rule.check`."""
    masks = {name: mask_of(getattr(record, name), record.columns) for name in ("restored", "new_columns")}
    return {**vars(record), **masks, "saliency": unpack_cells(record.saliency or "")}
