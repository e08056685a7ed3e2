"""A folder in Hugging Face layout: its config.json, its weight files, and the reasons for which it is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from hpa_merge.checkpoint.kinds import is_read
from hpa_merge.checkpoint.shard import unreadable
from hpa_merge.errors import CheckpointError
from hpa_merge.files import parsing
from hpa_merge.files.inside import find_inside, open_inside
from hpa_merge.quantisation import FULL, Refused, configurations, find_format, method_of

__all__ = [
    "ADAPTER",
    "INDEX",
    "check_names",
    "find_shards",
    "has_weights",
    "read_config",
    "read_json",
    "refuse_devices",
]

INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"


def read_config(folder: Path, role: str) -> dict[str, Any]:
    """config.json of a folder that holds a model.

    Raises:
        CheckpointError: it is missing, broken, or says that the model is quantised in a way that is not read here.
    """
    if folder.is_file():
        raise CheckpointError(f"{role} {folder} is a file: give its folder.")
    if not folder.is_dir():
        raise CheckpointError(f"{role} {folder} does not exist: give a folder in Hugging Face layout.")
    refuse_devices(folder, role)
    path = folder / "config.json"
    if not _present(path):
        if (folder / "adapter_config.json").exists():
            raise CheckpointError(_adapter(folder, role))
        raise CheckpointError(
            f"{role} {folder} has no config.json: give a folder in Hugging Face layout, as save_pretrained writes it."
        )
    config = read_json(folder, role, "config.json")
    check_names(config, f"{role} {folder}")
    for key, found in configurations(config):
        with readable(folder, role, key, found):
            find_format(found if isinstance(found, dict) else {})
    return config


@contextmanager
def readable(folder: Path, role: str, key: str, config: Any) -> Iterator[None]:
    """Raise a Refused of the block as a CheckpointError.

    Args:
        key: where config.json has the quantization_config.
        config: that.
    """
    try:
        yield
    except Refused as refused:
        method = method_of(config) if isinstance(config, dict) else config
        reason, _, remedy = str(refused).partition(": ")
        adapters = "; an adapter that was trained on the quantised one fits it too" if role == "OLD" else ""
        raise CheckpointError(
            f"{role} {folder} is quantised ({key} in config.json, method {method}), and {reason}: "
            f"{remedy}{adapters if remedy == FULL else ''}."
        ) from refused


def check_names(config: dict[str, Any], place: str) -> None:
    """Check the two fields that choose transformers' classes: they are read before transformers checks anything.

    Args:
        place: the beginning of the message.

    Raises:
        CheckpointError: a field is present and holds something else than names.
    """
    names = config.get("architectures")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) and name for name in names)):
        raise CheckpointError(
            f"{place}: config.json has {names!r:.40} for architectures, which has to be a list of class names: "
            "fetch or save the checkpoint again."
        )
    kind = config.get("model_type")
    if kind is not None and not isinstance(kind, str):
        raise CheckpointError(
            f"{place}: config.json has {kind!r:.40} for model_type, which has to be a name: "
            "fetch or save the checkpoint again."
        )


def find_shards(folder: Path, role: str) -> tuple[tuple[str, ...], str | None, dict[str, str]]:
    """The weight files, sorted; the index file's name, if there is one; and its map from tensors to shards."""
    if _present(folder / INDEX):
        weight_map = read_json(folder, role, INDEX).get("weight_map")
        if not (isinstance(weight_map, dict) and weight_map and all(isinstance(s, str) for s in weight_map.values())):
            raise CheckpointError(
                f"{role} {folder}: {INDEX} has no weight_map from tensors to files: fetch or save the checkpoint again."
            )
        shards = tuple(sorted(set(weight_map.values())))
        for shard in shards:
            if shard in ("", ".", "..") or any(sign in shard for sign in "/\\\0"):
                raise CheckpointError(
                    f"{role} {folder}: {INDEX} points to {shard!r}, and only files directly in the folder are read: "
                    "use an index whose weight_map holds plain file names."
                )
            if not _exists(folder / shard):
                raise CheckpointError(
                    f"{role} {folder}: the shard {shard} is missing, though {INDEX} names it: "
                    "fetch the checkpoint again, completely."
                )
        return shards, INDEX, weight_map

    found = sorted(path.name for path in folder.glob("[!.]*.safetensors") if not path.is_dir())
    if "model.safetensors" in found:
        found = ["model.safetensors"]
    if found == [ADAPTER] and (folder / "adapter_config.json").exists():
        raise CheckpointError(_adapter(folder, role))
    if len(found) > 1:
        raise CheckpointError(
            f"{role} {folder} has {len(found)} *.safetensors files ({found[0]} …) and no {INDEX} that says which "
            "belong together: add the index, or leave one file."
        )
    if not found:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth"))
        if pickles:
            raise CheckpointError(
                f"{role} {folder} has no *.safetensors file, only {pickles[0]}, and pickles are not read: convert it, "
                "with from_pretrained and then save_pretrained of transformers."
            )
        raise CheckpointError(f"{role} {folder} has no *.safetensors file: fetch or save the checkpoint again.")
    return tuple(found), None, {}


def has_weights(folder: Path) -> bool:
    """Whether the folder has the weights of a whole model."""
    return _present(folder / INDEX) or any(path.name != ADAPTER for path in folder.glob("[!.]*.safetensors"))


def read_json(folder: Path, role: str, name: str) -> dict[str, Any]:
    """A JSON file of the folder that holds an object."""
    index = name == INDEX
    try:
        limits = parsing.INDEX if index else parsing.CONFIG
        with open_inside(folder, name) as file:
            content = parsing.parse_json(parsing.read_open(file, limits.size), limits, unique=index)
    except OSError as error:
        raise CheckpointError(unreadable(folder, role, name, error)) from error
    except ValueError as error:
        reason = str(error)
        what = reason.removeprefix("it ") if reason.startswith("it ") else f"is not valid JSON ({reason})"
        raise CheckpointError(f"{role} {folder}: {name} {what}: fetch or save the checkpoint again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{role} {folder}: {name} holds a JSON {type(content).__name__} instead of an object: "
            "fetch or save the checkpoint again."
        )
    return content


def _present(path: Path) -> bool:
    """Whether the entry exists; a broken link counts, and reading it then raises the error."""
    return path.is_symlink() or path.exists()


def _exists(path: Path) -> bool:
    """``path.exists()``, also for a name that is too long for the file system."""
    try:
        return path.exists()
    except OSError:
        return False


def refuse_devices(folder: Path, role: str) -> None:
    """Refuse a folder that could make a reader wait, read without end, or read files from elsewhere.

    That is a folder with a pipe, a socket, a device, or a link to one. A file that we or a library read with a model
    must not be a link out of the folder. Other files may be such links, and are left out.

    Raises:
        CheckpointError: there is such an entry, or the folder cannot be read.
    """
    name = "the folder"
    try:
        for path in (*folder.iterdir(), *folder.glob("additional_chat_templates/*")):
            if path.exists() and not (path.is_file() or path.is_dir()):
                raise CheckpointError(
                    f"{role} {folder} holds {path.name}, which is neither a file nor a folder: remove it."
                )
            relative = PurePath(path.relative_to(folder))
            if path.exists() and not path.is_dir() and (is_read(relative) or path.parent != folder):
                name = relative.as_posix()
                find_inside(folder, relative)
    except OSError as error:
        raise CheckpointError(unreadable(folder, role, name, error)) from error


def _adapter(folder: Path, role: str) -> str:
    return (
        f"{role} {folder} holds a PEFT adapter without its model: merge it into its base first, with "
        "merge_and_unload() and then save_pretrained()."
    )
