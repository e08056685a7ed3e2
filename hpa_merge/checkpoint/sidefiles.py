"""What lies in a checkpoint folder beside its weights, and which of it belongs into a merged model."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import final

__all__ = ["MADE", "SideFiles", "find_side_files", "is_side_file"]

MADE = {
    *("hpa_report.json", "hpa_report.html"),
    *("hpa_columns.png", "hpa_energy.png", "hpa_overlap.png", "hpa_balance.png", "hpa_kappa.png", "hpa_update.png"),
    *("hpa_saliency.png", "hpa_evaluation.png"),
}
"""Files at the top of OUT that speak of that merge alone: where NEW is an OUT itself, its own are not carried over."""

OTHER_WEIGHTS = {
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx", ".ot"),
    *(".pkl", ".pickle", ".npz", ".onnx_data", ".tflite"),
}
"""Suffixes of files that hold the weights before the merge, or a pickle: never carried into OUT."""

OTHER_FORMATS = {"onnx", "original", "gguf", "openvino", "coreml", "tflite"}
"""Subfolders that hold the model before the merge in another format, whatever the files in them are called."""


@final
@dataclass(frozen=True)
class SideFiles:
    """The files of a checkpoint folder beside its weights; paths are relative to the folder, sorted.

    Attributes:
        copied: config, tokenizer, processor, templates, licence …: they belong into OUT byte for byte.
        left_out: weights, and the model in other formats, pickles, links to folders, and what is no file: they do not.
    """

    copied: tuple[Path, ...]
    left_out: tuple[Path, ...]


def find_side_files(folder: Path, own: set[str]) -> SideFiles:
    """Sort every file of a folder and its subfolders; what is hidden, or named in ``own``, is in neither list.

    A link to a file counts as that file, a link to a folder is never followed.

    Args:
        folder: the checkpoint folder.
        own: names, directly in the folder, of the files that the caller looks after.

    Raises:
        OSError: a subfolder cannot be read.
    """
    copied: list[Path] = []
    left_out: list[Path] = []
    for path in _walk(folder):
        if path.as_posix() not in own:
            wanted = (folder / path).is_file() and is_side_file(path)
            (copied if wanted else left_out).append(path)
    return SideFiles(copied=tuple(sorted(copied)), left_out=tuple(sorted(left_out)))


def _walk(folder: Path) -> Iterator[Path]:
    """Every file, and every link to a folder, that is not hidden; relative to ``folder``."""

    def fail(error: OSError) -> None:
        raise error

    for root, folders, files in os.walk(folder, onerror=fail):
        here = Path(root)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from ((here / name).relative_to(folder) for name in (*links, *files) if not name.startswith("."))


def is_side_file(path: PurePath) -> bool:
    """Whether a file at this path, relative to the folder, belongs into a merged model beside its weights."""
    hidden = any(part.startswith(".") for part in path.parts)
    other_format = len(path.parts) > 1 and path.parts[0].lower() in OTHER_FORMATS
    return not (hidden or other_format or _is_other_weights(path.name))


def _is_other_weights(name: str) -> bool:
    """Whether a file of this name holds weights, or is the index of such files (``pytorch_model.bin.index.json``)."""
    return Path(name.lower().removesuffix(".index.json")).suffix in OTHER_WEIGHTS
