"""Parameters of three dimensions: one matrix for each expert of a mixture, or for each head.

An expert's weight is a slice of its stack. Its input is whatever the experts' forward multiplies with that slice
(:mod:`hpa_merge.model.products`): the tokens that are routed to it, one expert at a time or all at once.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from torch import nn

from hpa_merge.model.linears import multiplied

TRANSPOSED = "AriaGroupedExpertsGemm"
"""A class that holds ``[experts, inputs, outputs]`` and has a function multiply with it, so that nothing says so."""


@final
@dataclass(frozen=True)
class ExpertStack:
    """A parameter that holds one matrix for each expert.

    Attributes:
        name: the parameter's.
        input_axis: 2 for ``[experts, r, c]``, 1 for ``[experts, c, r]``.
        experts: whether tokens are routed to the matrices; else every token reads all of them, as heads.
    """

    name: str
    input_axis: int
    experts: bool

    def observer(self, expert: int) -> str:
        """The name of one expert's input."""
        return f"{self.name}[{expert}]"


def find_expert_stacks(model: nn.Module) -> dict[str, ExpertStack]:
    """The stacks in ``model`` whose input axis is known, by parameter name: of experts, or of heads."""
    found = {}
    for path, module in model.named_modules():
        transposed = getattr(module, "is_transposed", True if type(module).__name__ == TRANSPOSED else None)
        for leaf, parameter in module.named_parameters(recurse=False):
            if parameter.ndim == 3:
                name = f"{path}.{leaf}"
                known = isinstance(transposed, bool)
                axis = (-2 if transposed else -1) if known else multiplied(module.__class__).get(leaf)
                if axis is not None:
                    experts = known or re.search("expert|moe", type(module).__name__, re.IGNORECASE) is not None
                    found[name] = ExpertStack(name, axis % 3, experts)
    return found


def find_pools(model: nn.Module, stacks: Mapping[str, ExpertStack]) -> dict[str, tuple[str, ...]]:
    """For each observer of an expert, those of the same input of all experts of its layer, its own among them."""
    pools = []
    for stack in (stack for stack in stacks.values() if stack.experts):
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
