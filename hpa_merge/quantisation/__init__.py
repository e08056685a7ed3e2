"""Weights in eight bits and fewer: which tensors make each, and its values, computed by the format's own library.

A format is a file here and a row of the table in :mod:`hpa_merge.quantisation.formats`. Nothing is computed before a
weight is asked for. The names below are imported when they are first used: a configuration is read without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpa_merge.quantisation.configuration import (
        FULL,
        SIDE_FILES,
        Refused,
        check_method,
        configurations,
        method_of,
        plain_config,
    )
    from hpa_merge.quantisation.formats import find_format, find_recipes, is_spare
    from hpa_merge.quantisation.recipe import Header, Parts, Recipe

_HOME = {
    "FULL": "configuration",
    "SIDE_FILES": "configuration",
    "Header": "recipe",
    "Parts": "recipe",
    "Recipe": "recipe",
    "Refused": "configuration",
    "check_method": "configuration",
    "configurations": "configuration",
    "find_format": "formats",
    "find_recipes": "formats",
    "is_spare": "formats",
    "method_of": "configuration",
    "plain_config": "configuration",
}
"""Where each name is defined."""

__all__ = [
    "FULL",
    "SIDE_FILES",
    "Header",
    "Parts",
    "Recipe",
    "Refused",
    "check_method",
    "configurations",
    "find_format",
    "find_recipes",
    "is_spare",
    "method_of",
    "plain_config",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"hpa_merge.quantisation.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
