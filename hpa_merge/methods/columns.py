"""Two controls: as many columns as HPA puts back, chosen without any curvature.

What HPA gains over them is what the curvatures and the balance are worth: ``random`` knows nothing of the weight but
its name, ``energy`` knows how much each column changed.
"""

import hashlib

import torch
from torch import Tensor


def most_changed(energy: Tensor, n_keep: int) -> Tensor:
    """Mask ``[c]`` of the ``n_keep`` columns of largest ``e_j``; ties go to the lower index.

    Args:
        energy: ``e_j``, ``[c]``.
    """
    mask = torch.zeros(len(energy), dtype=torch.bool)
    mask[torch.sort(energy.cpu(), descending=True, stable=True).indices[:n_keep]] = True
    return mask


def random_columns(columns: int, n_keep: int, seed: int, name: str) -> Tensor:
    """Mask ``[c]`` of ``n_keep`` columns drawn at random: the same for the same ``seed`` and tensor ``name``.

    The name is part of the seed, so that a weight's columns do not depend on which weights were drawn before it.
    """
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    mask = torch.zeros(columns, dtype=torch.bool)
    mask[torch.randperm(columns, generator=generator)[:n_keep]] = True
    return mask
