"""Makes a pair of checkpoints in the shape of Qwen2.5-0.5B with random weights, and their calibration files.

    python benchmarks/checkpoints.py FOLDER [--layers 24] [--samples 128] [--shards 1]

FOLDER gets old/, new/ (bfloat16, tied embeddings), safety.jsonl and task.jsonl (token ids). NEW is OLD with every
matrix changed by 1 %. As in real models a few input channels are far larger than the rest: a few entries of each norm
and a few outputs of each up_proj are. Tensors are drawn one by one; memory holds one shard of one of the two.
"""

import argparse
import json
import math
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

SHAPE: dict[str, Any] = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "tie_word_embeddings": True,
}

UPDATE = 0.01
"""Size of the update, relative to the matrix."""

SAFETY_SAMPLES, TOKENS = 8, 256

LARGE_CHANNELS, LARGEST = 6, 50.0
"""So many channels are 20 to 50 times the others."""


def make_config(layers: int, shape: dict[str, Any]) -> Qwen2Config:
    kinds = ["full_attention"] * layers
    return Qwen2Config(
        **SHAPE | shape,
        num_hidden_layers=layers,
        layer_types=kinds,
        architectures=["Qwen2ForCausalLM"],
        dtype="bfloat16",
    )


def make_pair(
    folder: Path,
    layers: int = 24,
    samples: int = 128,
    shards: int = 1,
    seed: int = 0,
    shape: dict[str, Any] | None = None,
    tokens: int = TOKENS,
) -> None:
    """``shape``: what of the configuration is not as in :data:`SHAPE`; ``tokens``: of a sample."""
    config = make_config(layers, shape or {})
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in Qwen2ForCausalLM(config).named_parameters()}
    names = list(shapes)  # a tied head is no parameter of its own
    size = -(-len(names) // shards)
    groups = [names[start : start + size] for start in range(0, len(names), size)]
    for checkpoint in ("old", "new"):
        (folder / checkpoint).mkdir(parents=True, exist_ok=True)
        config.save_pretrained(folder / checkpoint)
        for number, group in enumerate(groups, 1):
            file = f"model-{number:05d}-of-{len(groups):05d}.safetensors" if len(groups) > 1 else "model.safetensors"
            _write_shard(folder / checkpoint / file, {n: shapes[n] for n in group}, layers, checkpoint == "new", seed)
        if len(groups) > 1:
            _write_index(folder / checkpoint, groups, shapes)
    generator = torch.Generator().manual_seed(seed)
    for name, count in (("safety", SAFETY_SAMPLES), ("task", samples)):
        rows = torch.randint(0, config.vocab_size, (count, tokens), generator=generator).tolist()
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))


def _write_shard(path: Path, shapes: dict[str, tuple[int, ...]], layers: int, updated: bool, seed: int) -> None:
    tensors = {name: _draw(name, shape, layers, updated, seed) for name, shape in shapes.items()}
    save_file(tensors, path, metadata={"format": "pt"})


def _write_index(folder: Path, groups: list[list[str]], shapes: dict[str, tuple[int, ...]]) -> None:
    weight_map = {
        name: f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        for number, group in enumerate(groups, 1)
        for name in group
    }
    total = sum(2 * math.prod(shape) for shape in shapes.values())
    content = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content, indent=2))


def _draw(name: str, shape: tuple[int, ...], layers: int, updated: bool, seed: int) -> torch.Tensor:
    """The tensor of that name in OLD or NEW; the same in every process, whatever the shards."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) + seed)
    large = torch.randint(0, shape[0], (LARGE_CHANNELS,), generator=generator)
    if len(shape) == 1:
        values = torch.randn(shape, generator=generator) * 0.05
        if "norm" in name:
            values += 1
            values[large] = torch.linspace(20, LARGEST, LARGE_CHANNELS)
        return values.to(torch.bfloat16)
    scale = 0.02 / (2 * layers) ** 0.5 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
    values = torch.randn(shape, generator=generator) * scale
    if name.endswith("up_proj.weight"):
        values[large] *= 20
    values = values.to(torch.bfloat16)
    if updated:
        change = torch.randn(shape, generator=generator).mul_(UPDATE * scale)
        if name.endswith("up_proj.weight"):
            change[large] *= 20
        values = change.add_(values).to(torch.bfloat16)
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--samples", type=int, default=128, help="of the task")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make_pair(arguments.folder, arguments.layers, arguments.samples, arguments.shards, arguments.seed)


if __name__ == "__main__":
    main()
