"""The plan of a merge, made before it starts: which tensors belong together, and whether they fit.

Reads the two checkpoints' configurations and headers; of the weights, only those that config.json ties and that are
saved twice all the same.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.config import HPAConfig
from hpa_merge.counting import counted
from hpa_merge.engine.code import check_code
from hpa_merge.engine.components import check_policies, find_from_old, is_chosen, is_included
from hpa_merge.engine.matching import match, set_aside
from hpa_merge.engine.modelled import Modelled
from hpa_merge.errors import CheckpointError, ConfigError
from hpa_merge.inputs.vocabulary import check_order
from hpa_merge.outline import LinearTensor, Unit
from hpa_merge.report.words import shortened

__all__ = ["LinearPair", "OutPlan", "Plan", "make_plan", "plan_of"]

EXPERT, OTHER = "expert", "convolution or other"
"""Kinds of weights that no rule merges."""


@final
@dataclass(frozen=True)
class LinearPair:
    """A linear weight in both checkpoints.

    Attributes:
        old, new: its place in each.
        shared_rows: for a head whose vocabulary grew, the number of rows that OLD has too; the others are NEW's.
        rows: for a head whose vocabulary was cut, the number of NEW's rows, which are the first of OLD's.
    """

    old: LinearTensor
    new: LinearTensor
    shared_rows: int | None = None
    rows: int | None = None

    def before(self, tensor: Tensor) -> Tensor:
        """OLD's weight, ``[r, c]``, from OLD's tensor: a view, without rows that NEW lacks."""
        return self.old.matrix(tensor)[: self.rows]


@final
@dataclass(frozen=True)
class OutPlan:
    """What will be in one OUT.

    Attributes:
        config: its options.
        included: names of the linears that the options allow to be adapted.
        from_old: OLD's key for each of NEW's keys whose tensor comes from OLD.
        passed_through: how many other tensors come from NEW, by kind; adaptable linears do not count.
        unmerged: names of those that are weights and no embedding or router: convolutions, tables, and parameters whose
            inputs are not known.
    """

    config: HPAConfig
    included: frozenset[str]
    from_old: dict[str, str]
    passed_through: dict[str, int]
    unmerged: tuple[str, ...]

    def counts(self, linear: LinearTensor) -> bool:
        """Whether a weight of NEW counts as a linear: routers only if they are merged."""
        return not linear.router or self.config.routers == "merge"

    def includes(self, pair: LinearPair) -> bool:
        """Whether the options let a linear be adapted."""
        return pair.new.name in self.included


@final
@dataclass(frozen=True)
class Plan:
    """Two checkpoints that fit each other, and what is made from them.

    Attributes:
        old, new: their meta models or, if no sample runs, what a statistics file keeps of these.
        device: where the arithmetic runs.
        linears: all linears, by the unit that they are merged with.
        passed: linears that a unit uses and that a later unit uses too, by unit.
        outs: what will be in each OUT, in the order of the configurations.
        reshaped: a sentence for each tensor that has another shape in NEW than in OLD: the vocabulary grew or was cut,
            or the options exclude the tensor.
        notes: what the user should know of the two, a sentence each.
    """

    old: Modelled
    new: Modelled
    device: torch.device
    linears: dict[Unit, tuple[LinearPair, ...]]
    passed: dict[Unit, tuple[LinearPair, ...]]
    outs: tuple[OutPlan, ...]
    reshaped: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def architecture(self) -> str:
        """Class name of the model."""
        return self.new.architecture

    @property
    def only(self) -> OutPlan:
        """The plan of the only OUT."""
        (out,) = self.outs
        return out

    @property
    def pairs(self) -> list[LinearPair]:
        """All linears."""
        return [pair for pairs in self.linears.values() for pair in pairs]


def make_plan(old: Checkpoint, new: Checkpoint, configs: Sequence[HPAConfig], device: torch.device) -> Plan:
    """Match ``old`` and ``new``, tensor by tensor.

    Args:
        configs: the options of each OUT.
        device: where units are loaded to.

    Raises:
        CheckpointError: they are not the same model before and after tuning; names the first difference.
        ConfigError: the options of one OUT leave no linear to adapt, or contradict each other or the model.
    """
    from hpa_merge.engine.meta_models import check_inputs, meta_models  # with transformers

    check_code(old, new)
    metas = meta_models(old, new, device)
    check_inputs(metas[1])
    return plan_of(metas, old, new, configs, device)


def plan_of(
    metas: tuple[Modelled, Modelled],
    old: Checkpoint,
    new: Checkpoint,
    configs: Sequence[HPAConfig],
    device: torch.device,
) -> Plan:
    """As :func:`make_plan`, of models that are known."""
    components, own = metas[1].components, new.tensors.keys() - new.external
    included = [
        {key for key in own if is_included(config, key, components.get(key), router=key in metas[1].router_keys)}
        for config in configs
    ]
    for config in configs:
        check_policies(config, metas[1])
    in_any = set().union(*included)
    keys = match(metas[0], metas[1], old, new, in_any)
    if metas[0].units != metas[1].units:
        raise CheckpointError(
            "the config.json of OLD and that of NEW make models of different modules: "
            "give the checkpoints before and after tuning of one model."
        )
    notes = (*_notes(metas, old, new), *set_aside(metas, keys, new.external))
    outs = tuple(_plan_out(metas, old, new, keys, *each) for each in zip(configs, included, strict=True))
    heads = {linear.key for linear in metas[1].linears.values() if components[linear.key] == "head"} & in_any
    resized = {key for key in heads if old.tensors[keys[key]].shape != new.tensors[key].shape}
    if heads or any(components[key] in ("head", "embeddings") for out in outs for key in out.from_old):
        check_order(old.folder, new.folder)
    linears: dict[Unit, list[LinearPair]] = defaultdict(list)
    passed: dict[Unit, list[LinearPair]] = defaultdict(list)
    in_old = {(linear.key, linear.part): linear for linear in metas[0].linears.values()}
    for linear in metas[1].linears.values():
        before = in_old[keys[linear.key], linear.part]
        rows = [checkpoint.tensors[key].shape[0] for checkpoint, key in ((old, before.key), (new, linear.key))]
        pair = LinearPair(before, linear)
        if linear.key in resized:
            pair = replace(pair, shared_rows=rows[0]) if rows[0] < rows[1] else replace(pair, rows=rows[1])
        linears[linear.last].append(pair)
        for unit in linear.uses[:-1]:
            passed[unit].append(pair)
    return Plan(
        old=metas[0],
        new=metas[1],
        device=device,
        linears={unit: tuple(linears[unit]) for unit in metas[1].units if unit in linears},
        passed={unit: tuple(pairs) for unit, pairs in passed.items()},
        outs=outs,
        reshaped=tuple(
            f"{key} is {list(shapes[0])} in OLD and {list(shapes[1])} in NEW: "
            + (
                f"the first {counted(min(s[0] for s in shapes), 'row', 'are')} merged."
                if key in resized
                else "NEW's is taken."
            )
            for key, old_key in keys.items()
            if key in own and len(set(shapes := (old.tensors[old_key].shape, new.tensors[key].shape))) > 1
        ),
        notes=notes,
    )


def _plan_out(
    metas: tuple[Modelled, Modelled],
    old: Checkpoint,
    new: Checkpoint,
    matched: Mapping[str, str],
    config: HPAConfig,
    included: Collection[str],
) -> OutPlan:
    """The plan of the OUT with the options ``config``, which include the tensors ``included``.

    Raises:
        ConfigError: a tensor that should come from OLD has another shape there.
    """
    from_old = find_from_old(metas[0], metas[1], matched, config)
    for key, old_key in from_old.items():
        shapes = old.tensors[old_key].shape, new.tensors[key].shape
        if shapes[0] != shapes[1]:
            component = metas[1].components[key]
            raise ConfigError(
                f"{component} is old, and {key} has shape {list(shapes[0])} in OLD and {list(shapes[1])} in NEW: "
                f"set {component} to new."
            )
    linears, kinds = metas[1].linears.values(), _kinds(metas[1], new, from_old, config)
    return OutPlan(
        config=config,
        included=frozenset(each.name for each in linears if each.key in included and is_chosen(config, each.unit)),
        from_old=from_old,
        passed_through=dict(sorted(Counter(kinds.values()).items())),
        unmerged=tuple(sorted(key for key, kind in kinds.items() if kind in (EXPERT, OTHER))),
    )


def _notes(metas: tuple[Modelled, Modelled], old: Checkpoint, new: Checkpoint) -> Iterator[str]:
    """What the user should know of the classes and of the tensors that belong to no module, a sentence each."""
    name = metas[1].architecture
    for checkpoint in (old, new):
        named = (checkpoint.config.get("architectures") or ["no class"])[0]
        if named != name and checkpoint.tower is None:
            yield f"{checkpoint.role}'s config.json names {named} in architectures; it was read as a {name}."
    if metas[1].headless:
        yield f"{name} has no head, so OUT has none: load it with AutoModel, as other classes make a head at random."
    unknown = [set(meta.unknown) for meta in metas]
    if gone := sorted(unknown[0] - unknown[1]):
        yield f"Only OLD has {shortened(gone)}, which {name} does not have: OUT lacks what NEW lacks."
    if there := sorted(unknown[1] & unknown[0]):
        yield f"{name} does not have {shortened(there)}: OUT has NEW's."
    if come := sorted(unknown[1] - unknown[0]):
        yield f"Only NEW has {shortened(come)}, which {name} does not have: OUT has NEW's."


def _kinds(meta: Modelled, checkpoint: Checkpoint, from_old: Collection[str], config: HPAConfig) -> dict[str, str]:
    """The kind of each tensor that is not an adaptable linear and comes from NEW, by name."""
    kinds: dict[str, str] = {}
    routers = {linear.key for linear in meta.linears.values() if linear.router and config.routers != "merge"}
    adaptable, external = {linear.key for linear in meta.linears.values()} - routers, checkpoint.external
    for key, info in checkpoint.tensors.items():
        if key in adaptable or key in from_old or key in external:
            continue
        if key not in meta.slots:
            kinds[key] = "unknown to the model"
        elif key not in meta.tied and meta.components[key] == "head" and len(info.shape) > 1:
            kinds[key] = "head"
        elif key in meta.tied:
            kinds[key] = "tied"
        elif key in meta.embeddings:
            kinds[key] = "embedding"
        elif key in routers:
            kinds[key] = "router"
        elif key in meta.experts:
            kinds[key] = EXPERT
        elif len(info.shape) <= 1 or key.endswith("bias"):
            kinds[key] = "norm, bias or scalar"
        else:
            kinds[key] = OTHER
    return kinds
