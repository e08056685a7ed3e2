"""A copy of a record in which every value that is not a container is replaced."""

import dataclasses
from collections.abc import Callable
from typing import Any

__all__ = ["mapped"]


def mapped(value: Any, of: Callable[[Any], Any]) -> Any:
    """``value`` with ``of`` applied to everything in it but records, lists, tuples and dicts; to a dict's keys too."""
    if isinstance(value, dict):
        return {mapped(key, of): mapped(item, of) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(mapped(item, of) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {item.name: mapped(getattr(value, item.name), of) for item in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return of(value)
