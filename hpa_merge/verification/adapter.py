"""An OUT that is an adapter, verified as what it makes of OLD: each weight against the one that the merge makes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

import torch
from torch import Tensor

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.checkpoint.adapter_folder import CONFIG
from hpa_merge.core.rounding import NEAR, differing, neighbours
from hpa_merge.counting import counted
from hpa_merge.inputs.opening import open_new
from hpa_merge.verification.differences import told
from hpa_merge.verification.findings import Findings

__all__ = ["Bits", "Compared", "OfAdapter", "Values", "weights_of"]


@contextmanager
def weights_of(
    out: Checkpoint, old: Checkpoint, tower: Path | None, findings: Findings
) -> Iterator[tuple[Checkpoint, "Values"]]:
    """The weights that OUT stands for, and how they are compared: its own or, if it is an adapter, those on OLD.

    Raises:
        CheckpointError: the adapter does not fit OLD.
    """
    if out.index != CONFIG:
        yield out, Bits()
        return
    values = OfAdapter()
    with open_new(out.folder, old, "auto", tower, "OUT") as applied:
        yield applied, values
    if values.rounded:
        findings.unchecked.append(
            f"{counted(values.rounded, 'value', 'differ')} from NEW's by "
            f"one unit in the last place: OUT sums them in another order."
        )
    if values.errors:
        findings.unchecked.append(
            f"{counted(len(values.errors), 'update', 'differ')} from the merge's "
            f"by up to {max(values.errors):.2g} of their size, as "
            "the report says: that OUT could not hold them more exactly relies on the report."
        )


@final
@dataclass(frozen=True, eq=False)
class Compared:
    """A linear weight of OUT and what the merge makes of it; all are ``[r, c]``, but OLD may have fewer rows.

    Attributes:
        name: the linear's.
        found, expected: OUT's weight and the merge's.
        old, new: OLD's and NEW's.
        error: ``adapter_error`` in the report; None if the report has none.
    """

    name: str
    found: Tensor
    expected: Tensor
    old: Tensor
    new: Tensor
    error: float | None


class Values(Protocol):
    """How values of OUT are compared.

    Attributes:
        by_linear: whether every linear is compared on its own, also in a tensor that is NEW's as a whole.
        free: fields of a record that need not be what a whole OUT would have, because :meth:`compare` checks them.
    """

    by_linear: bool
    free: tuple[str, ...]

    def differing(self, found: Tensor, expected: Tensor) -> Tensor:
        """Where OUT's values, which are OLD's or NEW's, are others, as a mask."""

    def compare(self, weight: Compared, what: str) -> Iterator[str]:
        """The problems of a weight; ``what``: the end of the sentence for values that differ."""


@final
class Bits:
    """Bit for bit: OUT is a whole checkpoint."""

    by_linear = False
    free: tuple[str, ...] = ()

    def differing(self, found: Tensor, expected: Tensor) -> Tensor:
        return differing(found, expected)

    def compare(self, weight: Compared, what: str) -> Iterator[str]:
        yield from told(weight.name, differing(weight.found, weight.expected), what)


@final
class OfAdapter:
    """To within the report's error of each update: OUT is an adapter, and ``found`` is OLD with it.

    Where the error is 0, values that are OLD's or NEW's have to be the same to the bit; with more ranks than NEW has,
    sums may be taken in another order, so that NEW's value may become its neighbour. A rule that computes ``M``
    rounds it in another place than the weight, so that its update may differ by :data:`NEAR`.

    Attributes:
        rounded: how many values were such neighbours.
        errors: the errors in the report that are greater than :data:`NEAR` and that OUT has.
    """

    by_linear = True
    free: tuple[str, ...] = ("adapter_error",)

    def __init__(self) -> None:
        self.rounded = 0
        self.errors: list[float] = []

    def differing(self, found: Tensor, expected: Tensor) -> Tensor:
        return found != expected  # OLD's −0.0 plus 0.0 is 0.0

    def compare(self, weight: Compared, what: str) -> Iterator[str]:
        name, found, expected, error = weight.name, weight.found, weight.expected, weight.error or 0.0
        old = weight.old.to(expected.dtype)
        if error == 0.0 and bool(((expected == old) | (expected == weight.new)).all()):
            wrong = self.differing(found, expected)
            near = wrong & neighbours(found, expected) & differing(expected, old)
            self.rounded += int(near.sum())
            yield from told(name, wrong & ~near, what)
            return
        off, size = (float((a.double() - b.double()).norm()) for a, b in ((found, expected), (expected, old)))
        noise = torch.finfo(expected.dtype).eps * float(expected.double().norm())
        if abs(off - error * size) > NEAR * size + noise:
            yield (
                f"{name}: its update differs from the merge's by {off / size if size else 0.0:.2g} of it, and by "
                f"{error:.2g} in the report."
            )
        elif error > NEAR:
            self.errors.append(error)
