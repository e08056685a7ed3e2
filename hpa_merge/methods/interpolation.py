"""Weight interpolation: ``W = W_old + w ΔW``.

The weight merging that Lee et al. (ICLR 2025, arXiv 2410.07571) propose against the loss of safety in vision-language
adaptation, a linear combination of a safe model and a capable one; between a model before and after tuning it is also
what Farn et al. (arXiv 2412.19512) propose. Both merge every parameter; here, as with every method, what is no linear
weight comes from NEW.
"""

import torch
from torch import Tensor

from hpa_merge.core.adjustment import row_blocks


def interpolate(old: Tensor, new: Tensor, weight: float) -> Tensor:
    """``old + weight · (new − old)``: ``[r, c]``, contiguous, in ``new``'s dtype and on its device.

    Args:
        old, new: ``[r, c]``.
        weight: ``w``; at 0 the result is ``old`` and at 1 it is ``new``, bit for bit.
    """
    if weight in (0.0, 1.0):
        return (new if weight else old).to(new.dtype).contiguous()
    mixed = torch.empty(new.shape, dtype=new.dtype, device=new.device)
    dtype = torch.promote_types(torch.promote_types(old.dtype, new.dtype), torch.float32)
    for block in row_blocks(old.shape):
        w_old = old[block].to(dtype)
        mixed[block] = torch.add(w_old, new[block].to(dtype) - w_old, alpha=weight).to(new.dtype)
    return mixed
