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
from hpa_merge.model.building import build_meta_model
from hpa_merge.model.conversion import Conversion, Header, current_name, find_conversions
from hpa_merge.model.injection import PREFIX, describe, inject, place, quietly, read_config
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
        keys: the model's tensors on disk that it may change.
        most: the most elements of tensors that are computed together.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        own: Header,
        base: Path,
        header: Header,
        code: Code | None = None,
    ) -> None:
        """Build the model with the adapter's layers, and check that they fit.

        Args:
            folder: the adapter's.
            config: adapter_config.json, parsed.
            own: the adapter's tensors.
            base: OLD's folder.
            header: OLD's tensors.
            code: the code that OLD brings, which is run.

        Raises:
            CheckpointError: it does not fit OLD, or is of a kind that cannot be merged.
        """
        with quietly():
            settings = read_config(folder, config, {key: shape for key, (_, shape) in own.items()})
            self.kind = describe(settings)
            self._folder, self._own, self._header = folder, own, header
            self._model = build_meta_model(base, header, "OLD", code=code)
            conversions = find_conversions(self._model, header, "OLD")
            model = deepcopy(self._model)
            self._on_disk = {target: conversion for conversion in conversions for target in conversion.targets}
            self._name_of = _names(model, self._on_disk)
            self._tensors = {key: self._name_of[id(value)] for key, value in model.state_dict(keep_vars=True).items()}
            self._wrapped, merged = inject(model, settings, folder)
            self._inner: nn.Module = self._wrapped.get_base_model()  # type: ignore[operator]
            self._called, self._placed = self._place_all()
            self._check_placed()
            parameters = self._wrapped.state_dict(keep_vars=True)
            self._dtypes = {name: parameters[name].dtype for name in self._placed}
            self._groups = self._find_groups(merged)
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

    def _place_all(self) -> tuple[dict[str, str], dict[str, Tensor]]:
        """The names under which peft gets the adapter's tensors, by key; and the tensors by peft's own names.

        These are their saved names, or present ones if transformers has renamed the model's modules since then.

        Raises:
            CheckpointError: peft cannot load them.
        """
        traced = {key: Traced.of(key, dtype, shape) for key, (dtype, shape) in self._own.items()}
        places = self._wrapped.state_dict(keep_vars=True).keys()
        called = {key: key for key in traced}
        placed: dict[str, Tensor] = {}
        refusal: CheckpointError | None = None
        try:
            placed = place(self._wrapped, traced, self._folder)
            if placed.keys() <= places:
                return called, placed
        except CheckpointError as error:
            refusal = error
        present = {key: PREFIX + current_name(key.removeprefix(PREFIX), self._model) for key in traced}
        if present != called and len(set(present.values())) == len(present):
            try:
                return present, place(self._wrapped, {present[key]: traced[key] for key in traced}, self._folder)
            except CheckpointError as error:
                refusal = refusal or error
        if refusal is not None:
            raise refusal
        return called, placed

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
        for path, module in _layers(self._inner):
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
        for name, tensor in _tensors(module):
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

    def _merge(self, group: _Group, base: Read, own: Read) -> dict[str, Tensor]:
        """Every tensor on disk of a group."""
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
        return {
            key: value.to(self._header[key][0])
            for conversion in group.conversions
            for key, value in conversion.revert(values, self._model).items()
        }

    def _merge_layer(self, layer: _Layer, values: Mapping[str, Tensor], own: Read) -> dict[str, Tensor]:
        """The parameters that a layer changes, merged as in ``merge_and_unload``; ``values``: the model's."""
        module: Any = deepcopy(self._inner.get_submodule(layer.path))
        for name, target in layer.from_base.items():
            _put(module, name, values[target])
        for name, placed in layer.from_adapter.items():
            _put(module, name, self._own_tensor(placed, own))
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


def _layers(model: nn.Module) -> Iterable[tuple[str, Any]]:
    """peft's outermost layers in ``model``, by path: those that ``merge_and_unload`` replaces."""
    outer = None
    for path, module in model.named_modules():
        inside = outer is not None and path.startswith(f"{outer}.")
        tied = getattr(getattr(module, "token_adapter", None), "tied_adapter", None) is not None
        if not inside and (hasattr(module, "unload_and_optionally_merge_module") or hasattr(module, "base_layer")):
            outer = path
            if not tied:  # else its twin is merged
                yield path, module


def _names(model: nn.Module, on_disk: Mapping[str, Conversion]) -> dict[int, str]:
    """The name of each parameter and buffer by ``id()``; for tied ones, the name that is on disk."""
    names: dict[int, str] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if names.get(id(value)) not in on_disk:
            names[id(value)] = name
    return names


def _tensors(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """Every parameter and every buffer, saved or not, under each of its names."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


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


def _put(module: nn.Module, name: str, value: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    inner = module.get_submodule(owner)
    if leaf in inner._parameters:
        inner._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    else:
        inner._buffers[leaf] = value
