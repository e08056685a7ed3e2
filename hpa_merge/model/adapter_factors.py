"""The factors of a LoRA: for each parameter that it changes, two matrices whose product is the update."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

from torch import nn

__all__ = ["ADAPTER_NAME", "Factors", "factors_of", "saved_name"]

ADAPTER_NAME = "default"
"""The name that peft gives to an adapter, within the names of its tensors in a model."""


@final
@dataclass(frozen=True)
class Factors:
    """The factors of one parameter, or of a stack of experts.

    Attributes:
        module: path of the module in the model without the adapter.
        parameter: the name of the parameter.
        a: name of factor A in the adapter's file, as peft writes it for this model: ``[r, n]``, or ``[experts * r, n]``
            for a stack.
        b: name of factor B: ``[m, r]``, or ``[m, r * experts]`` for a stack, where the expert's index runs fastest.
        scaling: multiplies the product: alpha / r, or alpha / sqrt(r) with rsLoRA.
        experts: the number of matrices in a stack; None for a single matrix.
        crossed: whether ``a`` belongs to the second axis of each matrix and ``b`` to the first, as in nn.Linear.
        plain: whether the update is the scaled product and nothing else: DoRA and other variants are not.
    """

    module: str
    parameter: str
    a: str
    b: str
    scaling: float
    experts: int | None
    crossed: bool
    plain: bool


def factors_of(path: str, layer: Any, results: Mapping[str, str], placed: Mapping[int, str]) -> Iterator[Factors]:
    """The factors of one of peft's layers: one pair, or one for each parameter of a module with experts.

    Args:
        path: of the module in the model without the adapter.
        results: names of the model's parameters that the layer changes, by their names within the module.
        placed: peft's names of the adapter's tensors, by ``id()``.
    """
    for inner in _nested(layer):
        names = [placed.get(id(factor)) for factor in _pair(inner)]
        name = getattr(inner, "parameter_name", "weight")
        if len(names) == 2 and None not in names and name in results:
            a, b = (saved_name(str(placed_name)) for placed_name in names)
            stacked = getattr(inner, "num_experts", 1)
            yield Factors(
                module=path,
                parameter=results[name],
                a=a,
                b=b,
                scaling=float(inner.scaling[ADAPTER_NAME]),
                experts=stacked if stacked > 1 else None,
                crossed=_crossed(inner, stacked),
                plain=ADAPTER_NAME not in inner.lora_variant,
            )


def saved_name(name: str) -> str:
    """The name in the adapter's file of a tensor that peft calls ``name`` in the model."""
    head, _, tail = name.rpartition(f".{ADAPTER_NAME}")
    return head + tail if head else name


def _nested(layer: Any) -> Iterator[Any]:
    """The layer and, while it wraps another one (one for each parameter of the module), that one."""
    while hasattr(layer, "base_layer"):
        yield layer
        layer = layer.base_layer


def _pair(layer: Any) -> Iterable[nn.Parameter]:
    """Both factors of a linear, an embedding or a stack; nothing for another layer, or for a convolution."""
    if ADAPTER_NAME in getattr(layer, "lora_embedding_A", ()):
        return layer.lora_embedding_A[ADAPTER_NAME], layer.lora_embedding_B[ADAPTER_NAME]
    if ADAPTER_NAME not in getattr(layer, "lora_A", ()):
        return ()
    pair = layer.lora_A[ADAPTER_NAME].weight, layer.lora_B[ADAPTER_NAME].weight
    return pair if all(factor.ndim == 2 for factor in pair) else ()


def _crossed(layer: Any, stacked: int) -> bool:
    if stacked > 1:
        return bool(layer._did_swap_in_out_features)
    return ADAPTER_NAME not in getattr(layer, "lora_embedding_A", ()) and not layer.fan_in_fan_out
