"""Which parameters are weights of linears, and which axis holds their inputs."""

import ast
import inspect
import textwrap
import warnings
from collections.abc import Mapping
from functools import cache

from torch import nn
from transformers.pytorch_utils import Conv1D

__all__ = ["find_linear_weights", "multiplied", "observer_of"]

OF_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
"""Parameters of torch's own ``MultiheadAttention``; its ``out_proj`` is a linear module."""

TURNS = {"T", "mT", "t", "transpose", "swapaxes"}
"""What exchanges the last two axes of a weight."""

KEEPS = {"to", "float", "type", "type_as", "contiguous"}
"""Methods that leave the axes of a weight as they are."""

PRODUCTS = {"matmul": (0, 1), "mm": (0, 1), "bmm": (0, 1), "linear": (None, 1), "addmm": (1, 2), "baddbmm": (1, 2)}
"""Functions that multiply, and which arguments they multiply from the left and from the right."""


def find_linear_weights(model: nn.Module) -> dict[str, int]:
    """The input axis of every weight of a linear in ``model``: 1 for ``[r, c]``, 0 for ``[c, r]``.

    A parameter of two dimensions counts if the source of its class multiplies with it. If the source shows the wrong
    axis, the weight reads nothing along it, and is reported as uncalibrated.
    """
    found = {}
    for path, module in model.named_modules(remove_duplicate=False):
        matrices = [leaf for leaf, value in module._parameters.items() if value is not None and value.ndim == 2]
        axes: Mapping[str, int] = {}
        if isinstance(module, nn.Linear | Conv1D):
            axes = {"weight": 0 if isinstance(module, Conv1D) else -1}
        elif isinstance(module, nn.MultiheadAttention):
            axes = dict.fromkeys(OF_ATTENTION, -1)
        elif matrices:
            axes = multiplied(module.__class__)
        for leaf in matrices:
            if leaf in axes:
                found[f"{path}.{leaf}".lstrip(".")] = axes[leaf] % 2
    return found


def observer_of(weight: str) -> str:
    """The name of what a linear's weight reads: the path of its module, or the name of a parameter that has none."""
    return weight.removesuffix(".weight")


def multiplied(kind: type[nn.Module]) -> dict[str, int]:
    """The attributes that the methods of a class multiply with something, and which axis is summed: -1 or -2.

    The source is parsed and not run. Classes of torch give nothing: :func:`find_linear_weights` knows its linears.
    """
    return _multiplied(kind)  # type: ignore[arg-type]  # mypy doubts that a class is hashable


@cache
def _multiplied(kind: type[nn.Module]) -> dict[str, int]:
    if kind.__module__.startswith("torch."):
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of strings with a stray backslash
            tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):
        return {}
    found: dict[str, int] = {}
    for node in ast.walk(tree):
        left: ast.expr | None = None
        right: ast.expr | None = None
        linear = False
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            left, right = node.left, node.right
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in PRODUCTS:
            places, args = PRODUCTS[node.func.attr], node.args
            if len(args) == 1:  # a method of the left factor
                left, right = node.func.value, args[0]
            elif len(args) > max(place or 0 for place in places):
                left, right = (None if place is None else args[place] for place in places)
            linear = node.func.attr == "linear"
        for factor, summed in ((left, -1), (right, -1 if linear else -2)):
            leaf, turned = _attribute(factor)
            if leaf is not None:
                found[leaf] = -3 - summed if turned else summed
    return found


def _attribute(node: ast.expr | None) -> tuple[str | None, bool]:
    """The attribute of ``self`` that an expression reads, and whether it exchanges the last two axes; None for another.

    Casts and indexing are looked through.
    """
    turned = False
    while True:
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=leaf):
                return leaf, turned
            case ast.Attribute(value=inner, attr=name) | ast.Call(func=ast.Attribute(value=inner, attr=name)):
                if name not in TURNS | KEEPS:
                    return None, False
                node, turned = inner, turned ^ (name in TURNS)
            case ast.Subscript(value=inner):
                node = inner
            case _:
                return None, False
