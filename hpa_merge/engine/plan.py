"""The plan of a merge, made before it starts: which tensors belong together, and whether they fit.

Reads the two checkpoints' configurations and headers, and no weight.
"""

import inspect
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.config import HPAConfig
from hpa_merge.engine.components import check_policies, find_from_old, is_chosen, is_included
from hpa_merge.errors import CheckpointError, ConfigError
from hpa_merge.inputs.vocabulary import check_order
from hpa_merge.model import LinearTensor, MetaModel, Unit

EXPERT, OTHER = "expert", "convolution or other"
"""Kinds of weights that no rule merges."""


@final
@dataclass(frozen=True)
class LinearPair:
    """A linear weight in both checkpoints.

    Attributes:
        old, new: its place in each.
        shared_rows: for a head whose vocabulary grew, the number of rows that OLD has too; the others are NEW's.
    """

    old: LinearTensor
    new: LinearTensor
    shared_rows: int | None = None


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

    def includes(self, pair: LinearPair) -> bool:
        """Whether the options let a linear be adapted."""
        return pair.new.name in self.included


@final
@dataclass(frozen=True)
class Plan:
    """Two checkpoints that fit each other, as meta models, and what is made from them.

    Attributes:
        linears: all linears, by the unit that they are merged with.
        passed: linears that a unit uses and that a later unit uses too, by unit.
        outs: what will be in each OUT, in the order of the configurations.
        reshaped: a sentence for each tensor that has another shape in NEW than in OLD and therefore comes from NEW: the
            vocabulary grew, or the options exclude the tensor.
    """

    old: MetaModel
    new: MetaModel
    linears: dict[Unit, tuple[LinearPair, ...]]
    passed: dict[Unit, tuple[LinearPair, ...]]
    outs: tuple[OutPlan, ...]
    reshaped: tuple[str, ...]

    @property
    def architecture(self) -> str:
        """Class name of the model."""
        return type(self.new.model).__name__

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
    architectures = [checkpoint.config.get("architectures") for checkpoint in (old, new)]
    if architectures[0] != architectures[1]:
        names = [" ".join(a) if isinstance(a, list) else str(a) for a in architectures]
        raise CheckpointError(
            f"OLD is a {names[0]} and NEW is a {names[1]}: give the checkpoints before and after tuning of one model."
        )
    metas = (meta_model(old, device), meta_model(new, device, new.external))
    check_inputs(metas[1])
    components, own = metas[1].components, new.tensors.keys() - new.external
    included = [{key for key in own if is_included(config, key, components.get(key))} for config in configs]
    for config in configs:
        check_policies(config, metas[1])
    in_any = set().union(*included)
    keys = _match(metas[0], metas[1], old, new, in_any)
    if metas[0].units != metas[1].units:
        raise CheckpointError(
            "the config.json of OLD and that of NEW make models of different modules: "
            "give the checkpoints before and after tuning of one model."
        )
    outs = tuple(_plan_out(metas, old, new, keys, *each) for each in zip(configs, included, strict=True))
    heads = {linear.key for linear in metas[1].linears.values() if components[linear.key] == "head"} & in_any
    grown = {key for key in heads if old.tensors[keys[key]].shape != new.tensors[key].shape}
    if heads or any(components[key] in ("head", "embeddings") for out in outs for key in out.from_old):
        check_order(old.folder, new.folder)
    linears: dict[Unit, list[LinearPair]] = defaultdict(list)
    passed: dict[Unit, list[LinearPair]] = defaultdict(list)
    in_old = {(linear.key, linear.part): linear for linear in metas[0].linears.values()}
    for linear in metas[1].linears.values():
        before = in_old[keys[linear.key], linear.part]
        rows = old.tensors[before.key].shape[0] if linear.key in grown else None
        pair = LinearPair(before, linear, rows)
        linears[linear.last].append(pair)
        for unit in linear.uses[:-1]:
            passed[unit].append(pair)
    return Plan(
        old=metas[0],
        new=metas[1],
        linears={unit: tuple(linears[unit]) for unit in metas[1].units if unit in linears},
        passed={unit: tuple(pairs) for unit, pairs in passed.items()},
        outs=outs,
        reshaped=tuple(
            f"{key} is {list(shapes[0])} in OLD and {list(shapes[1])} in NEW: "
            + (f"the first {shapes[0][0]} rows are merged." if key in grown else "NEW's is taken.")
            for key, old_key in keys.items()
            if key in own and len(set(shapes := (old.tensors[old_key].shape, new.tensors[key].shape))) > 1
        ),
    )


def meta_model(checkpoint: Checkpoint, device: torch.device, external: Collection[str] = ()) -> MetaModel:
    """The model of a checkpoint, without its weights.

    Args:
        external: its tensors that lie in another folder.

    Raises:
        CheckpointError: its config.json and its tensors make none.
    """
    header = {name: (info.dtype, info.shape) for name, info in checkpoint.tensors.items()}
    return MetaModel(checkpoint.folder, header, checkpoint.role, device, checkpoint.tower, external)


def _plan_out(
    metas: tuple[MetaModel, MetaModel],
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
    linears, kinds = metas[1].linears.values(), _kinds(metas[1], new, from_old)
    return OutPlan(
        config=config,
        included=frozenset(each.name for each in linears if each.key in included and is_chosen(config, each.unit)),
        from_old=from_old,
        passed_through=dict(sorted(Counter(kinds.values()).items())),
        unmerged=tuple(sorted(key for key, kind in kinds.items() if kind in (EXPERT, OTHER))),
    )


def check_inputs(meta: MetaModel) -> None:
    """Raise CheckpointError if the model cannot take calibration samples, which are texts with or without media."""
    model = meta.model
    name, taken = type(model).__name__, inspect.signature(model.forward).parameters
    if "input_ids" not in taken:
        raise CheckpointError(
            f"{name} takes {next(iter(taken))}, and calibration samples are texts, with or without images: "
            "only models that read text can be merged."
        )
    if model.config.is_encoder_decoder and meta.decoder_start is None:
        raise CheckpointError(
            f"{name} is an encoder-decoder, and neither config.json nor generation_config.json has its "
            "decoder_start_token_id: add it to one of them."
        )


def _match(
    old: MetaModel, new: MetaModel, in_old: Checkpoint, in_new: Checkpoint, included: Collection[str]
) -> dict[str, str]:
    """OLD's key for each of NEW's keys that the model knows.

    Embeddings and excluded tensors may differ in shape, because they come from NEW. A head may have more rows in NEW.

    Raises:
        CheckpointError: a tensor is missing in one of the two, or its shapes differ otherwise.
    """
    key_in_old = {slot: key for key, slot in old.slots.items()}
    slots_in_new = set(new.slots.values())
    unmatched = [
        ("NEW", "OLD", key) for key, slot in new.slots.items() if slot not in key_in_old and key not in new.tied
    ]
    unmatched += [("OLD", "NEW", key) for key, s in old.slots.items() if s not in slots_in_new and key not in old.tied]
    for present_in, missing_in, key in unmatched[:1]:
        raise CheckpointError(
            f"{present_in}'s tensor {key} has no counterpart in {missing_in}: give two whole checkpoints of one model."
        )
    keys = {key: key_in_old[slot] for key, slot in new.slots.items() if slot in key_in_old}
    at = {place: key for key, places in old.places.items() for place in places}
    shared = (key for key, linear in new.linears.items() if linear.part is None and key not in keys)
    keys |= {key: at[place] for key in shared for place in new.places[key][:1] if place in at}
    linears = [{linear.key for linear in meta.linears.values()} for meta in (old, new)]
    external = in_new.external
    for key, old_key in keys.items():
        shapes = in_old.tensors[old_key].shape, in_new.tensors[key].shape
        if shapes[0] != shapes[1] and key in included and new.components[key] == "head" and _differ_in_rows(*shapes):
            if shapes[0][0] > shapes[1][0]:
                raise CheckpointError(
                    f"{key} has {shapes[0][0]} rows in OLD and {shapes[1][0]} in NEW: a vocabulary that shrank cannot "
                    "be merged, so save NEW with OLD's vocabulary, or take this tensor from NEW with --head new."
                )
        elif shapes[0] != shapes[1] and key in included and key not in new.embeddings:
            raise CheckpointError(
                f"{key} has shape {list(shapes[0])} in OLD and {list(shapes[1])} in NEW: give the checkpoints before "
                "and after tuning of one model, or take this tensor from NEW with --exclude."
            )
        if key not in external and (key in linears[1]) != (old_key in linears[0]):
            raise CheckpointError(
                f"{key} is an untied linear weight in {'NEW' if key in linears[1] else 'OLD'} only: "
                "tie or untie the embeddings of both."
            )
    return keys


def _differ_in_rows(old: tuple[int, ...], new: tuple[int, ...]) -> bool:
    """Whether two shapes differ only in the first axis, the vocabulary."""
    return len(old) == len(new) > 0 and old[1:] == new[1:]


def _kinds(meta: MetaModel, checkpoint: Checkpoint, from_old: Collection[str]) -> dict[str, str]:
    """The kind of each tensor that is no adaptable linear and comes from NEW, by name."""
    kinds: dict[str, str] = {}
    adaptable, external = {linear.key for linear in meta.linears.values()}, checkpoint.external
    for key, info in checkpoint.tensors.items():
        if key in adaptable or key in from_old or key in external:
            continue
        if key not in meta.slots:
            kinds[key] = "unknown to the model"
        elif key in meta.tied:
            kinds[key] = "tied"
        elif key in meta.embeddings:
            kinds[key] = "embedding"
        elif key in meta.routers:
            kinds[key] = "router"
        elif key in meta.experts:
            kinds[key] = EXPERT
        elif len(info.shape) <= 1 or key.endswith("bias"):
            kinds[key] = "norm, bias or scalar"
        else:
            kinds[key] = OTHER
    return kinds
