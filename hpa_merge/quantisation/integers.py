"""GPTQ and AWQ: whole numbers of two to eight bits with a scale and a zero for each group of inputs.

compressed-tensors unpacks the bits. The product of GPTQ is computed here: its own library, GPT-QModel, is built for the
GPU that it is installed next to.
"""

import math
from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from hpa_merge.quantisation.configuration import FULL, Refused
from hpa_merge.quantisation.recipe import Format, Parts, Quantised, Recipe

__all__ = ["AWQ", "GPTQ"]

LIBRARY = "compressed_tensors"

INPUTS = 1024
"""Inputs that are scaled at once."""


def find_gptq(given: Quantised) -> Iterator[Recipe]:
    """``qweight`` ``[c · bits / 32, r]``, ``qzeros`` ``[groups, r · bits / 32]``, ``scales``, and ``g_idx`` ``[c]``."""
    bits = given.number("bits", (2, 3, 4, 8), 4)
    layout = given.config.get("checkpoint_format", "gptq")
    if layout not in ("gptq", "gptq_v2"):
        raise Refused(f"checkpoint_format is {layout!r:.40}, which is made for one kernel: {FULL}")
    for module in given.ending(".qweight"):
        parts = {leaf: f"{module}.{leaf}" for leaf in ("qweight", "qzeros", "scales", "g_idx")}
        if parts["g_idx"] not in given.header:
            del parts["g_idx"]
        if not all(part in given.header for part in parts.values()):
            raise Refused(f"{module} has qweight without qzeros or scales: {FULL}")
        (words, rows), (groups, _) = given.header[parts["qweight"]][1], given.header[parts["scales"]][1]
        columns = given.header[parts["g_idx"]][1][0] if "g_idx" in parts else words * 32 // bits
        expected = {
            "qweight": (math.ceil(columns * bits / 32), rows),
            "qzeros": (groups, math.ceil(rows * bits / 32)),
            "scales": (groups, rows),
            "g_idx": (columns,),
        }
        _check(given, module, parts, expected)
        unpack = partial(_unpack_gptq, bits=bits, shape=(rows, columns), shift=int(layout == "gptq"))
        yield Recipe(f"{module}.weight", (rows, columns), parts, unpack, f"GPTQ with {bits} bits")


GPTQ = Format(find_gptq, LIBRARY, turns=True)


def find_awq(given: Quantised) -> Iterator[Recipe]:
    """``qweight`` ``[c, r/8]``, ``qzeros`` ``[groups, r/8]``, ``scales`` ``[groups, r]``; AutoAWQ's ``gemm`` alone."""
    given.number("bits", (4,), 4)
    layout = str(given.config.get("version") or "gemm").lower()
    if layout != "gemm":
        raise Refused(f"its version is {layout!r:.40}, which is made for one kernel: {FULL}")
    for module in given.ending(".qweight"):
        parts = {leaf: f"{module}.{leaf}" for leaf in ("qweight", "qzeros", "scales")}
        zeros = parts["qzeros"] in given.header
        if not zeros:
            del parts["qzeros"]
        if not all(part in given.header for part in parts.values()):
            raise Refused(f"{module} has qweight without scales: {FULL}")
        (columns, words), (groups, rows) = given.header[parts["qweight"]][1], given.header[parts["scales"]][1]
        expected = {"qweight": (columns, rows // 8), "qzeros": (groups, rows // 8), "scales": (groups, rows)}
        _check(given, module, parts, expected)
        if columns % groups or words * 8 != rows:
            raise Refused(f"{module} has {groups} groups for {columns} inputs and {rows} outputs: {FULL}")
        unpack = partial(_unpack_awq, size=columns // groups)
        yield Recipe(f"{module}.weight", (rows, columns), parts, unpack, "AWQ with 4 bits")


AWQ = Format(find_awq, LIBRARY)


def _check(given: Quantised, module: str, parts: Mapping[str, str], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise Refused unless the tensors of a module fit each other."""
    for leaf, name in parts.items():
        dtype, shape = given.header[name]
        whole = dtype == torch.int32
        if shape != expected[leaf] or whole == (leaf == "scales"):
            raise Refused(f"{module}.{leaf} is {list(shape)} instead of {list(expected[leaf])}: {FULL}")


def _unpack_gptq(parts: Parts, dtype: torch.dtype, *, bits: int, shape: tuple[int, int], shift: int) -> Tensor:
    """``scale · (number − zero)``, ``[r, c]``; the first version of the format stores a zero less one."""
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32

    rows, columns = shape
    scales = parts["scales"].to(torch.float32)  # [groups, r]
    half = 1 << (bits - 1)  # the library gives signed numbers
    numbers = unpack_from_int32(parts["qweight"], bits, torch.Size((columns, rows)), packed_dim=0)  # [c, r]
    zeros = unpack_from_int32(parts["qzeros"], bits, torch.Size(scales.shape), packed_dim=1)  # [groups, r]
    zeros = ((zeros.to(torch.int16) + half + shift) & (2 * half - 1)) - half
    weight: Tensor = numbers.to(torch.float32)
    groups = parts.get("g_idx")
    if groups is None:
        groups = torch.arange(columns) // math.ceil(columns / len(scales))
    _scale(weight, zeros.to(torch.float32), scales, groups.to(torch.int64))
    return weight.t().to(dtype, memory_format=torch.contiguous_format)


def _unpack_awq(parts: Parts, dtype: torch.dtype, *, size: int) -> Tensor:
    from compressed_tensors.entrypoints.convert.converters import AutoAWQConverter

    numbers, zeros = AutoAWQConverter.unpack_awq(parts["qweight"], parts.get("qzeros"), 4)  # [c, r], [groups, r]
    numbers, zeros = AutoAWQConverter.reverse_awq_order(numbers, zeros, 4)
    scales = parts["scales"].to(torch.float32)
    weight: Tensor = (numbers & 15).to(torch.float32)
    zeros = torch.full_like(scales, 8.0) if zeros is None else (zeros & 15).to(torch.float32)
    _scale(weight, zeros, scales, torch.arange(len(weight)) // size)
    return weight.t().to(dtype, memory_format=torch.contiguous_format)


def _scale(numbers: Tensor, zeros: Tensor, scales: Tensor, groups: Tensor) -> None:
    """Turn ``numbers`` ``[c, r]`` into ``scale · (number − zero)`` in place, :data:`INPUTS` inputs at a time.

    Args:
        zeros, scales: ``[groups, r]``.
        groups: the group of each input, ``[c]``.

    Raises:
        ValueError: ``groups`` names one that does not exist.
    """
    if bool(((groups < 0) | (groups >= len(scales))).any()):
        raise ValueError("g_idx names groups that do not exist")
    for start in range(0, len(numbers), INPUTS):
        here = slice(start, start + INPUTS)
        numbers[here].sub_(zeros[groups[here]]).mul_(scales[groups[here]])
