"""Experts of a mixture: parameters of three dimensions, one matrix for each expert.

An expert's weight is a slice of its stack. Its input is whatever the experts' forward multiplies with that slice: the
tokens that are routed to it. So products are observed, not modules. That works for every forward that takes the experts
one by one or all at once.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

TRANSPOSED = {
    "AriaGroupedExpertsGemm": True,
    "InklingSharedExperts": False,
    "JetMoeParallelExperts": False,
    "Llama4TextExperts": True,
    "LongcatFlashExperts": False,
    "Step3p7Experts": False,
}
"""Whether a class without ``is_transposed`` holds ``[experts, inputs, outputs]``."""

PRODUCTS = {
    torch.nn.functional.linear,
    *(torch.matmul, torch.mm, torch.bmm),
    *(Tensor.matmul, Tensor.__matmul__, Tensor.mm, Tensor.bmm),
}
"""Functions that multiply an input, the first argument, with a weight, the second."""

Observe = Callable[[str, Tensor], None]


@final
@dataclass(frozen=True)
class ExpertStack:
    """A parameter that holds one matrix for each expert.

    Attributes:
        name: the parameter's.
        module: path of the module that multiplies with it.
        input_axis: 2 for ``[experts, r, c]``, 1 for ``[experts, c, r]``.
    """

    name: str
    module: str
    input_axis: int

    def observer(self, expert: int) -> str:
        """The name of one expert's input."""
        return f"{self.name}[{expert}]"


def find_expert_stacks(model: nn.Module) -> dict[str, ExpertStack]:
    """The stacks of experts in ``model`` whose input axis is known, by parameter name."""
    found = {}
    for path, module in model.named_modules():
        transposed = getattr(module, "is_transposed", TRANSPOSED.get(type(module).__name__))
        if isinstance(transposed, bool):
            for leaf, parameter in module.named_parameters(recurse=False):
                if parameter.ndim == 3:
                    name = f"{path}.{leaf}"
                    found[name] = ExpertStack(name, path, 1 if transposed else 2)
    return found


def find_pools(model: nn.Module, stacks: Mapping[str, ExpertStack]) -> dict[str, tuple[str, ...]]:
    """For each observer of an expert, those of the same input of all experts of its layer, its own among them."""
    pools = []
    for stack in stacks.values():
        pools.append([stack.observer(expert) for expert in range(len(model.get_parameter(stack.name)))])
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList | nn.ModuleDict) and experts_of(module):  # one by one, as in Switch
            inputs: dict[str, list[str]] = defaultdict(list)
            for name, expert in module.named_children():
                for inner, part in expert.named_modules():
                    if isinstance(part, nn.Linear):
                        inputs[inner].append(f"{path}.{name}.{inner}".rstrip("."))
            pools += inputs.values()
    return {observer: tuple(pool) for pool in pools for observer in pool}


def routed_share(config: Any, experts: int) -> float:
    """The share of the tokens that reach an expert on average; 1 if the configuration does not say."""
    names = ("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_topk", "top_k_experts")
    active = next((value for name in names if isinstance(value := getattr(config, name, None), int)), experts)
    return min(1.0, active / experts)


@contextmanager
def watched(module: nn.Module, stacks: Mapping[str, ExpertStack], observe: Observe) -> Iterator[None]:
    """Within the block, pass every input that an expert of ``module`` multiplies with its weight to ``observe``.

    Args:
        stacks: the stacks of ``module``, by attribute.
        observe: called with the expert's observer and its tokens, ``[n, c]``.
    """
    by_memory = {}
    for leaf, stack in stacks.items():
        parameter = module.get_parameter(leaf)
        by_memory[parameter.untyped_storage().data_ptr()] = (stack, parameter)
    with _Products(by_memory, observe):
        yield


@final
class _Products(TorchFunctionMode):
    """Observes every product of the block whose weight lies in the memory of a stack."""

    def __init__(self, by_memory: Mapping[int, tuple[ExpertStack, Tensor]], observe: Observe) -> None:
        super().__init__()
        self._by_memory = by_memory
        self._observe = observe

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in PRODUCTS:
            x, weight = args[:2]
            found = self._by_memory.get(weight.untyped_storage().data_ptr())
            if found is not None:
                self._see(*found, x, weight)
        return func(*args, **(kwargs or {}))

    def _see(self, stack: ExpertStack, parameter: Tensor, x: Tensor, weight: Tensor) -> None:
        if weight.ndim == 3:  # all experts at once; a token is zero for the experts that it is not routed to
            for expert, tokens in enumerate(x):
                self._observe(stack.observer(expert), tokens[tokens.any(dim=1)])
        else:
            place = weight.storage_offset() - parameter.storage_offset()
            self._observe(stack.observer(place // parameter.stride(0)), x)


def experts_of(module: nn.Module) -> int:
    """How many experts ``module`` holds, stacked or one by one, and nothing else; 0 if it is something else."""
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        each = [child for child in module.children() if next(child.parameters(), None) is not None]
        return len(each) if type(module).__name__.endswith("Experts") else 0
    holders = [module] if next(module.parameters(recurse=False), None) is not None else list(module.children())
    stacks = [
        parameter
        for holder in holders
        if not isinstance(holder, nn.Conv1d)
        for parameter in holder.parameters(recurse=False)
        if parameter.ndim == 3
    ]
    whole = all(any(p.ndim == 3 for p in h.parameters()) for h in holders if next(h.parameters(), None) is not None)
    if stacks:
        return len(stacks[0]) if whole else 0
    count = getattr(module, "num_experts", 0)  # all in one matrix, as in DBRX
    return count if isinstance(count, int) and type(module).__name__.endswith("Experts") else 0
