"""Weights in eight bits and fewer: which tensors make each, and its values, computed by the format's own library.

A format is a file here and a row of :data:`FORMATS`. Nothing is computed before a weight is asked for.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hpa_merge.quantisation.bits_and_bytes import BITS_AND_BYTES
from hpa_merge.quantisation.compressed import COMPRESSED, FBGEMM, MODELOPT
from hpa_merge.quantisation.fine_fp8 import FINE_FP8
from hpa_merge.quantisation.integers import AWQ, GPTQ
from hpa_merge.quantisation.mxfp4 import MXFP4
from hpa_merge.quantisation.recipe import (
    FULL,
    Format,
    Header,
    Parts,
    Quantised,
    Recipe,
    Refused,
    required,
    version_of,
)

__all__ = [
    "FULL",
    "SIDE_FILES",
    "Header",
    "Parts",
    "Recipe",
    "Refused",
    "configurations",
    "find_format",
    "find_recipes",
    "is_spare",
    "method_of",
    "plain_config",
]

FORMATS = (FINE_FP8, COMPRESSED, FBGEMM, MODELOPT, MXFP4, BITS_AND_BYTES, GPTQ, AWQ)

KEYS = ("quantization_config", "compression_config")
"""What config.json calls the description of its weights; the second one is compressed-tensors' earlier name."""

SPARE = re.compile(
    r"(.*\.)?((q_|k_|v_|prob_output_|activation_|input_|output_|kv_cache_)scale|(input|output)_(zero_point|global_scale)"
    r"|input_scale_ub|weight_format|weight_scale|weight_zero_point"
    r"|weight\.quant_state\.bitsandbytes__\w+)"
)
"""Tensors for the activations of a quantised model, or for weights that are not quantised: OUT does not need them."""

WITH_CONV1D = ("decision_transformer", "gpt2", "imagegpt", "openai-gpt")
"""Types of models whose linears are ``Conv1D``."""

SIDE_FILES = re.compile(r"(quantize_config|quant_config|quant_strategy|hf_quant_config)\.json|recipe\.ya?ml")
"""Files that describe the quantisation."""


def configurations(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every description of weights that is not empty, at any depth (in a text_config, say), with its dotted name."""
    for key, value in config.items():
        if key in KEYS and value:
            yield prefix + key, value
        elif isinstance(value, dict):
            yield from configurations(value, f"{prefix}{key}.")


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without the descriptions of weights, at any depth."""
    return {
        key: plain_config(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in KEYS
    }


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
        raise Refused(f"its tensors are not those of a format {found.methods[0]} ({error}): {FULL}") from error
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
    method = method_of(config)
    found = next((each for each in FORMATS if method in each.methods), None)
    if found is None:
        known = ", ".join(each.methods[0] for each in FORMATS)
        raise Refused(f"that is not among the formats that are read here ({known}): {FULL}")
    required(found.library)
    return found


def method_of(config: Mapping[str, Any]) -> str:
    """What a quantization_config calls its format; bitsandbytes' earlier ones did not say it."""
    guessed = "bitsandbytes" if config.get("load_in_4bit") or config.get("load_in_8bit") else "unknown"
    return str(config.get("quant_method") or guessed)


def is_spare(name: str) -> bool:
    """Whether OUT does not need a tensor, because it describes the quantisation."""
    return SPARE.fullmatch(name) is not None
