"""What a merge has to know of a model before a sample runs; needs neither transformers nor the model.

:mod:`hpa_merge.model` finds it, and a statistics file keeps it, so that a merge with known statistics builds no model.
"""

from hpa_merge.outline.components import COMPONENTS, Component
from hpa_merge.outline.linear_tensor import LinearTensor, Readers
from hpa_merge.outline.outline import Outline
from hpa_merge.outline.packing import packed, unpacked
from hpa_merge.outline.router import Choices, Router
from hpa_merge.outline.units import Unit, inside

__all__ = [
    "COMPONENTS",
    "Choices",
    "Component",
    "LinearTensor",
    "Outline",
    "Readers",
    "Router",
    "Unit",
    "inside",
    "packed",
    "unpacked",
]
