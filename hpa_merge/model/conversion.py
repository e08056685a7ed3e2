"""Checkpoint tensor <-> module parameter, by transformers' own conversion mapping: the one file that touches it.

Checkpoint keys are not module names: on load, transformers renames them, fuses some (experts, q/k/v) and splits or
turns others. A :class:`Conversion` is one such step: the keys that are read together, and what they become.
"""

from collections import defaultdict
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
    revert_weight_conversion,
)

from hpa_merge.errors import CheckpointError

Header = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""What a checkpoint says of its tensors: dtype and shape by key."""


@final
@dataclass(frozen=True, eq=False)
class Conversion:
    """Checkpoint keys that are read together, and the parameters and buffers that they become.

    Attributes:
        first: the parameter that transformers names the step by.
        keys: in the order in which they are converted.
        patterns: for each key the pattern by which the converter took it; None where nothing is converted.
        targets: names of parameters and buffers of the model.
    """

    first: str
    keys: tuple[str, ...]
    patterns: tuple[str | None, ...]
    targets: tuple[str, ...]
    _converter: WeightConverter | None

    def apply(self, tensors: Mapping[str, Tensor], model: PreTrainedModel) -> dict[str, Tensor]:
        """The values of ``targets`` from the tensors on disk; without a converter, the tensor itself."""
        if self._converter is None:
            return {self.first: tensors[self.keys[0]]}
        converter = deepcopy(self._converter)
        for key, pattern in zip(self.keys, self.patterns, strict=True):
            converter.add_tensor(self.first, key, pattern, tensors[key])  # type: ignore[arg-type]  # as on saving
        values = converter.convert(self.first, model=model, config=model.config)
        return {name: value[0] if isinstance(value, list) else value for name, value in values.items()}

    def revert(self, values: Mapping[str, Tensor], model: PreTrainedModel) -> dict[str, Tensor]:
        """The tensors on disk from the values of ``targets``: the way back of :meth:`apply`, as transformers goes it.

        Raises:
            ValueError: there is none.
        """
        if self._converter is None:
            return {self.keys[0]: values[self.first]}
        saved = revert_weight_conversion(model, {target: values[target] for target in self.targets})
        slots = {slot: key for key, slot in self.slots().items()}
        header = {name: (value.dtype, tuple(value.shape)) for name, value in saved.items()}
        names = {name: s for c in find_conversions(model, header, "OLD") for name, s in c.slots().items()}
        if set(names.values()) != set(slots):
            raise ValueError(f"{', '.join(self.targets)} cannot be taken apart into {', '.join(self.keys[:2])} …")
        return {slots[slot]: saved[name] for name, slot in names.items()}

    def slots(self) -> dict[str, tuple[str, str | None, int]]:
        """For each key an identity that is the same in every checkpoint of the architecture, whatever the key."""
        return {
            key: (self.first, pattern, place)
            for place, (key, pattern) in enumerate(zip(self.keys, self.patterns, strict=True))
        }

    def input_axis(
        self, key: str, header: Header, model: PreTrainedModel, module_axes: Mapping[str, int]
    ) -> int | None:
        """Which axis of ``key`` on disk holds the inputs of the linears that it becomes part of.

        The conversion itself is asked: ``key``'s entries are labelled with their place along one of its axes, the
        others with −1, and that axis is the one whose labels arrive as the place along the modules' input axis.

        Args:
            header: shapes of the conversion's keys.
            module_axes: the input axis of each target's module parameter.

        Returns:
            0 or 1; None where ``key`` is no matrix or its columns do not arrive as whole, unmoved columns.
        """
        shape = header[key][1]
        if self._converter is None:
            return module_axes[self.first]
        if len(shape) != 2:
            return None
        for axis in (1, 0):
            labels = {k: torch.full(header[k][1], -1, dtype=torch.int32) for k in self.keys}
            place = torch.arange(shape[axis], dtype=torch.int32)
            labels[key] = (place if axis == 1 else place[:, None]).expand(shape)
            if all(
                _labels_are_columns(value if module_axes[name] == 1 else value.T)
                for name, value in self.apply(labels, model).items()
            ):
                return axis
        return None


def find_conversions(model: PreTrainedModel, header: Header, role: str) -> list[Conversion]:
    """How each tensor of a checkpoint becomes part of ``model``, on the meta device; unknown keys are left out.

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
        name, pattern = rename_source_key(key, renamings, converters, prefix, parameters)
        if name not in parameters and key in parameters:
            name, pattern = rename_source_key(key, [], [], prefix, parameters)
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


def current_name(name: str, model: PreTrainedModel) -> str:
    """What has been called ``name``, a path in ``model``, in earlier versions of transformers, by its present name."""
    renamings = [step for step in get_model_conversion_mapping(model) if isinstance(step, WeightRenaming)]
    return rename_source_key(name, renamings, [])[0]


def _labels_are_columns(labels: Tensor) -> bool:
    """Whether each entry of ``[r, c]`` is its own column's place, or −1 for an entry of another tensor."""
    return bool(((labels == torch.arange(labels.shape[1], dtype=labels.dtype)) | (labels < 0)).all())
