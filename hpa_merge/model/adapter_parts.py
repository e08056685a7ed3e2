"""The tensors of an adapter one by one: what each is called, and which of OLD's tensors it changes."""

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import final

import torch

from hpa_merge.model.adapter import Adapter
from hpa_merge.model.adapter_factors import ADAPTER_NAME, saved_name
from hpa_merge.model.tracing import Traced, sources_of

__all__ = ["AdapterPart", "parts_of"]

SAVED = re.compile(rf"^modules_to_save\.{ADAPTER_NAME}\.")
"""Begins the name of a parameter within a module that the adapter has as a whole."""


@final
@dataclass(frozen=True)
class AdapterPart:
    """One tensor of an adapter.

    Attributes:
        name: in an adapter's file for OLD's modules.
        placed: peft's name of it, one of the values of :attr:`Adapter.names`.
        key: in the adapter's own file; None if the tensor is computed from several.
        dtype, shape: in that file.
        changes: OLD's tensors on disk that it changes.
        replaces: the parameter of the model that it replaces as a whole; None for a part of a layer.
    """

    name: str
    placed: str
    key: str | None
    dtype: torch.dtype
    shape: tuple[int, ...]
    changes: frozenset[str]
    replaces: str | None


def parts_of(adapter: Adapter) -> tuple[AdapterPart, ...]:
    """Every tensor of an adapter, in the order of the names."""
    changes: dict[str, set[str]] = defaultdict(set)
    replaces: dict[str, str] = {}
    for group in dict.fromkeys(adapter._groups.values()):
        for layer in group.layers:
            for name, placed in layer.from_adapter.items():
                saved = SAVED.sub("", name)
                targets = [layer.results[saved]] if saved != name else layer.results.values()
                changes[placed].update(key for target in targets for key in adapter.keys_of(target))
                if saved != name:
                    replaces[placed] = layer.results[saved]
        for target, placed in group.replaced.items():
            changes[placed].update(adapter.keys_of(target))
            replaces[placed] = target
    parts = []
    for placed, tensor in adapter._placed.items():
        source = min(sources_of(tensor))
        whole = isinstance(tensor, Traced) and tensor.whole
        parts.append(
            AdapterPart(
                name=adapter._called[source] if whole else saved_name(placed),
                placed=placed,
                key=source if whole else None,
                dtype=adapter._own[source][0],
                shape=tuple(tensor.shape),
                changes=frozenset(changes[placed]),
                replaces=replaces.get(placed),
            )
        )
    return tuple(sorted(parts, key=lambda part: part.name))
