"""Where rules meet a weight: its update is measured once, and each is given as much of the curvature as it needs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hpa_merge.core import InverseHessian, measure_update
from hpa_merge.methods import RuleOptions
from hpa_merge.methods.weight import Adapted, Weight

__all__ = ["Adapted", "Curved", "adapt", "differ", "with_new_rows"]

Curved = Tensor | InverseHessian | None
"""What is known of one side's curvature: ``[H⁻¹]_jj``, ``[c]``, or all of ``H⁻¹``, or nothing."""


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
            {purpose: _diagonal(curved[purpose]) for purpose in config.sets},
            {purpose: _whole(curved[purpose]) for purpose in config.sets if config.whole_inverse},
        )
        adapted = config.rule.adapt(weight, config)
        yield replace(adapted, weight=with_new_rows(adapted.weight, new))


def _diagonal(curved: Curved) -> Tensor:
    if curved is None:
        raise RuntimeError("a method was asked for without the curvature that it needs")
    return curved.diagonal if isinstance(curved, InverseHessian) else curved


def _whole(curved: Curved) -> InverseHessian:
    if not isinstance(curved, InverseHessian):
        raise RuntimeError("a method was asked for without the inverse that it needs")
    return curved


def with_new_rows(weight: Tensor, new: Tensor) -> Tensor:
    """``weight`` ``[r, c]`` followed by the rows that ``new`` has beyond those, if it has any."""
    return weight if len(weight) == len(new) else torch.cat([weight, new[len(weight) :]])


def differ(old: Tensor, new: Tensor) -> bool:
    """Whether tuning changed a weight, ``[r, c]``, in NEW's dtype; ``new`` may have further rows."""
    return not torch.equal(old.to(new.dtype), new[: len(old)])
