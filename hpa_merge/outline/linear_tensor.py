"""A linear weight as it lies on disk: which tensor, which slice of it, and whether it is transposed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from hpa_merge.outline.units import Unit

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LinearTensor", "Readers"]

Readers = tuple[str, ...]
"""The linears that read one tensor."""


@final
@dataclass(frozen=True)
class LinearTensor:
    """A linear weight as it lies on disk.

    Attributes:
        key: name of its tensor in the checkpoint.
        part: the index of its slice in that tensor, for an expert of a stack; None if it is the whole tensor.
        observers: names of what it reads: paths of modules, of parameters, or of experts in their stacks.
        input_axis: 1 for ``[r, c]``, 0 for a transposed ``[c, r]`` as in ``Conv1D``.
        uses: the units that multiply with it: one, unless modules share it. The first gives its depth.
        routed: the share of the tokens that reach it on average; 1 unless it is an expert.
        pool: for an expert, the observers of the same input of all experts of its layer.
        router: whether it chooses among experts.
    """

    key: str
    part: int | None
    observers: tuple[str, ...]
    input_axis: int
    uses: tuple[Unit, ...]
    routed: float = 1.0
    pool: tuple[str, ...] = ()
    router: bool = False

    @property
    def unit(self) -> Unit:
        """The unit that gives its depth."""
        return self.uses[0]

    @property
    def last(self) -> Unit:
        """The unit that it is merged with, when every use of it has run."""
        return self.uses[-1]

    @property
    def name(self) -> str:
        """Its tensor's name, with the index if it is a slice."""
        return self.key if self.part is None else f"{self.key}[{self.part}]"

    def matrix(self, tensor: "Tensor") -> "Tensor":
        """The weight as ``[r, c]``, a view of its tensor as it lies on disk."""
        return self.turned(tensor if self.part is None else tensor[self.part])

    def turned(self, matrix: "Tensor") -> "Tensor":
        """Turn ``[r, c]`` into the layout on disk, or back: a view."""
        return matrix if self.input_axis == 1 else matrix.T

    def shape(self, on_disk: Sequence[int]) -> tuple[int, int]:
        """``(r, c)``, from the shape of its tensor."""
        rows, columns = on_disk[-2:][:: 1 if self.input_axis == 1 else -1]
        return rows, columns
