"""MXFP4 in blocks and scales, as gpt-oss has its experts: through transformers."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from hpa_merge.quantisation.configuration import FULL, Refused
from hpa_merge.quantisation.recipe import Format, Parts, Quantised, Recipe, by_slice

__all__ = ["MXFP4"]

NUMBERS = 32
"""Numbers that share a scale."""


def find(given: Quantised) -> Iterator[Recipe]:
    """Stacks of experts: ``_blocks`` ``[experts, r, c / 32, 16]`` and ``_scales`` ``[experts, r, c / 32]``."""
    for name in given.ending("_blocks"):
        parts = {"blocks": f"{name}_blocks", "scales": f"{name}_scales"}
        blocks, scales = given.header[parts["blocks"]], given.header.get(parts["scales"], (None, ()))
        fits = len(blocks[1]) == 4 and blocks[1][3] * 2 == NUMBERS and scales == (torch.uint8, blocks[1][:3])
        if not fits or blocks[0] != torch.uint8:
            raise Refused(f"{name}_blocks is {list(blocks[1])} with the scales {list(scales[1])}: {FULL}")
        experts, rows, groups, _ = blocks[1]
        shape = experts, groups * NUMBERS, rows  # transformers turns each matrix
        yield Recipe(name, shape, parts, partial(_unpack, shape=shape), "MXFP4")


MXFP4 = Format(find)


def _unpack(parts: Parts, dtype: torch.dtype, *, shape: tuple[int, ...]) -> Tensor:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    blocks, scales = parts["blocks"], parts["scales"]
    return by_slice(
        shape, dtype, lambda n: convert_moe_packed_tensors(blocks[n : n + 1], scales[n : n + 1], dtype=torch.float32)[0]
    )
