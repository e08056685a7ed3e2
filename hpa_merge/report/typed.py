"""Turns parsed JSON into records, by the types of their fields."""

import dataclasses
import json
from functools import cache
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

__all__ = ["typed"]


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    """The types of a record's fields; cached, because looking them up takes longer than reading the record."""
    return get_type_hints(kind)


def typed(kind: Any, value: Any, where: str) -> Any:
    """A value from JSON as the type of a field.

    Raises:
        ValueError: it has another type; names ``where``.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any or (origin is Literal and value in arguments) or (origin is UnionType and value is None):
        return value
    if origin is UnionType:
        return typed(arguments[0], value, where)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = _hints(kind)
        known = {name: typed(hints[name], item, name) for name, item in value.items() if name in hints}
        for item in dataclasses.fields(kind):
            if item.name not in known and item.default is item.default_factory is dataclasses.MISSING:
                raise ValueError(f"{where} has no {item.name}")
        return kind(**known)
    if origin is tuple and isinstance(value, list):
        return tuple(typed(arguments[0], item, f"an entry of {where}") for item in value)
    if origin is dict and isinstance(value, dict):
        return {name: typed(arguments[1], item, f"{where}.{name}") for name, item in value.items()}
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise ValueError(f"{where} cannot be {json.dumps(value):.40}")
    return kind(value)
