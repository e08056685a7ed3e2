"""The folder of a PEFT adapter, as peft's ``save_pretrained`` writes it: recognise it and check it."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hpa_merge.checkpoint.folder import has_weights, read_json, refuse_devices
from hpa_merge.checkpoint.weight_files import ADAPTER, ADAPTER_CONFIG, ADAPTER_PICKLE, INDEX
from hpa_merge.errors import CheckpointError

__all__ = ["CONFIG", "is_adapter", "is_adapter_list", "read_adapter_config", "refuse_neighbours"]

CONFIG = ADAPTER_CONFIG

WHOLE = re.compile(r"model([-.][\w.-]+)?\.safetensors")
"""The weight files of a whole model."""

TRAINED = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
"""Suffixes of files that a training writes; files in other formats hold a copy of the adapter."""

LEFTOVER = re.compile(r"(optimizer|scheduler|scaler|sampler|rng_state|random_states|training_args|dataloader)[\w.-]*")
"""Files that a training needs to resume, and that do not hold weights of the model."""

NEIGHBOURS = (
    (
        re.compile(r"non_lora_\w+\.\w+|mm_projector[\w.-]*"),
        "merge them and the adapter into OLD with the script of the code base that trained them, such as LLaVA's "
        "merge_lora_weights.py, and give the result",
    ),
    (
        re.compile(r"(vit|aligner|generator)\.\w+"),
        "merge them and the adapter into OLD with ms-swift (swift export --merge_lora true), and give the result",
    ),
    (
        re.compile(r"(new_|resized_)?embeddings?[\w.-]*"),
        "load OLD, these embeddings and the adapter with the tool that trained them, merge_and_unload(), "
        "save_pretrained(), and give the result",
    ),
    (
        re.compile(r"(value_head|v_head|reward_head|critic)[\w.-]*"),
        "a value head is not a part of the model that answers, so move the file out of the folder",
    ),
)
"""Files of trained weights that people have next to an adapter, and what to do; the first match counts."""

OTHERWISE = (
    "if they are trained weights, merge them and the adapter into OLD with the tool that trained them, and give the "
    "result; if not, move the file out of the folder"
)


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds one or several adapters, and no weights of a whole model."""
    if not folder.is_dir():
        return False
    return is_adapter_list({path.name for path in folder.iterdir()}) or (
        bool(_inner(folder)) and not has_weights(folder) and not (folder / "config.json").exists()
    )


def is_adapter_list(names: Iterable[str]) -> bool:
    """Whether a folder with these files is that of an adapter."""
    found = set(names)
    if CONFIG not in found or INDEX in found or any(WHOLE.fullmatch(name) for name in found):
        return False
    others = {name for name in found if name.endswith(".safetensors") and not name.startswith(".")}
    return not others or ADAPTER in found or ADAPTER_PICKLE in found


def refuse_neighbours(names: Iterable[str], place: str) -> None:
    """Refuse an adapter's folder that holds other trained weights, which the adapter's own files say nothing about.

    Args:
        names: of the files in the folder.
        place: the beginning of the message.

    Raises:
        CheckpointError: there are some.
    """
    for name in sorted(names):
        known = name in (ADAPTER, ADAPTER_PICKLE) or name.startswith(".") or LEFTOVER.fullmatch(name)
        if name.endswith(TRAINED) and not known:
            remedy = next((remedy for pattern, remedy in NEIGHBOURS if pattern.fullmatch(name)), OTHERWISE)
            raise CheckpointError(
                f"{place} holds {name} next to its adapter, and these weights would be left out: {remedy}."
            )


def read_adapter_config(folder: Path, role: str) -> dict[str, Any]:
    """adapter_config.json of a folder that has an adapter's weights; they are not read.

    Raises:
        CheckpointError: something is missing, broken, or unsafe; or other trained weights lie next to the adapter.
    """
    refuse_devices(folder, role)
    if not (folder / CONFIG).exists():
        raise CheckpointError(
            f"{role} {folder} holds several adapters, in the folders {', '.join(_inner(folder))}: give one of these."
        )
    config = read_json(folder, role, CONFIG)
    refuse_neighbours((path.name for path in folder.iterdir() if not path.is_dir()), f"{role} {folder}")
    if not (folder / ADAPTER).exists():
        if (folder / ADAPTER_PICKLE).exists():
            raise CheckpointError(
                f"{role} {folder} has {ADAPTER_PICKLE} and no {ADAPTER}, and pickles are not read: convert it, with "
                "from_pretrained and then save_pretrained of peft."
            )
        raise CheckpointError(f"{role} {folder} has no {ADAPTER}: fetch or save the adapter again.")
    return config


def _inner(folder: Path) -> list[str]:
    """Names of the subfolders that hold an adapter."""
    return sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
