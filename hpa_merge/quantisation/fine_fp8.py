"""FP8 with a scale for each block or for the whole weight, as DeepSeek and Qwen3 have it: through transformers."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from hpa_merge.quantisation.configuration import FULL, Refused
from hpa_merge.quantisation.recipe import FLOAT8, Format, Parts, Quantised, Recipe, by_slice

__all__ = ["FINE_FP8"]

PACKED = (torch.int8, torch.uint8)
"""Dtypes that hold two numbers of four bits in a byte, next to weights of eight bits."""


def find(given: Quantised) -> Iterator[Recipe]:
    """Weights with ``weight_scale_inv``, under any of the names that transformers knows for it."""
    block = _block(given.config.get("weight_block_size", (128, 128)))
    for name, (dtype, shape) in given.header.items():
        module = name.removesuffix(".weight")
        scale = next(
            (
                each
                for each in (f"{name}_scale_inv", f"{module}.scale", f"{module}.qscale_weight")
                if each in given.header and each != name
            ),
            None,
        )
        if scale is None or dtype not in (*FLOAT8, *PACKED):
            continue
        packed = dtype in PACKED
        if packed:
            shape = (*shape[:-1], 2 * shape[-1])
        grid = given.header[scale][1]
        step = _step(name, shape, grid, None if packed else block)
        yield Recipe(
            name,
            shape,
            {"weight": name, "weight_scale_inv": scale},
            partial(_unpack, shape=shape, block=step),
            "FP4 with FP8" if packed else "FP8" if len(grid) < 2 else "block FP8",
        )


FINE_FP8 = Format(find)


def _block(found: Any) -> tuple[int, int] | None:
    """The size of a block; None for one scale for a whole weight."""
    if found is None:
        return None
    if not (isinstance(found, list | tuple) and len(found) == 2 and all(type(n) is int and n > 0 for n in found)):
        raise Refused(f"weight_block_size is {found!r:.40}, which is not a pair of sizes: {FULL}")
    return found[0], found[1]


def _step(
    name: str, shape: tuple[int, ...], grid: tuple[int, ...], block: tuple[int, int] | None
) -> tuple[int, int] | None:
    """The size of a block if the grid of scales is of blocks of the configured size, and the last ones may be smaller.

    Otherwise None: the grid divides the weight evenly.

    Raises:
        Refused: the grid does not cover the weight.
    """
    if math.prod(grid) == 1 or (len(shape) == 3 and grid == shape[:1]):
        return None
    if len(grid) == len(shape) and 0 not in grid and shape[:-2] == grid[:-2]:
        blocks = () if block is None else tuple(-(-size // step) for size, step in zip(shape[-2:], block, strict=True))
        if grid[-2:] == blocks:
            return block
        if all(size % count == 0 for size, count in zip(shape, grid, strict=True)):
            return None
    raise Refused(f"the scales of {name} are {list(grid)}, which do not fit its shape {list(shape)}: {FULL}")


def _unpack(parts: Parts, dtype: torch.dtype, *, shape: tuple[int, ...], block: tuple[int, int] | None) -> Tensor:
    weight, scale = parts["weight"], parts["weight_scale_inv"]
    if len(shape) == 3:
        scale = scale.expand(shape[0]) if scale.numel() == 1 else scale
        return by_slice(shape, dtype, lambda n: _matrix(weight[n], scale[n], block).to(dtype))
    return _matrix(weight, scale, block).to(dtype)


def _matrix(weight: Tensor, scale: Tensor, block: tuple[int, int] | None) -> Tensor:
    """``weight · scale`` in float32, ``[r, c]``; blocks at the edges may be smaller than the others."""
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    if scale.dtype != torch.uint8:  # that is an exponent
        scale = scale.to(torch.float32)
    if weight.dtype == torch.uint8:
        weight = weight.view(torch.int8)  # what transformers takes for two numbers of four bits
    rows, columns = weight.shape[-2:]
    if block is not None and (rows % block[0] or columns % block[1]):
        bytes_ = pad(weight.view(torch.uint8), (0, -columns % block[1], 0, -rows % block[0]))
        weight = bytes_.view(weight.dtype)
    if scale.numel() == 1:
        scale = scale.reshape(1, 1)
    found: Any = Fp8Dequantize(None).convert({"weight": weight, "weight_scale_inv": scale})["weight"]
    found = found[0] if isinstance(found, list) else found  # as in transformers 5.17
    inner: Tensor = found[..., :rows, : found.shape[-1] if weight.dtype == torch.int8 else columns]
    return inner
