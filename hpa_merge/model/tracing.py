"""Which tensors a tensor is computed from, found by running the arithmetic on the meta device."""

from typing import Any, final

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

__all__ = ["Traced", "sources_of"]


@final
class Traced(Tensor):
    """A tensor on the meta device that knows which named tensors it is computed from.

    Attributes:
        sources: their names.
        whole: whether it is one of them, unchanged.
    """

    sources: frozenset[str] = frozenset()
    whole: bool = False

    @classmethod
    def of(cls, key: str, dtype: torch.dtype, shape: tuple[int, ...]) -> "Traced":
        """The tensor with the name ``key``."""
        tensor = torch.empty(shape, dtype=dtype, device="meta").as_subclass(cls)
        tensor.sources, tensor.whole = frozenset({key}), True
        return tensor

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        given = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, cls)]
        for leaf in tree_leaves(result):
            if isinstance(leaf, cls) and not any(leaf is other for other in given):
                leaf.sources = frozenset().union(*(other.sources for other in given))
        return result


def sources_of(tensor: Tensor) -> frozenset[str]:
    """The names of its sources; none for a tensor that is not traced."""
    return tensor.sources if isinstance(tensor, Traced) else frozenset()
