"""Parameters of three dimensions, one matrix for each expert of a mixture or for each head, and routers of experts.

An expert's weight is a slice of its stack. Its input is whatever the experts' forward multiplies with that slice
(:mod:`hpa_merge.model.products`): the tokens that are routed to it, one expert at a time or all at once.
"""

from dataclasses import dataclass
from typing import Any, final

from torch import nn

from hpa_merge.model.linears import multiplied

TRANSPOSED = {
    "AriaGroupedExpertsGemm": True,
    "InklingSharedExperts": False,
    "JetMoeParallelExperts": False,
    "Llama4TextExperts": True,
    "LongcatFlashExperts": False,
    "Step3p7Experts": False,
}
"""Whether a class without ``is_transposed`` holds ``[experts, inputs, outputs]``."""


@final
@dataclass(frozen=True)
class ExpertStack:
    """A parameter that holds one matrix for each expert.

    Attributes:
        name: the parameter's.
        input_axis: 2 for ``[experts, r, c]``, 1 for ``[experts, c, r]``.
    """

    name: str
    input_axis: int

    def observer(self, expert: int) -> str:
        """The name of one expert's input."""
        return f"{self.name}[{expert}]"


def find_expert_stacks(model: nn.Module) -> dict[str, ExpertStack]:
    """The stacks in ``model`` whose input axis is known, by parameter name: of experts, or of heads."""
    found = {}
    for path, module in model.named_modules():
        transposed = getattr(module, "is_transposed", TRANSPOSED.get(type(module).__name__))
        for leaf, parameter in module.named_parameters(recurse=False):
            if parameter.ndim == 3:
                name = f"{path}.{leaf}"
                known = isinstance(transposed, bool)
                axis = (-2 if transposed else -1) if known else multiplied(type(module)).get(leaf)
                if axis is not None:
                    found[name] = ExpertStack(name, axis % 3)
    return found


def find_routers(model: nn.Module) -> set[str]:
    """Paths of the modules whose weight, ``[experts, c]``, scores the experts next to them.

    A router has no other matrix: attention next to the experts may happen to have as many rows as there are experts.
    """
    found = set()
    for path, parent in model.named_modules():
        counts = {name: count for name, child in parent.named_children() if (count := _experts_of(child))}
        for name, child in parent.named_children() if counts else ():
            matrices = [n for n, p in child.named_parameters() if p.ndim > 1 and n.endswith("weight")]
            if name in counts or len(matrices) != 1:
                continue
            shape = child.get_parameter(matrices[0]).shape
            if len(shape) == 2 and shape[0] in counts.values():
                found.add(f"{path}.{name}.{matrices[0]}".lstrip(".").removesuffix(".weight"))
    return found


def routed_share(config: Any, experts: int) -> float:
    """The share of the tokens that reach an expert on average; 1 if the configuration does not say."""
    names = ("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_topk", "top_k_experts")
    active = next((value for name in names if isinstance(value := getattr(config, name, None), int)), experts)
    return min(1.0, active / experts)


def _experts_of(module: nn.Module) -> int:
    """How many experts ``module`` holds, stacked or one by one, and nothing else; 0 if it is something else."""
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        return len(module) if type(module).__name__.endswith("Experts") else 0
    holders = [module] if next(module.parameters(recurse=False), None) is not None else list(module.children())
    stacks = [
        parameter
        for holder in holders
        if not isinstance(holder, nn.Conv1d)
        for parameter in holder.parameters(recurse=False)
        if parameter.ndim == 3
    ]
    whole = all(any(p.ndim == 3 for p in h.parameters()) for h in holders if next(h.parameters(), None) is not None)
    return len(stacks[0]) if stacks and whole else 0
