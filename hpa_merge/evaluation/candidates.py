"""The settings that a tuning tries: each rule at several strengths, or those that the user lists.

Imports no torch: what is wrong with the options is said before it is loaded.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hpa_merge.config import HPAConfig, uses
from hpa_merge.counting import listed_words
from hpa_merge.errors import ConfigError
from hpa_merge.methods import RULES, Rule, find_rule, users

__all__ = ["candidates", "fitting", "name_of", "split_names"]


def candidates(
    base: Mapping[str, Any],
    methods: Sequence[str] = (),
    listed: Mapping[str, HPAConfig] | None = None,
    source: str = "the configuration",
) -> dict[str, HPAConfig]:
    """The settings by name, those of a rule from the weakest to the safest.

    Args:
        base: options for all settings whose method uses them.
        methods: the rules to try. If there are none, the rule of ``base`` is tried, and its strength there is unused.
        listed: the user's own settings. They replace those of their rules, and without ``methods`` all others.
        source: what the messages call ``base``.

    Raises:
        ConfigError: a method is unknown, twice there or without a strength; ``base`` or ``listed`` contradicts the
            methods; a value is wrong.
    """
    base = {str(name).replace("-", "_"): value for name, value in base.items()}
    listed = listed or {}
    if not methods:
        rule = HPAConfig.from_mapping(base, source).rule
        return dict(listed) or _strengths(rule, base, {}, source)
    found: dict[str, HPAConfig] = {}
    for rule in _checked(base, methods, listed):
        shown, own = {"method": rule.name}, fitting(base, rule.name)
        HPAConfig.from_mapping({**own, **shown}, source)
        of_user = {name: setting for name, setting in listed.items() if setting.method == rule.name}
        found |= of_user or _strengths(rule, own, shown, source)
    return found


def split_names(given: Sequence[str]) -> list[str]:
    """The names in texts such as ``hpa,linear``."""
    return [name.strip() for text in given for name in text.split(",")]


def fitting(base: Mapping[str, Any], method: str) -> dict[str, Any]:
    """The options of ``base`` that a method uses."""
    return {key: value for key, value in base.items() if uses(method, str(key).replace("-", "_"))}


def name_of(values: Mapping[str, Any]) -> str:
    """The name of a setting, from its options: ``p_max=10,selection=safety``."""
    return ",".join(f"{str(key).replace('-', '_')}={_shown(value)}" for key, value in values.items()) or "default"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def _strengths(rule: Rule, base: Mapping[str, Any], shown: Mapping[str, Any], source: str) -> dict[str, HPAConfig]:
    """A rule at each strength; the names have the options of ``shown``, but not those of ``base``.

    Raises:
        ConfigError: the rule has no strength, or a value of ``base`` is wrong.
    """
    if rule.strength is None:
        raise ConfigError(
            f"the method {rule.name} has no strength that a tuning could vary: leave it out, or list settings of it "
            "with --settings."
        )
    named = [{**shown, **values} for values in rule.strength.settings]
    return {name_of(values): HPAConfig.from_mapping({**base, **values}, source) for values in named}


def _checked(base: Mapping[str, Any], methods: Sequence[str], listed: Mapping[str, HPAConfig]) -> list[Rule]:
    """The rules of these names.

    Raises:
        ConfigError: as :func:`candidates`.
    """
    rules = [_known(name) for name in methods]
    for number, name in enumerate(methods):
        if name in methods[:number]:
            raise ConfigError(f"methods has {name} twice: name every method once.")
    every = ", ".join(methods)
    if "method" in base and base["method"] not in methods:
        raise ConfigError(f"method is {base['method']}, and methods is {every}: leave out one of the two.")
    for name, setting in listed.items():
        if setting.method not in methods:
            raise ConfigError(
                f"the setting {name} has the method {setting.method}, and methods is {every}: add it there, or leave "
                "the setting out."
            )
    varied = [rule for rule in rules if all(setting.method != rule.name for setting in listed.values())]
    for option in base:
        if users(option) and not any(uses(name, option) for name in methods):
            raise ConfigError(
                f"{option} is given, and none of the methods {every} uses it: leave it out, or add "
                f"{listed_words(users(option), 'or')}."
            )
        if (found := next((r for r in varied if r.strength and option in r.strength.options), None)) is not None:
            raise ConfigError(
                f"{option} is given, and a tuning with methods varies it: leave it out, or list settings of "
                f"{found.name} with --settings."
            )
    return rules


def _known(name: str) -> Rule:
    """The rule of that name.

    Raises:
        ConfigError: there is none.
    """
    if (rule := find_rule(name)) is None:
        names = ", ".join(rule.name for rule in RULES)
        raise ConfigError(f"methods has {name!r}, and there is no such method: choose from {names}.")
    return rule
