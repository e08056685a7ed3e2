"""The weights of one checkpoint as a merge reads them: prefetched if memory allows, refused if not finite."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor

from hpa_merge.checkpoint import Checkpoint, Prefetch
from hpa_merge.core import all_finite
from hpa_merge.errors import NumericalError

__all__ = ["Read", "Weights"]

Read = Callable[[str], Tensor]
"""Gives a tensor by its key, as it lies on disk, on the device."""

PIECE = 2**26
"""Bytes that are read at once if a tensor is not needed as a whole: 64 MiB."""


@final
class Weights:
    """Reads the tensors of OLD or NEW.

    Attributes:
        role: OLD or NEW, for messages.
        device: where the arithmetic runs.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self.role = checkpoint.role
        self.device = device
        self._checkpoint = checkpoint
        self._prefetch: Prefetch | None = None
        self._checked: set[str] = set()

    @contextmanager
    def prefetching(self, order: Iterable[str], budget: int) -> Iterator[None]:
        """Within the block, prefetch tensors while something else is computed.

        Args:
            order: keys in the expected order of reading.
            budget: the most bytes that are prefetched.
        """
        pin = self.device.type == "cuda"
        with Prefetch(self._checkpoint, order, budget, pin=pin) as self._prefetch:
            try:
                yield
            finally:
                self._prefetch = None

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
        return (self._prefetch or self._checkpoint).read(key)

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
        """Check the tensors that were never read, piece by piece."""
        for key, info in self._checkpoint.tensors.items():
            if key not in self._checked:
                whole = info.nbytes <= PIECE or self._checkpoint.computes(key)  # it may have been prefetched
                for piece in (self.read_unchecked(key),) if whole else self._checkpoint.pieces(key, PIECE):
                    self.check({key: piece})
