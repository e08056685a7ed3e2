"""The tensors that an OUT does not have yet, and where each comes from: NEW, or OLD if the options say so."""

from collections.abc import Iterable, Iterator, Mapping
from typing import final

from torch import Tensor

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.engine.weights import Read, Weights

__all__ = ["Remaining"]


@final
class Remaining:
    """Tensors of NEW that neither are done nor wait to be, in NEW's order."""

    def __init__(self, new: Checkpoint, from_old: Mapping[str, str], keys: Iterable[str]) -> None:
        """``from_old``: OLD's key for each of NEW's keys whose tensor is OLD's."""
        self._new, self._from_old, self._keys = new, from_old, dict.fromkeys(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._keys))

    def remove(self, key: str) -> bool:
        """Remove a tensor; returns whether it was there."""
        return key in self._keys and self._keys.pop(key) is None

    def take(self, keys: Iterable[str], old: Read | None, new: Read | None) -> Iterator[tuple[str, str, Tensor | None]]:
        """Remove those of ``keys`` whose source is at hand.

        Args:
            old: gives OLD's tensors by key; without it, tensors that come from OLD stay.
            new: gives NEW's tensors by key while they are loaded; without it, computed ones are computed again.

        Yields:
            A key, its source (``OLD`` or ``NEW``), and the tensor; None if it lies in NEW's file as it is needed.
        """
        for key in keys:
            old_key = self._from_old.get(key)
            if (old_key is not None and old is None) or not self.remove(key):
                continue
            if old_key is not None and old is not None:
                yield key, "OLD", old(old_key)
            else:
                yield key, "NEW", (new or self._new.read)(key) if self._new.computes(key) else None

    def take_rest(self, old: Weights) -> Iterator[tuple[str, Iterator[Tensor]]]:
        """Remove the rest, which comes from OLD; yields each key and its tensor in pieces."""
        for key in self:
            yield key, old.pieces(self._from_old[key])
            self.remove(key)
