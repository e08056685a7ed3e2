"""A transformers model that is never whole in memory.

The model is built on the meta device by transformers' own class. Then every parameter is a *placeholder*: one NaN,
expanded to the parameter's shape, on the device of the computation. So code that asks an unloaded module for its
device, dtype or shape gets the true answer, and code that computes with one gives NaN.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hpa_merge.custom_code.finding import Code
from hpa_merge.errors import CheckpointError
from hpa_merge.model.aligned_memory import aligned
from hpa_merge.model.architecture import absent_tensors, is_headless
from hpa_merge.model.building import Computing, build_meta_model, decoder_start
from hpa_merge.model.components import find_components
from hpa_merge.model.conversion import Conversion, Header, find_conversions, other_name
from hpa_merge.model.experts import find_expert_stacks, find_pools, routed_share
from hpa_merge.model.linears import find_linear_weights, observer_of
from hpa_merge.model.original_llava import module_name
from hpa_merge.model.parameters import placeholder, put, set_buffer
from hpa_merge.model.products import WatchedWeight
from hpa_merge.model.routing import find_routers, routing_tensors
from hpa_merge.model.units import find_units
from hpa_merge.outline import LinearTensor, Outline, Unit


@final
class MetaModel:
    """The model of one checkpoint, loaded and freed unit by unit.

    Attributes:
        device: where units are loaded to.
        dtype: that the model runs in, except for modules that transformers keeps in float32.
        model: in evaluation mode; its forward runs unchanged if each unit is loaded before it is reached.
        decoder_start: the first token of an encoder-decoder's decoder; None if it is not known.
        units: in the order in which they are merged.
        linears: every linear weight on disk, by name, routers included; without those that embeddings share.
        slots: for each key of the model, an identity that is the same in OLD and NEW, whatever the key.
        observed: the parameters that the linears' observers are about.
        tied: keys whose parameter several modules share.
        embeddings: keys of embeddings.
        components: for each key of the model, its component.
        places: for each key, the names of the (first) parameter that it becomes; several if it is tied.
        experts: keys that transformers stacks into parameters of three dimensions, one slice for each expert.
        routers: the routers by the name of their matrix.
        router_keys: keys of everything that chooses among experts: the matrices, and biases.
        stacks: the parameters of three dimensions whose slices are linears, experts or others, by name.
    """

    def __init__(
        self,
        folder: Path,
        header: Header,
        role: str,
        device: torch.device,
        tower: Path | None = None,
        external: Collection[str] = (),
        architecture: type[PreTrainedModel] | None = None,
        same: Callable[[str, str], bool] = lambda first, second: True,
        code: Code | None = None,
        computing: Computing | None = None,
    ) -> None:
        """Build the model of ``folder``'s config.json with placeholders on ``device``.

        Args:
            folder: a checkpoint folder.
            header: its tensors.
            role: OLD or NEW, for messages.
            device: where units are loaded to.
            tower: folder of the vision tower, if ``folder`` has LLaVA's own layout.
            external: tensors from elsewhere that are only read: they are not linears and have no component.
            architecture: the model's class; None for the one that config.json and the tensors ask for.
            same: whether two tensors hold the same numbers. Weights that config.json ties are only tied if they do.
            code: the code that the checkpoint brings, which is run; None: none is run.
            computing: as for :func:`build_meta_model`; tensors are cast when they are loaded.

        Raises:
            CheckpointError: transformers cannot build the model, or tensors that it needs are missing or misshapen.
        """
        self.model = build_meta_model(folder, header, role, tower, architecture, code, computing)
        self.dtype = self.model.dtype
        self.decoder_start = decoder_start(folder, self.model)
        self._external = external
        self.device = device
        self._header = header
        self._dtype_plan = self.model._get_dtype_plan(self.dtype)
        self._conversions = find_conversions(self.model, header, role, str if tower is None else module_name)
        self.slots = {key: slot for conversion in self._conversions for key, slot in conversion.slots().items()}
        self._untie(same)
        self._complete(role)
        parts = find_components(self.model)  # while tied parameters are still one object
        self.components = {key: parts[c.first] for c in self._conversions for key in c.keys if key not in external}
        self.units = find_units(self.model)  # as long as parameters are those that the class made
        self._places: dict[str, tuple[str, ...]] = {}
        self._put_placeholders()
        self.places = {key: self._places[c.first] for c in self._conversions for key in c.keys}
        self._unit_of = self._find_owners()
        self._conversions_of: dict[Unit | None, list[Conversion]] = defaultdict(list)
        for conversion in self._conversions:
            for unit in {unit for target in conversion.targets for unit in self._units_of(target)}:
                self._conversions_of[unit].append(conversion)
        shared = {name for names in self._places.values() if len(names) > 1 for name in names}
        tied = self.model.all_tied_weights_keys
        self.tied = self._keys_of_targets(shared.union(tied, tied.values()))
        self.routers = find_routers(self.model)
        self.router_keys = self._keys_of_targets(routing_tensors(self.model, self.routers.values()))
        self._axes = find_linear_weights(self.model) | dict.fromkeys(self.routers, 1)
        self.stacks = find_expert_stacks(self.model)
        self.linears = self._all_linears = self._find_linears()
        self.observed = self._find_observed()
        modules = dict(self.model.named_modules())
        self.embeddings = self._keys_of_targets(
            {f"{n}.weight" for n, m in modules.items() if isinstance(m, nn.Embedding)}
        )
        self.experts = self._keys_of_targets(
            {
                name
                for name in self._places
                if self.model.get_parameter_or_buffer(name).ndim == 3
                and re.search("expert|moe", f"{name} {type(modules[name.rpartition('.')[0]]).__name__}", re.IGNORECASE)
            }
        )

    @property
    def architecture(self) -> str:
        """The name of the model's class."""
        return type(self.model).__name__

    @property
    def headless(self) -> bool:
        """Whether the class is the one that transformers has for the model without a head."""
        return is_headless(self.model)

    @property
    def has_head(self) -> bool:
        """Whether the class has a head, tied or not."""
        return self.model.get_output_embeddings() is not None

    @property
    def hidden_size(self) -> int:
        """The width of the text model; 0 if its configuration does not say."""
        return getattr(self.model.config.get_text_config(), "hidden_size", 0)

    def outline(self) -> Outline:
        """What is known of the model, without the model; with the linears that were left out since."""
        return Outline(
            architecture=self.architecture,
            headless=self.headless,
            has_head=self.has_head,
            dtype=self.dtype,
            hidden_size=self.hidden_size,
            units=tuple(self.units),
            linears=dict(self._all_linears),
            slots=self.slots,
            unknown=self.unknown,
            tied=self.tied,
            embeddings=self.embeddings,
            components=self.components,
            places=self.places,
            experts=self.experts,
            routers=self.routers,
            router_keys=self.router_keys,
            keys={unit.name: tuple(self.keys_of(unit)) for unit in self.units},
            rest=tuple(self.keys_of(None)),
            names={*self._places, *self.model.state_dict(keep_vars=True)},
        )

    @property
    def unknown(self) -> tuple[str, ...]:
        """The keys of the checkpoint that become nothing in the model, except those of buffers that it computes."""
        computed = "|".join(re.escape(name) for name, _ in self.model.named_buffers())
        ends = re.compile(rf"(.*\.)?(inv_freq|position_ids)|({computed})")
        return tuple(
            key
            for key in self._header
            if key not in self.slots
            and not ends.fullmatch(key)
            and not ends.fullmatch(f"{self.model.base_model_prefix}.{key}")
        )

    def knows(self, name: str) -> bool:
        """Whether the model has a parameter or buffer of that name, with or without a tensor of its own."""
        return name in self._places or name in self.model.state_dict(keep_vars=True)

    @property
    def passed(self) -> dict[Unit, list[LinearTensor]]:
        """For each unit, the linears that it shares with a later unit."""
        passed: dict[Unit, list[LinearTensor]] = defaultdict(list)
        for linear in self.linears.values():
            for unit in linear.uses[:-1]:
                passed[unit].append(linear)
        return passed

    def leave_out(self, names: Collection[str]) -> None:
        """Treat these linears like any other tensor."""
        self.linears = {name: linear for name, linear in self.linears.items() if name not in names}

    def load(self, unit: Unit | None, read: Callable[[str], Tensor]) -> dict[str, Tensor]:
        """Fill ``unit``'s parameters or, for None, those that belong to no unit.

        Args:
            read: gives the tensor of a key as it lies on disk.

        Returns:
            The tensors by key, in their dtype on disk, on the device. Parameters share their memory if possible, and
            are :func:`aligned`.
        """
        tensors: dict[str, Tensor] = {}
        for conversion in self._conversions_of[unit]:
            dtype = self._dtype_of(conversion.first)
            raw = {key: read(key).to(self.device, non_blocking=True) for key in conversion.keys}
            tensors |= raw
            cast = {key: value.to(dtype) for key, value in raw.items()}
            for name, value in conversion.apply(cast, self.model).items():
                if unit in self._units_of(name):
                    put(self.model, self._places[name], aligned(value))
        return tensors

    def free(self, unit: Unit | None) -> None:
        """Replace what :meth:`load` filled by placeholders."""
        for conversion in self._conversions_of[unit]:
            for name in conversion.targets:
                if unit in self._units_of(name):
                    value = self.model.get_parameter_or_buffer(name)
                    put(self.model, self._places[name], placeholder(value.shape, value.dtype, self.device))

    def keys_of(self, unit: Unit | None) -> list[str]:
        """The keys that :meth:`load` reads for ``unit``."""
        return [key for conversion in self._conversions_of[unit] for key in conversion.keys]

    def nbytes(self, unit: Unit) -> int:
        """Bytes that :meth:`load` takes for ``unit``: tensors that are cast or converted count twice.

        While a tensor that is cast is also converted, there are three of it.
        """
        total = most = 0
        for conversion in self._conversions_of[unit]:
            runs_in, cast = self._dtype_of(conversion.first), 0
            for key in conversion.keys:
                dtype, shape = self._header[key]
                total += math.prod(shape) * dtype.itemsize
                cast += math.prod(shape) * runs_in.itemsize if dtype != runs_in else 0
            if conversion.copies:
                total += sum(math.prod(self._header[key][1]) for key in conversion.keys) * runs_in.itemsize
                most = max(most, cast)
            else:
                total += cast
        return total + most

    def input_axis(self, parameter: str) -> int | None:
        """The axis that holds the inputs of a linear's weight or of a stack of experts; None for another parameter."""
        if (stack := self.stacks.get(parameter)) is not None:
            return stack.input_axis
        return self._axes.get(parameter)

    def row_owners(self, parameter: str) -> list[list[str]] | None:
        """The key of the tensor on disk that each row of a parameter comes from, for each expert of a stack.

        Rows are outputs. Without experts there is one list. None if rows of several tensors are interleaved.
        """
        conversion = next(c for c in self._conversions if parameter in c.targets)
        axis = self.input_axis(parameter)
        if axis is None:
            return None
        if (
            len(conversion.targets) == 1
            and (owners := conversion.row_owners(self._header, self.model, axis)) is not None
        ):
            return [[conversion.keys[place] for place in row] for row in owners.reshape(-1, owners.shape[-1]).tolist()]
        return None

    def _keys_of_targets(self, names: set[str]) -> set[str]:
        """The keys of the tensors that become any of the named parameters."""
        return {key for c in self._conversions if names.intersection(c.targets) for key in c.keys}

    def _dtype_of(self, name: str) -> torch.dtype:
        """The dtype in which transformers runs a parameter: the model's, except in modules that it keeps in float32."""
        dtype: torch.dtype
        for pattern, dtype in self._dtype_plan.items():
            if re.search(pattern.replace("*", ".*"), name):
                return dtype
        dtype = self.model.get_parameter_or_buffer(name).dtype
        return dtype

    def _complete(self, role: str) -> None:
        """Tie weights and compute buffers as ``from_pretrained`` does; raise CheckpointError if a tensor is missing."""
        loaded = {target for conversion in self._conversions for target in conversion.targets}
        if absent := absent_tensors(self.model, loaded):
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            raise CheckpointError(
                f"{role} has no tensor for {absent[0]}{more}, which {type(self.model).__name__} needs"
                f"{other_name(self.model, self.unknown)}"
            )
        buffers = [name for name, _ in self.model.named_buffers() if name not in loaded]
        for tensor in self.model.state_dict(keep_vars=True).values():
            tensor._is_hf_initialized = True
        for name in buffers:
            set_buffer(self.model, name, torch.empty_like(self.model.get_buffer(name), device="cpu"))
        self.model.initialize_weights()
        for name in buffers:
            set_buffer(self.model, name, self.model.get_buffer(name).to(self.device))

    def _untie(self, same: Callable[[str, str], bool]) -> None:
        """Give weights that config.json ties a parameter each if both are in the checkpoint and differ."""
        keys = {conversion.first: conversion.keys[0] for conversion in self._conversions if not conversion.copies}
        for target, source in list(self.model.all_tied_weights_keys.items()):
            if target in keys and source in keys and not same(keys[target], keys[source]):
                del self.model.all_tied_weights_keys[target]
                owner, _, leaf = target.rpartition(".")
                module = self.model.get_submodule(owner)
                module._parameters[leaf] = nn.Parameter(torch.empty_like(self.model.get_parameter(target)))

    def _put_placeholders(self) -> None:
        """Replace everything on the meta device, and fill ``_places``: for each name, all that share its tensor."""
        same: dict[int, list[str]] = defaultdict(list)
        tensors = self.model.state_dict(keep_vars=True)
        for name, value in tensors.items():
            if value.is_meta:
                same[id(value)].append(name)
        self._places = {name: tuple(names) for names in same.values() for name in names}
        for names in same.values():
            value = tensors[names[0]]
            put(self.model, names, placeholder(value.shape, self._dtype_of(names[0]), self.device))

    def _find_owners(self) -> dict[str, Unit | None]:
        """The unit of each parameter and loaded buffer; None for those outside all units, which stay resident."""
        by_name = {unit.name: unit for unit in self.units}
        owners = {}
        for name in self._places:
            parts = name.split(".")
            paths = (".".join(parts[:end]) for end in range(1, len(parts)))
            owners[name] = next((by_name[path] for path in paths if path in by_name), None)
        return owners

    def _units_of(self, target: str) -> set[Unit | None]:
        """The units that need a parameter; only None if it stays resident."""
        units = {self._unit_of[place] for place in self._places[target]}
        return {None} if None in units else units

    def _find_linears(self) -> dict[str, LinearTensor]:
        """The matrices on disk that become weights of linears, or experts of a stack, and nothing else."""
        tied = {name for key in self.tied for name in self.places[key] if not self._only_linears(name)}
        left_out = self._keys_of_targets(tied) | set(self._external)
        pools = find_pools(self.model, self.stacks)
        config, found = self.model.config.get_text_config(), {}
        for conversion in self._conversions:
            units = [unit for target in conversion.targets for unit in self._units_of(target)]
            uses = sorted({unit for unit in units if unit is not None}, key=lambda unit: unit.index)
            if self._unit_of[conversion.first] is None or not left_out.isdisjoint(conversion.keys):
                continue
            router = conversion.first in self.routers
            for matrix in conversion.matrices(self._header, self.model, self._axes, self.stacks):
                by = tuple(dict.fromkeys(map(self._first_observer, matrix.observers)))
                pool = tuple(dict.fromkeys(other for observer in by for other in pools.get(observer, ())))
                routed = routed_share(config, len(pools[by[0]])) if pool else 1.0
                linear = LinearTensor(matrix.key, matrix.part, by, matrix.input_axis, tuple(uses), routed, pool, router)
                found[linear.name] = linear
        return found

    def _only_linears(self, name: str) -> bool:
        """Whether all that share a parameter multiply with it in the same way."""
        places = self._places[name]
        return len(places) > 1 and name in self._axes and len({self._axes.get(place) for place in places}) == 1

    def _first_observer(self, observer: str) -> str:
        """The observer of the first module that shares the weight: all of them add to what it reads."""
        name = next((name for name in (f"{observer}.weight", observer) if name in self._axes), None)
        return observer if name is None else observer_of(self._places[name][0])

    def _find_observed(self) -> list[WatchedWeight]:
        wanted = {observer for linear in self.linears.values() for observer in linear.observers}
        found = []
        for name, axis in self._axes.items():
            if name in self._places and (observer := observer_of(self._places[name][0])) in wanted:
                found.append(WatchedWeight(name, (observer,), axis))
        for name, stack in self.stacks.items():
            observers = tuple(map(stack.observer, range(len(self.model.get_parameter(name)))))
            if not wanted.isdisjoint(observers):
                found.append(WatchedWeight(name, observers, stack.input_axis, routed=stack.experts))
        return found
