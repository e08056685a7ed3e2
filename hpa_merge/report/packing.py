"""A mask of columns as the report has it; apart from the records, which are read without torch."""

import base64

import torch
from torch import Tensor

__all__ = ["pack_columns"]


def pack_columns(mask: Tensor) -> str:
    """A bool mask ``[c]`` as base64 of its bits, the lowest first; :func:`unpack_columns` is the way back."""
    bits = torch.nn.functional.pad(mask.cpu().to(torch.uint8), (0, -len(mask) % 8)).reshape(-1, 8)
    weights = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)
    return base64.b64encode(bytes((bits * weights).sum(dim=1).tolist())).decode("ascii")
