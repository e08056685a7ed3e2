"""The folder of a PEFT adapter, as peft's ``save_pretrained`` writes it: recognise it, check it, open it."""

from pathlib import Path

from hpa_merge.checkpoint.folder import ADAPTER, has_weights, read_json, refuse_devices
from hpa_merge.checkpoint.reader import Checkpoint
from hpa_merge.checkpoint.shard import check_plain, read_layout
from hpa_merge.errors import CheckpointError

__all__ = ["CONFIG", "is_adapter", "open_adapter"]

CONFIG = "adapter_config.json"


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds one or several adapters, and no weights of a whole model."""
    if not folder.is_dir() or has_weights(folder):
        return False
    return (folder / CONFIG).exists() or (bool(_inner(folder)) and not (folder / "config.json").exists())


def open_adapter(folder: Path, role: str) -> Checkpoint:
    """The adapter's folder as a checkpoint, with adapter_config.json as its config.

    Raises:
        CheckpointError: something is missing, broken, or unsafe.
    """
    refuse_devices(folder, role)
    if not (folder / CONFIG).exists():
        raise CheckpointError(
            f"{role} {folder} holds several adapters, in the folders {', '.join(_inner(folder))}: give one of these."
        )
    config = read_json(folder, role, CONFIG)
    if not (folder / ADAPTER).exists():
        if (folder / "adapter_model.bin").exists():
            raise CheckpointError(
                f"{role} {folder} has adapter_model.bin and no {ADAPTER}, and pickles are not read: convert it, with "
                "from_pretrained and then save_pretrained of peft."
            )
        raise CheckpointError(f"{role} {folder} has no {ADAPTER}: fetch or save the adapter again.")
    tensors = {info.name: info for info in read_layout(folder, role, ADAPTER)}
    check_plain(folder, role, tensors.values())
    return Checkpoint(folder, role, config, tensors, (ADAPTER,), None)


def _inner(folder: Path) -> list[str]:
    """Names of the subfolders that hold an adapter."""
    return sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
