"""The mathematics of Harmonious Parameter Adaptation: tensors in, tensors out; imports torch alone.

A linear layer is ``y = x Wᵀ`` with ``W`` of shape ``[r, c]``: ``r`` outputs, ``c`` inputs. A *column* is one input.
Read in this order: :mod:`hessian` (``[H⁻¹]_jj``), :mod:`adjustment` (``e_j``, ``κ``, ``Ŵ``), :mod:`selection` (``M``),
:mod:`energies` (what other settings would restore);
the others serve other rules: :mod:`gathered` (``H`` itself), :mod:`compromise` (two whole Hessians), :mod:`sequential`
and :mod:`inverse` (compensation), :mod:`subspace` (leading directions), :mod:`low_rank` (factors).
"""

from hpa_merge.core.adjustment import (
    Update,
    all_finite,
    fuse,
    measure_update,
    projections,
    squared_distance,
    squared_norm,
)
from hpa_merge.core.compromise import Compromise, SingularCompromise
from hpa_merge.core.diagonal import SingularCurvature
from hpa_merge.core.energies import energies_restored
from hpa_merge.core.gathered import Hessian
from hpa_merge.core.hessian import Curvature
from hpa_merge.core.inverse import InverseHessian
from hpa_merge.core.low_rank import product_norm, truncated
from hpa_merge.core.selection import Selection, balance, column_budget, retained_share, select_columns
from hpa_merge.core.sequential import SingularHessian, respond, reversed_factor
from hpa_merge.core.subspace import leading_directions

__all__ = [
    "Compromise",
    "Curvature",
    "Hessian",
    "InverseHessian",
    "Selection",
    "SingularCompromise",
    "SingularCurvature",
    "SingularHessian",
    "Update",
    "all_finite",
    "balance",
    "column_budget",
    "energies_restored",
    "fuse",
    "leading_directions",
    "measure_update",
    "product_norm",
    "projections",
    "respond",
    "retained_share",
    "reversed_factor",
    "select_columns",
    "squared_distance",
    "squared_norm",
    "truncated",
]
