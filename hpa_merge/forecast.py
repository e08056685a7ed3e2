"""How much memory a merge is going to take, from its plan: an upper estimate, so that it is met before the work.

What is in memory at once is one unit of both models, the curvatures of its linears on both sides, the factorisation of
the largest of them, and what the paused samples hold. Linears that share an input are counted apart here, because
which do is seen only when the samples run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.machine import peak_host_bytes
from hpa_merge.model import Unit
from hpa_merge.plan import Plan
from hpa_merge.side import Side

__all__ = ["Forecast", "forecast"]

HELD_STATES = 4
"""Tensors of ``[tokens, hidden]`` that a paused sample holds: its state, its residual, and two of its embeddings."""


LIBRARIES = 80 * 10**6
"""Bytes that torch and its kernels take when they are first used; measured on x86-64 with torch 2.13 for the CPU."""


@final
@dataclass(frozen=True)
class Forecast:
    """Bytes at the peak, at most; ``device`` is None on the CPU, where everything is the host's."""

    host: int
    device: int | None


def forecast(plan: Plan, checkpoints: Sequence[Checkpoint], sides: Sequence[Side], device: torch.device) -> Forecast:
    """The peak of a merge by ``plan``; the modules and the libraries are loaded already and count as they are."""
    tokens = [sum(sample["input_ids"].numel() for sample in side.inputs) for side in sides]
    units = max(
        (_unit(unit, plan, checkpoints) + _curvatures(unit, plan, checkpoints, tokens) for unit in plan.new.units),
        default=0,
    )
    hidden = getattr(plan.new.model.config.get_text_config(), "hidden_size", 0)
    states = HELD_STATES * sum(tokens) * hidden * plan.new.model.dtype.itemsize
    inputs = sum(_bytes(sample) for side in sides for sample in side.inputs)
    base = peak_host_bytes() + LIBRARIES
    if device.type == "cpu":
        return Forecast(host=base + units + states + inputs, device=None)
    largest = max(info.nbytes for checkpoint in checkpoints for info in checkpoint.tensors.values())
    return Forecast(host=base + 2 * largest, device=units + states + inputs)


def _unit(unit: Unit, plan: Plan, checkpoints: Sequence[Checkpoint]) -> int:
    """The weights of one unit, of OLD and NEW."""
    return sum(
        checkpoint.tensors[key].nbytes
        for skeleton, checkpoint in zip((plan.old, plan.new), checkpoints, strict=True)
        for key in skeleton.keys_of(unit)
    )


def _curvatures(unit: Unit, plan: Plan, checkpoints: Sequence[Checkpoint], tokens: Sequence[int]) -> int:
    """What the curvatures of one unit's linears take: tokens, or a float32 Gram matrix; and one factorisation."""
    gathered, factored = 0, 0
    for pair in plan.linears.get(unit, ()):
        shape = checkpoints[1].tensors[pair.new.key].shape
        rows, columns = shape if pair.new.input_axis == 1 else shape[::-1]
        for count in tokens:
            if count < columns:
                gathered += count * columns * plan.new.model.dtype.itemsize
                factored = max(factored, 4 * (2 * count * columns + 2 * count * count))
            else:
                gathered += 4 * columns * columns
                factored = max(factored, 4 * 3 * columns * columns)
        factored = max(factored, rows * columns * plan.new.model.dtype.itemsize)  # the fused weight
    return gathered + factored


def _bytes(inputs: Mapping[str, Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in inputs.values())
