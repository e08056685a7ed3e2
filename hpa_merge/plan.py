"""What a merge is going to do, found out before it starts: which tensors belong together, and whether they fit.

Reads the two checkpoints' configurations and headers, and no weight.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.config import HPAConfig
from hpa_merge.errors import CheckpointError, ConfigError
from hpa_merge.model import LinearTensor, Skeleton, Unit


@final
@dataclass(frozen=True)
class LinearPair:
    """A linear weight in both checkpoints.

    Attributes:
        old, new: how it lies in each.
        included: for each configuration, whether its ``include`` and ``exclude`` leave it to be adapted.
    """

    old: LinearTensor
    new: LinearTensor
    included: tuple[bool, ...]


@final
@dataclass(frozen=True)
class Plan:
    """Two checkpoints that fit each other, as skeletons, and the linears to go through, by unit.

    Attributes:
        passed_through: how many of NEW's tensors are no adaptable linear, by kind.
        reshaped: what has another shape in NEW than in OLD and is therefore NEW's, a sentence each: a vocabulary that
            grew, or a tensor that the options exclude.
    """

    old: Skeleton
    new: Skeleton
    linears: dict[Unit, tuple[LinearPair, ...]]
    passed_through: dict[str, int]
    reshaped: tuple[str, ...]

    @property
    def architecture(self) -> str:
        """Class name of the model."""
        return type(self.new.model).__name__


def make_plan(old: Checkpoint, new: Checkpoint, configs: Sequence[HPAConfig], device: torch.device) -> Plan:
    """Match ``old`` and ``new``, tensor by tensor.

    Args:
        configs: one for each OUT.
        device: where units are loaded to.

    Raises:
        CheckpointError: they are not the same model before and after tuning; names the first thing that differs.
        ConfigError: the options of one OUT leave no linear to adapt.
    """
    architectures = [checkpoint.config.get("architectures") for checkpoint in (old, new)]
    if architectures[0] != architectures[1]:
        names = [" ".join(a) if isinstance(a, list) else str(a) for a in architectures]
        raise CheckpointError(
            f"OLD is a {names[0]} and NEW is a {names[1]}: give the checkpoints before and after tuning of one model."
        )
    if new.config.get("is_encoder_decoder"):
        raise CheckpointError(
            f"{' '.join(architectures[1] or [])} is an encoder-decoder, and calibration samples have no decoder "
            "inputs: only decoders and vision-language models can be merged."
        )
    skeletons = [
        Skeleton(
            c.folder, {name: (info.dtype, info.shape) for name, info in c.tensors.items()}, c.role, device, c.tower
        )
        for c in (old, new)
    ]
    external = new.external
    included = {
        key: tuple(
            _matches(config.include, key, default=True) and not _matches(config.exclude, key, default=False)
            for config in configs
        )
        for key in new.tensors
        if key not in external
    }
    keys = _match(skeletons[0], skeletons[1], old, new, {key for key, by in included.items() if any(by)})
    if skeletons[0].units != skeletons[1].units:
        raise CheckpointError(
            "the config.json of OLD and that of NEW make models of different modules: "
            "give the checkpoints before and after tuning of one model."
        )
    linears: dict[Unit, list[LinearPair]] = defaultdict(list)
    own = {key: linear for key, linear in skeletons[1].linears.items() if key in included}
    for key, linear in own.items():
        linears[linear.unit].append(LinearPair(skeletons[0].linears[keys[key]], linear, included[key]))
    by_config = zip(*(included[key] for key in own), strict=True)
    if not own or not all(any(leaves) for leaves in by_config):
        raise ConfigError("include and exclude leave no linear to adapt: mend the expressions.")
    return Plan(
        old=skeletons[0],
        new=skeletons[1],
        linears={unit: tuple(linears[unit]) for unit in skeletons[1].units if unit in linears},
        passed_through=_passed_through(skeletons[1], new),
        reshaped=tuple(
            f"{key} is {list(shapes[0])} in OLD and {list(shapes[1])} in NEW: NEW's is taken."
            for key, old_key in keys.items()
            if key in included and len(set(shapes := (old.tensors[old_key].shape, new.tensors[key].shape))) > 1
        ),
    )


def _match(old: Skeleton, new: Skeleton, in_old: Checkpoint, in_new: Checkpoint, included: set[str]) -> dict[str, str]:
    """OLD's key for each of NEW's keys that the model knows.

    Raises:
        CheckpointError: a tensor is missing in one of the two, or has another shape; embeddings and what the options
            exclude may differ in shape, for they come from NEW.
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
    for key, old_key in keys.items():
        shapes = in_old.tensors[old_key].shape, in_new.tensors[key].shape
        if shapes[0] != shapes[1] and key in included and key not in new.embeddings:
            raise CheckpointError(
                f"{key} has shape {list(shapes[0])} in OLD and {list(shapes[1])} in NEW: give the checkpoints before "
                "and after tuning of one model, or take this tensor from NEW with --exclude."
            )
        if (key in new.linears) != (old_key in old.linears):
            raise CheckpointError(
                f"{key} is a linear weight of its own in {'NEW' if key in new.linears else 'OLD'} alone: "
                "tie or untie the embeddings of both alike."
            )
    return keys


def _passed_through(skeleton: Skeleton, checkpoint: Checkpoint) -> dict[str, int]:
    """How many tensors of NEW are no adaptable linear, by kind."""
    kinds: Counter[str] = Counter()
    external = checkpoint.external
    for key, info in checkpoint.tensors.items():
        if key in skeleton.linears or key in external:
            continue
        if key not in skeleton.slots:
            kinds["unknown to the model"] += 1
        elif key in skeleton.tied:
            kinds["tied"] += 1
        elif key in skeleton.embeddings:
            kinds["embedding"] += 1
        elif key in skeleton.experts:
            kinds["expert"] += 1
        elif len(info.shape) <= 1:
            kinds["norm, bias or scalar"] += 1
        else:
            kinds["convolution or other"] += 1
    return dict(sorted(kinds.items()))


def _matches(patterns: tuple[str, ...], key: str, *, default: bool) -> bool:
    return any(re.search(pattern, key) for pattern in patterns) if patterns else default
