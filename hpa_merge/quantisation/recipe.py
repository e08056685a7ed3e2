"""A quantised checkpoint as a format sees it, and a weight as a format finds it: which tensors, which function."""

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, final

import torch
from torch import Tensor

from hpa_merge.errors import extra
from hpa_merge.quantisation.configuration import FULL, Refused

__all__ = ["FLOAT8", "Format", "Header", "Parts", "Quantised", "Recipe", "Refused", "by_slice", "required"]

Header = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""The tensors of a checkpoint: dtype and shape by key."""

Parts = Mapping[str, Tensor]
"""The tensors that a weight is made of, by their role, such as ``scale``."""

FLOAT8 = frozenset({torch.float8_e4m3fn, torch.float8_e5m2})
"""The dtypes of eight bits that hold weights."""

EXTRA = extra("quantized")


@final
@dataclass(frozen=True)
class Quantised:
    """A quantised checkpoint.

    Attributes:
        config: the quantization_config.
        header: the tensors on disk.
        read: reads one of them; for small ones that describe others.
    """

    config: Mapping[str, Any]
    header: Header
    read: Callable[[str], Tensor]

    def ending(self, leaf: str) -> Iterator[str]:
        """The names before ``leaf`` of every tensor that ends with it, in order."""
        return (name.removesuffix(leaf) for name in self.header if name.endswith(leaf))

    def number(self, key: str, allowed: tuple[int, ...], default: int) -> int:
        """A whole number of the configuration.

        Raises:
            Refused: it is not among ``allowed``.
        """
        found = self.config.get(key, default)
        if found not in allowed:
            raise Refused(f"{key} is {found!r:.40}, which is not read here: {FULL}")
        return int(found)


@final
@dataclass(frozen=True, eq=False)
class Recipe:
    """How one weight is computed from tensors on disk.

    Attributes:
        name: the weight's, as in a checkpoint that is not quantised.
        shape: the weight's.
        parts: the names of the tensors that it is made of, by role; the first one decides where it is in OUT.
        unpack: the weight from the parts, in the given dtype, on the CPU.
        kind: what the parts are, for people.
    """

    name: str
    shape: tuple[int, ...]
    parts: Mapping[str, str]
    unpack: Callable[[Parts, torch.dtype], Tensor]
    kind: str


@final
@dataclass(frozen=True)
class Format:
    """One way to store weights in few bits.

    Attributes:
        find: every weight of a checkpoint that is stored so; raises :class:`Refused`.
        library: the module that takes the weights apart, beyond those that are always installed; its version counts for
            the result.
        turns: whether weights ``[inputs, outputs]``, those of ``Conv1D``, are stored as ``[outputs, inputs]``.
    """

    find: Callable[[Quantised], Iterator[Recipe]]
    library: str = "transformers"
    turns: bool = False


def required(module: str) -> None:
    """Import a library; bitsandbytes without the code that it would fetch from the Hub.

    Raises:
        Refused: it is not installed, or its import fails.
    """
    package = module.replace("_", "-")
    if module == "bitsandbytes":
        import hpa_merge.libraries.bitsandbytes  # noqa: F401
    if find_spec(module) is None:
        raise Refused(f"{package} is not installed, which reads such weights: {EXTRA}")
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever a library that does not fit raises
        raise Refused(f"{package} cannot be imported ({' '.join(str(error).split())[:120]}): {EXTRA}") from error


def version_of(module: str) -> str:
    """The version of an installed library; empty if it is not known."""
    try:
        return version(module.replace("_", "-"))
    except PackageNotFoundError:
        return ""


def by_slice(shape: tuple[int, ...], dtype: torch.dtype, unpack: Callable[[int], Tensor]) -> Tensor:
    """A stack ``[experts, …]`` computed one expert at a time, so that the steps before the result stay small."""
    stack = torch.empty(shape, dtype=dtype)
    for index in range(shape[0]):
        stack[index] = unpack(index)
    return stack
