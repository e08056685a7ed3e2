"""PEFT adapters on tiny models, as ``save_pretrained`` leaves them, and what peft itself makes of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file, save_file
from tiny_models import VISION_ARCHITECTURES
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    GptOssConfig,
    GptOssForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

WEIGHTS = "adapter_model.safetensors"

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
}
MIXTURES: dict[str, Callable[[], PreTrainedModel]] = {
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=4)),
    "qwen3_moe": lambda: Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**SIZES, num_experts=4, moe_intermediate_size=24, decoder_sparse_step=1, head_dim=8)
    ),
    "gpt_oss": lambda: GptOssForCausalLM(GptOssConfig(**SIZES, num_local_experts=4, head_dim=8)),
}
"""Whose experts' factors are told apart by their shapes."""

FURTHER_MIXTURES: dict[str, Callable[[], PreTrainedModel]] = {
    "qwen3_moe_square": lambda: Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**SIZES, num_experts=4, moe_intermediate_size=16, decoder_sparse_step=1, head_dim=8)
    ),
    "gpt_oss_square": lambda: GptOssForCausalLM(
        GptOssConfig(**{**SIZES, "intermediate_size": 16}, num_local_experts=4, head_dim=8)
    ),
    "qwen2_moe": lambda: Qwen2MoeForCausalLM(
        Qwen2MoeConfig(
            **SIZES,
            num_experts=4,
            moe_intermediate_size=24,
            shared_expert_intermediate_size=20,
            decoder_sparse_step=1,
        )
    ),
}


def save_mixture(name: str, folder: Path) -> Path:
    """A tiny mixture of experts, saved in ``folder``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        (MIXTURES | FURTHER_MIXTURES)[name]().save_pretrained(folder)
    return folder


def load(old: Path, name: str) -> PreTrainedModel:
    kind = AutoModelForImageTextToText if name in VISION_ARCHITECTURES else AutoModelForCausalLM
    return kind.from_pretrained(old, dtype="auto")


def lora(**options: Any) -> peft.LoraConfig:
    return peft.LoraConfig(**{"r": 4, "target_modules": "all-linear", "init_lora_weights": False, **options})


def make_adapter(old: Path, name: str, config: peft.PeftConfig, folder: Path) -> Path:
    """An adapter on ``old`` whose every tensor has moved away from where it began, saved in ``folder``."""
    random_numbers = torch.Generator().manual_seed(3)
    with torch.random.fork_rng(devices=[]):
        model = peft.get_peft_model(load(old, name), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=random_numbers)
    model.save_pretrained(folder)
    return folder


def merge_first(old: Path, name: str, adapter: Path, folder: Path) -> Path:
    """What people did so far: the whole model in memory, ``merge_and_unload``, and a copy of it on disk."""
    merged = peft.PeftModel.from_pretrained(load(old, name), adapter).merge_and_unload()
    merged.save_pretrained(folder, max_shard_size="300KB")
    return folder


def edit(adapter: Path, change: dict[str, Tensor | None]) -> None:
    """Put tensors into an adapter's file, or take out those that are None."""
    tensors = load_file(adapter / WEIGHTS) | change
    save_file({key: value for key, value in tensors.items() if value is not None}, adapter / WEIGHTS, {"format": "pt"})
