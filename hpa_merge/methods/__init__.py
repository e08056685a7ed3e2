"""The rules that turn OLD's and NEW's linear weight into OUT's: one file for each rule, and the table of them.

HPA is the first; the others are there for comparison. To add a rule, write a file that ends with its
:class:`~hpa_merge.methods.rule.Rule`, and add it here: its name to :data:`Method`, its rule to :data:`RULES`, and its
own options, if it has any, to the bases of :class:`RuleOptions`. Nothing else knows a rule's name.

:mod:`applying` applies a rule to a weight. Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hpa_merge.methods import (
    blocks,
    cgm,
    control_energy,
    control_random,
    hpa,
    linear,
    model_tailor,
    null_space,
    regmean,
    safe_delta,
    surgery,
)
from hpa_merge.methods.rule import Part, Rule, option

__all__ = ["DEFAULT", "RULES", "Method", "Rule", "RuleOptions", "find_rule", "method_of", "users"]

Method = Literal[
    "hpa", "regmean", "cgm", "null-space", "linear", "safe-delta", "model-tailor", "blocks", "random", "energy"
]

RULES: tuple[Rule, ...] = (
    hpa.RULE,
    regmean.RULE,
    cgm.RULE,
    null_space.RULE,
    linear.RULE,
    safe_delta.RULE,
    model_tailor.RULE,
    blocks.RULE,
    control_random.RULE,
    control_energy.RULE,
)

DEFAULT = RULES[0].name


@dataclass(frozen=True)
class Choice:
    """Which of the rules."""

    method: Method = option(
        DEFAULT,
        f"Merge rule: {DEFAULT}, or one that it is compared with: {', '.join(rule.name for rule in RULES[1:])}.",
        metavar="RULE",
    )


@dataclass(frozen=True)
class RuleOptions(
    blocks.Options,
    surgery.Options,
    model_tailor.Options,
    safe_delta.Options,
    linear.Options,
    null_space.Options,
    regmean.Options,
    hpa.Options,
    Choice,  # last, because the fields of a dataclass begin with those of its last base
):
    """The rule, and the options of all of them."""

    @property
    def rule(self) -> Rule:
        """The row of the table."""
        return _BY_NAME[self.method]

    @property
    def sets(self) -> tuple[str, ...]:
        """The calibration sets that the rule uses: ``safety``, ``task``, both, or none."""
        return self.rule.sets

    @property
    def takes(self) -> tuple[Part, ...]:
        """What the rule takes of the curvature of each of its sets."""
        return self.rule.takes(self)

    @property
    def diagonal_only(self) -> bool:
        """Whether ``[H⁻¹]_jj`` is all that the rule takes of the curvature."""
        return self.takes == ("diagonal",)


_BY_NAME = {rule.name: rule for rule in RULES}


def find_rule(name: object) -> Rule | None:
    """The rule of that name; None if there is none, as in the report of another version."""
    return _BY_NAME.get(str(name))


def method_of(options: Mapping[str, Any]) -> str:
    """The name of the rule in the options of a YAML file or a report."""
    return str(options.get("method", DEFAULT))


def users(option: str) -> tuple[str, ...]:
    """The rules that use an option; empty if all do, or if it belongs to the calibration."""
    return tuple(rule.name for rule in RULES if option in rule.uses)
