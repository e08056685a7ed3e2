"""What weights are multiplied with, observed at the product itself.

A module's forward does not say which inputs its weight reads: other modules multiply with the weight (``dt_proj`` of
Mamba), several weights are joined before the product, and experts are slices of a stack. So a weight is replaced by a
tensor that knows which weights it is made of. Every operation of torch on it passes through here, and no other
operation does: views, copies and joins know it too, and a product passes its other factor on. A weight of which
something is made that this does not follow is said to be used out of sight: what it reads is then not known as a whole.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

__all__ = ["WatchedWeight", "observed"]

aten = torch.ops.aten

PRODUCTS: Mapping[Any, tuple[int, int]] = {
    aten.mm.default: (0, 1),
    aten.bmm.default: (0, 1),
    aten.mv.default: (0, 1),
    aten.addmm.default: (1, 2),
    aten.baddbmm.default: (1, 2),
    aten.addmv.default: (1, 2),
    aten.addmm_.default: (1, 2),
    aten.baddbmm_.default: (1, 2),
    aten.addbmm.default: (1, 2),
}
"""Operations that multiply two of their arguments; ``linear``, ``matmul`` and ``einsum`` consist of them."""

COPIES = {aten.clone.default, aten._to_copy.default}
"""Operations that copy a tensor element by element; so do all that torch calls pointwise."""

SUMS = {aten.add.Tensor, aten.add_.Tensor, aten.sub.Tensor, aten.sub_.Tensor}
"""Pointwise operations that scale no inputs, whatever else they take."""

STRIDED = {aten.as_strided.default, aten._reshape_alias.default, aten.view.dtype}
"""Views that depend on how a tensor lies in memory."""

NOBODY = -1
"""The number of rows that belong to no watched weight."""

Observe = Callable[[str, Tensor | None], None]


@final
@dataclass(frozen=True)
class WatchedWeight:
    """A parameter whose inputs can be observed.

    Attributes:
        name: the parameter's.
        observers: names of its inputs: one, or one for each matrix of a stack.
        input_axis: the axis that holds the inputs.
        routed: whether it is a stack of experts, where a token is zero for the experts that it is not routed to.
    """

    name: str
    observers: tuple[str, ...]
    input_axis: int
    routed: bool = False


@final
@dataclass(frozen=True)
class _Origin:
    """Where the elements of a tensor come from: tensors of its shape that repeat a vector and take no memory.

    Attributes:
        weights: the number of the matrix that an element comes from.
        columns: its input.
        count: the number of inputs of these matrices.
    """

    weights: Tensor
    columns: Tensor
    count: int

    @classmethod
    def of(cls, shape: Sequence[int], axis: int, first: int) -> "_Origin":
        """Of a parameter whose first matrix has the number ``first``."""
        matrices = torch.arange(first, first + (shape[0] if len(shape) == 3 else 1))
        return cls(matrices.view(-1, *[1] * (len(shape) - 1)).expand(shape), _along(axis, shape), shape[axis])

    def holds_inputs(self, axis: int) -> bool:
        """Whether ``axis``, and no other, holds all inputs in order."""
        sizes, strides = self.columns.shape, self.columns.stride()
        if self.count == 1:
            return sizes[axis] == 1
        others = (stride for place, stride in enumerate(strides) if place != axis and sizes[place] > 1)
        whole = (sizes[axis], strides[axis], self.columns.storage_offset()) == (self.count, 1, 0)
        return whole and not any(others)

    def viewed(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list["_Origin"] | None:
        """The origins of the views that ``func`` makes; None if it mixes inputs with outputs."""
        try:
            made = [func(tensor, *args[1:], **kwargs) for tensor in (self.weights, self.columns)]
        except RuntimeError:
            return None
        weights, columns = (each if isinstance(each, list | tuple) else [each] for each in made)
        return [replace(self, weights=w, columns=c) for w, c in zip(weights, columns, strict=True)]


@final
class _Observed(Tensor):
    """A weight, or what is made of it.

    Attributes:
        plain: the same tensor without this class.
        origin: where its elements come from.
        watch: receives what it is multiplied with.
    """

    plain: Tensor
    origin: _Origin
    watch: "_Watch"

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # as torch says to do

    @classmethod
    def of(cls, plain: Tensor, origin: _Origin, watch: "_Watch") -> "_Observed":
        made = Tensor._make_subclass(cls, plain.detach(), plain.requires_grad)
        made.plain, made.origin, made.watch = plain.detach(), origin, watch
        made._is_param = isinstance(plain, torch.nn.Parameter)  # what isinstance(…, nn.Parameter) asks for
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled():  # operations come whole there
            parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        if func in PRODUCTS:
            left, right = (args[place] for place in PRODUCTS[func])
            if isinstance(left, cls) == isinstance(right, cls):
                _lose(args)  # a product of weights, or a sum with a product
            elif isinstance(right, cls):
                _read(left, right)
            else:
                _read(right.mT if right.ndim > 1 else right, left.mT)
        result = func(*tree_map(_plain, args), **tree_map(_plain, kwargs))
        return result if func in PRODUCTS else _known(func, args, kwargs, result)


def observed(weights: Sequence[tuple[WatchedWeight, Tensor]], observe: Observe) -> list[Tensor]:
    """Tensors that replace ``weights`` and pass what they are multiplied with to ``observe``.

    Args:
        observe: called with an observer and its tokens, ``[n, c]``; with None if the weight is used out of sight.
    """
    watch = _Watch([], set(), observe)
    made: list[Tensor] = []
    for weight, value in weights:
        origin = _Origin.of(value.shape, weight.input_axis, len(watch.names))
        watch.names.extend(weight.observers)
        if weight.routed:
            watch.routed.update(weight.observers)
        made.append(_Observed.of(value, origin, watch))
    return made


@final
@dataclass(frozen=True)
class _Watch:
    """The observers by number, those of them that are experts, and who wants to know."""

    names: list[str]
    routed: set[str]
    observe: Observe

    def see(self, numbers: Tensor, x: Tensor) -> None:
        """The matrices with these ``numbers``, a vector, are multiplied with ``x``."""
        for number in (numbers[:1] if numbers.stride(0) == 0 else numbers.unique()).tolist():
            if number != NOBODY:
                name = self.names[number]
                self.observe(name, x[x.any(dim=1)] if name in self.routed else x)

    def lose(self, weights: Tensor) -> None:
        """The matrices with the numbers in ``weights`` are used out of sight."""
        distinct = weights[tuple(slice(None) if stride else 0 for stride in weights.stride())]
        for number in distinct.unique().tolist():
            if number != NOBODY:
                self.observe(self.names[number], None)


def _read(x: Tensor, weight: "_Observed") -> None:
    """Observe the product of ``x``, ``[…, n, c]`` or ``[c]``, with a weight ``[…, c, r]`` or ``[c]``."""
    origin, watch, axis = weight.origin, weight.watch, max(weight.ndim - 2, 0)
    if not origin.holds_inputs(axis):  # the product is along its outputs, or along a part of its inputs
        watch.lose(origin.weights)
        return
    numbers = origin.weights.select(axis, 0)
    if weight.ndim <= 2:
        watch.see(numbers.reshape(-1), x)
    elif numbers.stride(0) == 0 or len(numbers) == 1:
        watch.see(numbers[0], x[0] if x.stride(0) == 0 else x)
    else:
        for row, tokens in zip(numbers, x, strict=True):
            watch.see(row, tokens)


def _known(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Any:
    """The result of an operation, as an observed tensor if it holds weights."""
    if func in (aten.cat.default, aten.stack.default):
        return _joined(func, args, kwargs, result)
    weights = [each for each in args if isinstance(each, _Observed)]
    made = result if isinstance(result, list | tuple) else [result]
    origins = _origins(func, args, kwargs, weights[0], result) if len(weights) == 1 else None
    if origins is not None:
        found = [_Observed.of(each, origin, weights[0].watch) for each, origin in zip(made, origins, strict=True)]
        return type(result)(found) if isinstance(result, list | tuple) else found[0]
    largest = max((each.numel() for each in made if isinstance(each, Tensor)), default=0)
    summed = aten.dot.default  # a sum over inputs, and not a norm, which is small too
    _lose([each for each in weights if func is summed or largest > max(each.shape[-2:], default=0)])
    return result


def _origins(
    func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], weight: "_Observed", result: Any
) -> list[_Origin] | None:
    """The origins of the results of an operation on a weight; None if they are not known."""
    if (func.is_view or func is aten._unsafe_view.default) and func not in STRIDED and args[0] is weight:
        views: list[_Origin] | None = weight.origin.viewed(func, args, kwargs)
        return views
    others = [each for each in args if isinstance(each, Tensor) and each is not weight]
    pointwise = torch.Tag.pointwise in func.tags and (func in SUMS or not _scaled(weight, others))
    if not isinstance(result, Tensor) or result.shape != weight.shape:
        return None
    return [weight.origin] if pointwise or func in COPIES else None


def _lose(values: Sequence[Any]) -> None:
    """The weights among the values are used out of sight."""
    for weight in values:
        if isinstance(weight, _Observed):
            weight.watch.lose(weight.origin.weights)


def _scaled(weight: "_Observed", others: Sequence[Tensor]) -> bool:
    """Whether a pointwise operation with ``others`` may give each input of ``weight`` a factor of its own."""
    strides = weight.origin.columns.stride()
    return any(
        other.shape[-axis] > 1 and other.stride(-axis) and strides[-axis]
        for other in others
        for axis in range(1, other.ndim + 1)
    )


def _joined(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Tensor) -> Tensor:
    """Weights that are concatenated or stacked along an axis that holds no inputs, possibly with other tensors."""
    parts: Sequence[Tensor] = args[0]
    given = [part for part in parts if isinstance(part, _Observed)]
    along = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % result.ndim
    stacked = func is aten.stack.default
    axes = [a for a in range(parts[0].ndim) if stacked or a != along]
    axis = next((a for a in axes if all(part.origin.holds_inputs(a) for part in given)), None)
    if axis is None or any(part.origin.count != given[0].origin.count for part in given):
        _lose(given)
        return result
    numbers = [
        part.origin.weights.narrow(axis, 0, 1)
        if isinstance(part, _Observed)
        else torch.full((), NOBODY).expand(part.narrow(axis, 0, 1).shape)
        for part in parts
    ]
    weights, columns = (
        func(numbers, along).expand(result.shape),
        _along(axis + (stacked and along <= axis), result.shape),
    )
    return _Observed.of(result, _Origin(weights, columns, given[0].origin.count), given[0].watch)


def _along(axis: int, shape: Sequence[int]) -> Tensor:
    """The index along an axis of a tensor of ``shape``."""
    sizes = [-1 if place == axis else 1 for place in range(len(shape))]
    return torch.arange(shape[axis]).view(sizes).expand(tuple(shape))


def _plain(value: Any) -> Any:
    return value.plain if isinstance(value, _Observed) else value
