"""Routers of a mixture: which tensors choose among the experts, what they read, and which experts they choose.

A router is found by its shape: next to experts, a module with a single matrix that has a row for each expert; one with
several matrices, by the name of its class. The choice is what ``topk`` finds among the scores of all experts; without a
``topk``, what ``argmax`` or ``max`` find.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hpa_merge.model.experts import experts_of
from hpa_merge.outline import Choices, Router

__all__ = ["ChoiceHooks", "find_routers", "routing_tensors"]

CHOOSE = {torch.topk, Tensor.topk}
"""Functions that choose several experts for each token."""

CHOOSE_ONE = {torch.argmax, Tensor.argmax, torch.max, Tensor.max}
"""Functions that choose one; models that call them choose one, or several in turn."""


def find_routers(model: nn.Module) -> dict[str, Router]:
    """The routers of ``model`` by the name of their matrix.

    Attention next to the experts may happen to have as many rows as there are experts, but has several matrices.
    """
    found = {}
    for path, parent in model.named_modules():
        counts = {name: count for name, child in parent.named_children() if (count := experts_of(child))}
        for name, child in parent.named_children() if counts else ():
            matrices = [n for n, p in child.named_parameters() if p.ndim > 1 and n.endswith("weight")]
            shapes = [child.get_parameter(matrix).shape for matrix in matrices]
            rows = {*counts.values(), sum(counts.values())}
            single = len(shapes) == 1 and len(shapes[0]) == 2 and shapes[0][0] in rows
            if name in counts or not (single or type(child).__name__.endswith("Router")):
                continue
            module, most = f"{path}.{name}".lstrip("."), max(counts.values())
            for matrix, shape in zip(matrices, shapes, strict=True):
                scored = frozenset({most, shape[0]})
                found[f"{module}.{matrix}"] = Router(f"{module}.{matrix}", module, path, most, scored)
    return found


def routing_tensors(model: nn.Module, routers: Iterable[Router]) -> set[str]:
    """Names of all parameters and buffers that choose: of the routing modules, and the experts' biases next to them."""
    found = set()
    for router in routers:
        found |= {f"{router.module}.{name}" for name in model.get_submodule(router.module).state_dict(keep_vars=True)}
        mixture = model.get_submodule(router.mixture)
        own = [*mixture.named_parameters(recurse=False), *mixture.named_buffers(recurse=False)]
        for name, value in own:  # e_score_correction_bias and the like
            if value.numel() == value.shape[-1:].numel() > 1 and value.numel() in router.scored:
                found.add(f"{router.mixture}.{name}".lstrip("."))
    return found


@final
class ChoiceHooks:
    """Hooks on the mixtures of a model that keep which experts each token of the current sample is sent to."""

    def __init__(self, model: nn.Module, routers: Iterable[Router]) -> None:
        self._choices: Choices = {}
        self._modules: list[nn.Module] = []
        for router in routers:
            module = model.get_submodule(router.mixture)
            if module not in self._modules:
                module.forward = self._watching(module.forward, router)
                self._modules.append(module)

    def take(self) -> Choices:
        """The choices since the last call."""
        taken, self._choices = self._choices, {}
        return taken

    def close(self) -> None:
        """Take the hooks off the model."""
        for module in self._modules:
            del module.forward  # the instance's: the class has its own
        self._modules.clear()

    def _watching(self, forward: Callable[..., Any], router: Router) -> Callable[..., Any]:
        def watching(*args: Any, **kwargs: Any) -> Any:
            with _Chosen(router.scored) as chosen:
                result = forward(*args, **kwargs)
            if (experts := chosen.experts()) is not None:
                self._choices[router.mixture] = experts
            return result

        return watching


@final
class _Chosen(TorchFunctionMode):
    """Keeps what is chosen among the scores of all experts within the block."""

    def __init__(self, counts: Collection[int]) -> None:
        super().__init__()
        self._counts = counts
        self._several: Tensor | None = None
        self._ones: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in CHOOSE and self._is_of_all(args, kwargs):
            self._several = result[1].reshape(-1, result[1].shape[-1])
        elif func in CHOOSE_ONE and self._is_of_all(args, kwargs):
            index = result if isinstance(result, Tensor) else result[1]
            if not index.is_floating_point() and index.numel() * args[0].shape[-1] == args[0].numel():
                self._ones.append(index.reshape(-1, 1))
        return result

    def experts(self) -> Tensor | None:
        """The experts of each token, ``[tokens, k]``; None if nothing was chosen."""
        if self._several is not None:
            return self._several
        ones = [index for index in self._ones if len(index) == len(self._ones[0])]
        return torch.cat(ones, dim=1) if ones else None

    def _is_of_all(self, args: Any, kwargs: Any) -> bool:
        return bool(args) and isinstance(args[0], Tensor) and args[0].ndim > 1 and args[0].shape[-1] in self._counts
