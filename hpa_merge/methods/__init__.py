"""The rules by which a linear weight becomes what it is in OUT: a file for each, and the table of them.

HPA is the first; the others are what it is compared with. Another rule is a file like theirs, which ends with its
:class:`~hpa_merge.methods.rule.Rule`, and its row in this file: its name in :data:`Method`, its rule in :data:`RULES`,
and its options among the bases of :class:`RuleOptions`, if it has some of its own. Nothing else knows a rule's name.

Where a rule meets a weight is :mod:`applying`. Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hpa_merge.methods import (
    blocks,
    control_energy,
    control_random,
    hpa,
    linear,
    model_tailor,
    safe_delta,
    surgery,
)
from hpa_merge.methods.rule import Rule, option

__all__ = ["DEFAULT", "RULES", "Method", "Rule", "RuleOptions", "find_rule", "method_of", "users"]

Method = Literal["hpa", "linear", "safe-delta", "model-tailor", "blocks", "random", "energy"]

RULES: tuple[Rule, ...] = (
    hpa.RULE,
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

    method: Method = option(DEFAULT, "Merge rule: HPA, or one that it is compared with.")


@dataclass(frozen=True)
class RuleOptions(
    blocks.Options,
    surgery.Options,
    model_tailor.Options,
    safe_delta.Options,
    linear.Options,
    hpa.Options,
    Choice,  # last, for the fields of a dataclass begin with those of its last base
):
    """The rule, and the options of all of them."""

    @property
    def rule(self) -> Rule:
        """The row of the table."""
        return _BY_NAME[self.method]

    @property
    def sets(self) -> tuple[str, ...]:
        """The calibration sets that the rule looks at: ``safety``, ``task``, both, or none."""
        return self.rule.sets

    @property
    def whole_inverse(self) -> bool:
        """Whether the rule takes more of the curvature than ``[H⁻¹]_jj``."""
        return self.rule.whole_inverse(self)


_BY_NAME = {rule.name: rule for rule in RULES}


def find_rule(name: object) -> Rule | None:
    """The rule of that name; None where there is none, as in the report of another version."""
    return _BY_NAME.get(str(name))


def method_of(options: Mapping[str, Any]) -> str:
    """The name of the rule in options as YAML or a report has them."""
    return str(options.get("method", DEFAULT))


def users(option: str) -> tuple[str, ...]:
    """The rules that use an option; empty where all do, or where it belongs to the calibration."""
    return tuple(rule.name for rule in RULES if option in rule.uses)
