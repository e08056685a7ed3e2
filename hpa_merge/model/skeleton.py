"""A transformers model that is never whole in memory.

The model is built on the meta device by transformers' own class. Every parameter is then a *placeholder*: one NaN,
expanded to the parameter's shape on the device where the work is done, so that code that asks an unloaded module for
its device, dtype or shape gets the true answer, and code that computes with one cannot go unnoticed.
"""

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hpa_merge.errors import CheckpointError
from hpa_merge.model.building import meta_model
from hpa_merge.model.conversion import Conversion, Header, find_conversions
from hpa_merge.model.original_llava import module_name
from hpa_merge.model.units import Unit, find_units


@final
@dataclass(frozen=True)
class LinearTensor:
    """A linear weight as it lies on disk.

    Attributes:
        key: its name in the checkpoint.
        observers: paths of the modules at whose input its input is seen.
        input_axis: 1 for ``[r, c]``, 0 for a transposed ``[c, r]`` as ``Conv1D`` has it.
        unit: the one that it is loaded, run and merged with.
    """

    key: str
    observers: tuple[str, ...]
    input_axis: int
    unit: Unit

    def matrix(self, tensor: Tensor) -> Tensor:
        """The tensor on disk as ``[r, c]``, or such a matrix as it lies on disk: a view."""
        return tensor if self.input_axis == 1 else tensor.T


@final
class Skeleton:
    """The model of one checkpoint, loaded and freed unit by unit.

    Attributes:
        device: where units are loaded to.
        model: in evaluation mode; its forward runs unchanged if each unit is loaded when it is come to.
        units: in the order in which they are merged.
        linears: every linear weight on disk that is not tied, by key.
        slots: for each key of the model an identity that is the same in OLD and NEW, whatever the key is called.
        tied: keys whose parameter another module shares.
        embeddings: keys of embeddings.
        experts: keys of expert weights, which transformers stacks into parameters of three dimensions.
    """

    def __init__(
        self, folder: Path, header: Header, role: str, device: torch.device, tower: Path | None = None
    ) -> None:
        """Build the model of ``folder``'s config.json with placeholders on ``device``.

        Args:
            folder: a checkpoint folder.
            header: its tensors.
            role: OLD or NEW, for messages.
            device: where units are loaded to.
            tower: folder of the vision tower, where ``folder`` has LLaVA's own layout.

        Raises:
            CheckpointError: transformers cannot build the model, or tensors that it needs are missing or misshapen.
        """
        self.model = meta_model(folder, header, role, tower)
        self.device = device
        self._header = header
        self._dtype_plan = self.model._get_dtype_plan(self.model.dtype)
        self._conversions = find_conversions(self.model, header, role, str if tower is None else module_name)
        self.slots = {key: slot for conversion in self._conversions for key, slot in conversion.slots().items()}
        self._complete(role)
        self._places: dict[str, tuple[str, ...]] = {}
        self._put_placeholders()
        self.units = find_units(self.model)
        self._unit_of = self._find_owners()
        self._conversions_of: dict[Unit | None, list[Conversion]] = defaultdict(list)
        for conversion in self._conversions:
            for unit in {unit for target in conversion.targets for unit in self._units_of(target)}:
                self._conversions_of[unit].append(conversion)
        shared = {name for names in self._places.values() if len(names) > 1 for name in names}
        tied = self.model.all_tied_weights_keys
        self.tied = self._keys_of_targets(shared.union(tied, tied.values()))
        self.linears = self._find_linears()
        modules = dict(self.model.named_modules())
        self.embeddings = self._keys_of_targets(
            {f"{n}.weight" for n, m in modules.items() if isinstance(m, nn.Embedding)}
        )
        self.experts = self._keys_of_targets(
            {
                name
                for name in self._places
                if self.model.get_parameter_or_buffer(name).ndim == 3
                and not isinstance(modules[name.rpartition(".")[0]], nn.Conv1d)
            }
        )

    def load(self, unit: Unit | None, read: Callable[[str], Tensor]) -> dict[str, Tensor]:
        """Fill ``unit``'s parameters, or for None those that belong to no unit.

        Args:
            read: gives the tensor of a key as it lies on disk.

        Returns:
            Those tensors by key, in their dtype on disk, on the device; parameters share their memory where they can.
        """
        tensors: dict[str, Tensor] = {}
        for conversion in self._conversions_of[unit]:
            dtype = self._dtype_of(conversion.first)
            raw = {key: read(key).to(self.device, non_blocking=True) for key in conversion.keys}
            tensors |= raw
            cast = {key: value.to(dtype) for key, value in raw.items()}
            for name, value in conversion.apply(cast, self.model).items():
                if unit in self._units_of(name):
                    self._put(name, value)
        return tensors

    def free(self, unit: Unit | None) -> None:
        """Put placeholders back in the place of what :meth:`load` filled."""
        for conversion in self._conversions_of[unit]:
            for name in conversion.targets:
                if unit in self._units_of(name):
                    value = self.model.get_parameter_or_buffer(name)
                    self._put(name, _placeholder(value.shape, value.dtype, self.device))

    def keys_of(self, unit: Unit | None) -> list[str]:
        """The keys that :meth:`load` reads for ``unit``."""
        return [key for conversion in self._conversions_of[unit] for key in conversion.keys]

    def _keys_of_targets(self, names: set[str]) -> set[str]:
        """The keys that any of the named parameters is made from."""
        return {key for c in self._conversions if names.intersection(c.targets) for key in c.keys}

    def _dtype_of(self, name: str) -> torch.dtype:
        """The dtype in which transformers runs a parameter: the model's, but for modules that it keeps in float32."""
        for pattern, dtype in self._dtype_plan.items():
            if re.search(pattern.replace("*", ".*"), name):
                return dtype
        return self.model.get_parameter_or_buffer(name).dtype

    def _put(self, name: str, value: Tensor) -> None:
        """Set a parameter or buffer under every name that shares it."""
        for place in self._places[name]:
            owner, _, leaf = place.rpartition(".")
            module = self.model.get_submodule(owner)
            if leaf in module._parameters:
                module._parameters[leaf] = nn.Parameter(value, requires_grad=False)
            else:
                module._buffers[leaf] = value

    def _complete(self, role: str) -> None:
        """Tie what is tied, compute the buffers that the checkpoint does not hold, and see that nothing is missing.

        As ``from_pretrained`` does it, and by the same methods.

        Raises:
            CheckpointError: a parameter has no tensor.
        """
        loaded = {target for conversion in self._conversions for target in conversion.targets}
        missing = set(self.model.state_dict(keep_vars=True)) - loaded
        self.model.tie_weights(missing_keys=missing, recompute_mapping=False)
        buffers = [name for name, _ in self.model.named_buffers() if name not in loaded]
        ignored = self.model._keys_to_ignore_on_load_missing or ()
        absent = sorted(n for n in missing.difference(buffers) if not any(re.search(i, n) for i in ignored))
        if absent:
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            raise CheckpointError(
                f"{role} has no tensor for {absent[0]}{more}, which {type(self.model).__name__} needs: "
                "save the whole model again."
            )
        for tensor in self.model.state_dict(keep_vars=True).values():
            tensor._is_hf_initialized = True
        for name in buffers:
            _set_buffer(self.model, name, torch.empty_like(self.model.get_buffer(name), device="cpu"))
        self.model.initialize_weights()
        for name in buffers:
            _set_buffer(self.model, name, self.model.get_buffer(name).to(self.device))

    def _put_placeholders(self) -> None:
        """Replace what is still on the meta device; ``_places`` has the names that share a tensor, by each of them."""
        same: dict[int, list[str]] = defaultdict(list)
        tensors = self.model.state_dict(keep_vars=True)
        for name, value in tensors.items():
            if value.is_meta:
                same[id(value)].append(name)
        self._places = {name: tuple(names) for names in same.values() for name in names}
        for names in same.values():
            value = tensors[names[0]]
            self._put(names[0], _placeholder(value.shape, self._dtype_of(names[0]), self.device))

    def _find_owners(self) -> dict[str, Unit | None]:
        """The unit of each parameter and loaded buffer; None for those above all units, which stay resident."""
        by_name = {unit.name: unit for unit in self.units}
        owners = {}
        for name in self._places:
            parts = name.split(".")
            paths = (".".join(parts[:end]) for end in range(1, len(parts)))
            owners[name] = next((by_name[path] for path in paths if path in by_name), None)
        return owners

    def _units_of(self, target: str) -> set[Unit | None]:
        """The units that need a parameter; the resident ones alone if it is one of them."""
        units = {self._unit_of[place] for place in self._places[target]}
        return {None} if None in units else units

    def _find_linears(self) -> dict[str, LinearTensor]:
        """The tensors on disk that become weights of linear modules and of nothing else."""
        modules = {f"{n}.weight": m for n, m in self.model.named_modules() if isinstance(m, nn.Linear | Conv1D)}
        axes = {name: 1 if isinstance(module, nn.Linear) else 0 for name, module in modules.items()}
        found = {}
        for conversion in self._conversions:
            unit = self._unit_of[conversion.first]
            if unit is None or not all(target in modules for target in conversion.targets):
                continue
            observers = tuple(target.removesuffix(".weight") for target in conversion.targets)
            for key in conversion.keys:
                if key in self.tied:
                    continue
                axis = conversion.input_axis(key, self._header, self.model, axes)
                if axis is not None:
                    found[key] = LinearTensor(key=key, observers=observers, input_axis=axis, unit=unit)
        return found


def _placeholder(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of the given shape that takes the memory of one number: NaN, or the greatest integer."""
    if dtype.is_floating_point or dtype.is_complex:
        value = float("nan")
    else:
        value = 1 if dtype == torch.bool else torch.iinfo(dtype).max
    return torch.full((), value, dtype=dtype, device=device).expand(shape)


def _set_buffer(model: nn.Module, name: str, value: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    model.get_submodule(owner)._buffers[leaf] = value
