"""bitsandbytes: NF4 and FP4 with scales that may be quantised themselves, and int8 by row; through bitsandbytes."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hpa_merge.files.parsing import BEGINNING, parse_json
from hpa_merge.quantisation.configuration import FULL, Refused
from hpa_merge.quantisation.recipe import Format, Header, Parts, Quantised, Recipe

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


BITS_AND_BYTES = Format(find, LIBRARY, turns=True)


def _four_bits(given: Quantised, name: str, state: str) -> Recipe:
    """The recipe of a weight of four bits; its shape stands in ``state``, JSON as bytes.

    Sizes and dtypes are checked here, because bitsandbytes reads the scales through pointers and does not check them.
    """
    described = _state(given, name, state)
    shape = tuple(described["shape"])
    parts = {"weight": name, "absmax": f"{name}.absmax", "quant_map": f"{name}.quant_map"}
    parts |= {leaf: f"{name}.{leaf}" for leaf in NESTED if f"{name}.{leaf}" in given.header}
    nested = "nested_absmax" in parts
    if nested != ("nested_blocksize" in described):
        raise Refused(f"the tensors of {name} and their description contradict each other: {FULL}")
    scales = math.ceil(math.prod(shape) / described["blocksize"])
    sizes = {"weight": math.ceil(math.prod(shape) / 2), "absmax": scales, "quant_map": 16}
    if nested:
        sizes |= {"nested_absmax": math.ceil(scales / described["nested_blocksize"]), "nested_quant_map": 256}
    found = {leaf: given.header[part] for leaf, part in parts.items() if part in given.header}
    held = {leaf: math.prod(size) for leaf, (_, size) in found.items()}
    held["weight"] *= found["weight"][0].itemsize  # in bytes, as the numbers may be stored in any dtype
    if held != sizes or found["absmax"][0].is_floating_point == nested or _not_float32(found):
        raise Refused(f"the tensors of {name} do not hold a weight of {list(shape)}: {FULL}")
    kind = state.rpartition("_")[2]
    return Recipe(name, shape, parts, partial(_unpack_four, described=described), kind.upper())


def _not_float32(found: Header) -> bool:
    """Whether one of the tensors of scales that are quantised is not in float32, as which bitsandbytes reads it."""
    return any(found[leaf][0] != torch.float32 for leaf in NESTED if leaf in found)


def _state(given: Quantised, name: str, state: str) -> dict[str, Any]:
    """The description of a weight: ``shape``, ``quant_type``, ``blocksize``, and fields of scales that are quantised.

    Raises:
        Refused: it is not one that bitsandbytes writes.
    """
    try:
        if math.prod(given.header[state][1]) > BEGINNING.size:
            raise ValueError("it is too long")
        described = parse_json(given.read(state).numpy().tobytes(), BEGINNING)
        shape = described["shape"]
        if not (isinstance(shape, list) and shape and all(type(n) is int and 0 < n < 2**31 for n in shape)):
            raise ValueError("it has no shape")
        sizes = [described[key] for key in ("blocksize", "nested_blocksize") if key == "blocksize" or key in described]
        if described["quant_type"] not in ("nf4", "fp4") or not all(type(n) is int and n > 0 for n in sizes):
            raise ValueError("it has another type")
        if "nested_blocksize" in described and described["nested_dtype"] != "float32":
            raise ValueError("its scales have another dtype")
        if "nested_blocksize" in described and not math.isfinite(described["nested_offset"]):
            raise ValueError("its scales have no offset")
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise Refused(f"the description of {name} cannot be read ({error}): {FULL}") from error
    return dict(described)


def _unpack_four(parts: Parts, dtype: torch.dtype, *, described: dict[str, Any]) -> Tensor:
    from bitsandbytes.functional import QuantState, dequantize_4bit

    described_by: Any = QuantState  # without types
    offset = inner = None
    if "nested_absmax" in parts:
        absmax, code = (parts[leaf] for leaf in NESTED)
        inner = described_by(absmax, blocksize=described["nested_blocksize"], code=code, dtype=torch.float32)
        offset = torch.tensor(float(described["nested_offset"]))
    shape = torch.Size(described["shape"])
    state = described_by(
        parts["absmax"],
        shape=torch.Size([shape.numel()]),  # flat, because a block may begin in one row and end in the next
        code=parts["quant_map"],
        blocksize=described["blocksize"],
        quant_type=described["quant_type"],
        dtype=dtype,  # rounded once
        offset=offset,
        state2=inner,
    )
    packed = parts["weight"].reshape(-1, 1)  # one row would be taken for a transposed weight
    weight: Tensor = dequantize_4bit(packed, state)
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
