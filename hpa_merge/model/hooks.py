"""Pass the inputs of a unit's linears to :mod:`hpa_merge.core.hessian` while the samples run through the unit.

Linears that read the same tensor (q/k/v, gate/up) share one curvature. That is observed for each sample, not assumed:
if two linears share an input in one sample and not in the next, each still gets exactly the tokens that it read.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from hpa_merge.core import Curvature
from hpa_merge.core.gathered import Packed
from hpa_merge.core.leaves import GatheredLeaves, Place
from hpa_merge.model.products import Observe, WatchedWeight, observed
from hpa_merge.outline import Readers


@final
@dataclass
class _Seen:
    """A tensor that linears read in the current sample."""

    original: Tensor  # held, so that no other tensor takes its address within the sample
    tokens: Tensor  # [n, c], a copy: models write in place
    readers: list[str] = field(default_factory=list)


@final
class ActivationHooks:
    """What the linears and the experts of a model read; only those that are watched cost anything.

    Attributes:
        offload: whether new tokens wait on the host.
        apart: whether what the leaves of the samples add is kept apart, until the sum of those before them is here.
        leads: whether no other rank has leaves before these, which are added at once where they are read once.
        set_tokens: the tokens of the whole set, on all ranks.
        on_read: called when a watched weight has read an input; may end the sample.
    """

    def __init__(self, model: nn.Module, weights: Iterable[WatchedWeight]) -> None:
        """``weights``: parameters of ``model`` that can be watched; several may have the same observers."""
        self.offload = False
        self.apart = False
        self.leads = False
        self.set_tokens: float = math.inf
        self.on_read: Callable[[], None] = _ignore
        self._model = model
        self._weights: dict[str, list[WatchedWeight]] = defaultdict(list)
        for weight in weights:
            for observer in weight.observers:
                self._weights[observer].append(weight)
        self._watched: frozenset[str] = frozenset()
        self._observing: frozenset[str] = frozenset()
        self._waiting: frozenset[str] = frozenset()  # read by now, and wanted later
        self._once: frozenset[str] = frozenset()  # watched, and not read in an earlier pass
        self._seen: dict[Hashable, _Seen] = {}
        self._losing: set[str] = set()  # in the current sample
        self._lost: set[str] = set()  # used out of sight, so that what they read is not known as a whole
        self._gathered: dict[Readers, GatheredLeaves] = {}
        self._sums: dict[Readers, Curvature] | None = None  # of all ranks
        self._pass = 0

    @contextmanager
    def watching(self, names: Iterable[str], later: Iterable[str] = ()) -> Iterator[None]:
        """Within the block, watch these observers, whose weights are loaded, and no others.

        Args:
            names: their curvatures are wanted after the block, and are dropped at the beginning of the next one.
            later: what they read is kept until a later block wants their curvatures.
        """
        self._forget()
        self._lost &= self._waiting
        self._sums = None
        self._pass += 1
        self._watched = frozenset(names)
        self._once = self._watched - self._waiting
        self._observing = self._watched.union(later)
        self._waiting = (self._waiting | self._observing) - self._watched
        self.drop_sample()
        weights = {weight.name: weight for name in self._observing for weight in self._weights[name]}
        with _replaced(self._model, list(weights.values()), self._observe):
            yield

    def drop_sample(self) -> None:
        """Drop what the linears read in the sample that has just run through the unit."""
        self._seen.clear()
        self._losing.clear()

    def end_sample(self, leaf: int = 0) -> None:
        """Gather what the linears read in the sample that has just run through the unit; ``leaf``: its leaf."""
        for seen in self._seen.values():
            readers = tuple(seen.readers)
            if readers not in self._gathered:
                added = self.leads and not self.offload and self._once.issuperset(readers)
                columns, apart = seen.tokens.shape[1], self.apart and not added
                gathered = GatheredLeaves(columns, offload=self.offload, apart=apart, set_tokens=self.set_tokens)
                self._gathered[readers] = gathered
            self._gathered[readers].add((self._pass, leaf), seen.tokens)
        self._lost |= self._losing
        self.drop_sample()

    def curvatures(self) -> dict[str, Curvature]:
        """The curvature of each watched linear that read anything; linears that always read the same share one.

        A linear that is used in a way that :mod:`.products` does not follow has none.
        """
        joined: dict[tuple[Readers, ...], Curvature] = {}
        result = {}
        sums = self._sums
        if sums is None:
            sums = {readers: gathered.total() for readers, gathered in self._gathered.items()}
        for name in sorted(self._watched):
            groups = tuple(sorted(readers for readers in sums if name in readers))
            if not groups or name in self._lost:
                continue
            if groups not in joined:
                joined[groups] = self._join([sums[readers] for readers in groups])
            result[name] = joined[groups]
        return result

    @property
    def leaves(self) -> dict[Readers, dict[Place, Packed]]:
        """What the watched linears read on this rank, by the linears that read the same and by leaf, or as a sum."""
        return {
            readers: gathered.leaves()
            for readers, gathered in self._gathered.items()
            if not self._watched.isdisjoint(readers)
        }

    def release(self, readers: Readers, place: Place) -> None:
        """Drop a leaf that was added, unless it is wanted later too."""
        if self._waiting.isdisjoint(readers):
            self._gathered[readers].leaves().pop(place, None)

    @property
    def lost(self) -> frozenset[str]:
        """The watched linears of which this rank does not know all that they read."""
        return self._watched.intersection(self._lost)

    def receive(self, sums: Mapping[Readers, Curvature], lost: Iterable[str]) -> None:
        """Take what all ranks have gathered, for the linears that this rank owns.

        Args:
            sums: the curvatures of the tensors that they have read.
            lost: linears of which some rank does not know all that they read.
        """
        self._lost |= set(lost)
        self._sums = dict(sums)
        self._forget()

    def clear(self) -> None:
        """Drop everything that was gathered."""
        self._gathered.clear()
        self._sums = None
        self._lost.clear()
        self._waiting = frozenset()

    @property
    def waiting(self) -> bool:
        """Whether anything that was read is wanted later."""
        return bool(self._waiting)

    def _forget(self) -> None:
        """Drop what was gathered, except what is wanted later."""
        self._gathered = {readers: kept for readers, kept in self._gathered.items() if self._waiting & {*readers}}

    def _join(self, parts: Sequence[Curvature]) -> Curvature:
        if len(parts) == 1:
            return parts[0]
        curvature = Curvature(parts[0].columns, offload=parts[0].offload)
        for part in parts:
            curvature.absorb(part)
        return curvature

    def _observe(self, name: str, x: Tensor | None) -> None:
        if name not in self._observing:
            return
        if x is None:
            self._losing.add(name)
        if x is None or x.numel() == 0:
            return
        key = (x.data_ptr(), x.shape, x.stride(), x.dtype, x._version)
        if key not in self._seen:
            self._seen[key] = _Seen(original=x, tokens=x.detach().reshape(-1, x.shape[-1]).clone())
        if name not in self._seen[key].readers:
            self._seen[key].readers.append(name)
        self.on_read()


@contextmanager
def _replaced(model: nn.Module, weights: Sequence[WatchedWeight], observe: Observe) -> Iterator[None]:
    """Within the block, ``weights`` of ``model`` pass what they are multiplied with to ``observe``."""
    places = {}
    for weight in weights:
        path, _, leaf = weight.name.rpartition(".")
        parameters: dict[str, Any] = model.get_submodule(path)._parameters
        places[id(parameters), leaf] = parameters, leaf, weight
    values = [parameters[leaf] for parameters, leaf, _ in places.values()]
    made = observed([(weight, value) for (_, _, weight), value in zip(places.values(), values, strict=True)], observe)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation that shows no product
    try:
        for (parameters, leaf, _), tensor in zip(places.values(), made, strict=True):
            parameters[leaf] = tensor
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for (parameters, leaf, _), value in zip(places.values(), values, strict=True):
            parameters[leaf] = value


def _ignore() -> None:
    """Nothing follows when an input is read."""
