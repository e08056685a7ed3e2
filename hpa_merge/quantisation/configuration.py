"""What config.json says of weights in few bits; needs no torch."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["SIDE_FILES", "configurations", "method_of", "plain_config"]

KEYS = ("quantization_config", "compression_config")
"""What config.json calls the description of its weights; the second one is compressed-tensors' earlier name."""

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


def method_of(config: Mapping[str, Any]) -> str:
    """What a quantization_config calls its format; bitsandbytes' earlier ones did not say it."""
    guessed = "bitsandbytes" if config.get("load_in_4bit") or config.get("load_in_8bit") else "unknown"
    return str(config.get("quant_method") or guessed)
