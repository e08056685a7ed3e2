"""Where an adapter's tensors belong in OLD: their names as paths of OLD's modules.

The names were written by another version of transformers, around a wrapped model, or around a part of the model. They
say which modules the adapter changes. adapter_config.json only says how these modules were chosen.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import final

from hpa_merge.errors import CheckpointError
from hpa_merge.model.injection import PREFIX

__all__ = ["Belonging", "find_modules", "plain_names", "translations"]

WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts of names that come from torch.compile, FSDP and activation checkpointing."""

BEGINNINGS, PLACES = 16, 64
"""The most beginnings of paths that are replaced, and the most places that are tried for each; towers are fewer."""

EXPERT = re.compile(r"(?P<stack>.+)\.\d+\.(?P<part>\w+)")
"""The path of a linear of one expert, in versions of transformers that had a module for each expert."""


@final
@dataclass(frozen=True)
class Belonging:
    """What one of the adapter's tensors belongs to.

    Attributes:
        saved: the path of its module, as it was saved.
        module: the path of that module in OLD; of the stack, for a tensor of one expert.
        name: the tensor's name, as peft would save it for OLD's modules.
        changes: whether it is a part of a layer; else it replaces a tensor of the module, or is added to one.
        part: the name of an expert's linear, for a tensor of one expert; else empty.
    """

    saved: str
    module: str
    name: str
    changes: bool
    part: str = ""


def plain_names(keys: Iterable[str], kind: str, place: str) -> dict[str, str]:
    """Each key as peft saves it: with its prefix, without wrappers, and without the name of the adapter.

    Args:
        kind: the beginning of the names of peft's own parameters, ``lora_`` for a LoRA.
        place: the beginning of a message.

    Raises:
        CheckpointError: two keys have the same name then.
    """
    plain = {key: _plain(key, kind) for key in keys}
    first: dict[str, str] = {}
    for key, name in plain.items():
        if first.setdefault(name, key) != key:
            raise CheckpointError(
                f"{place} holds a tensor twice, as {first[name]} and as {key}: save the adapter again."
            )
    return plain


def _plain(key: str, kind: str) -> str:
    parts = [part for part in key.split(".") if part not in WRAPPERS]
    if parts[0] == "module":  # of DistributedDataParallel
        parts = parts[1:]
    own = max((number for number, part in enumerate(parts) if part.startswith(kind)), default=None)
    if own is not None:
        parts[own + 1 :] = [part for part in parts[-1:] if part in ("weight", "bias")]
    elif "modules_to_save" in parts:
        kept = parts.index("modules_to_save")
        del parts[kept : kept + 2]
    name = ".".join(parts)
    return name if name.startswith(PREFIX.partition(".")[0] + ".") else PREFIX + name


def find_modules(
    names: Mapping[str, tuple[int, ...]],
    kind: str,
    modules: Mapping[str, tuple[int, ...]],
    present: Callable[[str], Iterable[str]],
    place: str,
) -> dict[str, Belonging]:
    """What each tensor belongs to, by its name.

    A path that OLD does not have is translated: first by transformers' own renamings, then by another beginning, if
    exactly one fits all such paths and the shapes of their tensors.

    Args:
        names: shapes of the adapter's tensors, by their plain names.
        kind: as for :func:`plain_names`.
        modules: OLD's modules, with the shapes of their weights: of three dimensions for a stack of experts, empty for
            a module without one.
        present: possible paths in OLD of what earlier versions of transformers, or another layout, called otherwise.
        place: the beginning of a message.

    Raises:
        CheckpointError: a tensor belongs nowhere, or to one of several modules.
    """
    owners = {name: _owner(name, kind, modules) for name in names}
    paths = dict.fromkeys(path for path, _ in owners.values())
    found: dict[str, tuple[str, str]] = {}
    for path in paths:
        for known in (path, *present(path)):
            stack = EXPERT.fullmatch(known)
            if known in modules:
                found.setdefault(path, (known, ""))
            elif stack is not None and len(modules.get(stack["stack"], ())) == 3:
                found.setdefault(path, (stack["stack"], stack["part"]))
    shapes: dict[str, list[tuple[int, ...]]] = {path: [] for path in paths}
    for name, (path, _) in owners.items():
        shapes[path].append(names[name])
    lost, tries = [path for path in paths if path not in found], 0
    while lost:
        beginnings, tries = _beginnings(lost, shapes, modules), tries + 1
        if len(beginnings) != 1 or tries > BEGINNINGS:
            name = next(name for name, (path, _) in owners.items() if path == lost[0])
            several = " or ".join(f"{new}…" if new else "the whole model" for _, new in beginnings[:3])
            reason = f"has several modules ({several})" if len(beginnings) > 1 else "has no module"
            raise CheckpointError(
                f"{place}: OLD {reason} for the adapter's tensor {name}: give as OLD the model that it was trained on."
            )
        (old, new) = beginnings[0]
        found |= {path: (new + path.removeprefix(old), "") for path in lost if path.startswith(old)}
        lost = [path for path in lost if path not in found]
    return {
        name: Belonging(path, found[path][0], _renamed(name, path, found[path]), changes, found[path][1])
        for name, (path, changes) in owners.items()
    }


def _owner(name: str, kind: str, modules: Collection[str]) -> tuple[str, bool]:
    """The path of a tensor's module as it was saved, and whether the tensor is a part of a layer."""
    parts = name.removeprefix(PREFIX).split(".")
    own = max((number for number, part in enumerate(parts) if part.startswith(kind)), default=None)
    parts = parts[: own if own is not None else -1]
    while parts and parts[-1] in ("base_layer", "token_adapter") and ".".join(parts) not in modules:
        del parts[-1]
    return ".".join(parts), own is not None


def _renamed(name: str, path: str, found: tuple[str, str]) -> str:
    """The name with the path in OLD; peft itself translates the tensors of single experts."""
    module, part = found
    return name if part else PREFIX + module + name.removeprefix(PREFIX).removeprefix(path)


def _beginnings(
    lost: list[str], shapes: Mapping[str, list[tuple[int, ...]]], modules: Mapping[str, tuple[int, ...]]
) -> list[tuple[str, str]]:
    """Beginnings of paths and what replaces them, so that every lost path with that beginning becomes a module."""
    candidates = []
    for module in modules:
        shared = _shared(lost[0], module)
        if shared:
            candidates.append((lost[0].removesuffix(shared), module.removesuffix(shared)))
    shortest = min((len(old) for old, _ in candidates), default=0)
    nearest = [each for each in dict.fromkeys(candidates) if len(each[0]) == shortest]
    return [
        (old, new)
        for old, new in nearest[:PLACES]
        if all(_fits(shapes[path], modules.get(new + path.removeprefix(old))) for path in lost if path.startswith(old))
    ]


def _shared(first: str, second: str) -> str:
    """The common end of two paths, in whole parts; empty if it does not reach the number of a layer."""
    shared: list[str] = []
    for one, other in zip(reversed(first.split(".")), reversed(second.split(".")), strict=False):
        if one != other:
            break
        shared.insert(0, one)
    numbered = any(part.isdecimal() for part in shared) or not any(part.isdecimal() for part in first.split("."))
    return ".".join(shared) if numbered else ""


def _fits(tensors: Iterable[tuple[int, ...]], weight: tuple[int, ...] | None) -> bool:
    """Whether each of a module's new matrices shares a dimension with its weight."""
    return weight is not None and all(len(shape) != 2 or not weight or set(shape) & set(weight) for shape in tensors)


def translations(belonging: Iterable[Belonging]) -> list[str]:
    """How paths were translated, ``model -> model.language_model``, once for each beginning."""
    found: dict[str, None] = {}
    for each in belonging:
        if each.saved == each.module or each.part:
            continue
        shared = _shared(each.saved, each.module).split(".")
        old, new = ([*path.split(".")[: -len(shared)], ""] for path in (each.saved, each.module))
        if len(old) == 1 or len(new) == 1:  # the whole beginning came or went: show what follows it
            old[-1] = new[-1] = shared[0]
        found[" -> ".join(".".join(filter(None, side)) for side in (old, new))] = None
    return list(found)
