"""Where rules meet a weight: its update is measured once, and each is given as much of the curvature as it needs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, final

import torch
from torch import Tensor

from hpa_merge.core import Hessian, InverseHessian, measure_update
from hpa_merge.methods import RuleOptions
from hpa_merge.methods.weight import Adapted, Weight

__all__ = ["Adapted", "Curved", "adapt", "differ", "with_new_rows"]

Part = TypeVar("Part")


@final
@dataclass(frozen=True)
class Curved:
    """What is known of one side's curvature; None for what no rule here takes.

    Attributes:
        diagonal: ``[H⁻¹]_jj``, ``[c]``; where ``inverse`` is known, it has this.
        inverse: all of ``H⁻¹``.
        hessian: ``H``.
    """

    diagonal: Tensor | None = None
    inverse: InverseHessian | None = None
    hessian: Hessian | None = None


def adapt(
    old: Tensor,
    new: Tensor,
    safety: Curved,
    task: Curved,
    *,
    block: int,
    blocks: int,
    configs: Sequence[RuleOptions],
    name: str = "",
) -> Iterator[Adapted]:
    """``Ŵ`` of the weight ``old`` ``[r, c]`` that tuning turned into ``new``, at depth ``block`` of ``blocks``.

    Args:
        new: it may have more rows (a head whose vocabulary grew): only those of ``old`` are measured and adapted.
        safety: ``H_s⁻¹`` of OLD's activations on the safety set; as much of it as the methods of ``configs`` need.
        task: ``H_t⁻¹`` of NEW's activations on the task set; likewise.
        configs: the options, of which there may be several: the update is measured once.
        name: the weight's, by which random columns are drawn.

    Yields:
        What comes of it with each of ``configs``; rows that ``old`` has not are ``new``'s.

    Raises:
        RuntimeError: a method lacks a curvature that it needs: a mistake of ours.
    """
    update = measure_update(old, new[: len(old)])
    curved: Mapping[str, Curved] = {"safety": safety, "task": task}
    for config in configs:
        weight = Weight(
            name,
            old,
            new[: len(old)],
            update,
            block,
            blocks,
            {purpose: _diagonal(curved[purpose]) for purpose in config.sets if not config.rule.hessians},
            {purpose: _known(curved[purpose].inverse) for purpose in config.sets if config.whole_inverse},
            {purpose: _known(curved[purpose].hessian) for purpose in config.sets if config.rule.hessians},
        )
        adapted = config.rule.adapt(weight, config)
        yield replace(adapted, weight=with_new_rows(adapted.weight, new))


def _diagonal(curved: Curved) -> Tensor:
    return curved.inverse.diagonal if curved.inverse is not None else _known(curved.diagonal)


def _known(part: Part | None) -> Part:
    if part is None:
        raise RuntimeError("a method was asked for without the curvature that it needs")
    return part


def with_new_rows(weight: Tensor, new: Tensor) -> Tensor:
    """``weight`` ``[r, c]`` followed by the rows that ``new`` has beyond those, if it has any."""
    return weight if len(weight) == len(new) else torch.cat([weight, new[len(weight) :]])


def differ(old: Tensor, new: Tensor) -> bool:
    """Whether tuning changed a weight, ``[r, c]``, in NEW's dtype; ``new`` may have further rows."""
    return not torch.equal(old.to(new.dtype), new[: len(old)])
