"""The tensors of an OUT that is an adapter, from the linear weights as they are merged."""

from collections.abc import Callable, Collection, Iterator
from typing import final

import torch
from torch import Tensor

from hpa_merge.core import all_finite, product_norm, truncated
from hpa_merge.engine.adapter_form import AdapterForm, Pair, Place
from hpa_merge.engine.linear import MergedLinear
from hpa_merge.engine.weights import Weights
from hpa_merge.errors import NumericalError
from hpa_merge.model.adapter_parts import AdapterPart

__all__ = ["AdapterTensors"]

Times = Callable[[Tensor], Tensor]
"""Multiplies rows ``[k, c]`` by ``M``."""


@final
class AdapterTensors:
    """Makes the tensors of one OUT; the linears of a unit come one after the other, then :meth:`end_unit`."""

    def __init__(self, form: AdapterForm, others: Collection[str], write: Callable[[str, Tensor], None]) -> None:
        """``others``: names of tensors that no linear decides; ``write`` is called once for each tensor."""
        self._form, self._write = form, write
        self._others = frozenset(others)
        self._stacks: dict[int, _Stack] = {}  # by the number of the pair
        self._wholes: dict[str, _Whole] = {}  # by the name of the part
        self._errors: dict[str, float] = {}

    def put(self, linear: MergedLinear) -> None:
        """Take a linear weight of OUT."""
        for place in self._form.places.get(linear.pair.new.name, ()):
            stack = self._stacks.get(place.pair)
            if stack is None:
                stack = self._stacks[place.pair] = _Stack(self._form, self._form.pairs[place.pair])
            for name, error in stack.put(place, linear):
                self._errors[name] = max(error, self._errors.get(name, 0.0))
        if (part := self._form.wholes.get(linear.pair.new.key)) is not None:
            self._wholes.setdefault(part.name, _Whole(self._form, part)).put(linear)
            self._errors.setdefault(linear.pair.new.name, 0.0)

    def end_unit(self) -> dict[str, float]:
        """Write the tensors of the linears so far.

        Returns:
            For each linear that the adapter changes, ``‖U − ΔŴ‖_F / ‖ΔŴ‖_F`` of the update ``U`` that it holds and the
            rule's ``ΔŴ``; 0 if nothing was rounded.

        Raises:
            NumericalError: a tensor does not fit its dtype.
        """
        while self._stacks:
            _, stack = self._stacks.popitem()
            for part, tensor in zip((stack.pair.a, stack.pair.b), stack.tensors(), strict=True):
                self._put(part, tensor)
        while self._wholes:
            _, whole = self._wholes.popitem()
            self._put(whole.part, whole.tensor())
        errors, self._errors = self._errors, {}
        return errors

    def rest(self, old: Weights) -> None:
        """Write the other tensors: NEW's or, for what comes from OLD, zeros or OLD's values."""
        for part in self._form.parts:
            if part.name in self._others:
                self._put(part, self._as_planned(part, old))

    def _as_planned(self, part: AdapterPart, old: Weights) -> Tensor:
        form = self._form
        if part.changes.isdisjoint(form.out.from_old):
            return form.read(part)
        if part.replaces is None:
            return torch.zeros(part.shape, dtype=part.dtype)
        keys = form.adapter.keys_of(part.replaces)
        tensors = {key: old.read(form.out.from_old[key]) for key in keys}
        return form.adapter.parameter(part.replaces, tensors).to(part.dtype)

    def _put(self, part: AdapterPart, tensor: Tensor) -> None:
        if not all_finite(tensor):
            raise NumericalError(f"the result for {part.name} does not fit {tensor.dtype}: save NEW in float32.")
        self._write(part.name, tensor)


@final
class _Stack:
    """The factors of one pair in the making."""

    def __init__(self, form: AdapterForm, pair: Pair) -> None:
        self.pair, self._form = pair, form
        self._x, self._y = pair.split(form.read(pair.a), form.read(pair.b))  # [experts, k, c], [experts, r, k]
        self._new_x = self._x.new_zeros(pair.experts, pair.rank, self._x.shape[2])
        self._new_y = self._y.new_zeros(pair.experts, self._y.shape[1], pair.rank)
        self._found: dict[int, dict[int, MergedLinear]] = {}  # by expert and owner

    def put(self, place: Place, linear: MergedLinear) -> Iterator[tuple[str, float]]:
        """Take a linear; yields the errors of all linears of an expert when it is the last of them."""
        found = self._found.setdefault(place.expert, {})
        found[place.owner] = linear
        if len(found) > int(self.pair.owners[place.expert].max()):
            linears = [found[owner] for owner in sorted(found)]
            times = [each for each in map(_times, linears) if each is not None] if self.pair.factors.plain else []
            if len(times) == len(linears) and self.pair.rank >= self.pair.exact_rank:
                yield from zip(_names(linears), self._multiply(place.expert, times), strict=True)
            elif self._form.out.config.adapter_rank:
                yield from zip(_names(linears), self._approximate(place.expert, linears), strict=True)
            else:
                raise RuntimeError(f"the result for {linear.pair.new.name} is not a LoRA of NEW's rank")
            found.clear()

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Both tensors as peft saves them."""
        return self.pair.join(self._new_x, self._new_y)

    def _multiply(self, expert: int, times: list[Times]) -> Iterator[float]:
        """Multiply ``X`` by each linear's ``M``, exactly but for the rounding to its dtype; yields the errors."""
        pair, x, y, owners = self.pair, self._x[expert], self._y[expert], self.pair.owners[expert]
        rank = pair.own_rank
        target: slice | Tensor
        for number, multiply in enumerate(times):
            wanted = multiply(x.float())
            if pair.terms is None:
                ranks, target = torch.ones(rank, dtype=torch.bool), slice(number * rank, (number + 1) * rank)
                self._new_y[expert, owners == number, target] = y[owners == number]
            else:
                ranks = pair.terms[expert] == number
                target = torch.arange(rank)[ranks]
                self._new_y[expert, :, target] = y[:, ranks]
            made = wanted[ranks].to(x.dtype)
            self._new_x[expert, target] = made
            lost, rows = made.double() - wanted[ranks].double(), y[owners == number][:, ranks]
            error, size = product_norm(rows, lost), product_norm(rows, wanted[ranks])
            yield error / size if error else 0.0

    def _approximate(self, expert: int, linears: list[MergedLinear]) -> Iterator[float]:
        """Factor the updates of all linears of an expert together; yields the errors."""
        owners, scaling = self.pair.owners[expert], self.pair.factors.scaling
        update = torch.empty(len(owners), self._x.shape[2])
        for number, linear in enumerate(linears):
            update[owners == number] = _update(linear)
        y, x = truncated(update / scaling, self.pair.rank)
        self._new_y[expert], self._new_x[expert] = y, x
        held = scaling * self._new_y[expert].float() @ self._new_x[expert].float()
        for number in range(len(linears)):
            wanted = update[owners == number]
            error, size = float((held[owners == number] - wanted).norm()), float(wanted.norm())
            yield error / size if error else 0.0


@final
class _Whole:
    """A parameter that the adapter has as a whole, in the making."""

    def __init__(self, form: AdapterForm, part: AdapterPart) -> None:
        self.part, self._form = part, form
        self._new: dict[str, Tensor] = {}  # by OLD's key
        self._out: dict[str, Tensor] = {}

    def put(self, linear: MergedLinear) -> None:
        key = linear.pair.new.key
        if key not in self._new:
            self._new[key] = linear.tensor.cpu()
            self._out[key] = self._new[key].clone()
        linear.pair.new.matrix(self._out[key]).copy_(_weight(linear))

    def tensor(self) -> Tensor:
        """OUT's tensor: where the merge kept NEW's value, the adapter's own, which may be of a wider dtype."""
        adapter, own = self._form.adapter, self._form.read(self.part)
        new, out = (adapter.parameter(str(self.part.replaces), values) for values in (self._new, self._out))
        return own.where(out == new, out.to(own.dtype))


def _times(linear: MergedLinear) -> Times | None:
    """Multiplies by the ``M`` of a linear in OUT; None if its weight is not of that form."""
    if linear.adapted is not None:
        times, device = linear.adapted.times, linear.tensor.device
        return None if times is None else lambda rows: times(rows.to(device)).cpu()
    if linear.restored or linear.outcome == "old":
        return torch.zeros_like
    return lambda rows: rows


def _weight(linear: MergedLinear) -> Tensor:
    """OUT's weight, ``[r, c]``."""
    if linear.outcome == "old":
        return linear.moved.old
    return linear.new if linear.weight is None else linear.weight


def _update(linear: MergedLinear) -> Tensor:
    """``Ŵ − W_old``, ``[r, c]`` float32 on the CPU."""
    return (_weight(linear).float() - linear.moved.old.float()).cpu()


def _names(linears: list[MergedLinear]) -> list[str]:
    return [linear.pair.new.name for linear in linears]
