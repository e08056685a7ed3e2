"""Which parameters are weights of linears, and which axis holds their inputs."""

from torch import nn
from transformers.pytorch_utils import Conv1D

__all__ = ["find_linear_weights", "observer_of"]

OF_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
"""Parameters of torch's own ``MultiheadAttention``; its ``out_proj`` is a linear module."""


def find_linear_weights(model: nn.Module) -> dict[str, int]:
    """The input axis of every weight of a linear in ``model``: 1 for ``[r, c]``, 0 for ``[c, r]``."""
    found = {}
    for path, module in model.named_modules(remove_duplicate=False):
        leaves = OF_ATTENTION if isinstance(module, nn.MultiheadAttention) else ("weight",)
        axis = 0 if isinstance(module, Conv1D) else 1
        if isinstance(module, nn.Linear | Conv1D | nn.MultiheadAttention):
            found |= {f"{path}.{leaf}".lstrip("."): axis for leaf in leaves if module._parameters.get(leaf) is not None}
    return found


def observer_of(weight: str) -> str:
    """The name of what a linear's weight reads: the path of its module, or the name of a parameter that has none."""
    return weight.removesuffix(".weight")
