"""The weights of one checkpoint as a merge reads them: prefetched if memory allows, refused if not finite."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor

from hpa_merge.checkpoint import Checkpoint, Prefetch
from hpa_merge.checkpoint.shard import TensorInfo
from hpa_merge.checkpoint.sharing import WHOLE, Share
from hpa_merge.core import all_finite
from hpa_merge.errors import NumericalError
from hpa_merge.ranks import Group

__all__ = ["Read", "Weights"]

Read = Callable[[str], Tensor]
"""Gives a tensor by its key, as it lies on disk, on the device."""

TOGETHER = 2**28
"""Bytes of the tensors that the ranks exchange at once, unless a single one has more: 256 MiB."""

WHOLE_TENSOR = 2**26
"""Bytes of a tensor up to which it is checked as a whole, because it may have been prefetched: 64 MiB."""

PIECE = 2**22
"""Bytes that are read at once if a tensor is not needed as a whole: 4 MiB, whose memory serves the next piece too."""


@final
class Weights:
    """Reads the tensors of OLD or NEW.

    Attributes:
        role: OLD or NEW, for messages.
        device: where the arithmetic runs.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device, group: Group | None = None) -> None:
        """``group``: the ranks that read together; None for this one alone."""
        self.role = checkpoint.role
        self.device = device
        self._checkpoint = checkpoint
        self._group = group or Group.alone()
        self._prefetch: Prefetch | None = None
        self._checked: set[str] = set()

    @contextmanager
    def prefetching(self, order: Iterable[str], budget: int, *, together: bool) -> Iterator[None]:
        """Within the block, prefetch tensors while something else is computed.

        Args:
            order: keys in the expected order of reading.
            budget: the most bytes that are prefetched.
            together: whether the ranks read them with :meth:`reader`, so that each prefetches its share.
        """
        pin = self.device.type == "cuda"
        share = Share(self._group.rank, self._group.size) if together else WHOLE
        with Prefetch(self._checkpoint, order, budget, pin=pin, share=share) as self._prefetch:
            try:
                yield
            finally:
                self._prefetch = None

    def reader(self, keys: Sequence[str]) -> Read:
        """Gives each of ``keys``, unchecked, on the CPU or the device. Every rank asks for the same keys.

        Each rank reads its share of every tensor, and all get all of them, so that every byte is read once.

        Raises:
            CheckpointError: a file can no longer be read.
            HPAError: as :meth:`Group.gather`.
        """
        if self._group.size == 1:
            return self.read_unchecked
        made: dict[str, Tensor] = {}
        batch: list[str] = []
        for key in keys:
            batch.append(key)
            if sum(info.nbytes for name in batch for info in self._checkpoint.parts(name)) >= TOGETHER:
                made |= self._joined(batch)
                batch.clear()
        made |= self._joined(batch)
        return made.__getitem__

    def _joined(self, keys: Sequence[str]) -> dict[str, Tensor]:
        """The tensors, of each of which every rank reads its share."""
        if not keys:
            return {}
        infos = [info for key in keys for info in self._checkpoint.parts(key)]
        sizes = [[_bytes_of(Share(rank, self._group.size), info) for info in infos] for rank in range(self._group.size)]
        own = [part.view(torch.uint8) for key in keys for part in self._share_of(key)]
        shares = self._group.join(torch.cat(own).to(self.device), [sum(each) for each in sizes])
        pieces = [share.split(each) for share, each in zip(shares, sizes, strict=True)]
        whole = iter(
            torch.cat(parts).view(info.dtype).reshape(info.shape) for info, *parts in zip(infos, *pieces, strict=True)
        )
        made = {}
        for key in keys:
            parts = [next(whole) for _ in self._checkpoint.parts(key)]
            if self._checkpoint.computes(key):
                parts = [part.cpu() for part in parts]
            made[key] = self._checkpoint.finish(key, parts)
        return made

    def _share_of(self, key: str) -> list[Tensor]:
        """This rank's share of what is on disk of a tensor."""
        if self._prefetch is not None and self._prefetch.shares:
            return self._prefetch.read_parts(key)
        return self._checkpoint.read_parts(key, Share(self._group.rank, self._group.size))

    def postpone(self, keys: Iterable[str]) -> None:
        """Move keys to the end of the order of prefetching."""
        if self._prefetch is not None:
            keys = tuple(keys)
            self._prefetch.forget(keys)
            self._prefetch.expect(keys)

    def read(self, key: str) -> Tensor:
        """One tensor as it lies on disk, on the CPU, checked."""
        tensor = self.read_unchecked(key)
        self.check({key: tensor})
        return tensor

    def read_unchecked(self, key: str) -> Tensor:
        """One tensor as it lies on disk, on the CPU, for a caller that checks it on the device."""
        if self._prefetch is None or self._prefetch.shares:
            return self._checkpoint.read(key)
        return self._prefetch.read(key)

    def pieces(self, key: str) -> Iterator[Tensor]:
        """The elements of one tensor in order, flat, on the CPU, in pieces; raises NumericalError as :meth:`check`."""
        for piece in self._checkpoint.pieces(key, PIECE):
            self.check({key: piece})
            yield piece

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise NumericalError if one of the tensors holds NaN or infinity."""
        for key, value in tensors.items():
            if value.is_floating_point() and not all_finite(value):
                raise NumericalError(
                    f"{self.role}'s tensor {key} holds NaN or infinity: "
                    "the file is damaged or the training diverged, so give a sound checkpoint."
                )
        self._checked.update(tensors)

    def check_rest(self) -> None:
        """Check the tensors that no rank has read, piece by piece; every rank checks some of them."""
        checked = set().union(*self._group.gather(self._checked))
        rest = [(key, info) for key, info in self._checkpoint.tensors.items() if key not in checked]
        for place, (key, info) in enumerate(rest):
            if place % self._group.size == self._group.rank:
                whole = info.nbytes <= WHOLE_TENSOR or self._checkpoint.computes(key)
                for piece in (self.read_unchecked(key),) if whole else self._checkpoint.pieces(key, PIECE):
                    self.check({key: piece})


def _bytes_of(share: Share, info: TensorInfo) -> int:
    """How many bytes of a tensor on disk a rank reads."""
    return share.of(info.nbytes // info.dtype.itemsize)[1] * info.dtype.itemsize
