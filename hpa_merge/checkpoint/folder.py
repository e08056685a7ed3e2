"""A folder in Hugging Face layout: its config.json, its weight files, and the reasons for which it is refused."""

import codecs
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from hpa_merge.checkpoint.kinds import is_read
from hpa_merge.checkpoint.unreadable import unreadable
from hpa_merge.checkpoint.weight_files import ADAPTER, ADAPTER_CONFIG, INDEX, choose, is_index
from hpa_merge.errors import CheckpointError
from hpa_merge.files import parsing
from hpa_merge.files.inside import open_inside
from hpa_merge.quantisation import check_method, configurations

__all__ = [
    "check_names",
    "find_shards",
    "has_weights",
    "read_config",
    "read_described",
    "read_index",
    "read_json",
    "readable",
    "refuse_devices",
]

OPTIONAL = "generation_config.json"
"""Without it, or with a broken one, transformers takes the defaults."""

MLX = "adapters.safetensors"
"""What mlx-lm calls an adapter, with tensors that lie in another way than peft's."""

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""First bytes of a text in UTF-16, as PowerShell writes it."""


def read_config(folder: Path, role: str) -> dict[str, Any]:
    """config.json of a folder that holds a model.

    Raises:
        CheckpointError: as :func:`read_described`, or it says that the model is quantised in a way that is not read.
    """
    config = read_described(folder, role)
    for key, found in configurations(config):
        with readable(folder, role, key, found):
            check_method(found)
            from hpa_merge.quantisation import find_format  # torch, without which other folders can be opened

            find_format(found if isinstance(found, dict) else {})
    return config


def read_described(folder: Path, role: str) -> dict[str, Any]:
    """config.json of a folder that holds a model, whatever it says about quantisation.

    Raises:
        CheckpointError: the folder or config.json is missing, or broken.
    """
    if folder.is_file():
        raise CheckpointError(f"{role} {folder} is a file: give its folder.")
    if not folder.is_dir():
        raise CheckpointError(f"{role} {folder} does not exist: give a folder in Hugging Face layout.")
    refuse_devices(folder, role)
    path = folder / "config.json"
    if not _present(path):
        if (folder / ADAPTER_CONFIG).exists():
            raise CheckpointError(_adapter(folder, role))
        raise CheckpointError(
            f"{role} {folder} has no config.json: give a folder in Hugging Face layout, as save_pretrained writes it."
        )
    config = read_json(folder, role, "config.json")
    check_names(config, f"{role} {folder}")
    return config


@contextmanager
def readable(folder: Path, role: str, key: str, config: Any) -> Iterator[None]:
    """Raise a Refused of the block as a CheckpointError that names the folder.

    Args:
        key: where config.json has the quantization_config.
        config: the quantization_config.
    """
    from hpa_merge.quantisation import FULL, Refused, method_of

    try:
        yield
    except Refused as refused:
        method = method_of(config) if isinstance(config, dict) else config
        reason, _, remedy = str(refused).rpartition(": ")
        adapters = "; an adapter that was trained on the quantised one fits it too" if role == "OLD" else ""
        raise CheckpointError(
            f"{role} {folder} is quantised ({key} in config.json, method {method}), and {reason}: "
            f"{remedy}{adapters if remedy == FULL else ''}."
        ) from refused


def check_names(config: dict[str, Any], place: str) -> None:
    """Check the two fields that choose transformers' classes, which are read before transformers checks anything.

    Args:
        place: the beginning of the message.

    Raises:
        CheckpointError: a field is present and holds something other than names.
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


def find_shards(folder: Path, role: str, config: Mapping[str, Any]) -> tuple[tuple[str, ...], str | None]:
    """The weight files, sorted, and the name of their index, if they have one.

    Args:
        config: config.json.

    Raises:
        CheckpointError: transformers finds no weights there, or a file of the index is missing or lies elsewhere.
    """
    place, names = f"{role} {folder}", _names(folder)
    if ADAPTER in names and ADAPTER_CONFIG in names and not any(map(_is_whole, names)):
        raise CheckpointError(_adapter(folder, role))
    first = choose(names, config, place)
    if not is_index(first):
        return (first,), None
    shards = tuple(sorted(set(read_index(folder, role, first)[1]["weight_map"].values())))
    for shard in shards:
        if shard in ("", ".", "..") or any(sign in shard for sign in "/\\\0"):
            raise CheckpointError(
                f"{place}: {first} points to {shard!r}, and only files directly in the folder are read: "
                "move the shards there, and leave the folders out in its weight_map."
            )
    if lost := [shard for shard in shards if not _exists(folder / shard)]:
        others = sorted(name for name in names if _is_whole(name) and name not in shards)
        remedy = (
            f"fetch it or, if {others[0]} is of a later save, save the model again in an empty folder"
            if others
            else f"fetch it or, if the model does without, remove its entries from {first}"
        )
        raise CheckpointError(f"{place}: the shard {lost[0]} is missing, though {first} names it: {remedy}.")
    return shards, first


def read_index(folder: Path, role: str, name: str) -> tuple[bytes, dict[str, Any]]:
    """An index, and its value, which has a ``weight_map`` from tensors to files.

    Raises:
        CheckpointError: it cannot be read, or has none.
    """
    content, parsed = _read(folder, role, name)
    weight_map = parsed.get("weight_map")
    if not (isinstance(weight_map, dict) and weight_map and all(isinstance(s, str) for s in weight_map.values())):
        raise CheckpointError(
            f"{role} {folder}: {name} has no weight_map from tensors to files: fetch or save the checkpoint again."
        )
    return content, parsed


def has_weights(folder: Path) -> bool:
    """Whether the folder has the weights of a whole model."""
    return _present(folder / INDEX) or any(_is_whole(path.name) for path in folder.iterdir())


def read_json(folder: Path, role: str, name: str) -> dict[str, Any]:
    """A JSON file of the folder that holds an object."""
    content, parsed = _read(folder, role, name)
    _check_mark(folder, role, name, content)
    return parsed


def _check_mark(folder: Path, role: str, name: str, content: bytes) -> None:
    """Raise CheckpointError for a JSON file that transformers does not read because of its first bytes."""
    if content.startswith(codecs.BOM_UTF8):
        raise CheckpointError(
            f"{role} {folder}: {name} begins with a byte order mark, with which transformers does not read it: save it "
            "as UTF-8 without one."
        )


def _read(folder: Path, role: str, name: str) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a JSON file that holds an object, and the object."""
    index = is_index(name)
    limits = parsing.INDEX if index else parsing.CONFIG
    raw = b""
    try:
        with open_inside(folder, name) as file:
            raw = parsing.read_open(file, limits.size)
        content = parsing.parse_json(raw, limits, unique=index)
    except OSError as error:
        raise CheckpointError(unreadable(folder, role, name, error)) from error
    except ValueError as error:
        reason = str(error)
        what = reason.removeprefix("it ") if reason.startswith("it ") else f"is not valid JSON ({reason})"
        again = "save it in UTF-8" if raw.startswith(UTF_16) else "fetch or save the checkpoint again"
        raise CheckpointError(f"{role} {folder}: {name} {what}: {again}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{role} {folder}: {name} holds a JSON {type(content).__name__} instead of an object: "
            "fetch or save the checkpoint again."
        )
    return raw, content


def _names(folder: Path) -> list[str]:
    """The names in a folder; a subfolder's has a slash at its end, and a broken link counts as a file."""
    return [f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir()]


def _is_whole(name: str) -> bool:
    """Whether a safetensors file may hold a part of a whole model."""
    return name.endswith(".safetensors") and name != ADAPTER and not name.startswith(".")


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
                with open_inside(folder, relative) as file:
                    if path.suffix == ".json" and path.name != OPTIONAL and not is_index(path.name):
                        _check_mark(folder, role, name, file.read(3))
    except OSError as error:
        raise CheckpointError(unreadable(folder, role, name, error)) from error


def _adapter(folder: Path, role: str) -> str:
    """The sentence for a folder with an adapter's configuration and without a model."""
    names = _names(folder)
    if MLX in names and ADAPTER not in names:
        return (
            f"{role} {folder} holds an adapter of MLX ({MLX}), which peft does not read: give the checkpoint that "
            "mlx_lm.fuse makes of it and its base."
        )
    if ADAPTER not in names and (found := sorted(filter(_is_whole, names))):
        return (
            f"{role} {folder} holds {ADAPTER_CONFIG} and {found[0]}, a name that peft does not look for: rename it to "
            f"{ADAPTER} if it is the adapter, or move it out of the folder."
        )
    return (
        f"{role} {folder} holds a PEFT adapter without its model: merge it into its base first, with "
        "merge_and_unload() and then save_pretrained()."
    )
