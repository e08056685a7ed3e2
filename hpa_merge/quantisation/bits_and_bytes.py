"""bitsandbytes: NF4 and FP4 with scales that may be quantised themselves, and int8 by row; through bitsandbytes."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hpa_merge.files.parsing import BEGINNING, parse_json
from hpa_merge.quantisation.recipe import FULL, Format, Parts, Quantised, Recipe, Refused

__all__ = ["BITS_AND_BYTES"]

LIBRARY = "bitsandbytes"

STATE = ".quant_state.bitsandbytes__"
"""What follows a weight's name in that of the tensor that describes it; then comes ``nf4`` or ``fp4``."""

NESTED = ("nested_absmax", "nested_quant_map")
"""Tensors of scales that are quantised themselves."""


def find(given: Quantised) -> Iterator[Recipe]:
    """Weights with a ``quant_state``, of four bits, and weights with ``SCB``, of eight."""
    for name, (dtype, shape) in given.header.items():
        state = next((f"{name}{STATE}{kind}" for kind in ("nf4", "fp4") if f"{name}{STATE}{kind}" in given.header), "")
        module = name.removesuffix(".weight")
        if state:
            yield _four_bits(given, name, state)
        elif dtype == torch.int8 and f"{module}.SCB" in given.header:
            if len(shape) != 2 or given.header[f"{module}.SCB"][1] != shape[:1]:
                raise Refused(f"the scales of {name} do not fit its shape {list(shape)}: {FULL}")
            _check_order(given, f"{module}.weight_format")
            yield Recipe(name, shape, {"weight": name, "SCB": f"{module}.SCB"}, _unpack_eight, "int8 of bitsandbytes")


BITS_AND_BYTES = Format(("bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit"), find, LIBRARY, turns=True)


def _four_bits(given: Quantised, name: str, state: str) -> Recipe:
    """The recipe of a weight of four bits; its shape stands in ``state``, JSON as bytes."""
    said = _state(given, name, state)
    shape = tuple(said["shape"])
    parts = {"weight": name, "absmax": f"{name}.absmax", "quant_map": f"{name}.quant_map"}
    parts |= {leaf: f"{name}.{leaf}" for leaf in NESTED if f"{name}.{leaf}" in given.header}
    held = math.prod(given.header[name][1]) * given.header[name][0].itemsize
    if not all(part in given.header for part in parts.values()) or held != math.ceil(math.prod(shape) / 2):
        raise Refused(f"the tensors of {name} do not hold a weight of {list(shape)}: {FULL}")
    if ("nested_absmax" in parts) != ("nested_blocksize" in said):
        raise Refused(f"the tensors of {name} and their description contradict each other: {FULL}")
    kind = state.rpartition("_")[2]
    return Recipe(name, shape, parts, partial(_unpack_four, said=said), kind.upper())


def _state(given: Quantised, name: str, state: str) -> dict[str, Any]:
    """The description of a weight.

    Raises:
        Refused: it is not one that bitsandbytes writes.
    """
    try:
        if math.prod(given.header[state][1]) > BEGINNING.size:
            raise ValueError("it is too long")
        said = parse_json(given.read(state).numpy().tobytes(), BEGINNING)
        shape = said["shape"]
        if not (isinstance(shape, list) and shape and all(type(n) is int and 0 < n < 2**31 for n in shape)):
            raise ValueError("it has no shape")
        if said["quant_type"] not in ("nf4", "fp4") or type(said["blocksize"]) is not int or said["blocksize"] < 1:
            raise ValueError("it has another type")
    except (ValueError, LookupError, TypeError) as error:
        raise Refused(f"the description of {name} cannot be read ({error}): {FULL}") from error
    return dict(said)


def _unpack_four(parts: Parts, dtype: torch.dtype, *, said: dict[str, Any]) -> Tensor:
    from bitsandbytes.functional import QuantState, dequantize_4bit

    state = {leaf: value for leaf, value in parts.items() if leaf != "weight"}
    found = QuantState.from_dict({**said, **state}, torch.device("cpu"))
    shape, found.shape = (
        found.shape,
        torch.Size([found.shape.numel()]),
    )  # a block may begin in one row and end in the next
    found.dtype = dtype  # rounded once
    packed = parts["weight"].reshape(-1, 1)  # one row would be taken for a transposed weight
    weight: Tensor = dequantize_4bit(packed, found)
    return weight.reshape(shape)


def _unpack_eight(parts: Parts, dtype: torch.dtype) -> Tensor:
    from bitsandbytes.functional import int8_vectorwise_dequant

    found: Tensor = int8_vectorwise_dequant(parts["weight"], parts["SCB"].to(torch.float32))
    return found.to(dtype)


def _check_order(given: Quantised, name: str) -> None:
    """Raise Refused unless the rows lie in order: bitsandbytes had layouts for single kinds of GPUs."""
    if name in given.header and math.prod(given.header[name][1]) == 1 and int(given.read(name).reshape(-1)[0]) == 0:
        return
    if name in given.header:
        raise Refused(f"{name} is a layout for one kind of GPU: {FULL}")
