"""What a checkpoint would be without its quantisation, or in another dtype: its tensors, its shards, its config.json.

A tensor that is stored in another way has a recipe. The others are read as they are. Shards keep their names; each is
laid out as safetensors itself writes it.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from hpa_merge.checkpoint.shard import TensorInfo, lay_out
from hpa_merge.core import all_finite
from hpa_merge.errors import CheckpointError, NumericalError
from hpa_merge.quantisation import Header, Parts, Recipe, Refused, find_recipes, is_spare, plain_config

__all__ = ["DTYPES", "Unpacking", "cast", "config_bytes", "header_of", "name_of", "unpack"]

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
"""What OUT may be in, by the names that transformers uses."""

KEYS = ("dtype", "torch_dtype")
"""What config.json calls its dtype; the second one is transformers' earlier name."""

WORKING = 16
"""Bytes for each element that dequantising takes at most in addition to its result: some steps in float32 and int32;
measured are 6 to 13."""

CASTING = 8
"""Bytes for each element of a tensor that is cast: itself, in float64 at most."""


@final
@dataclass(frozen=True, eq=False)
class Unpacking:
    """How the tensors of a checkpoint follow from those on disk.

    Attributes:
        stored: the tensors on disk, by name.
        recipes: for each tensor that is not on disk as it is read.
        tensors: the tensors as they are read, with their places in OUT.
        heads: the head of each shard of OUT.
        dtype: of the weights that have a recipe.
        library: what computes them, with its version; empty for a change of dtype alone.
    """

    stored: Mapping[str, TensorInfo]
    recipes: Mapping[str, Recipe]
    tensors: dict[str, TensorInfo]
    heads: Mapping[str, bytes]
    dtype: torch.dtype
    library: str

    @property
    def shards(self) -> tuple[str, ...]:
        """The shards of OUT: those that hold a tensor."""
        return tuple(sorted({info.shard for info in self.tensors.values()}))

    @property
    def disk_shards(self) -> tuple[str, ...]:
        """The weight files on disk."""
        return tuple(sorted({info.shard for info in self.stored.values()}))

    @property
    def workspace(self) -> int:
        """The most bytes that computing one tensor takes in addition to its parts and the result."""
        return max((_working(recipe) for recipe in self.recipes.values()), default=0)

    @property
    def dequantised(self) -> str:
        """How many weights are dequantised, by how they are stored: ``196 weights in block FP8``."""
        counts = sorted(Counter(recipe.kind for recipe in self.recipes.values() if recipe.kind).items())
        return ", ".join(f"{count} {'weight' if count == 1 else 'weights'} in {kind}" for kind, count in counts)

    def config(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """config.json of the checkpoint as it is read: without a quantisation, and with the dtype."""
        return _with_dtype(plain_config(given), name_of(self.dtype))

    def compute(self, name: str, parts: Sequence[Tensor], role: str, folder: Path) -> Tensor:
        """One tensor from its parts, in the order of its recipe; ``role`` and ``folder`` are for messages.

        Raises:
            NumericalError: the tensor does not fit the dtype, though its parts are finite.
            CheckpointError: the parts do not make a tensor of its shape.
        """
        recipe = self.recipes[name]
        try:
            found = recipe.unpack(dict(zip(recipe.parts, parts, strict=True)), self.dtype)
            if tuple(found.shape) != recipe.shape or found.dtype != self.dtype:
                raise ValueError(f"it is {list(found.shape)} of {found.dtype} instead of {list(recipe.shape)}")
        # what torch and the libraries raise for damaged tensors
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"{role} {folder}: the tensor {name} cannot be dequantised ({reason}): fetch or save the checkpoint "
                "again."
            ) from error
        if not all_finite(found) and all(not part.is_floating_point() or all_finite(part.float()) for part in parts):
            raise NumericalError(f"{role}'s tensor {name} does not fit {name_of(self.dtype)}: choose another --dtype.")
        return found.contiguous()


def unpack(
    config: Mapping[str, Any],
    described: Mapping[str, Any],
    tensors: Mapping[str, TensorInfo],
    read: Callable[[str], Tensor],
) -> Unpacking:
    """The unpacking of a quantised checkpoint.

    Args:
        config: config.json.
        described: its quantization_config.
        tensors: those on disk.
        read: reads a small one.

    Raises:
        Refused: it cannot be dequantised here.
    """
    header = header_of(tensors)
    recipes, library = find_recipes(described, header, read, config.get("model_type"))
    by_name = {recipe.name: recipe for recipe in recipes}
    used = {part for recipe in recipes for part in recipe.parts.values()}
    twice = [recipe.name for recipe in recipes if recipe.name in header and recipe.name not in used]
    if len(by_name) < len(recipes) or twice:
        name = next(iter(twice), recipes[0].name)
        raise Refused(f"it holds {name} twice, quantised and as it is: fetch or save the checkpoint again")
    kept = [name for name in tensors if name not in used and not is_spare(name)]
    return _laid_out(tensors, by_name, kept, _dtype_of(config), library)


def cast(
    tensors: Mapping[str, TensorInfo], before: Unpacking | None, dtype: torch.dtype, kept: Callable[[str], bool]
) -> Unpacking:
    """An unpacking in another dtype.

    Args:
        tensors: as they are read so far.
        before: how these follow from those on disk; None if they are the same.
        dtype: the new one.
        kept: whether a tensor keeps its dtype.
    """
    recipes = {} if before is None else dict(before.recipes)
    for name, info in tensors.items():
        if name not in recipes and info.dtype.is_floating_point and info.dtype != dtype and not kept(name):
            recipes[name] = Recipe(name, info.shape, {"": name}, _cast, "")
    stored = tensors if before is None else before.stored
    names = [name for name in tensors if name not in recipes]
    return _laid_out(stored, recipes, names, dtype, "" if before is None else before.library)


def _cast(parts: Parts, dtype: torch.dtype) -> Tensor:
    (part,) = parts.values()
    return part.to(dtype)


def _laid_out(
    stored: Mapping[str, TensorInfo],
    recipes: Mapping[str, Recipe],
    kept: Iterable[str],
    dtype: torch.dtype,
    library: str,
) -> Unpacking:
    """The unpacking with every tensor in its place in OUT, in the shard of its first part."""
    shards: dict[str, dict[str, tuple[torch.dtype, tuple[int, ...]]]] = {info.shard: {} for info in stored.values()}
    for name in kept:
        shards[stored[name].shard][name] = stored[name].dtype, stored[name].shape
    for name, recipe in recipes.items():
        first = stored[next(iter(recipe.parts.values()))]
        shards[first.shard][name] = dtype, recipe.shape
    tensors: dict[str, TensorInfo] = {}
    heads: dict[str, bytes] = {}
    for shard, header in shards.items():
        heads[shard], infos = lay_out(header, shard)
        tensors |= {info.name: info for info in infos}
    return Unpacking(stored, recipes, tensors, heads, dtype, library)


def header_of(tensors: Mapping[str, TensorInfo]) -> Header:
    """Dtype and shape of each tensor, by name."""
    return {name: (info.dtype, info.shape) for name, info in tensors.items()}


def name_of(dtype: torch.dtype) -> str:
    """The name that transformers and config.json use, such as ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


def config_bytes(config: Mapping[str, Any]) -> bytes:
    """The content of a config.json."""
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def _dtype_of(config: Mapping[str, Any]) -> torch.dtype:
    """The dtype in which a quantised model computes, by its config.json; bfloat16 if that does not say."""
    inner = [value for value in config.values() if isinstance(value, dict)]
    for each in (config, *inner):
        for key in KEYS:
            if isinstance(name := each.get(key), str) and name.removeprefix("torch.") in DTYPES:
                return DTYPES[name.removeprefix("torch.")]
    return torch.bfloat16


def _with_dtype(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A configuration whose every dtype is ``name``, at any depth; the outermost one has one in any case."""

    def changed(part: Mapping[str, Any]) -> dict[str, Any]:
        return {key: replaced(key, value) for key, value in part.items()}

    def replaced(key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return changed(value)
        return name if key in KEYS and isinstance(value, str) else value

    found = changed(config)
    return found if found.keys() & {*KEYS} else {**found, "dtype": name}


def _working(recipe: Recipe) -> int:
    """Bytes that computing a tensor takes in addition to its result; a stack is computed one expert at a time."""
    return WORKING * math.prod(recipe.shape[-2:]) if recipe.kind else CASTING * math.prod(recipe.shape)
