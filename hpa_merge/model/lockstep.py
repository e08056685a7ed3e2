"""Forward passes of one model, paused at unit boundaries.

The model's own forward is the schedule: each sample is one call of the real ``model(**inputs)`` in its own greenlet. A
hook before every unit switches back to the driver (the hub). The hub loads the unit, runs every waiting sample through
it, and continues. Masks, rotary embeddings and cross-layer features wait in the frames that hold them.

Only this file uses greenlets.
"""

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, final

import greenlet
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from hpa_merge.outline import Unit

Inputs = Mapping[str, Tensor]
OnOutput = Callable[[int, Any], None]


def _ignore(sample: int, output: Any) -> None:
    """Drop an output that nobody needs."""


class ForwardError(Exception):
    """The model's forward raised on a sample; the cause is chained.

    Attributes:
        sample: its index.
    """

    def __init__(self, sample: int) -> None:
        super().__init__(f"the forward of sample {sample} failed")
        self.sample = sample


@final
class PausedForwards:
    """Every sample's forward pass through one model, each paused before the unit that it needs next."""

    def __init__(self, model: PreTrainedModel, units: Sequence[Unit]) -> None:
        """Every sample will wait before each of ``units`` until the unit is loaded."""
        self._model = model
        self._units = units
        self._hub = greenlet.getcurrent()
        self._loaded: Unit | None = None
        self._ends = False  # samples end at the loaded unit
        self._reads = False
        self._forwards: list[greenlet.greenlet] = []
        self._waiting_at: list[Unit | None] = []
        self._on_output: OnOutput = _ignore
        self._needed = 0
        self._hooks: list[RemovableHandle] = []

    def start(self, samples: Sequence[Inputs], on_output: OnOutput = _ignore, needed: int | None = None) -> None:
        """Run every sample to its first unit.

        Args:
            samples: keyword arguments of the model's forward, on the model's device.
            on_output: called with a sample's index and the model's output when its forward is done.
            needed: how many of the samples have to succeed. The later ones run along: one whose forward raises is
                dropped, and none of them decides which unit is next.

        Raises:
            ForwardError: the model raised before its first unit.
        """
        model = self._model
        of_part: dict[nn.Module, list[Unit]] = defaultdict(list)
        for unit in self._units:
            for part in _entrances(model.get_submodule(unit.name)):
                of_part[part].append(unit)
        self._hooks = [part.register_forward_pre_hook(self._pause_at(units)) for part, units in of_part.items()]
        uncached = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
        self._forwards = [greenlet.greenlet(lambda sample=sample: model(**sample, **uncached)) for sample in samples]
        self._waiting_at = [None] * len(samples)
        self._on_output = on_output
        self._needed = len(samples) if needed is None else needed
        for place in range(len(samples)):
            self._resume(place)

    @property
    def next_unit(self) -> Unit | None:
        """The earliest unit that a needed sample is waiting at; None when every one of them is done."""
        waiting_at = (unit for unit in self._waiting_at[: self._needed] if unit is not None)
        return min(waiting_at, key=lambda unit: unit.index, default=None)

    def run(self, unit: Unit, *, last: bool = False, reads: bool = False) -> Iterator[int]:
        """Run every sample that waits at ``unit``, which is loaded, to its next unit; yield the sample's index.

        Args:
            last: nothing after the inputs of ``unit`` is needed. If the unit is a single module (a head, whose outputs
                are the largest of all), the samples end there.
            reads: whether they end only at :meth:`end_if_last`, which is called when the inputs have been read; else
                they end at the entrance of the unit.

        Raises:
            ForwardError: the model raised.
        """
        leaf = not any(self._model.get_submodule(unit.name).children())
        self._loaded, self._ends, self._reads = unit, last and leaf, reads
        try:
            for place, waiting_at in enumerate(self._waiting_at):
                if waiting_at == unit:
                    self._resume(place)
                    yield place
        finally:
            self._loaded, self._ends = None, False

    def close(self) -> None:
        """End every forward that is not done, and remove the hooks from the model."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        with torch.no_grad():
            for forward in self._forwards:
                if forward:  # started and not finished
                    forward.throw(greenlet.GreenletExit)
        self._waiting_at = [None] * len(self._forwards)

    def end_if_last(self) -> None:
        """End the present sample if nothing after this is needed."""
        if self._ends:
            raise greenlet.GreenletExit

    def _pause_at(self, units: Sequence[Unit]) -> Callable[[nn.Module, Any], None]:
        """A hook for a module that belongs to ``units``, the first of which it waits for unless another is loaded."""

        def hook(module: nn.Module, args: Any) -> None:
            if self._loaded not in units:
                forward = greenlet.getcurrent()
                if forward.parent is not self._hub or forward not in self._forwards:
                    raise RuntimeError("a model with paused forwards was called from outside")
                self._hub.switch(units[0])
            if not self._reads:
                self.end_if_last()

        return hook

    def _resume(self, place: int) -> None:
        forward = self._forwards[place]
        try:
            with torch.no_grad():
                result = forward.switch()
        except (Exception, SystemExit) as error:  # code of a checkpoint may call exit()
            if place >= self._needed:
                self._waiting_at[place] = None
                return
            raise ForwardError(place) from error
        self._waiting_at[place] = None if forward.dead else result
        if forward.dead and not isinstance(result, greenlet.GreenletExit):
            self._on_output(place, result)


def _entrances(module: nn.Module) -> list[nn.Module]:
    """Modules whose forward may enter a unit: its own or, in models that call its parts, any part with weights."""
    return [part for part in module.modules() if part is module or any(True for _ in part.parameters(recurse=False))]
