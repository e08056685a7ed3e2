"""Which tensors of a model transformers keeps in float32, whatever dtype it is loaded in."""

import re
from pathlib import Path

import torch

from hpa_merge.custom_code.finding import Code
from hpa_merge.model.building import build_meta_model
from hpa_merge.model.conversion import Header

__all__ = ["kept_in_float32"]


def kept_in_float32(
    folder: Path, header: Header, role: str, dtype: torch.dtype, code: Code | None = None
) -> re.Pattern[str]:
    """A pattern that finds the names of tensors that transformers keeps in float32 next to ``dtype``.

    Args:
        folder: with the checkpoint's config.json.
        header: the checkpoint's tensors.
        code: the code that it brings, which is run.

    Raises:
        CheckpointError: transformers cannot build the model.
    """
    plan = build_meta_model(folder, header, role, code=code)._get_dtype_plan(dtype)
    patterns = [pattern.replace("*", ".*") for pattern, kept in plan.items() if kept == torch.float32]
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns) or r"(?!)")
