"""The rules that Harmonious Parameter Adaptation is compared with, one linear weight at a time: tensors in and out.

Each stands in a file of its own, with the equations of its paper; the controls are in :mod:`columns`.
"""

from hpa_merge.methods.columns import most_changed, random_columns
from hpa_merge.methods.interpolation import interpolate
from hpa_merge.methods.model_tailor import model_patch
from hpa_merge.methods.safe_delta import DeltaSelection, select_deltas
from hpa_merge.methods.surgery import operate

__all__ = [
    "DeltaSelection",
    "interpolate",
    "model_patch",
    "most_changed",
    "operate",
    "random_columns",
    "select_deltas",
]
