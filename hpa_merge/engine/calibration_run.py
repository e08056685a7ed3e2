"""One model with its calibration set: OLD runs the safety samples, and NEW the task samples."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor

from hpa_merge.config import CalibrationOptions
from hpa_merge.core.leaves import rank_at
from hpa_merge.custom_code.failing import place_of
from hpa_merge.engine.encoding import Encoding, tokens_of
from hpa_merge.engine.machine import is_out_of_memory
from hpa_merge.engine.observations import Observations, Travel
from hpa_merge.engine.owners import Input
from hpa_merge.engine.routing import COMPARED, Chosen
from hpa_merge.engine.statistics import Kept, ModelStatistics, Statistics
from hpa_merge.engine.unit_statistics import Observed
from hpa_merge.engine.weights import Read, Weights
from hpa_merge.errors import CalibrationError
from hpa_merge.model import (
    ActivationHooks,
    ChoiceHooks,
    Choices,
    ForwardError,
    LinearTensor,
    MetaModel,
    PausedForwards,
    Unit,
)
from hpa_merge.model.aligned_memory import aligned
from hpa_merge.outline import Readers
from hpa_merge.progress import Progress, silent
from hpa_merge.records import Sample

__all__ = ["CalibrationRun"]


TEXT_ALONE = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}
"""The inputs of a sample without media."""


@final
class CalibrationRun:
    """Samples that run through a model: the :class:`~hpa_merge.engine.sources.StatisticsSource` that computes.

    Each rank runs the samples of its leaves. All ranks go through the same units, and exchange what their samples read.

    Attributes:
        purpose: ``safety`` or ``task``.
        role: ``OLD`` or ``NEW``.
        weights: the model's weights.
        leads: whether this rank has the first leaves, and adds them at once.
        inputs: the encoded samples of this rank, on the CPU.
        used: what is known of the samples of all ranks.
        tally: what became of the set.
        shown: the first samples as the model gets them, if they are wanted.
    """

    def __init__(
        self,
        purpose: str,
        weights: Weights,
        meta: MetaModel,
        samples: Encoding,
        config: CalibrationOptions,
        on_progress: Progress = silent,
    ) -> None:
        """Encode the samples; errors are those of :meth:`Encoding.inputs`.

        Only ``damping`` and ``min_expert_tokens`` of ``config`` are used.
        """
        self.purpose = purpose
        self.role = weights.role
        self.weights = weights
        self._damping = config.damping
        self._min_expert_tokens = config.min_expert_tokens
        self._coming: list[Unit] = []  # the units to prefetch, in order
        self._merging: set[Unit] = set()  # the units that are not merged yet
        self._record: ModelStatistics | None = None
        self._linears: Mapping[Unit, Sequence[LinearTensor]] = {}
        self._meta = meta
        self._others: Sequence[tuple[int, Mapping[str, Tensor]]] = ()  # samples of the other model, by their index
        self._compared = 0  # of the set's samples, how many the other model runs
        self._chosen: tuple[dict[int, Choices], dict[int, Choices]] = ({}, {})
        self._choosing = ChoiceHooks(meta.model, ())
        self._group = samples.group
        self.inputs = samples.inputs(meta, on_progress)
        self.tally, self.shown = samples.tally, tuple(samples.shown)
        self.used = samples.used
        self._samples = samples.samples
        self._own = [place for place, each in enumerate(self.used) if each.rank == self._group.rank]
        self._next: Unit | None = None  # that a sample of any rank waits at
        self._wanted: Sequence[LinearTensor] = ()  # whose statistics come from the unit that has run
        self._observations = Observations({}, frozenset())
        self._forwards = PausedForwards(meta.model, meta.units)
        self._hooks = ActivationHooks(meta.model, meta.observed)
        self._hooks.on_read = self._forwards.end_if_last
        self._hooks.apart = self._group.size > 1
        self.leads = self._group.rank == rank_at(0, self._group.size, backwards=samples.backwards)
        self._hooks.leads = self.leads
        self._hooks.set_tokens = sum(each.tokens for each in self.used)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the samples run in."""
        return self._meta.dtype

    @property
    def tokens(self) -> int:
        """Tokens of all samples."""
        return self.tally.tokens

    @property
    def own_tokens(self) -> int:
        """Tokens of the samples of this rank."""
        return sum(each.tokens for each in self.used if each.rank == self._group.rank)

    @property
    def leaf_share(self) -> float:
        """The share of the tokens that the largest leaf has."""
        of_leaves: Counter[int] = Counter()
        for each in self.used:
            of_leaves[each.leaf] += each.tokens
        return max(of_leaves.values(), default=0) / max(1, of_leaves.total())

    @property
    def ranks(self) -> int:
        """How many ranks share the samples."""
        return self._group.size

    def counted(self, samples: Collection[Sample]) -> tuple[int, int]:
        """How many of these are used, and their tokens."""
        wanted = set(map(id, samples))
        tokens = [each.tokens for sample, each in zip(self._samples, self.used, strict=True) if id(sample) in wanted]
        return len(tokens), sum(tokens)

    def compare(self, other: "CalibrationRun") -> None:
        """Run the first samples of the other model too, only to see which experts they are sent to.

        One that this model cannot run, for example because it has fewer token ids, is not compared. A rank compares
        those that it has.
        """
        self._compared, rows = COMPARED, self._rows()
        self._others = [
            (place, sample)
            for place, sample in zip(other._own, other.inputs, strict=True)
            if place < COMPARED and (rows is None or bool((sample["input_ids"] < rows).all()))
        ]

    @property
    def other_tokens(self) -> int:
        """Tokens of the other model's samples."""
        return sum(tokens_of(sample) for _, sample in self._others)

    @property
    def chosen(self) -> Chosen:
        return self._chosen

    def record_into(self, statistics: ModelStatistics, linears: Mapping[Unit, Sequence[LinearTensor]]) -> None:
        """Record the statistics of all ``linears``, merged or not, in ``statistics``, which may hold some already."""
        self._record, self._linears = statistics, linears

    def offload(self, offload: bool) -> None:
        """Set whether activations wait on the host until their curvature is computed: slower, but saves memory."""
        self._hooks.offload = offload

    @contextmanager
    def merging(self, units: Collection[Unit], budget: int) -> Iterator[None]:
        """Within the block, ``units`` are merged. Samples visit every unit, so the weights of all are prefetched."""
        self._merging, self._coming = set(units), list(self._meta.units)
        keys = [key for unit in (None, *self._coming) for key in self._meta.keys_of(unit)]
        with self.weights.prefetching(keys, budget, together=True):
            yield

    def start(self) -> None:
        """Run every sample to its first unit.

        Raises:
            CalibrationError: the model's forward fails on a sample.
        """
        if self._record is not None:
            self._record.visits.clear()
        self._hooks.clear()
        self._check_ids()
        self.weights.check(self._meta.load(None, self.weights.reader(self._meta.keys_of(None))))
        samples = [*self.inputs, *(sample for _, sample in self._others)]
        inputs = [{name: self._place(value) for name, value in sample.items()} for sample in samples]
        if self._compared:
            self._choosing = ChoiceHooks(self._meta.model, self._meta.routers.values())
        try:
            self._forwards.start(inputs, needed=len(self.inputs))
        except ForwardError as error:
            raise self._failed(error) from error
        self._agree()

    @property
    def next_unit(self) -> Unit | None:
        return self._next

    def lacks(self, unit: Unit) -> bool:
        return bool(self._unrecorded(unit))

    def load(self, unit: Unit) -> Read:
        if unit in self._coming:
            self._postpone_before(unit)
        tensors = self._meta.load(unit, self.weights.reader(self._meta.keys_of(unit)))
        self.weights.check(tensors)
        return tensors.__getitem__

    def run(self, unit: Unit, linears: Iterable[LinearTensor], later: Iterable[LinearTensor] = ()) -> None:
        """Run the samples that wait at ``unit``, which is loaded, through it.

        The samples end in the last unit to be merged, as soon as its linears have read their inputs.

        Raises:
            CalibrationError: the model's forward fails on a sample.
        """
        self._merging.discard(unit)
        waiting, record = self.next_unit == unit, self._record
        self._wanted = [*linears] if record is None and (waiting or self._hooks.waiting) else self._unrecorded(unit)
        self._run(unit, self._wanted, later)

    def inputs_of(self, linears: Iterable[LinearTensor]) -> dict[str, Input]:
        """What the linears have read in the unit that has run, by name; every rank asks."""
        self._observations = Observations.of_all(self._group, self._hooks)
        return {each.name: self._observations.input_of(each, self._min_expert_tokens) for each in linears}

    def travel(self, owners: Mapping[str, int]) -> Travel:
        """What the samples of the other ranks have read comes to the owners, and the first rank if it writes Hessians.

        Args:
            owners: the rank of each linear that was run, by name.
        """
        needed: defaultdict[Readers, set[int]] = defaultdict(set)
        for linear in self._wanted:
            for readers in self._observations.needs(linear, self._min_expert_tokens):
                needed[readers] |= {owners[linear.name], *([0] if self._keeping else [])}
        receivers = {readers: sorted(needed[readers]) for readers in sorted(needed)}
        return self._observations.travel(self._group.rank, self._hooks, receivers, self.weights.device)

    def settle(self, unit: Unit, owners: Mapping[str, int]) -> Statistics:
        """The statistics of the linears of ``unit`` that this rank owns; all of them, if they are recorded.

        Args:
            owners: the rank of each linear that was run, by name.

        Raises:
            NumericalError: an activation is not finite, or a recorded curvature cannot be factored.
        """
        record = self._record
        observed = Observed(self.purpose, self.role, self._hooks.curvatures(), self._damping, self._min_expert_tokens)
        if record is None:
            return observed
        own = [each for each in self._wanted if owners[each.name] == self._group.rank]
        taken = []
        for linear in own:
            diagonal = observed.inverse_diagonal(linear).cpu() if observed.reached(linear) else None
            taken.append((linear.name, observed.tokens(linear), diagonal))
        for each in (each for of_rank in self._group.gather(taken) for each in of_rank):
            record.take(*each)
        if self._group.is_first and self._wanted:
            record.keep(unit, observed, self._wanted)
        return record if self._group.is_first or not self._keeping else Kept(record, observed)

    @property
    def _keeping(self) -> bool:
        """Whether Hessians are written with the statistics."""
        return self._record is not None and self._record.hessians is not None

    def gather(self, unit: Unit, later: Iterable[LinearTensor]) -> None:
        self._run(unit, (), later if self._record is None else self._unrecorded(unit))

    def _run(self, unit: Unit, linears: Sequence[LinearTensor], later: Iterable[LinearTensor]) -> None:
        """Run the samples that wait at ``unit``; ``later``: the linears that it uses and that are merged later."""
        if self.next_unit != unit:
            later = ()
        elif self._record is not None:
            later = [*later, *filter(self._record.lacks, self._meta.passed.get(unit, ()))]
            if unit.name not in self._record.visits:
                self._record.visits.append(unit.name)
        pooling, self._chosen = self._min_expert_tokens > 0, ({}, {})
        names, waiting = (
            {o for linear in group for o in (linear.pool if pooling else ()) + linear.observers}
            for group in (linears, later)
        )
        last = not self._merging and len(names | waiting) <= 1
        with self._hooks.watching(names, waiting):
            try:
                for place in self._forwards.run(unit, last=last, reads=bool(names or waiting)):
                    self._end_sample(place)
            except ForwardError as error:
                raise self._failed(error) from error
        self._agree()

    def _agree(self) -> None:
        """Find the earliest unit that a sample of any rank waits at."""
        unit = self._forwards.next_unit
        index = self._group.least(None if unit is None else unit.index)
        self._next = None if index is None else next(each for each in self._meta.units if each.index == index)

    def free(self, unit: Unit) -> None:
        self._meta.free(unit)
        if self._record is not None and self._record.hessians is not None:
            self._record.hessians.forget()

    def close(self) -> None:
        self._forwards.close()
        self._choosing.close()
        self._next = None

    def _end_sample(self, place: int) -> None:
        """Take what a sample has activated, or which experts it was sent to, in the unit that it has run through."""
        own, choices = len(self.inputs), self._choosing.take()
        if place < own:
            self._hooks.end_sample(self.used[self._own[place]].leaf)
            if self._own[place] < self._compared:
                self._chosen[0][self._own[place]] = choices
        else:
            self._hooks.drop_sample()
            self._chosen[1][self._others[place - own][0]] = choices

    def _unrecorded(self, unit: Unit) -> list[LinearTensor]:
        """The linears of ``unit`` whose statistics are not recorded yet."""
        record = self._record
        return [] if record is None else [linear for linear in self._linears.get(unit, ()) if record.lacks(linear)]

    def _postpone_before(self, unit: Unit) -> None:
        """Dequeue a unit that is about to be loaded; move units that no sample can reach to the back."""
        place = self._coming.index(unit)
        passed = self._coming[:place] if unit.text else []
        self.weights.postpone([key for other in passed for key in self._meta.keys_of(other)])
        self._coming = [*self._coming[len(passed) : place], *self._coming[place + 1 :], *passed]

    def _check_ids(self) -> None:
        """Raise CalibrationError for a token id that the model does not have: on a GPU no error names the sample."""
        rows = self._rows()
        for place, inputs in zip(self._own, self.inputs, strict=True):
            sample = self._samples[place]
            if rows is None or not (sample.input_ids or inputs.keys() <= TEXT_ALONE):
                continue  # a model may replace the ids of placeholders
            if (highest := int(inputs["input_ids"].max())) < rows:
                continue
            if sample.input_ids:
                raise CalibrationError(
                    f"{sample.source}: input_ids holds {highest}, and {self.role}'s vocabulary has {rows} tokens: "
                    "use the ids of the checkpoint's own tokenizer."
                )
            raise CalibrationError(
                f"{sample.source}: {self.role}'s tokenizer makes the token {highest} of this sample, and its "
                f"embeddings have {rows} rows: give the tokenizer that belongs to these weights, or the model after "
                "resize_token_embeddings()."
            )

    def _rows(self) -> int | None:
        """How many token ids the model has, if it says so."""
        rows: int | None = getattr(self._meta.model.get_input_embeddings(), "num_embeddings", None)
        return rows

    def _place(self, value: Tensor) -> Tensor:
        """An input on the device, cast to the model's dtype if floating, in aligned memory: OUT must not depend on
        where the input lies."""
        dtype = self._meta.dtype if value.is_floating_point() else value.dtype
        return aligned(value.to(self._meta.device, dtype))

    def _failed(self, error: ForwardError) -> BaseException:
        """The error to raise for a forward that failed; out of memory is not the sample's fault and stays as it is."""
        cause, source = error.__cause__, self._samples[self._own[error.sample]].source
        if cause is not None and is_out_of_memory(cause):
            return cause
        reason, place = (str(cause).strip().splitlines() or [""])[0], place_of(cause) if cause is not None else ""
        return CalibrationError(
            f"{source}: {self.role}'s forward fails on this sample ({type(cause).__name__}: {reason}"
            f"{f' in {place}' if place else ''}): "
            f"{'correct that code, or ' if place else ''}fix the sample or remove it."
        )
