"""Which part of every tensor on disk each of several processes reads, so that together they read every byte once."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from hpa_merge.checkpoint.shard import TensorInfo

if TYPE_CHECKING:
    import torch

__all__ = ["WHOLE", "Share"]


@final
@dataclass(frozen=True)
class Share:
    """The part of one process.

    Attributes:
        rank: its number.
        size: the number of processes.
    """

    rank: int
    size: int

    def of(self, numel: int) -> tuple[int, int]:
        """The first of its elements of a tensor, and how many they are."""
        begin, end = (numel * rank // self.size for rank in (self.rank, self.rank + 1))
        return begin, end - begin

    def empty(self, info: TensorInfo, *, pin: bool = False) -> "torch.Tensor":
        """Memory for its part of a tensor, flat; in the tensor's shape if that is all of it.

        Args:
            pin: whether it is page-locked.
        """
        import torch

        shape = info.shape if self.size == 1 else self.of(info.nbytes // info.dtype.itemsize)[1:]
        return torch.empty(shape, dtype=info.dtype, pin_memory=pin)


WHOLE = Share(0, 1)
"""The share of a process that reads alone."""
