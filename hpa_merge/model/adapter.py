"""A PEFT adapter on top of a checkpoint: the merged tensors one by one, by peft's own arithmetic.

The adapter's layers are built around a model on the meta device, so that they take no memory. To compute a tensor, the
one layer that changes it is copied, filled with its numbers, and merged by peft. The result is bit for bit what
``merge_and_unload`` gives on the CPU.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from hpa_merge.custom_code.finding import Code
from hpa_merge.errors import CheckpointError
from hpa_merge.model.adapter_factors import Factors, factors_of, saved_name
from hpa_merge.model.adapter_fit import as_fitted, belonging_of, difference, fit, parameters_of
from hpa_merge.model.adapter_layers import layers_of, names_of, put, tensors_of
from hpa_merge.model.adapter_names import plain_names
from hpa_merge.model.adapter_stacks import arrange_stacks
from hpa_merge.model.building import build_meta_model
from hpa_merge.model.conversion import Conversion, Header, find_conversions
from hpa_merge.model.injection import describe, inject, place, quietly, read_config, tuner_prefix
from hpa_merge.model.original_llava import module_name
from hpa_merge.model.tracing import Traced, sources_of

__all__ = ["Adapter"]

UNUSED = re.compile(r"^original_module\.|trainable_tokens_original")
"""Tensors that peft keeps to undo a merge, by name within a layer."""

Read = Callable[[str], Tensor]
"""Gives the tensor of a name, on the CPU, in memory of its own."""


@final
@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer of the adapter; the maps are by the name within the layer.

    Attributes:
        path: of its module in the model without the adapter.
        from_base: names of the model's parameters that it needs.
        from_adapter: peft's names of the adapter's tensors that it needs.
        results: names of the model's parameters that it changes.
    """

    path: str
    from_base: dict[str, str]
    from_adapter: dict[str, str]
    results: dict[str, str]


@final
@dataclass(eq=False)
class _Group:
    """Tensors on disk that are computed together, because some layers change all of them.

    Attributes:
        replaced: peft's names of the parameters that the adapter replaces as a whole, by the parameter's name.
    """

    conversions: list[Conversion] = field(default_factory=list)
    layers: list[_Layer] = field(default_factory=list)
    replaced: dict[str, str] = field(default_factory=dict)


@final
class Adapter:
    """An adapter and its model, on the meta device; for one thread.

    Attributes:
        kind: what it is, for people.
        settings: peft's configuration of it, as it fits OLD's modules.
        keys: the model's tensors on disk that it may change.
        most: the most elements of tensors that are computed together.
        notes: what the user should know, a sentence each.
        twins: pairs of the adapter's tensors that have to be equal, because they are one tensor in OLD.
        names: peft's own names of the adapter's tensors, by those under which it saves them for OLD's modules.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        own: Header,
        base: Path,
        header: Header,
        tower: Path | None = None,
        code: Code | None = None,
    ) -> None:
        """Build the model with the adapter's layers, and check that they fit.

        Args:
            folder: the adapter's.
            config: adapter_config.json, parsed.
            own: the adapter's tensors.
            base: OLD's folder.
            header: OLD's tensors.
            tower: folder of the vision tower, if OLD has LLaVA's own layout.
            code: the code that OLD brings, which is run.

        Raises:
            CheckpointError: it does not fit OLD, or is of a kind that cannot be merged.
        """
        with quietly():
            settings = read_config(folder, config, {key: shape for key, (_, shape) in own.items()})
            self.kind = describe(settings)
            self._folder, self._own, self._header = folder, own, header
            self._written_by = config.get("peft_version")
            self._model = build_meta_model(base, header, "OLD", tower, code=code)
            known_as = str if tower is None else module_name
            conversions = find_conversions(self._model, header, "OLD", known_as)
            self._on_disk = {target: conversion for conversion in conversions for target in conversion.targets}
            self._build_fitting(settings, plain_names(own, tuner_prefix(settings), f"NEW {folder}"), known_as)
            self.twins = self._find_twins()
            self._check_reverts()
        self.keys = frozenset(self._groups)
        self.most = max(
            (
                sum(torch.Size(header[key][1]).numel() for conversion in group.conversions for key in conversion.keys)
                for group in self._groups.values()
            ),
            default=0,
        )
        self._rest: dict[str, Tensor] = {}

    def merged(self, key: str, raw: Tensor, base: Read, own: Read) -> Tensor:
        """One of ``keys`` with the adapter merged.

        Args:
            raw: OLD's tensor; its memory may be reused for the result.
            base: reads OLD's tensors.
            own: reads the adapter's.
        """
        if key not in self._rest:  # computed with the last one: a bias, or the next expert
            self._rest.clear()
            with quietly():
                self._rest = self._merge(self._groups[key], lambda k: raw if k == key else base(k), own)
        return self._rest.pop(key)

    @property
    def factors(self) -> tuple[Factors, ...]:
        """The factors of each low-rank update, by layer; empty for an adapter of another kind."""
        state = self._wrapped.state_dict(keep_vars=True)
        placed = {id(state[name]): name for name in self._placed}
        layers = dict.fromkeys(layer for group in self._groups.values() for layer in group.layers)
        return tuple(
            factors
            for layer in layers
            for factors in factors_of(layer.path, self._inner.get_submodule(layer.path), layer.results, placed)
        )

    def tensor(self, name: str, own: Read) -> Tensor:
        """One of ``names``, in the dtype in which peft computes with it."""
        with quietly():
            return self._own_tensor(self.names[name], own)

    def sources_of(self, name: str) -> frozenset[str]:
        """The tensors in the adapter's file that one of ``names`` is computed from."""
        return sources_of(self._placed[self.names[name]])

    def keys_of(self, parameter: str) -> tuple[str, ...]:
        """OLD's tensors on disk that become a parameter of the model, and others with it."""
        return self._on_disk[parameter].keys

    def parameter(self, name: str, tensors: Mapping[str, Tensor]) -> Tensor:
        """The value of a parameter of the model from the tensors on disk that :meth:`keys_of` names."""
        return self._on_disk[name].apply(tensors, self._model)[name]

    def _build_fitting(self, settings: Any, names: dict[str, str], known_as: Callable[[str], str]) -> None:
        """Build what the configuration says or, if that does not fit the adapter's tensors, what these say.

        Args:
            names: plain names of the adapter's tensors, by key.
            known_as: translates a path in another layout.
        """
        self._made: set[str] | None = None  # paths of the layers that peft makes; None if it makes no model
        try:
            self._build(deepcopy(settings), names, [])
        except CheckpointError as error:
            shapes = {name: self._own[key][1] for key, name in names.items()}
            belonging = belonging_of(self._model, settings, shapes, known_as, f"NEW {self._folder}")
            note = difference(self._made, belonging.values(), getattr(settings, "modules_to_save", None) or ())
            fitted = fit(settings, belonging.values(), parameters_of(self._model))
            present = {key: belonging[name].name if name in belonging else name for key, name in names.items()}
            try:
                with as_fitted():
                    self._build(fitted, present, [note])
            except CheckpointError:
                raise error from None

    def _build(self, settings: Any, names: dict[str, str], notes: list[str]) -> None:
        """Build the model with the layers that the configuration describes, and place the adapter's tensors.

        Raises:
            CheckpointError: a tensor has no place, a place has no tensor, or peft cannot do it.
        """
        model = deepcopy(self._model)
        self._name_of = names_of(model, self._on_disk)
        self._tensors = {key: self._name_of[id(value)] for key, value in model.state_dict(keep_vars=True).items()}
        self.settings, self._called = settings, names
        self._wrapped, merged = inject(model, settings, self._folder)
        self._inner: nn.Module = self._wrapped.get_base_model()  # type: ignore[operator]
        tuner: Any = self._wrapped.base_model
        self._made = {*tuner.targeted_module_names}
        self._made |= {name.rpartition(".")[0] for name in tuner.targeted_parameter_names}
        shapes = {name: self._own[key][1] for key, name in names.items()}
        self.notes = [*notes, *filter(None, [arrange_stacks(self._wrapped, self._written_by, shapes)])]
        traced = {name: Traced.of(key, *self._own[key]) for key, name in names.items()}
        self._placed = place(self._wrapped, traced, self._folder)
        self._check_placed()
        parameters = self._wrapped.state_dict(keep_vars=True)
        self._dtypes = {name: parameters[name].dtype for name in self._placed}
        self.names = {saved_name(name): name for name in self._placed}
        self._groups = self._find_groups(merged)

    def _check_placed(self) -> None:
        """Raise CheckpointError for the first tensor of the adapter that has no place in the model."""
        places = self._wrapped.state_dict(keep_vars=True)
        for name, tensor in self._placed.items():
            key = min(sources_of(tensor))
            if name not in places:
                raise CheckpointError(
                    f"NEW {self._folder}: OLD has no module for the adapter's tensor {key}: "
                    "give as OLD the model that it was trained on."
                )
            if tensor.shape != places[name].shape:
                raise CheckpointError(
                    f"NEW {self._folder}: the adapter's tensor {key} has shape {list(tensor.shape)} where OLD needs "
                    f"{list(places[name].shape)}: give as OLD the model that it was trained on, with the vocabulary "
                    "of that time if it was resized."
                )

    def _find_groups(self, merged: nn.Module) -> dict[str, _Group]:
        """The group of each of OLD's keys that the adapter changes; ``merged``: the model after merging the layers.

        Raises:
            CheckpointError: something is missing, or two layers change the same tensor.
        """
        state = self._wrapped.state_dict(keep_vars=True)
        placed = {id(state[name]): name for name in self._placed}
        groups: dict[Conversion, _Group] = {}
        changed: dict[str, _Layer] = {}
        for path, module in layers_of(self._inner):
            layer = self._layer(path, module, merged.get_submodule(path), placed)
            twins = [changed[target] for target in layer.results.values() if target in changed]
            if any(set(twin.from_adapter.values()) != set(layer.from_adapter.values()) for twin in twins):
                raise CheckpointError(
                    f"NEW {self._folder} is an adapter with layers at {twins[0].path} and at {path}, which are one "
                    "tensor in OLD: merge it first, with merge_and_unload() and then save_pretrained()."
                )
            if not twins:
                _join(groups, (self._on_disk[target] for target in layer.results.values())).layers.append(layer)
                changed |= dict.fromkeys(layer.results.values(), layer)
        used = {name for layer in changed.values() for name in layer.from_adapter.values()}
        for identity, name in placed.items():
            if name not in used and (target := self._name_of.get(identity)) is not None:
                _join(groups, (self._on_disk[target],)).replaced[target] = name
        return {key: group for conversion, group in groups.items() for key in conversion.keys}

    def _layer(self, path: str, module: nn.Module, merged: nn.Module, placed: Mapping[int, str]) -> _Layer:
        from_base, from_adapter = {}, {}
        for name, tensor in tensors_of(module):
            if tensor.is_meta and not UNUSED.search(name):
                if id(tensor) in placed:
                    from_adapter[name] = placed[id(tensor)]
                elif (target := self._name_of.get(id(tensor))) in self._on_disk:
                    from_base[name] = target
                else:
                    raise CheckpointError(
                        f"NEW {self._folder} lacks the adapter's tensor {name} for {path}: "
                        "give as OLD the model that it was trained on, or save the whole adapter again."
                    )
        results = {name: self._tensors[f"{path}.{name}"] for name in merged.state_dict()}
        on_disk = {name: target for name, target in results.items() if target in self._on_disk}
        return _Layer(path, from_base, from_adapter, on_disk)

    def _find_twins(self) -> tuple[tuple[str, str], ...]:
        """Pairs of the adapter's tensors that are one parameter of the model, of which the first is used.

        Raises:
            CheckpointError: a tensor is not used at all.
        """
        groups = dict.fromkeys(self._groups.values())
        used = {name for group in groups for name in group.replaced.values()}
        used |= {name for group in groups for layer in group.layers for name in layer.from_adapter.values()}
        sources = {key for name in used for key in sources_of(self._placed[name])}
        state = self._wrapped.state_dict(keep_vars=True)
        used_as = {id(state[name]): name for name in used}
        first = {key: used_as.get(id(state[name])) for name, value in self._placed.items() for key in sources_of(value)}
        twins = []
        for key in sorted(self._own.keys() - sources):
            twin = first.get(key)
            if twin is None:
                raise CheckpointError(
                    f"NEW {self._folder}: the adapter's tensor {key} would be left out, because merging does not use "
                    "it: save the adapter again with save_pretrained of peft."
                )
            twins += [(min(sources_of(self._placed[twin])), key)]
        return tuple(twins)

    def _check_reverts(self) -> None:
        """Raise CheckpointError if transformers cannot split a changed parameter into its tensors on disk."""
        for conversion in dict.fromkeys(c for group in self._groups.values() for c in group.conversions):
            values = {target: self._model.get_parameter_or_buffer(target) for target in conversion.targets}
            try:
                conversion.revert(values, self._model)
            except Exception as error:  # transformers' reverse conversions may raise anything
                raise CheckpointError(
                    f"NEW {self._folder} is an adapter that changes {conversion.first}, which cannot be split into "
                    "the tensors that OLD has on disk: merge it first, with merge_and_unload() and then "
                    "save_pretrained()."
                ) from error

    def merge_into(self, model: nn.Module, base: Read, own: Read) -> None:
        """Merge the adapter into ``model``: OLD's, as transformers has loaded it.

        Args:
            base: reads OLD's tensors.
            own: reads the adapter's.
        """
        with quietly():
            for group in dict.fromkeys(self._groups.values()):
                for target, value in self._values(group, base, own).items():
                    stored = value.to(self._header[self._on_disk[target].keys[0]][0])
                    model.get_parameter_or_buffer(target).copy_(stored)  # type: ignore[operator]

    def _merge(self, group: _Group, base: Read, own: Read) -> dict[str, Tensor]:
        """Every tensor on disk of a group."""
        values = self._values(group, base, own)
        return {
            key: value.to(self._header[key][0])
            for conversion in group.conversions
            for key, value in conversion.revert(values, self._model).items()
        }

    def _values(self, group: _Group, base: Read, own: Read) -> dict[str, Tensor]:
        """Every parameter of the model that becomes a group's tensors on disk, merged."""
        values = {target: self._own_tensor(name, own) for target, name in group.replaced.items()}
        needed = {target: None for layer in group.layers for target in layer.from_base.values()}
        changed = {*values, *(target for layer in group.layers for target in layer.results.values())}
        for conversion in group.conversions:
            if not changed.issuperset(conversion.targets):
                needed |= dict.fromkeys(conversion.targets)
        for conversion in dict.fromkeys(self._on_disk[target] for target in needed):
            found = conversion.apply({key: base(key) for key in conversion.keys}, self._model)
            values = found | values
        for layer in group.layers:
            values |= self._merge_layer(layer, values, own)
        return {target: values[target] for conversion in group.conversions for target in conversion.targets}

    def _merge_layer(self, layer: _Layer, values: Mapping[str, Tensor], own: Read) -> dict[str, Tensor]:
        """The parameters that a layer changes, merged as in ``merge_and_unload``; ``values``: the model's."""
        module: Any = deepcopy(self._inner.get_submodule(layer.path))
        for name, target in layer.from_base.items():
            put(module, name, values[target])
        for name, placed in layer.from_adapter.items():
            put(module, name, self._own_tensor(placed, own))
        if hasattr(module, "unload_and_optionally_merge_module"):
            module = module.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
        else:
            module.merge()
            module = module.get_base_layer()
        state = module.state_dict()
        return {target: state[name] for name, target in layer.results.items()}

    def _own_tensor(self, name: str, own: Read) -> Tensor:
        """The adapter's tensor by peft's name, in the dtype in which peft computes with it."""
        traced, dtype = self._placed[name], self._dtypes[name]
        if isinstance(traced, Traced) and traced.whole:
            return own(min(traced.sources)).to(dtype)
        sources = sources_of(traced)
        tensors = {
            name: own(key) if key in sources else Traced.of(key, *self._own[key]) for key, name in self._called.items()
        }
        return place(self._wrapped, tensors, self._folder)[name].to(dtype)


def _join(groups: dict[Conversion, _Group], conversions: Iterable[Conversion]) -> _Group:
    """The group of all these conversions; groups that contain one of them are joined."""
    joined = _Group()
    for conversion in dict.fromkeys(conversions):
        joined.conversions.append(conversion)
        if (other := groups.get(conversion)) is not None and other is not joined:
            joined.conversions = list(dict.fromkeys([*joined.conversions, *other.conversions]))
            joined.layers = list(dict.fromkeys([*joined.layers, *other.layers]))
            joined.replaced |= other.replaced
        for member in joined.conversions:
            groups[member] = joined
    return joined
