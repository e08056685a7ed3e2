"""Checkpoint tensor <-> module parameter, by transformers' own conversion mapping: the one file that touches it.

Checkpoint keys are not module names: on load, transformers renames them, fuses some (experts, q/k/v) and splits or
transposes others. A :class:`Conversion` is one such step: the keys that are read together, and what they become.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
    revert_weight_conversion,
)

from hpa_merge.errors import CheckpointError
from hpa_merge.model.experts import ExpertStack
from hpa_merge.model.linears import observer_of

Header = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""The tensors of a checkpoint: dtype and shape by key."""

SEARCHED = 50
"""The most unknown keys that are searched for parts that a wrapper adds."""


@final
@dataclass(frozen=True)
class Matrix:
    """A linear weight on disk, and where its input is observed.

    Attributes:
        key: of its tensor.
        part: its index along the first axis of a tensor of three dimensions; None if it is the whole tensor.
        input_axis: the axis of the matrix that holds its inputs, 0 or 1.
        observers: paths of linear modules, or of experts in their stacks.
    """

    key: str
    part: int | None
    input_axis: int
    observers: tuple[str, ...]


@final
@dataclass(frozen=True, eq=False)
class Conversion:
    """Checkpoint keys that are read together, and the parameters and buffers that they become.

    Attributes:
        first: the parameter that transformers names the step by.
        keys: in the order in which they are converted.
        patterns: for each key, the pattern of the converter that it matched; None if nothing is converted.
        targets: names of parameters and buffers of the model.
    """

    first: str
    keys: tuple[str, ...]
    patterns: tuple[str | None, ...]
    targets: tuple[str, ...]
    _converter: WeightConverter | None

    def apply(self, tensors: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
        """The values of ``targets`` from the tensors on disk; without a converter, the tensor itself."""
        if self._converter is None:
            return {self.first: tensors[self.keys[0]]}
        converter = deepcopy(self._converter)
        for key, pattern in zip(self.keys, self.patterns, strict=True):
            converter.add_tensor(self.first, key, pattern, tensors[key])  # type: ignore[arg-type]  # as on saving
        values = converter.convert(self.first, model=model, config=model.config)
        return {name: value[0] if isinstance(value, list) else value for name, value in values.items()}

    @property
    def copies(self) -> bool:
        """Whether the parameters do not share memory with the tensors that are read."""
        return self._converter is not None

    def revert(self, values: Mapping[str, Tensor], model: PreTrainedModel) -> dict[str, Tensor]:
        """The tensors on disk from the values of ``targets``: the reverse of :meth:`apply`, by transformers.

        Raises:
            ValueError: it cannot be reversed.
        """
        if self._converter is None:
            return {self.keys[0]: values[self.first]}
        saved = revert_weight_conversion(model, {target: values[target] for target in self.targets})
        slots = {slot: key for key, slot in self.slots().items()}
        header = {name: (value.dtype, tuple(value.shape)) for name, value in saved.items()}
        names = {name: s for c in find_conversions(model, header, "OLD") for name, s in c.slots().items()}
        if set(names.values()) != set(slots):
            raise ValueError(f"{', '.join(self.targets)} cannot be split into {', '.join(self.keys[:2])} …")
        return {slots[slot]: saved[name] for name, slot in names.items()}

    def slots(self) -> dict[str, tuple[str, str | None, int]]:
        """For each key, an identity that is the same in every checkpoint of the architecture, whatever its keys."""
        return {
            key: (self.first, pattern, place)
            for place, (key, pattern) in enumerate(zip(self.keys, self.patterns, strict=True))
        }

    def matrices(
        self, header: Header, model: PreTrainedModel, linears: Mapping[str, int], stacks: Mapping[str, ExpertStack]
    ) -> list[Matrix]:
        """The matrices on disk that become linear weights, or experts of a stack, and nothing else.

        The conversion itself is probed: each entry is labelled with its matrix and its index along one of the matrix's
        axes. That axis holds the inputs if the labels arrive as the index along the input axis in the model.

        Args:
            header: shapes of the conversion's keys.
            linears: the input axis of each linear module's weight, by parameter name.
            stacks: the stacks of experts.

        Returns:
            The matrices whose columns arrive as whole, unmoved columns, in the order of the keys.
        """
        if not (all(name in linears for name in self.targets) or all(name in stacks for name in self.targets)):
            return []
        places = [  # key, slice
            (key, part)
            for key in self.keys
            for part in (range(header[key][1][0]) if len(header[key][1]) == 3 else (None,))
        ]
        if self._converter is None:
            name = self.first
            if name in linears:
                return [Matrix(self.keys[0], None, linears[name], (observer_of(name),))]
            return [Matrix(key, e, stacks[name].input_axis - 1, (stacks[name].observer(e or 0),)) for key, e in places]
        asked, shapes = self._shrunk(header, model)
        found: dict[int, Matrix] = {}
        for axis in (1, 0):
            for place, observers in self._arrivals(shapes, places, axis, asked, linears, stacks).items():
                found.setdefault(place, Matrix(*places[place], axis, observers))
        return [found[place] for place in sorted(found)]

    def row_owners(self, header: Header, model: PreTrainedModel, input_axis: int) -> Tensor | None:
        """Which tensor on disk each row of the first target comes from, as its place in ``keys``.

        Args:
            header: shapes of the conversion's keys.
            input_axis: the axis of the target that holds its inputs.

        Returns:
            ``[r]``, or ``[experts, r]`` for a stack; None if rows of several tensors are interleaved.
        """
        asked, shapes = self._shrunk(header, model)
        values = self.apply(
            {key: torch.full(shapes[key], place, dtype=torch.int32) for place, key in enumerate(self.keys)}, asked
        )
        owners = values[self.first].select(input_axis, 0)
        if asked is model:
            return owners
        runs = (owners.diff(dim=-1) != 0).sum(dim=-1) + 1
        if any(int(count) != len(row.unique()) for count, row in zip(runs, owners, strict=True)):
            return None
        return owners.repeat_interleave(asked.divisor, dim=-1)

    def _shrunk(self, header: Header, model: PreTrainedModel) -> tuple[Any, dict[str, tuple[int, ...]]]:
        """The model and the shapes of the keys, with smaller experts if the first target is a stack of them."""
        shapes = {key: header[key][1] for key in self.keys}
        if model.get_parameter_or_buffer(self.first).ndim != 3:
            return model, shapes
        small = _Small.of(shapes, model)
        return small, {key: small.shape(shape) for key, shape in shapes.items()}

    def _arrivals(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        places: Sequence[tuple[str, int | None]],
        axis: int,
        model: Any,
        linears: Mapping[str, int],
        stacks: Mapping[str, ExpertStack],
    ) -> dict[int, tuple[str, ...]]:
        """The indices of ``places`` that have their inputs along ``axis``, with their observers."""
        if not all(len(shape) in (2, 3) for shape in shapes.values()):
            return {}
        base = 1 + max(max(shape) for shape in shapes.values())
        labels: dict[str, list[Tensor]] = defaultdict(list)
        for number, (key, _) in enumerate(places):
            shape = shapes[key][-2:]
            along = number * base + torch.arange(shape[axis], dtype=torch.int32)
            labels[key].append((along if axis == 1 else along[:, None]).expand(shape))
        values = self.apply({k: torch.stack(v) if len(shapes[k]) == 3 else v[0] for k, v in labels.items()}, model)
        observers: dict[int, list[str]] = defaultdict(list)
        moved: set[int] = set()
        for name, value in values.items():
            if name in linears:
                arrived = {observer_of(name): value if linears[name] == 1 else value.T}
            else:
                turned = value if stacks[name].input_axis == 2 else value.transpose(1, 2)
                arrived = {stacks[name].observer(expert): matrix for expert, matrix in enumerate(turned)}
            for observer, matrix in arrived.items():
                stays = matrix % base == torch.arange(matrix.shape[1], dtype=matrix.dtype)
                moved.update((matrix[~stays] // base).unique().tolist())
                for number in (matrix // base).unique().tolist():
                    observers[number].append(observer)
        return {number: tuple(by) for number, by in observers.items() if number not in moved}


def find_conversions(
    model: PreTrainedModel, header: Header, role: str, known_as: Callable[[str], str] = str
) -> list[Conversion]:
    """How each tensor of a checkpoint becomes part of ``model``, on the meta device; unknown keys are left out.

    Args:
        known_as: translates a key to its name in a layout that transformers knows.

    Raises:
        CheckpointError: a tensor's shape is not what the model's configuration asks for.
    """
    mapping = get_model_conversion_mapping(model)
    renamings = [step for step in mapping if isinstance(step, WeightRenaming)]
    converters = [step for step in mapping if isinstance(step, WeightConverter)]
    converter_of = {pattern: step for step in converters for pattern in step.source_patterns}
    parameters = model.state_dict(keep_vars=True)
    prefix = model.base_model_prefix

    grouped: dict[str, list[tuple[str, str | None]]] = defaultdict(list)
    for key in sorted(header, key=dot_natural_key):  # transformers' own order: converters stack in it
        known = known_as(key)
        name, pattern = rename_source_key(known, renamings, converters, prefix, parameters)
        if name not in parameters and known in parameters:
            name, pattern = rename_source_key(known, [], [], prefix, parameters)
        if name in parameters:
            grouped[name].append((key, pattern))

    found = []
    for name, members in grouped.items():
        keys, patterns = zip(*members, strict=True)
        converter = converter_of[patterns[0]] if patterns[0] is not None else None
        draft = Conversion(name, keys, patterns, (), converter)
        meta = {key: torch.empty(header[key][1], dtype=header[key][0], device="meta") for key in keys}
        values = draft.apply(meta, model)
        for target, value in values.items():
            wanted = parameters[target].shape
            if value.shape != wanted:
                raise CheckpointError(
                    f"{role}'s tensor {keys[0]} has shape {list(value.shape)} where its config.json asks for "
                    f"{list(wanted)}: give the config.json that belongs to these weights."
                )
        found.append(Conversion(name, keys, patterns, tuple(values), converter))
    return found


def other_name(model: PreTrainedModel, unknown: Sequence[str]) -> str:
    """The end of the error for a missing tensor: what other tensors are called instead, if so, and what helps.

    Args:
        unknown: the keys that become no parameter.
    """
    if any(".lora_" in key for key in unknown):
        return ", and it has the tensors of an adapter: save the model after merge_and_unload()."
    if (found := find_wrapper(model, unknown[:SEARCHED])) is None:
        return ": save the whole model again."
    return (
        f". Its {found[0]} has {found[1]!r} in its name, which a wrapper adds: save the model without the wrapper "
        "(unwrap_model), or remove these parts from all names."
    )


def find_wrapper(model: PreTrainedModel, keys: Iterable[str]) -> tuple[str, str] | None:
    """The first of some unknown keys that ``model`` would know without a few of its parts, and these parts.

    Wrappers add such parts: ``_orig_mod.``, ``module.`` and ``_fsdp_wrapped_module.`` at any place of a name.
    """
    mapping = get_model_conversion_mapping(model)
    renamings = [step for step in mapping if isinstance(step, WeightRenaming)]
    converters = [step for step in mapping if isinstance(step, WeightConverter)]
    parameters = model.state_dict(keep_vars=True)
    for key in keys:
        parts = key.split(".")
        for count, start in itertools.product((1, 2, 3), range(len(parts) - 1)):
            name = ".".join([*parts[:start], *parts[start + count :]])
            if rename_source_key(name, renamings, converters, model.base_model_prefix, parameters)[0] in parameters:
                return key, ".".join(parts[start : start + count])
    return None


def present_paths(model: PreTrainedModel) -> Callable[[str], str]:
    """Gives the path in ``model`` of what earlier versions of transformers called a module."""
    renamings = [step for step in get_model_conversion_mapping(model) if isinstance(step, WeightRenaming)]

    def present(path: str) -> str:
        return rename_source_key(f"{path}.weight", renamings, [])[0].removesuffix(".weight")

    return present


@final
@dataclass(frozen=True)
class _Small:
    """A model with as many experts, but much smaller ones: conversions only ask it for shapes.

    Attributes:
        divisor: divides every dimension of an expert's matrix; each stays at least 2, so that columns differ.
    """

    divisor: int
    model: PreTrainedModel

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]], model: PreTrainedModel) -> "_Small":
        common = math.gcd(*(size for shape in shapes.values() for size in shape[-2:]))
        least = min(size for shape in shapes.values() for size in shape[-2:])
        return cls(next((d for d in range(common, 1, -1) if common % d == 0 and least // d >= 2), 1), model)

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return (*shape[:-2], *(size // self.divisor for size in shape[-2:]))

    def get_parameter(self, name: str) -> Tensor:
        return torch.empty(self.shape(self.model.get_parameter(name).shape), device="meta")

    @property
    def config(self) -> PretrainedConfig:
        return self.model.config
