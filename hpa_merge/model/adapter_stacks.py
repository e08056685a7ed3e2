"""The two factors of a LoRA on a stack of experts, whose order depends on the version of peft that wrote them.

A stack is ``[experts, outputs, inputs]``, or transposed ``[experts, inputs, outputs]``. Until 0.18 peft took the second
axis for the inputs in both, in 0.19.0 the axis of the outputs, and since 0.19.1 the axis of the inputs.
"""

from collections.abc import Mapping
from typing import Any

import torch
from packaging.version import InvalidVersion, Version
from torch import nn

from hpa_merge.model.adapter_factors import ADAPTER_NAME

__all__ = ["arrange_stacks"]


CROSSED, STRAIGHT = Version("0.19.0"), Version("0.19.1")
"""Versions since which the order of the factors depends on how a stack lies in memory."""


def arrange_stacks(wrapped: nn.Module, written_by: Any, own: Mapping[str, tuple[int, ...]]) -> str:
    """Give peft's layers on stacks the order of the factors that the adapter has.

    The shapes decide, if they fit only one order. If all stacks are square, the version in adapter_config.json does.

    Args:
        wrapped: the model with the adapter's layers, on the meta device.
        written_by: the version of peft in adapter_config.json; until 0.17 there was none.
        own: shapes of the adapter's tensors, by the names under which peft saves them.

    Returns:
        What the user should know; empty if the order is the present one.
    """
    stacks = {}
    for path, module in wrapped.named_modules():
        key = f"{path}.lora_A.weight"
        if getattr(module, "num_experts", 1) > 1 and hasattr(module, "parameter_name") and key in own:
            stacks[key] = module
    if not stacks:
        return ""
    version = _version(written_by)
    seen = {
        own[key][1] != module.in_features
        for key, module in stacks.items()
        if module.in_features != module.out_features and own[key][1] in (module.in_features, module.out_features)
    }
    orders = {
        module._did_swap_in_out_features != _crossed(version, _is_transposed(module)) for module in stacks.values()
    }
    turned = seen if len(seen) == 1 else orders
    if turned != {True}:
        return ""
    for module in stacks.values():
        _turn(module)
    by = "by their shapes" if seen else f"by peft {version}, which wrote them" if version else "as it names no version"
    return f"the LoRA of its experts has its factors in the order of peft before 0.19.1 ({by}), and is read that way."


def _version(written_by: Any) -> Version | None:
    """A version of peft, without the commit; None if there is none, or none that can be read."""
    try:
        return Version(str(written_by).partition("@")[0])
    except InvalidVersion:
        return None


def _crossed(version: Version | None, transposed: bool) -> bool:
    """Whether factor A belongs to the last axis of a stack, as a version of peft wrote it."""
    if version is None or version < CROSSED:
        return False
    return transposed if version < STRAIGHT else not transposed


def _is_transposed(module: Any) -> bool:
    return bool(getattr(module.get_base_layer(), "is_transposed", False))


def _turn(module: Any) -> None:
    """Exchange the axes of a layer's factors."""
    module._did_swap_in_out_features = not module._did_swap_in_out_features
    module.in_features, module.out_features = module.out_features, module.in_features
    for factors, axis, size in ((module.lora_A, 1, module.in_features), (module.lora_B, 0, module.out_features)):
        factor = factors[ADAPTER_NAME]
        shape = list(factor.weight.shape)
        shape[axis] = size
        factor.weight = nn.Parameter(
            torch.empty(shape, dtype=factor.weight.dtype, device="meta"), requires_grad=factor.weight.requires_grad
        )
