"""What config.json says of weights in few bits; needs no torch."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["FULL", "METHODS", "SIDE_FILES", "Refused", "check_method", "configurations", "method_of", "plain_config"]

KEYS = ("quantization_config", "compression_config")
"""What config.json calls the description of its weights; the second one is compressed-tensors' earlier name."""

METHODS = (
    ("fp8", "mxfp8"),
    ("compressed-tensors", "compressed_tensors"),
    ("fbgemm_fp8",),
    ("modelopt",),
    ("mxfp4",),
    ("bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit"),
    ("gptq",),
    ("awq",),
)
"""What ``quant_method`` calls each format that is read here."""

FULL = "give the checkpoint that it was made from, or one that its own library dequantised"
"""The remedy where no library can take the weights apart here."""

SIDE_FILES = re.compile(r"(quantize_config|quant_config|quant_strategy|hf_quant_config)\.json|recipe\.ya?ml")
"""Files that describe the quantisation."""


class Refused(Exception):
    """A checkpoint cannot be dequantised here; the text is a reason, a colon and a remedy."""


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


def check_method(config: Any) -> None:
    """Raise Refused unless the format of a quantization_config is read here."""
    if not any(method_of(config if isinstance(config, dict) else {}) in names for names in METHODS):
        known = ", ".join(names[0] for names in METHODS)
        raise Refused(f"that is not among the formats that are read here ({known}): {FULL}")
