"""Checkpoints changed: tensors, shards, the vocabulary."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from cases import TinyCase
from reference import load_tensors
from safetensors.torch import load_file, save_file
from tiny_models import processor_of
from torch import Tensor
from transformers import AutoConfig

INDEX = "model.safetensors.index.json"


def reshard(folder: Path, shards: int) -> None:
    """The same tensors over other shards, in the reverse order."""
    tensors = load_tensors(folder)
    for path in [*folder.glob("*.safetensors"), *folder.glob(INDEX)]:
        path.unlink()
    names = sorted(tensors, reverse=True)
    weight_map = {}
    for number in range(shards):
        shard = f"part-{shards - number}.safetensors" if shards > 1 else "model.safetensors"
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        data = b""
        for name in names[number::shards]:
            content = tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes()
            kind = {"torch.float32": "F32", "torch.bfloat16": "BF16"}[str(tensors[name].dtype)]
            place = [len(data), len(data) + len(content)]
            header[name] = {"dtype": kind, "shape": list(tensors[name].shape), "data_offsets": place}
            data += content
            weight_map[name] = shard
        head = json.dumps(header).encode()
        (folder / shard).write_bytes(len(head).to_bytes(8, "little") + head + data)
    if shards > 1:
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def grown(case: TinyCase, folder: Path) -> TinyCase:
    """NEW with eight more tokens, as people add them for a task."""
    architecture = getattr(transformers, AutoConfig.from_pretrained(case.new).architectures[0])
    model = architecture.from_pretrained(case.new, dtype="auto")
    model.resize_token_embeddings(520, mean_resizing=False)
    model.save_pretrained(folder)
    processor_of(case.name).save_pretrained(folder)
    return case._replace(new=folder)


def edit(folder: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
    """Replace a tensor of a checkpoint by what ``change`` makes of it; None takes it out."""
    index = json.loads((folder / INDEX).read_text())
    shard = folder / index["weight_map"][name]
    tensors = load_file(shard)
    value = change(tensors.pop(name))
    if value is None:
        del index["weight_map"][name]
        (folder / INDEX).write_text(json.dumps(index))
    save_file(tensors if value is None else {**tensors, name: value.contiguous()}, shard, {"format": "pt"})


def same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(torch.uint8), b.view(torch.uint8))
