"""Which files hold weights, by their names and first bytes, and which folders are checkpoints; needs no library."""

import os
import re
from pathlib import Path

from hpa_merge.files.parsing import INDEX, parse_json

__all__ = ["CONFIGS", "SUFFIXES", "has_header", "is_checkpoint_folder", "is_weight_name", "protected"]

SUFFIXES = {
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".ot", ".onnx"),
    *(".onnx_data", ".tflite", ".distcp", ".nemo", ".mlmodel"),
}
"""Suffixes of weight files; other files have some of them too."""

NAMED = re.compile(
    r"(pytorch_model|adapter_model|model|diffusion_pytorch_model)([.-][\w.-]*)?\.safetensors"
    r"|(pytorch_model|adapter_model|diffusion_pytorch_model)([.-][\w.-]*)?\.bin"
    r"|(mm_projector|non_lora_trainables)\.bin|consolidated\.\d+\.pth"
    r"|tf_model([.-][\w.-]*)?\.h5|flax_model([.-][\w.-]*)?\.msgpack|rust_model\.ot"
)
"""Names that libraries give to the weight files of a checkpoint folder."""

CONFIGS = ("config.json", "adapter_config.json")
"""The configuration of a checkpoint folder: a model's, an adapter's."""


def is_weight_name(name: str) -> bool:
    """Whether a library gives this name, without folder, to a weight file or an index of such files."""
    return NAMED.fullmatch(name.removesuffix(".index.json")) is not None


def looks_like_weights(name: str) -> bool:
    """Whether the suffix is one of weight files or of an index of them."""
    return os.path.splitext(name.lower().removesuffix(".index.json"))[1] in SUFFIXES  # noqa: PTH122


def has_header(path: Path) -> bool:
    """Whether it is a safetensors file, which begins with a length and a JSON object of that length; follows links.

    Raises:
        OSError: the file cannot be read.
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(INDEX.size, os.fstat(file.fileno()).st_size - 8):
            return False
        head = file.read(length)
    try:
        return isinstance(parse_json(head, INDEX), dict)
    except ValueError:
        return False


def is_checkpoint_folder(folder: Path) -> bool:
    """Whether a folder may be a checkpoint: it has a configuration and something that looks like weights.

    Raises:
        OSError: it cannot be read.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return not names.isdisjoint(CONFIGS) and any(map(looks_like_weights, names))


def protected(path: Path) -> str:
    """What writing to ``path`` would do to a checkpoint, as the end of ``would …``; empty if nothing.

    A link counts as its target.

    Raises:
        OSError: the folder cannot be read.
    """
    real = Path(os.path.realpath(path))
    if real.exists() and looks_like_weights(real.name):
        return f"replace the weight file {real}"
    if is_checkpoint_folder(real.parent):
        return f"lie in the checkpoint {real.parent}, which is never written to"
    return ""
