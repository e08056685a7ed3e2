"""Small checkpoints as folders, for the tests of checkpoint/: to be read, refused, copied and published."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hpa_merge.checkpoint import Checkpoint, CheckpointWriter

INDEX = "model.safetensors.index.json"

MIXED = {
    "model.embed.weight": torch.arange(24, dtype=torch.float32).reshape(6, 4).bfloat16(),
    "model.proj.weight": torch.linspace(-1, 1, 20, dtype=torch.float16).reshape(4, 5),
    "model.norm.weight": torch.arange(4, dtype=torch.float32),
    "model.double": torch.tensor([1.5, -2.5], dtype=torch.float64),
    "model.position_ids": torch.arange(7),
    "model.mask": torch.tensor([True, False, True]),
    "model.scale": torch.tensor(3.25, dtype=torch.bfloat16),
    "model.nothing": torch.empty(0, 3, dtype=torch.float16),
    "model.freqs": torch.tensor([1 + 2j], dtype=torch.complex64),
}


def write_raw(path: Path, header: dict[str, Any] | bytes, data: bytes, padding: int = 0) -> None:
    """A safetensors file with exactly this header."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    head += b" " * padding
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)


def write_index(folder: Path, weight_map: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}))


# --- for the reader ---


@pytest.fixture(name="single")
def single_folder(tmp_path: Path) -> Path:
    """A folder with one model.safetensors of every dtype."""
    folder = tmp_path / "single"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "tiny"}')
    save_file(MIXED, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(name="sharded")
def sharded_folder(tmp_path: Path) -> Path:
    """A folder with three shards and their index."""
    folder = tmp_path / "sharded"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    weight_map = {}
    for number in (1, 2, 3):
        shard = f"model-{number:05}-of-00003.safetensors"
        tensors = {f"layers.{number}.{part}": torch.randn(3, number) for part in ("b", "a")}
        save_file(tensors, folder / shard, {"format": "pt"})
        weight_map |= dict.fromkeys(tensors, shard)
    write_index(folder, weight_map)
    return folder


# --- for the writer ---


def _mixed(seed: int) -> dict[str, torch.Tensor]:
    """Every kind of tensor that a checkpoint may hold."""
    draw = torch.Generator().manual_seed(seed)
    return {
        f"{seed}.wide.weight": torch.randn(5, 7, generator=draw).bfloat16(),
        f"{seed}.half.weight": torch.randn(3, 2, generator=draw).half(),
        f"{seed}.norm.weight": torch.randn(9, generator=draw),
        f"{seed}.position_ids": torch.arange(11),
        f"{seed}.mask": torch.tensor([True, False, True]),
        f"{seed}.scalar": torch.tensor(0.5, dtype=torch.bfloat16),
        f"{seed}.nothing": torch.empty(0, 4),
    }


@pytest.fixture(name="old")
def old_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file(_mixed(0), folder / "model.safetensors")
    return folder


@pytest.fixture(name="new", params=["single", "sharded", "padded"])
def new_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """NEW in one file, in three shards with an index, or in a file whose header has metadata, odd order and padding."""
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "config.json").write_text('{"a":  1}\n')
    if request.param == "single":
        save_file(_mixed(1), folder / "model.safetensors", {"format": "pt"})
    elif request.param == "sharded":
        weight_map = {}
        for number in (1, 2, 3):
            shard = f"model-{number:05}-of-00003.safetensors"
            save_file(_mixed(number), folder / shard)
            weight_map |= dict.fromkeys(_mixed(number), shard)
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}, indent=3) + "\n\n")
    else:
        header = {
            "b.weight": {"data_offsets": [3, 11], "shape": [2, 2], "dtype": "BF16"},
            "__metadata__": {"z": "é", "format": "pt"},
            "a.flag": {"data_offsets": [0, 3], "shape": [3], "dtype": "U8"},
        }
        head = json.dumps(header, indent=1).encode() + b" " * 21
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(range(65, 76)))
    return folder


def everything(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by relative path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def complete(writer: CheckpointWriter, source: Checkpoint) -> None:
    for name in writer.remaining():
        writer.write(name, source.read(name))
