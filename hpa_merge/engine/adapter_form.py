"""OUT as an adapter on OLD: which tensors it has, and which linear weights each pair of factors holds.

Restoring columns of a LoRA's update ``Y X`` is ``Y (X diag(1 − m))``, and every rule whose result is ``W_old + ΔW M``
gives ``Y (X M)``: a LoRA of the same rank. One pair may hold several linear weights, as in the stacks of experts that
transformers makes of the matrices on disk. Each of them has its own ``M``; ranks that they share are then repeated.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.config import HPAConfig
from hpa_merge.engine.adapter_layout import adapter_layout
from hpa_merge.engine.plan import OutPlan, Plan
from hpa_merge.errors import CheckpointError, ConfigError
from hpa_merge.model import Adapter, LinearTensor, MetaModel, is_original_llava
from hpa_merge.model.adapter_factors import Factors, saved_name
from hpa_merge.model.adapter_parts import AdapterPart, parts_of

__all__ = ["AdapterForm", "Pair", "Place", "plan_adapter"]

MAGNITUDE = "lora_magnitude_vector"
"""Part of the name of the tensors that a DoRA has in addition to its factors."""


@final
@dataclass(frozen=True)
class Place:
    """Where a linear weight is: the number of the pair, of its expert, and of the linear among that expert's."""

    pair: int
    expert: int
    owner: int


@final
@dataclass(frozen=True, eq=False)
class Pair:
    """The two factors of a parameter: ``X`` multiplies its inputs, and ``Y`` gives its outputs.

    Attributes:
        factors: how they are multiplied.
        a, b: the tensors, as NEW has them.
        x_is_a, written_x_is_a: whether ``X`` is what peft calls ``A``, in NEW and in OUT. Versions of peft differ for
            stacks of experts.
        owners: for each expert, the number of the linear that each output belongs to, ``[r]``.
        terms: for each expert, the number of the linear that each rank is for, ``[k]``; None if linears share ranks.
        rank: of OUT's pair.
    """

    factors: Factors
    a: AdapterPart
    b: AdapterPart
    x_is_a: bool
    written_x_is_a: bool
    owners: tuple[Tensor, ...] = ()
    terms: tuple[Tensor, ...] | None = None
    rank: int = 0

    @property
    def experts(self) -> int:
        """The number of matrices; 1 without a stack."""
        return self.factors.experts or 1

    @property
    def own_rank(self) -> int:
        """NEW's rank."""
        return self.a.shape[0] // self.experts

    @property
    def columns(self) -> int:
        """The number of inputs."""
        return self.a.shape[1] if self.x_is_a else self.b.shape[0]

    @property
    def rows(self) -> int:
        """The number of outputs."""
        return self.b.shape[0] if self.x_is_a else self.a.shape[1]

    @property
    def exact_rank(self) -> int:
        """The rank that holds an update with another ``M`` for each linear."""
        most = max(int(owners.max()) + 1 for owners in self.owners)
        return self.own_rank * (most if self.terms is None else 1)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of OUT's tensors, by name."""
        ranks = self.rank * self.experts
        ends = (self.columns, self.rows) if self.written_x_is_a else (self.rows, self.columns)
        return {self.a.name: (ranks, ends[0]), self.b.name: (ends[1], ranks)}

    def split(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """``X`` ``[experts, k, c]`` and ``Y`` ``[experts, r, k]``, from NEW's tensors."""
        a = a.reshape(self.experts, -1, a.shape[1])
        b = b.reshape(len(b), -1, self.experts).permute(2, 0, 1)
        return (a, b) if self.x_is_a else (b.transpose(1, 2), a.transpose(1, 2))

    def join(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """OUT's tensors ``A`` and ``B``, as peft saves them now: the reverse of :meth:`split`."""
        a, b = (x, y) if self.written_x_is_a else (y.transpose(1, 2), x.transpose(1, 2))
        return a.reshape(-1, a.shape[2]).contiguous(), b.permute(1, 2, 0).reshape(b.shape[1], -1).contiguous()


@final
@dataclass(frozen=True, eq=False)
class AdapterForm:
    """The plan of an OUT that is an adapter.

    Attributes:
        adapter, own: NEW's adapter, and its own tensors.
        layout: OUT's files, as if NEW had them.
        parts: OUT's tensors.
        pairs: the factors that hold linear weights.
        places: where each linear is, by its name; nothing for one that the adapter does not change.
        wholes: the parts that are whole parameters with linears, by OLD's tensor on disk.
        out: what is in OUT.
    """

    adapter: Adapter
    own: Checkpoint
    layout: Checkpoint
    parts: tuple[AdapterPart, ...]
    pairs: tuple[Pair, ...]
    places: Mapping[str, tuple[Place, ...]]
    wholes: Mapping[str, AdapterPart]
    out: OutPlan

    @cached_property
    def of_linears(self) -> frozenset[str]:
        """Names of the tensors that are made with linear weights."""
        of_pairs = (part.name for pair in self.pairs for part in (pair.a, pair.b))
        return frozenset((*of_pairs, *(part.name for part in self.wholes.values())))

    def read(self, part: AdapterPart) -> Tensor:
        """NEW's tensor, in the dtype of its file."""
        if part.key is not None:
            return self.own.read(part.key)
        return self.adapter.tensor(saved_name(part.placed), self.own.read).to(part.dtype)


def plan_adapter(new: Checkpoint, plan: Plan, out: OutPlan) -> AdapterForm:
    """Plan an OUT that is an adapter; of the weights, only factors that several linears share are read.

    Raises:
        CheckpointError: NEW is not a LoRA, or is one whose parts cannot be changed one by one.
        ConfigError: the rank is too small; the options take something from OLD, and the adapter cannot hold that.
    """
    own = new.overlay.own_tensors if new.overlay is not None else None
    adapter = new.overlay.adapter if new.overlay is not None else None
    if own is None or not isinstance(adapter, Adapter):
        raise CheckpointError(
            f"NEW {new.folder} is a whole checkpoint, and OUT is an adapter only if NEW is one: give the LoRA that was "
            "trained on OLD, or leave out --output-format."
        )
    kind = str(adapter.settings.peft_type.value)
    if kind != "LORA":
        raise CheckpointError(
            f"NEW {own.folder} is an adapter of type {kind}, and OUT is an adapter only if NEW is a LoRA: leave out "
            "--output-format."
        )
    every = parts_of(adapter)
    if is_original_llava(new.config):  # for the code that loads it, not for transformers
        every = tuple(replace(part, name=part.key or part.name) for part in every)
    linears = [linear for linear in plan.new.linears.values() if out.counts(linear)]
    keys = {linear.key for linear in linears}
    wholes = {key: part for part in every if part.replaces is not None for key in part.changes & keys}
    pairs: list[Pair] = []
    places: defaultdict[str, list[Place]] = defaultdict(list)
    assert isinstance(plan.new, MetaModel)  # an outline does not suffice for an adapter
    for pair, held in _held(adapter, every, linears, plan.new):
        owners = _owners(pair, held, plan.new)
        found = _with_ranks(replace(pair, owners=owners), own, adapter, out.config)
        for expert, each in enumerate(held):
            for number, linear in enumerate(each):
                places[linear.name].append(Place(len(pairs), expert, number))
        pairs.append(found)
    for linear in linears:
        if linear.key in adapter.keys and linear.name not in places and linear.key not in wholes:
            raise CheckpointError(
                f"NEW {own.folder} is an adapter that changes {linear.name} in a way that cannot be taken apart: leave "
                "out --output-format."
            )
    _check_variants(own, adapter, pairs, out.config)
    parts = [part for part in every if MAGNITUDE not in part.placed]
    _check_from_old(parts, pairs, own, out)
    shapes = {name: shape for pair in pairs for name, shape in pair.shapes.items()}
    parts = [replace(part, shape=shapes.get(part.name, part.shape)) for part in parts]
    ranks = {pair.factors.parameter: (pair.rank, pair.factors.scaling) for pair in pairs if pair.rank != pair.own_rank}
    turned = any(pair.x_is_a != pair.written_x_is_a for pair in pairs)
    layout = adapter_layout(own, adapter, parts, ranks, every_rank=len(ranks) == _layers_in(every), turned=turned)
    return AdapterForm(
        adapter, own, layout, tuple(parts), tuple(pairs), {n: tuple(p) for n, p in places.items()}, wholes, out
    )


def _layers_in(parts: Sequence[AdapterPart]) -> int:
    """The number of layers that have a rank."""
    return sum("lora_A." in part.placed or "lora_embedding_A." in part.placed for part in parts)


def _held(
    adapter: Adapter, parts: Sequence[AdapterPart], linears: Sequence[LinearTensor], meta: MetaModel
) -> Iterator[tuple[Pair, list[list[LinearTensor]]]]:
    """The pairs of factors that hold linears, and the linears of each expert."""
    by_placed = {part.placed: part for part in parts}
    observed = defaultdict(list)
    for linear in linears:
        for observer in linear.observers:
            observed[observer].append(linear)
    for factors in adapter.factors:
        axis, count = meta.input_axis(factors.parameter), factors.experts
        if axis is None or (count is None) == (factors.parameter in meta.stacks):
            continue
        if count is None:
            held = [observed[factors.module] or observed[factors.parameter]]
        else:
            held = [observed[f"{factors.parameter}[{e}]"] for e in range(count)]
        if all(held):
            a, b = (by_placed[adapter.names[name]] for name in (factors.a, factors.b))
            last, owner = axis == (1 if count is None else 2), factors.parameter.rpartition(".")[0]
            crossed = factors.crossed
            if count is not None:  # as peft takes it, which has its own view of a stack
                crossed = not getattr(meta.model.get_submodule(owner), "is_transposed", False)
            yield Pair(factors, a, b, factors.crossed == last, crossed == last), held


def _owners(pair: Pair, held: Sequence[Sequence[LinearTensor]], meta: MetaModel) -> tuple[Tensor, ...]:
    """See :class:`Pair`.

    Raises:
        CheckpointError: rows of several linears are interleaved.
    """
    if all(len(linears) == 1 for linears in held):
        return tuple(torch.zeros(pair.rows, dtype=torch.long) for _ in held)
    found = meta.row_owners(pair.factors.parameter)
    if found is None:
        raise CheckpointError(
            f"the rows of {pair.factors.parameter} are of several tensors of OLD, interleaved, and cannot be taken "
            "apart: leave out --output-format."
        )
    numbers = [{linear.key: number for number, linear in enumerate(linears)} for linears in held]
    return tuple(torch.tensor([n[key] for key in keys]) for n, keys in zip(numbers, found, strict=True))


def _with_ranks(pair: Pair, own: Checkpoint, adapter: Adapter, config: HPAConfig) -> Pair:
    """The pair with its terms and OUT's rank.

    Raises:
        ConfigError: the rank that the options ask for does not hold NEW's update.
    """
    if all(int(owners.max()) == 0 for owners in pair.owners):
        terms: tuple[Tensor, ...] | None = tuple(torch.zeros(pair.own_rank, dtype=torch.long) for _ in pair.owners)
    else:
        x, y = (adapter.tensor(saved_name(part.placed), own.read) for part in (pair.a, pair.b))
        terms = _terms(pair, pair.split(x, y)[1])
    pair = replace(pair, terms=terms)
    if config.adapter_rank and config.adapter_rank < pair.own_rank:
        raise ConfigError(
            f"adapter_rank is {config.adapter_rank}, and {own.folder} has rank {pair.own_rank} at "
            f"{pair.factors.parameter}: give at least that, so that what is not adapted keeps its update."
        )
    return replace(pair, rank=config.adapter_rank or pair.exact_rank)


def _terms(pair: Pair, y: Tensor) -> tuple[Tensor, ...] | None:
    """The linear that each rank of ``Y`` ``[experts, o, r]`` is for; None if one rank is for several."""
    terms = []
    for owners, matrix in zip(pair.owners, y, strict=True):
        used = torch.stack([(matrix[owners == number] != 0).any(dim=0) for number in range(int(owners.max()) + 1)])
        if bool((used.sum(dim=0) > 1).any()):
            return None
        terms.append(used.int().argmax(dim=0))
    return tuple(terms)


def _check_variants(own: Checkpoint, adapter: Adapter, pairs: Sequence[Pair], config: HPAConfig) -> None:
    """Raise CheckpointError if a layer is more than a product of factors, unless that is approximated."""
    wrong = {factors.parameter for factors in adapter.factors if not factors.plain}
    if not wrong:
        return
    approximated = config.adapter_rank and adapter.settings.use_dora
    if not approximated or (left := wrong - {pair.factors.parameter for pair in pairs}):
        name = min(left if approximated else wrong)
        raise CheckpointError(
            f"NEW {own.folder} is a DoRA or another variant of LoRA, whose update of {name} is not a product of two "
            "factors: leave out --output-format"
            + ("." if approximated or not adapter.settings.use_dora else ", or approximate a DoRA with --adapter-rank.")
        )


def _check_from_old(parts: Sequence[AdapterPart], pairs: Sequence[Pair], own: Checkpoint, out: OutPlan) -> None:
    """Raise ConfigError if the adapter changes something that comes from OLD and cannot leave that out."""
    of_pairs = {part.placed for pair in pairs for part in (pair.a, pair.b)}
    for part in parts:
        if part.changes.isdisjoint(out.from_old) or part.placed in of_pairs or part.replaces is not None:
            continue
        if not part.changes.issubset(out.from_old) or "lora_" not in part.placed:
            raise ConfigError(
                f"{part.name} of {own.folder} changes {min(part.changes)}, which the options take from OLD, and an "
                "adapter cannot leave that out: leave out --output-format, or take that part from NEW."
            )
