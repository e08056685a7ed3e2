"""The settings that a tuning tries: the rules' own strengths, the user's settings, and what is refused."""

import re
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from hpa_merge import ConfigError, HPAConfig
from hpa_merge.core import Curvature
from hpa_merge.evaluation.candidates import candidates, split_names
from hpa_merge.methods import RULES
from hpa_merge.methods.applying import Curved, adapt

STRONG = [rule for rule in RULES if rule.strength]


@pytest.mark.parametrize("rule", STRONG, ids=lambda rule: rule.name)
def test_the_strengths_of_a_rule(rule: Any) -> None:
    """Each is a setting of the rule, under the name that a sweep gives it, and the default lies among them."""
    found = candidates({"seed": 3}, [rule.name])
    assert len(found) == len(rule.strength.values) >= 5
    assert {(config.method, config.seed) for config in found.values()} == {(rule.name, 3)}
    for name, config in found.items():
        method, *others = (text.split("=") for text in name.split(","))
        assert method == ["method", rule.name]
        given = {option: float(value) for option, value in others}
        assert config == HPAConfig(method=rule.name, seed=3, **given)
    values = [getattr(config, rule.strength.option) for config in found.values()]
    assert values in (sorted(values), sorted(values, reverse=True))
    default = getattr(HPAConfig(), rule.strength.option)
    assert min(values) <= default <= max(values)
    assert set(rule.strength.options) <= set(rule.options)


def curved(tokens: int, seed: int, columns: int = 32) -> tuple[Curved, Tensor]:
    """The curvature of correlated inputs of unequal scale, and the inputs, ``[tokens, columns]``."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, columns, generator=generator) * torch.randn(columns, generator=generator).exp()
    x = x + 0.5 * x.roll(1, dims=1)
    gathered = Curvature(columns)
    gathered.add(x)
    return Curved(gathered.inverse_diagonal(0.01), gathered.inverse(0.01), gathered.hessian(0.01), tokens), x


@pytest.mark.parametrize("rule", STRONG, ids=lambda rule: rule.name)
def test_the_strengths_go_from_weak_to_safe(rule: Any) -> None:
    """The outputs of safety inputs come nearer to OLD's; of a rule that restores columns, more and more are OLD's."""
    generator = torch.Generator().manual_seed(0)
    old = torch.randn(48, 32, generator=generator)
    new = old + 1e-3 * torch.randn(48, 32, generator=generator)  # about what safe-delta's budgets are for
    (safety, x), (task, _) = curved(12, 1), curved(200, 2)
    configs = list(candidates({}, [rule.name]).values())
    made = adapt(old, new, safety, task, block=0, blocks=4, configs=configs, name="weight")
    if rule.by_columns:
        moved = [float((weight.weight != old).any(dim=0).sum()) for weight in made]
    else:
        moved = [float(((weight.weight - old) @ x.T).norm()) for weight in made]
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in pairwise(moved)), moved
    assert moved[-1] < 0.8 * moved[0]


def test_one_method_is_that_of_the_configuration() -> None:
    assert list(candidates({})) == list(
        candidates({"p-max": 12.0, "p-min": 1.0})
    )  # as it was before there were methods
    assert list(candidates({}))[2] == "p_max=15,p_min=5"
    assert candidates({"selection": "safety"})["p_max=15,p_min=5"] == HPAConfig(selection="safety")
    assert next(iter(candidates({"method": "linear"}))) == "weight=0.9"


def test_options_hold_for_the_methods_that_use_them() -> None:
    found = candidates({"focus-ratio": 3, "safety_fade": 0.5, "head": "new"}, ["hpa", "regmean", "linear"])
    assert len(found) == 18
    defaults = HPAConfig()
    for config in found.values():
        assert config.focus_ratio == (3 if config.method == "hpa" else defaults.focus_ratio)
        assert config.safety_fade == (0.5 if config.method == "regmean" else defaults.safety_fade)
        assert config.head == "new"


def test_the_users_settings_replace_those_of_their_methods() -> None:
    mine = {"a": HPAConfig(p_max=50), "b": HPAConfig(method="blocks", blocks="1")}
    assert candidates({}, [], mine) == mine
    found = candidates({"p_min": 2}, ["linear", "hpa", "blocks"], mine)  # p_min is for what is listed
    assert list(found)[-2:] == ["a", "b"]
    assert len(found) == 8
    for methods in ([], ["hpa", "blocks"]):
        with pytest.raises(ConfigError, match="p_max is 101"):
            candidates({"p_max": 101}, methods, mine)
    assert split_names(["hpa, linear", "cgm"]) == ["hpa", "linear", "cgm"]


@pytest.mark.parametrize(
    ("base", "methods", "sentence"),
    [
        ({}, ["hpa", "regmeam"], "methods has 'regmeam', and there is no such method: choose from hpa, regmean, "),
        ({}, ["hpa", ""], "methods has '', and there is no such method: "),
        ({}, ["cgm", "hpa", "cgm"], "methods has cgm twice: name every method once."),
        ({}, ["hpa", "blocks"], "the method blocks has no strength that a tuning could vary: leave it out, or list"),
        ({"method": "blocks"}, [], "the method blocks has no strength that a tuning could vary"),
        ({"method": "cgm"}, ["hpa", "linear"], "method is cgm, and methods is hpa, linear: leave out one of the two."),
        (
            {"p-max": 20},
            ["hpa", "linear"],
            "p_max is given, and a tuning with methods varies it: leave it out, or list",
        ),
        ({"p_min": 2}, ["linear", "energy"], "p_min is given, and a tuning with methods varies it: leave it out, or"),
        ({"safety-weight": 2}, ["cgm"], "safety_weight is given, and a tuning with methods varies it: "),
        (
            {"weight": 0.3},
            ["hpa", "cgm"],
            "weight is given, and none of the methods hpa, cgm uses it: leave it out, or",
        ),
        ({"safety_fade": 7}, ["hpa", "cgm"], "safety_fade is 7.0: it has to be between 0 and 1."),
        ({"p_max": 101}, [], "p_max is 101.0: it has to be a percentage between 0 and 100."),
        ({"p-mix": 7}, ["hpa", "cgm"], "the file has no option 'p_mix'"),
    ],
)
def test_what_is_refused(base: dict[str, Any], methods: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        candidates(base, methods, source="the file")


def test_a_setting_of_another_method_is_refused() -> None:
    with pytest.raises(ConfigError, match="the setting a has the method hpa, and methods is linear, cgm: add it there"):
        candidates({}, ["linear", "cgm"], {"a": HPAConfig()})
