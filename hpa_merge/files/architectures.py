"""The layout of LLaVA's own code base, as a config.json names it; needs no transformers."""

from collections.abc import Mapping
from typing import Any

__all__ = ["LLAVA", "LLAVA_MISTRAL", "TOWER", "is_original_llava"]

LLAVA = ("LlavaLlamaForCausalLM", "LlavaLLaMAForCausalLM")
"""The classes with a Llama; the second is what it was called until 2023."""

LLAVA_MISTRAL = "LlavaMistralForCausalLM"
"""The class with a Mistral."""

TOWER = "model.vision_tower.vision_tower."
"""The prefix of a tower's keys in the checkpoint."""


def is_original_llava(config: Mapping[str, Any]) -> bool:
    """Whether a config.json belongs to a folder in this layout."""
    names = config.get("architectures")
    return isinstance(names, list) and bool(names) and names[0] in (*LLAVA, LLAVA_MISTRAL)
