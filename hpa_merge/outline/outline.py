"""The outline of a model: its units, linears and other tensors, as far as a merge asks for them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from hpa_merge.outline.components import Component
from hpa_merge.outline.linear_tensor import LinearTensor
from hpa_merge.outline.router import Router
from hpa_merge.outline.units import Unit

if TYPE_CHECKING:
    import torch

__all__ = ["Outline", "Slot"]

Slot = tuple[str, str | None, int]
"""What a tensor on disk becomes: the first parameter, the pattern of its conversion, its place among several."""


@final
@dataclass
class Outline:
    """What :class:`hpa_merge.model.MetaModel` knows of a model, without the model; the names are those there.

    Attributes:
        architecture: the name of the model's class.
        headless: whether that is the class of the model without a head.
        has_head: whether the class has one, tied or not.
        dtype: that the model runs in, as there.
        hidden_size: the width of the text model; 0 if its configuration does not say.
        units, linears, slots, unknown, tied, embeddings, components, places, experts, routers, router_keys: as there.
        keys: the keys of each unit, by the unit's name.
        names: of all parameters and buffers.
    """

    architecture: str
    headless: bool
    has_head: bool
    dtype: "torch.dtype"
    hidden_size: int
    units: tuple[Unit, ...]
    linears: dict[str, LinearTensor]
    slots: Mapping[str, Slot]
    unknown: tuple[str, ...]
    tied: Collection[str]
    embeddings: Collection[str]
    components: Mapping[str, Component]
    places: Mapping[str, tuple[str, ...]]
    experts: Collection[str]
    routers: Mapping[str, Router]
    router_keys: Collection[str]
    keys: Mapping[str, tuple[str, ...]]
    rest: tuple[str, ...]
    names: Collection[str]

    def leave_out(self, names: Collection[str]) -> None:
        """Treat these linears like any other tensor."""
        self.linears = {name: linear for name, linear in self.linears.items() if name not in names}

    def keys_of(self, unit: Unit | None) -> list[str]:
        """The keys of the tensors of a unit; None: those that belong to no unit."""
        return [*(self.rest if unit is None else self.keys[unit.name])]

    def knows(self, name: str) -> bool:
        """Whether the model has a parameter or buffer of that name."""
        return name in self.names
