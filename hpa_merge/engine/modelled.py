"""A model as a plan knows it: built, or as a statistics file keeps it."""

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from hpa_merge.model import MetaModel
    from hpa_merge.outline import Outline

__all__ = ["Modelled"]

Modelled: TypeAlias = "MetaModel | Outline"
"""Both have the same names for what a plan asks of a model."""
