"""The table of the formats, and what they say of a checkpoint: the recipe of each weight, and what is left over."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hpa_merge.quantisation.bits_and_bytes import BITS_AND_BYTES
from hpa_merge.quantisation.compressed import COMPRESSED, FBGEMM, MODELOPT
from hpa_merge.quantisation.configuration import FULL, METHODS, Refused, check_method, method_of
from hpa_merge.quantisation.fine_fp8 import FINE_FP8
from hpa_merge.quantisation.integers import AWQ, GPTQ
from hpa_merge.quantisation.mxfp4 import MXFP4
from hpa_merge.quantisation.recipe import (
    Format,
    Header,
    Parts,
    Quantised,
    Recipe,
    required,
    version_of,
)

__all__ = ["find_format", "find_recipes", "is_spare"]

FORMATS = dict(zip(METHODS, (FINE_FP8, COMPRESSED, FBGEMM, MODELOPT, MXFP4, BITS_AND_BYTES, GPTQ, AWQ), strict=True))
"""Each format by what ``quant_method`` calls it."""

SPARE = re.compile(
    r"(.*\.)?((q_|k_|v_|prob_output_|activation_|input_|output_|kv_cache_)scale|(input|output)_(zero_point|global_scale)"
    r"|input_scale_ub|weight_format|weight_scale|weight_zero_point"
    r"|weight\.quant_state\.bitsandbytes__\w+)"
)
"""Tensors for the activations of a quantised model, or for weights that are not quantised: OUT does not need them."""

WITH_CONV1D = ("decision_transformer", "gpt2", "imagegpt", "openai-gpt")
"""Types of models whose linears are ``Conv1D``."""


def find_recipes(
    config: Mapping[str, Any], header: Header, read: Callable[[str], Tensor], model_type: Any = None
) -> tuple[tuple[Recipe, ...], str]:
    """The recipe of each weight that is not stored as it is, and the library that computes them with its version.

    Args:
        config: the quantization_config.
        header: the tensors on disk.
        read: reads a small one.
        model_type: what config.json says.

    Raises:
        Refused: the format is not read here, its library is missing, or the tensors do not fit it.
    """
    found = find_format(config)
    try:
        recipes = tuple(found.find(Quantised(config, header, read)))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # tensors with too few axes, or empty ones
        raise Refused(f"its tensors are not those of a format {method_of(config)} ({error}): {FULL}") from error
    if found.turns and model_type in WITH_CONV1D:
        recipes = tuple(map(_turned, recipes))
    return recipes, f"{found.library} {version_of(found.library)}"


def _turned(recipe: Recipe) -> Recipe:
    def unpack(parts: Parts, dtype: torch.dtype) -> Tensor:
        return recipe.unpack(parts, dtype).t()

    return replace(recipe, shape=recipe.shape[::-1], unpack=unpack)


def find_format(config: Mapping[str, Any]) -> Format:
    """The format of a quantization_config.

    Raises:
        Refused: it is not read here, or its library is missing.
    """
    check_method(config)
    found = next(each for names, each in FORMATS.items() if method_of(config) in names)
    required(found.library)
    return found


def is_spare(name: str) -> bool:
    """Whether OUT does not need a tensor, because it describes the quantisation."""
    return SPARE.fullmatch(name) is not None
