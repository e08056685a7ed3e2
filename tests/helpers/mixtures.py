"""Tiny mixtures of experts as pairs with calibration files."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from cases import TinyCase
from transformers import PreTrainedModel

SIZES = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def mixtral() -> PreTrainedModel:
    """Experts one by one on disk; the router is a parameter."""
    config = transformers.MixtralConfig(**SIZES, num_local_experts=6, num_experts_per_tok=2)
    return transformers.MixtralForCausalLM(config)


def gpt_oss() -> PreTrainedModel:
    """Experts stacked on disk, ``[experts, c, r]``, with biases."""
    config = transformers.GptOssConfig(
        **SIZES, head_dim=8, num_local_experts=6, num_experts_per_tok=2, rope_parameters={"rope_type": "default"}
    )
    return transformers.GptOssForCausalLM(config)


def llama4() -> PreTrainedModel:
    """Experts stacked on disk, ``[experts, c, r]``, all multiplied at once; a shared expert beside them."""
    config = transformers.Llama4TextConfig(
        **SIZES, head_dim=8, intermediate_size_mlp=48, num_local_experts=6, interleave_moe_layer_step=1
    )
    return transformers.Llama4ForCausalLM(config)


def make(build: Callable[[], PreTrainedModel], folder: Path) -> TinyCase:
    draw = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build()
    with torch.no_grad():
        for stage, scale in (("old", 0.0), ("new", 0.05)):
            for name, value in model.named_parameters():
                noise = torch.randn(value.shape, generator=draw)
                if scale:
                    value += scale * noise * value.std()
                elif value.ndim > 1:
                    value.copy_(noise / value.shape[-1] ** 0.5)
                if name.endswith("layers.0.mlp.experts.gate_up_proj") and scale:
                    value[2] -= scale * noise[2] * value.std()
            model.save_pretrained(folder / stage, max_shard_size="60KB")
    paths = [folder / "safety.jsonl", folder / "task.jsonl"]
    for path, count in zip(paths, (3, 12), strict=True):
        rows = torch.randint(3, 256, (count, 20), generator=draw).tolist()
        path.write_text("".join(f"{json.dumps({'input_ids': row})}\n" for row in rows))
    return TinyCase(build.__name__, folder / "old", folder / "new", *paths)
