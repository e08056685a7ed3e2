"""What a rule is: a record of everything that the package needs from it, and how its options are declared.

Neither this file nor the top of a rule's file imports torch, because the command line reads the rules before torch is
loaded. Functions on tensors import torch when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, final

if TYPE_CHECKING:
    from torch import Tensor

    from hpa_merge.core import Selection
    from hpa_merge.methods.weight import Adapted, Redone, Weight
    from hpa_merge.methods.what_if import Grid

__all__ = ["NOT_NEGATIVE", "PERCENT", "SHARE", "Bound", "Part", "Rule", "Strength", "option"]


Part = Literal["diagonal", "inverse", "hessian"]
"""What a rule may take of a set's curvature."""


@final
@dataclass(frozen=True)
class Bound:
    """A bound on the value of an option.

    Attributes:
        holds: whether a value, which has the option's type, is within the bound.
        words: the bound in words, which follow "it has to be".
    """

    holds: Callable[[Any], bool]
    words: str


NOT_NEGATIVE = Bound(lambda x: x >= 0.0, "at least 0")
PERCENT = Bound(lambda x: 0.0 <= x <= 100.0, "a percentage between 0 and 100")
SHARE = Bound(lambda x: 0.0 <= x <= 1.0, "between 0 and 1")


def option(default: Any, text: str, bound: Bound | None = None, *, most: str = "", metavar: str = "") -> Any:
    """The dataclass field of an option; its default tells whether it is a number, a word, a list of words or a switch.

    Args:
        text: its help.
        bound: the bound on its value, beyond the default's type and the words of a ``Literal``.
        most: the option that it may not exceed.
        metavar: what the help calls its value.
    """
    return field(default=default, metadata={"help": text, "bound": bound, "most": most, "metavar": metavar})


@final
@dataclass(frozen=True)
class Strength:
    """The option that trades the task for safety, and its values that a tuning tries.

    Attributes:
        option: its name.
        values: from the weakest to the safest.
        ratios: options that follow it, with their ratios to it.
    """

    option: str
    values: tuple[float, ...]
    ratios: Mapping[str, float] = field(default_factory=dict)

    @property
    def options(self) -> tuple[str, ...]:
        """The options that it sets."""
        return (self.option, *self.ratios)

    @property
    def settings(self) -> tuple[dict[str, float], ...]:
        """The options of each value; those that follow are rounded to a tenth."""
        return tuple(
            {self.option: value, **{name: _plain(round(value * ratio, 1)) for name, ratio in self.ratios.items()}}
            for value in self.values
        )


def _plain(number: float) -> float:
    """A whole number without a decimal point."""
    return int(number) if number == int(number) else number


@final
@dataclass(frozen=True)
class Rule:
    """One rule: how OUT's linear weight is made from OLD's and NEW's.

    The functions take the options of the merge, which include the rule's own.

    Attributes:
        name: its name for ``--method``.
        does: what it does to a weight, in Markdown, for the documentation.
        paper: what it is and where it comes from, in Markdown, for the model card.
        adapt: returns the adapted weight.
        check: computes a weight of OUT again without samples, as far as possible, from the report's figures (by field,
            with masks of columns as tensors ``[c]`` and ``saliency`` unpacked) and from the weight's values ``[r, c]``.
        bibtex: how the paper is cited; without it the card names ``paper`` again.
        sets: the calibration sets that it uses, ``safety`` and ``task``.
        takes: what it takes of the curvature of each set with these options: the ``diagonal`` of ``H⁻¹``, all of the
            ``inverse``, the ``hessian`` itself.
        options: the options that it uses, among those of all rules.
        strength: the one of them that trades the task for safety; None for a rule without one.
        by_columns: whether it restores whole columns and reports which.
        computes: whether it computes values from OLD's and NEW's, so that another machine may round differently;
            compensation does not count.
        base: for a rule that compensates, whose values the compensation changes: ``old`` or ``new``.
        of_samples: the fields of a weight's record in the report that depend on the samples.
        explains: whether rounding on another machine can turn the rule's columns into those of a report, ``[c]`` bool.
        bytes_per_value: memory that the choice takes for each value of a weight.
        bytes_per_square: memory that its factors take for each value of a ``c × c`` matrix.
        share: the percentage of the columns to restore at depth ``l`` of ``L``; None for a rule without such a share.
        touches: whether it touches the weights of a unit, given whether the unit is in the text stack, and its block.
        grid: the settings for which ``adapt`` computes what they would undo, as ``what_if`` among its figures: for each
            the share of ``‖ΔW‖²_F`` that is restored or, of a rule that restores no value as it is, taken back.
        no_grid: why ``adapt`` does not compute that: a clause. Empty if it does.
        no_lora: why the result with these options is not ``W_old + ΔW M`` with a matrix ``M``, ``[c, c]``: a clause
            with its remedy. Empty if it is, so that a LoRA stays one of the same rank; ``adapt`` then gives ``M``.
        check_model: raises :class:`~hpa_merge.errors.ConfigError` if the options do not fit a model, given its class
            and the number of blocks of its text stack.
    """

    name: str
    does: str
    paper: str
    adapt: Callable[[Weight, Any], Adapted]
    check: Callable[[Weight, Any, Mapping[str, Any], Tensor], Redone]
    bibtex: str = ""
    sets: tuple[str, ...] = ()
    takes: Callable[[Any], tuple[Part, ...]] = lambda options: ("diagonal",)
    options: tuple[str, ...] = ()
    strength: Strength | None = None
    by_columns: bool = False
    computes: bool = False
    base: Literal["", "old", "new"] = ""
    of_samples: tuple[str, ...] = ()
    explains: Callable[[Tensor, Selection, Any], bool] = lambda said, selection, options: said.equal(selection.restored)
    bytes_per_value: int = 0
    bytes_per_square: int = 0
    share: Callable[[Any, int, int], float | None] = lambda options, block, blocks: None
    touches: Callable[[Any, bool, int | None], bool] = lambda options, text, block: True
    grid: Callable[[Any], Grid] | None = None
    no_grid: str = ""
    no_lora: Callable[[Any], str] = lambda options: "it changes single values of a weight: choose another method"
    check_model: Callable[[Any, str, int], None] = lambda options, architecture, blocks: None

    @property
    def uses(self) -> tuple[str, ...]:
        """The options that this rule uses and that not every rule uses."""
        return (*self.options, "uncalibrated") if self.sets else self.options
