"""The mathematics of Harmonious Parameter Adaptation: tensors in, tensors out; imports torch alone.

A linear layer is ``y = x Wᵀ`` with ``W`` of shape ``[r, c]``: ``r`` outputs, ``c`` inputs. A *column* is one input.
Read in this order: :mod:`hessian` (``[H⁻¹]_jj``), :mod:`adjustment` (``e_j``, ``κ``, ``Ŵ``), :mod:`selection` (``M``);
:mod:`compromise` has another answer to the same two Hessians, and :mod:`low_rank` holds an update in two factors.
"""

from hpa_merge.core.adjustment import Update, all_finite, fuse, measure_update, squared_distance, squared_norm
from hpa_merge.core.compromise import Hessian, SingularCompromise, compromise
from hpa_merge.core.hessian import Curvature, SingularCurvature
from hpa_merge.core.inverse import InverseHessian
from hpa_merge.core.low_rank import product_norm, truncated
from hpa_merge.core.selection import Selection, balance, column_budget, retained_share, select_columns

__all__ = [
    "Curvature",
    "Hessian",
    "InverseHessian",
    "Selection",
    "SingularCompromise",
    "SingularCurvature",
    "Update",
    "all_finite",
    "balance",
    "column_budget",
    "compromise",
    "fuse",
    "measure_update",
    "product_norm",
    "retained_share",
    "select_columns",
    "squared_distance",
    "squared_norm",
    "truncated",
]
