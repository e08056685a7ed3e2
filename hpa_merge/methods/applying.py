"""Apply rules to a weight: measure its update once, and give each rule as much of the curvature as it needs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, final

import torch
from torch import Tensor

from hpa_merge.core import Hessian, InverseHessian, equal, measure_update
from hpa_merge.methods import RuleOptions
from hpa_merge.methods.weight import Adapted, Weight

__all__ = ["Adapted", "Curved", "adapt", "differ", "with_new_rows"]

Found = TypeVar("Found")


@final
@dataclass(frozen=True)
class Curved:
    """What is known of one side's curvature; None for what no rule here takes.

    Attributes:
        diagonal: ``[H⁻¹]_jj``, ``[c]``; where ``inverse`` is known, it has this.
        inverse: all of ``H⁻¹``.
        hessian: ``H``.
        tokens: how many tokens it is the mean of.
    """

    diagonal: Tensor | None = None
    inverse: InverseHessian | None = None
    hessian: Hessian | None = None
    tokens: int = 0


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
        new: it may have more rows (a head whose vocabulary grew); only the rows of ``old`` are measured and adapted.
        safety: ``H_s⁻¹`` of OLD's activations on the safety set, as much of it as the methods of ``configs`` need.
        task: the same for ``H_t⁻¹`` of NEW's activations on the task set.
        configs: the options of each OUT; the update is measured once for all of them.
        name: the weight's name, which seeds the draw of random columns.

    Yields:
        The adapted weight for each of ``configs``; the additional rows of ``new`` are kept.

    Raises:
        RuntimeError: a curvature that a method needs is missing, which is a bug.
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
            {purpose: _diagonal(curved[purpose]) for purpose in config.sets if "diagonal" in config.takes},
            {purpose: _known(curved[purpose].inverse) for purpose in config.sets if "inverse" in config.takes},
            {purpose: _known(curved[purpose].hessian) for purpose in config.sets if "hessian" in config.takes},
            {purpose: curved[purpose].tokens for purpose in config.sets},
        )
        adapted = config.rule.adapt(weight, config)
        yield replace(adapted, weight=with_new_rows(adapted.weight, new))


def _diagonal(curved: Curved) -> Tensor:
    return curved.inverse.diagonal if curved.inverse is not None else _known(curved.diagonal)


def _known(found: Found | None) -> Found:
    if found is None:
        raise RuntimeError("the curvature that a method needs is missing")
    return found


def with_new_rows(weight: Tensor, new: Tensor) -> Tensor:
    """``weight`` ``[r, c]``, followed by the additional rows of ``new``, if it has any."""
    return weight if len(weight) == len(new) else torch.cat([weight, new[len(weight) :]])


def differ(old: Tensor, new: Tensor) -> bool:
    """Whether tuning changed a weight ``[r, c]``, compared in NEW's dtype; ``new`` may have more rows."""
    return not equal(old.to(new.dtype), new[: len(old)])
