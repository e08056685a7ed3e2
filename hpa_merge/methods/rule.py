"""What a rule is: a record of all that the package asks of one, and the way in which its options are declared.

Imports no torch, nor does the top of a rule's file: the command line reads the rules before torch is loaded. What takes
tensors imports it when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, final

if TYPE_CHECKING:
    from torch import Tensor

    from hpa_merge.core import Selection
    from hpa_merge.methods.weight import Adapted, Redone, Weight

__all__ = ["NOT_NEGATIVE", "PERCENT", "SHARE", "Bound", "Rule", "option"]


@final
@dataclass(frozen=True)
class Bound:
    """What the value of an option has to be.

    Attributes:
        holds: whether a value, which has the option's type, is so.
        words: the same in words: they follow "it has to be".
    """

    holds: Callable[[Any], bool]
    words: str


NOT_NEGATIVE = Bound(lambda x: x >= 0.0, "at least 0")
PERCENT = Bound(lambda x: 0.0 <= x <= 100.0, "a percentage between 0 and 100")
SHARE = Bound(lambda x: 0.0 <= x <= 1.0, "between 0 and 1")


def option(default: Any, text: str, bound: Bound | None = None, *, most: str = "", metavar: str = "") -> Any:
    """The field of an option: of a number, a word, a list of words, or a switch, as its default is.

    Args:
        text: its help.
        bound: what its value has to be, beyond the default's type and the words of a ``Literal``.
        most: the option that it may not be greater than.
        metavar: what the help calls its value.
    """
    return field(default=default, metadata={"help": text, "bound": bound, "most": most, "metavar": metavar})


@final
@dataclass(frozen=True)
class Rule:
    """One rule: how a linear weight becomes what it is in OUT.

    The functions take the options of the merge, which have the rule's own among them.

    Attributes:
        name: its name for ``--method``.
        does: what becomes of a weight, in Markdown, for the documentation.
        paper: what it is and where it comes from, in Markdown, for the model card.
        adapt: the adapted weight.
        check: makes a weight of OUT again without a sample, as far as that goes, from the report's figures of it (by
            their field, with masks of columns as tensors ``[c]`` and ``saliency`` unpacked) and its values ``[r, c]``.
        bibtex: how the paper is cited; without it the card names ``paper`` again.
        sets: the calibration sets that it looks at, ``safety`` and ``task``; what it takes of their curvature is
            ``[H⁻¹]_jj``.
        whole_inverse: whether it takes all of ``H⁻¹`` with these options.
        hessians: whether it takes ``H`` itself, and no inverse.
        options: the options that it uses, of those that are some rule's.
        by_columns: whether it restores whole columns, and says which.
        computes: whether values are computed from OLD's and NEW's, so that another machine may round them otherwise;
            compensation is not counted.
        base: of a rule that compensates by all of ``H⁻¹``, whose values that moves: ``old`` or ``new``.
        of_samples: fields of the report's record of a weight that the samples decide.
        explains: whether rounding on another machine can turn the rule's columns into those of a report, ``[c]`` bool.
        bytes_per_value: what choosing takes in memory, for each value of a weight.
        share: the percentage of the columns to restore at depth ``l`` of ``L``; None where there is no such thing.
        touches: whether it touches the weights of a unit, by whether that is of the text, and its block.
        check_model: raises :class:`~hpa_merge.errors.ConfigError` where the options do not fit a model, by its class
            and the number of blocks of its text.
    """

    name: str
    does: str
    paper: str
    adapt: Callable[[Weight, Any], Adapted]
    check: Callable[[Weight, Any, Mapping[str, Any], Tensor], Redone]
    bibtex: str = ""
    sets: tuple[str, ...] = ()
    whole_inverse: Callable[[Any], bool] = lambda options: False
    hessians: bool = False
    options: tuple[str, ...] = ()
    by_columns: bool = False
    computes: bool = False
    base: Literal["", "old", "new"] = ""
    of_samples: tuple[str, ...] = ()
    explains: Callable[[Tensor, Selection, Any], bool] = lambda said, selection, options: said.equal(selection.restored)
    bytes_per_value: int = 0
    share: Callable[[Any, int, int], float | None] = lambda options, block, blocks: None
    touches: Callable[[Any, bool, int | None], bool] = lambda options, text, block: True
    check_model: Callable[[Any, str, int], None] = lambda options, architecture, blocks: None

    @property
    def uses(self) -> tuple[str, ...]:
        """The options that mean something to this rule and not to every one."""
        return (*self.options, "uncalibrated") if self.sets else self.options
