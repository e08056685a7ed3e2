"""What happens to each component of the model: it is merged, NEW's, or OLD's; and which choices are impossible."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from hpa_merge.config import OutOptions, option_fields
from hpa_merge.engine.modelled import Modelled
from hpa_merge.engine.patterns import fits
from hpa_merge.errors import ConfigError
from hpa_merge.outline import COMPONENTS, Component, Unit
from hpa_merge.report.records import ComponentRecord

__all__ = ["check_policies", "component_records", "find_from_old", "is_chosen", "is_included", "policy_of"]


def policy_of(config: OutOptions, component: Component) -> str:
    """``merge``, ``new`` or ``old``."""
    return str(getattr(config, component))


def is_included(config: OutOptions, key: str, component: Component | None, *, router: bool = False) -> bool:
    """Whether the options let a tensor be adapted if it is a linear.

    Args:
        component: that it belongs to; None if it is in none.
        router: whether it chooses among experts.
    """
    return (
        (component is None or policy_of(config, component) == "merge")
        and (not router or config.routers == "merge")
        and fits(config, key)
    )


def is_chosen(config: OutOptions, unit: Unit) -> bool:
    """Whether the method touches the linears of a unit."""
    return config.rule.touches(config, unit.text, unit.block)


def find_from_old(old: Modelled, new: Modelled, matched: Mapping[str, str], config: OutOptions) -> dict[str, str]:
    """OLD's key for each of NEW's keys whose tensor comes from OLD.

    Args:
        matched: OLD's key for each of NEW's keys; the two may save a tied tensor under different names.
    """
    key_of = {name: key for key, names in old.places.items() for name in names}
    found = {  # None: a buffer that only NEW has
        key: matched.get(key) or next((key_of[name] for name in new.places[key] if name in key_of), None)
        for key, component in new.components.items()
        if policy_of(config, component) == "old"
        or (key in new.router_keys and config.routers == "old" and policy_of(config, component) == "merge")
    }
    return {key: old_key for key, old_key in found.items() if old_key is not None}


def check_policies(config: OutOptions, new: Modelled) -> None:
    """Check that the options for components fit this model and do not contradict each other.

    Raises:
        ConfigError: they do not fit, or contradict each other.
    """
    keys = {linear.key for linear in new.linears.values()}
    architecture, present = new.architecture, set(new.components.values())
    defaults = {name: default for name, (default, _) in option_fields().items()}
    for component in COMPONENTS:
        policy = policy_of(config, component)
        if policy == defaults[component] or component in present:
            continue
        if component == "head" and new.has_head:
            if policy == config.embeddings:
                continue
            raise ConfigError(
                f"head is {policy}, and the head of this {architecture} is tied to its embeddings: "
                "leave the option out, and set embeddings instead."
            )
        raise ConfigError(f"{component} is {policy}, and {architecture} has no such part: leave the option out.")
    if config.routers != defaults["routers"]:
        holding = {new.components[key] for key in new.router_keys if key in new.components}
        if not holding:
            raise ConfigError(f"routers is {config.routers}, and {architecture} has none: leave the option out.")
        if all(policy_of(config, component) != "merge" for component in holding):
            component = min(holding)
            raise ConfigError(
                f"routers is {config.routers}, and {component}, which holds them, is {policy_of(config, component)}: "
                "leave out one of the two options."
            )
    for option, idle in (("include", ("new", "old")), ("exclude", ("old",))):
        for pattern in getattr(config, option):
            named = {new.components[key] for key in keys if re.search(pattern, key)}
            if named and all(policy_of(config, component) in idle for component in named):
                component = min(named)
                raise ConfigError(
                    f"{option} {pattern!r} names linears of {component} only, and {component} is "
                    f"{policy_of(config, component)}: leave out one of the two options."
                )
    config.rule.check_model(config, architecture, max((unit.blocks for unit in new.units if unit.text), default=0))
    if not any(is_included(config, key, new.components[key], router=key in new.router_keys) for key in keys):
        if any(policy_of(config, component) != defaults[component] for component in COMPONENTS):
            raise ConfigError("the options leave no linear to adapt: set one component that has linears to merge.")
        raise ConfigError("include and exclude leave no linear to adapt: change the expressions.")


def component_records(
    config: OutOptions, new: Modelled, outcomes: Iterable[tuple[str, str]]
) -> tuple[ComponentRecord, ...]:
    """A record for each component that the model has; ``outcomes``: name and outcome of every linear."""
    linears: dict[Component, Counter[str]] = {component: Counter() for component in COMPONENTS}
    for name, outcome in outcomes:
        linears[new.components[new.linears[name].key]][outcome] += 1
    tensors = Counter(new.components.values())
    return tuple(
        ComponentRecord(component, policy_of(config, component), tensors[component], dict(linears[component]))
        for component in COMPONENTS
        if tensors[component]
    )
