"""peft's layers in a model, and the tensors in them by name."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from hpa_merge.model.conversion import Conversion

__all__ = ["layers_of", "names_of", "put", "tensors_of"]


def layers_of(model: nn.Module) -> Iterable[tuple[str, Any]]:
    """peft's outermost layers in ``model``, by path: those that ``merge_and_unload`` replaces."""
    outer = None
    for path, module in model.named_modules():
        inside = outer is not None and path.startswith(f"{outer}.")
        tied = getattr(getattr(module, "token_adapter", None), "tied_adapter", None) is not None
        if not inside and (hasattr(module, "unload_and_optionally_merge_module") or hasattr(module, "base_layer")):
            outer = path
            if not tied:  # else its twin is merged
                yield path, module


def names_of(model: nn.Module, on_disk: Mapping[str, Conversion]) -> dict[int, str]:
    """The name of each parameter and buffer by ``id()``; for tied ones, the name that is on disk."""
    names: dict[int, str] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if names.get(id(value)) not in on_disk:
            names[id(value)] = name
    return names


def tensors_of(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """Every parameter and every buffer, saved or not, under each of its names."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def put(module: nn.Module, name: str, value: Tensor) -> None:
    """Replace a parameter or a buffer of ``module`` or of a module in it."""
    owner, _, leaf = name.rpartition(".")
    inner = module.get_submodule(owner)
    if leaf in inner._parameters:
        inner._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    else:
        inner._buffers[leaf] = value
