"""Sets the parameters and buffers of a model, by name: to weights that are read, or to placeholders without memory."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["placeholder", "put", "set_buffer"]


def put(model: nn.Module, places: Iterable[str], value: Tensor) -> None:
    """Set a parameter or buffer under every name that shares it, ``places``.

    A parameter requires a gradient if it does so after ``from_pretrained``, because torch computes products with it
    differently (``should_fold`` in ATen/native/LinearAlgebra.cpp), even while gradients are disabled.
    """
    for place in places:
        owner, _, leaf = place.rpartition(".")
        module = model.get_submodule(owner)
        if leaf in module._parameters:
            module._parameters[leaf] = nn.Parameter(value, requires_grad=value.is_floating_point())
        else:
            module._buffers[leaf] = value


def placeholder(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of the given shape in the memory of one number: NaN, or the greatest integer."""
    if dtype.is_floating_point or dtype.is_complex:
        value = float("nan")
    else:
        value = 1 if dtype == torch.bool else torch.iinfo(dtype).max
    return torch.full((), value, dtype=dtype, device=device).expand(shape)


def set_buffer(model: nn.Module, name: str, value: Tensor) -> None:
    """Set a buffer under one name."""
    owner, _, leaf = name.rpartition(".")
    model.get_submodule(owner)._buffers[leaf] = value
