"""Small changes to copies of a tiny pair, which make the folders that people have."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

INDEX = "model.safetensors.index.json"
EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
MARK = b"\xef\xbb\xbf"


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return {
        name: value for path in sorted(folder.glob("model*.safetensors")) for name, value in load_file(path).items()
    }


def joined(folder: Path, tensors: dict[str, Tensor] | None = None, name: str = "model.safetensors") -> None:
    """Save the tensors in one file, in place of what is there."""
    tensors = tensors_of(folder) if tensors is None else tensors
    for path in (*folder.glob("model*.safetensors"), folder / INDEX):
        path.unlink(missing_ok=True)
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name, {"format": "pt"})


def stale(folder: Path, *, shards: bool) -> None:
    """A model saved in one file where an earlier one, of other numbers, lies in shards."""
    tensors = tensors_of(folder)
    for path in folder.glob("model-*.safetensors"):
        save_file({key: torch.zeros_like(value) for key, value in load_file(path).items()}, path)
        if not shards:
            path.unlink()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def indexed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))


def configured(folder: Path, **fields: Any) -> None:
    """Change fields of config.json; ``...`` removes one."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def moved(index: dict[str, Any]) -> None:
    shards = sorted(set(index["weight_map"].values()))
    index["weight_map"][EMBEDDINGS] = shards[-1] if index["weight_map"][EMBEDDINGS] != shards[-1] else shards[0]


def renamed(folder: Path, change: Callable[[str], str]) -> None:
    joined(folder, {change(key): value for key, value in tensors_of(folder).items()})


def with_head(folder: Path, *, equal: bool) -> None:
    tensors = tensors_of(folder)
    joined(folder, tensors | {HEAD: tensors[EMBEDDINGS] + (0 if equal else 1)})


def without_head(folder: Path, inner: str) -> None:
    """As the class without the head saves it."""
    kept = {key.removeprefix("model."): value for key, value in tensors_of(folder).items() if key != HEAD}
    joined(folder, kept)
    configured(folder, architectures=[inner])


def text_alone(folder: Path) -> None:
    """The text model of a LLaVA, saved as a language model."""
    found = {
        key.removeprefix("language_model."): value
        for key, value in tensors_of(folder).items()
        if key.startswith("language_model.")
    }
    joined(folder, found)
    text = json.loads((folder / "config.json").read_text())["text_config"]
    (folder / "config.json").write_text(json.dumps(text | {"architectures": ["LlamaForCausalLM"]}))


def added(folder: Path, **tensors: Tensor) -> None:
    joined(folder, tensors_of(folder) | {key.replace("__", "."): value for key, value in tensors.items()})


def adapted(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    save_file({"a": torch.zeros(1)}, folder / "adapter_model.safetensors")


def marked(folder: Path, name: str) -> None:
    (folder / name).write_bytes(MARK + (folder / name).read_bytes())


def split(folder: Path) -> None:
    """Shards without their index."""
    (folder / INDEX).unlink()


def only(*names: str) -> Callable[[Path, Path], object]:
    """Files and folders (with a slash) in place of NEW's weights."""

    def change(old: Path, new: Path) -> None:
        for path in (*new.glob("model*.safetensors"), new / INDEX):
            path.unlink()
        for name in names:
            (new / name).mkdir() if name.endswith("/") else (new / name).write_bytes(b"x")

    return change
