"""An outline in JSON types, and back; what several linears share is written once."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hpa_merge.outline.components import COMPONENTS
from hpa_merge.outline.linear_tensor import LinearTensor
from hpa_merge.outline.outline import Outline
from hpa_merge.outline.router import Router
from hpa_merge.outline.units import Unit

__all__ = ["packed", "unpacked"]


def packed(outline: Outline) -> dict[str, Any]:
    """The outline in JSON types."""
    index = {unit.name: place for place, unit in enumerate(outline.units)}
    pools = {pool: place for place, pool in enumerate(dict.fromkeys(each.pool for each in outline.linears.values()))}
    return {
        "architecture": outline.architecture,
        "headless": outline.headless,
        "has_head": outline.has_head,
        "itemsize": outline.itemsize,
        "hidden_size": outline.hidden_size,
        "units": [[unit.name, unit.stack, unit.block, unit.blocks, unit.text] for unit in outline.units],
        "pools": [list(pool) for pool in pools],
        "linears": [
            [
                each.key,
                each.part,
                list(each.observers),
                each.input_axis,
                [index[unit.name] for unit in each.uses],
                each.routed,
                pools[each.pool],
                each.router,
            ]
            for each in outline.linears.values()
        ],
        "slots": {key: list(slot) for key, slot in outline.slots.items()},
        "unknown": list(outline.unknown),
        "tied": sorted(outline.tied),
        "embeddings": sorted(outline.embeddings),
        "components": dict(outline.components),
        "places": {key: list(places) for key, places in outline.places.items()},
        "experts": sorted(outline.experts),
        "routers": {name: {**asdict(each), "scored": sorted(each.scored)} for name, each in outline.routers.items()},
        "router_keys": sorted(outline.router_keys),
        "keys": {unit: list(keys) for unit, keys in outline.keys.items()},
        "rest": list(outline.rest),
        "names": sorted(outline.names),
    }


def unpacked(content: Mapping[str, Any]) -> Outline:
    """The outline that :func:`packed` gave.

    Raises:
        KeyError, IndexError, TypeError, ValueError: it did not give this.
    """
    units = tuple(
        Unit(place, str(name), str(stack), None if block is None else int(block), int(blocks), bool(text))
        for place, (name, stack, block, blocks, text) in enumerate(content["units"])
    )
    pools = [_names(pool) for pool in content["pools"]]
    linears = [
        LinearTensor(
            str(key),
            None if part is None else int(part),
            _names(observers),
            int(axis),
            tuple(units[place] for place in uses),
            float(routed),
            pools[pool],
            bool(router),
        )
        for key, part, observers, axis, uses, routed, pool, router in content["linears"]
    ]
    if not all(linear.uses and linear.input_axis in (0, 1) for linear in linears):
        raise ValueError("a linear has no unit or no input axis")
    if not set(content["components"].values()) <= set(COMPONENTS):
        raise ValueError("it names another component")
    return Outline(
        architecture=str(content["architecture"]),
        headless=bool(content["headless"]),
        has_head=bool(content["has_head"]),
        itemsize=int(content["itemsize"]),
        hidden_size=int(content["hidden_size"]),
        units=units,
        linears={linear.name: linear for linear in linears},
        slots={key: (str(first), pattern, int(place)) for key, (first, pattern, place) in content["slots"].items()},
        unknown=_names(content["unknown"]),
        tied=frozenset(content["tied"]),
        embeddings=frozenset(content["embeddings"]),
        components=dict(content["components"]),
        places={key: _names(places) for key, places in content["places"].items()},
        experts=frozenset(content["experts"]),
        routers={
            name: Router(**{**each, "scored": frozenset(each["scored"])}) for name, each in content["routers"].items()
        },
        router_keys=frozenset(content["router_keys"]),
        keys={unit: _names(keys) for unit, keys in content["keys"].items()},
        rest=_names(content["rest"]),
        names=frozenset(content["names"]),
    )


def _names(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("a list of names is something else")
    return tuple(values)
