"""The vision tower of a checkpoint in LLaVA's own layout, which has its own folder.

Its config.json and its image processor are always read from there, and its weights if the checkpoint has none. Such
weights are only read; they do not become part of OUT.
"""

from dataclasses import replace
from pathlib import Path

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.checkpoint.folder import refuse_devices
from hpa_merge.config import CalibrationOptions
from hpa_merge.errors import CheckpointError, ConfigError
from hpa_merge.files.architectures import TOWER, is_original_llava

__all__ = ["attach_tower", "with_tower"]

ROLE = "the vision tower"
"""Its name in messages."""

VISION = "vision_model."
"""The prefix of the vision model's keys in a whole CLIP model; a vision model alone may lack it."""


def with_tower(checkpoint: Checkpoint, tower: Path | None, config: CalibrationOptions) -> Checkpoint:
    """The checkpoint to read: ``checkpoint`` itself or, in LLaVA's own layout, with its vision tower.

    Args:
        tower: the folder of a CLIP model; None for ``mm_vision_tower`` of config.json, if that is a folder.
        config: only its ``conversation`` is used.

    Raises:
        CheckpointError: there is no such folder, or it does not hold a whole model that can be read.
        ConfigError: a tower or a conversation is given, and the checkpoint does not have LLaVA's own layout.
    """
    if not is_original_llava(checkpoint.config):
        for option, given in (("vision_tower", tower is not None), ("conversation", config.conversation != "auto")):
            if given:
                raise ConfigError(
                    f"{option} is only for LLaVA's own layout, and {checkpoint.role} {checkpoint.folder} does not have "
                    "it: leave it out."
                )
        return checkpoint
    return attach_tower(checkpoint, tower)


def attach_tower(checkpoint: Checkpoint, tower: Path | None) -> Checkpoint:
    """A checkpoint in LLaVA's own layout with its vision tower; ``tower`` and errors as in :func:`with_tower`."""
    folder = _find(checkpoint, tower)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{ROLE} {folder} has no config.json: give the folder of the CLIP model.")
    refuse_devices(folder, ROLE)
    if any(key.startswith(TOWER) for key in checkpoint.tensors):
        return replace(checkpoint, tower=folder)
    with Checkpoint.open(folder, ROLE) as opened:
        if opened.unpacking is not None:
            raise CheckpointError(f"{ROLE} {folder} is quantised: give the CLIP model that it was made from.")
        whole = any(key.startswith(VISION) for key in opened.tensors)
        external = {
            f"{TOWER}{'' if whole else VISION}{key}": replace(info, shard=str((folder / info.shard).absolute()))
            for key, info in opened.tensors.items()
            if key.startswith(VISION if whole else "")
        }
    tensors = {**checkpoint.tensors, **{key: replace(info, name=key) for key, info in external.items()}}
    return replace(checkpoint, tensors=tensors, tower=folder)


def _find(checkpoint: Checkpoint, given: Path | None) -> Path:
    """The folder of the tower; raises CheckpointError if it is not known."""
    named = checkpoint.config.get("mm_vision_tower")
    name = named if isinstance(named, str) and named else None
    places = [given] if given is not None else [Path(name), checkpoint.folder.parent / name] if name else []
    for place in places:
        if _is_folder(place):
            return place
    if given is not None:
        raise CheckpointError(f"{ROLE} {given} is not a folder: give the folder of the CLIP model.")
    raise CheckpointError(
        f"{checkpoint.role} {checkpoint.folder} has LLaVA's own layout, and its vision tower "
        f"{'has no name in config.json' if name is None else f'{name} is no folder here'}: "
        "give the folder of that CLIP model with --vision-tower."
    )


def _is_folder(path: Path) -> bool:
    """``path.is_dir()``, also for a name that is too long for the file system."""
    try:
        return path.is_dir()
    except OSError:
        return False
