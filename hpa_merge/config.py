"""Every option that decides the result, in one frozen, validated place; the command line and the YAML mirror it.

Imports neither torch nor transformers: a wrong option is reported before either is loaded.
"""

import math
import re
from collections.abc import Mapping, Sized
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, final, get_args, get_origin, get_type_hints

import yaml

from hpa_merge.errors import ConfigError
from hpa_merge.files.parsing import read_bounded
from hpa_merge.files.parsing_yaml import YAML_BYTES, parse_yaml
from hpa_merge.methods import RuleOptions, users
from hpa_merge.methods.rule import Bound, option

Uncalibrated = Literal["new", "old", "error"]
Policy = Literal["merge", "new", "old"]
Conversation = Literal["auto", "v1", "llava_llama_2", "mistral_instruct"]

POSITIVE = Bound(lambda x: x > 0.0, "greater than 0, because a Hessian without damping may have no inverse")
COUNT = Bound(lambda x: x >= 1, "at least 1")
DEVICE = Bound(lambda text: bool(re.fullmatch(r"auto|cpu|cuda(:\d+)?", text)), "auto, cpu, cuda or cuda:INDEX")

MOST_SETTINGS = 1000
"""OUTs of one sweep at most: each is a whole checkpoint."""


@dataclass(frozen=True)
class CalibrationOptions:
    """What the calibration run depends on, and the column statistics with it: the same in all OUTs of a sweep."""

    damping: float = option(0.01, "Damping of the Hessians, relative to their mean diagonal.", POSITIVE)
    safety_samples: int = option(8, "Use at most N safety samples, drawn with the seed.", COUNT)
    task_samples: int = option(128, "Use at most N task samples, drawn with the seed.", COUNT)
    max_length: int = option(2048, "Use at most N tokens of each sample.", COUNT)
    seed: int = option(0, "Seed of the draw.")
    conversation: Conversation = option("auto", "Conversation template of a checkpoint in LLaVA's own layout.")
    device: str = option("auto", "Device that computes: auto, cpu, cuda or cuda:INDEX.", DEVICE)


@dataclass(frozen=True)
class OutOptions(RuleOptions):
    """What one OUT depends on: the rule and its options, and which weights it is for."""

    include: tuple[str, ...] = option((), "Adapt only linears whose tensor name matches REGEX. Repeatable.")
    exclude: tuple[str, ...] = option((), "Take linears whose tensor name matches REGEX from NEW. Repeatable.")
    vision: Policy = option("merge", "Encoders of images, video and audio: merge them, or take NEW's or OLD's.")
    projector: Policy = option("merge", "Projector between the encoders and the text model.")
    language: Policy = option("merge", "Text model, without head and embeddings.")
    head: Policy = option("merge", "Output embeddings, if they are not tied.")
    embeddings: Policy = option("new", "Embeddings and what is tied to them: new or old.")
    uncalibrated: Uncalibrated = option(
        "new", "Changed linears that no token of one of the sets reaches: take NEW's or OLD's, or stop."
    )


@final
@dataclass(frozen=True)
class HPAConfig(CalibrationOptions, OutOptions):
    """The options of a merge; the defaults are the papers'.

    Raises:
        ConfigError: a value of the wrong type, out of its range, or contradicting another; an option that the method
            does not use is not its default.
    """

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for item in fields(self):
            self._check_type(item.name, item.default)
        for item in fields(self):
            bound, words = item.metadata["bound"], _words(hints[item.name])
            if bound is not None:
                self._check(item.name, bound.holds(getattr(self, item.name)), bound.words)
            if words:
                self._check(item.name, getattr(self, item.name) in words, f"one of {', '.join(words)}")
        if self.embeddings == "merge":
            raise ConfigError("embeddings is 'merge': only linear weights can be merged, so set it to new or old.")
        for low, high in ((item.name, item.metadata["most"]) for item in fields(self) if item.metadata["most"]):
            if getattr(self, low) > getattr(self, high):
                raise ConfigError(
                    f"{low} is {getattr(self, low):g} and {high} is {getattr(self, high):g}: "
                    f"lower {low} or raise {high}, so that {low} is not the greater."
                )
        for name in ("include", "exclude"):
            for pattern in getattr(self, name):
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ConfigError(f"{name} is not a regular expression: {pattern!r} ({error}).") from None
        for item in fields(self):
            if not uses(self.method, item.name) and getattr(self, item.name) != item.default:
                raise ConfigError(
                    f"{item.name} is {getattr(self, item.name)!r} and the method {self.method} does not use it: "
                    f"leave it out, or choose {' or '.join(users(item.name))}."
                )

    @property
    def calibration(self) -> CalibrationOptions:
        """The options of the calibration run alone."""
        return CalibrationOptions(**{item.name: getattr(self, item.name) for item in fields(CalibrationOptions)})

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], source: str = "the configuration") -> "HPAConfig":
        """The configuration of a mapping as YAML gives it; option names with dashes or underscores.

        Raises:
            ConfigError: a name that is no option, or a value that ``HPAConfig`` refuses.
        """
        options = {item.name: item for item in fields(cls)}
        known: dict[str, Any] = {}
        for key, value in values.items():
            name = str(key).replace("-", "_")
            if name not in options:
                raise ConfigError(f"{source} has no option {key!r}: the options are {', '.join(sorted(options))}.")
            if isinstance(options[name].default, tuple) and (value is None or isinstance(value, str)):
                value = () if value is None else (value,)
            elif isinstance(options[name].default, str) and type(value) is int:  # a word that YAML takes for a number
                value = str(value)
            known[name] = value
        return cls(**known)

    def _check_type(self, name: str, default: Any) -> None:
        value = getattr(self, name)
        if isinstance(default, bool):
            self._check(name, isinstance(value, bool), "true or false")
        elif isinstance(default, int):
            self._check(name, isinstance(value, int) and not isinstance(value, bool), "a whole number")
        elif isinstance(default, float):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            self._check(name, number and math.isfinite(value), "a number")
            object.__setattr__(self, name, float(value))
        elif isinstance(default, tuple):
            listed = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
            self._check(name, listed, "a list of regular expressions")
            object.__setattr__(self, name, tuple(value))
        else:
            self._check(name, isinstance(value, str), "a word")

    def _check(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise ConfigError(f"{name} is {getattr(self, name)!r}: it has to be {wanted}.")


def uses(method: str, name: str) -> bool:
    """Whether an option means anything to a method."""
    return not (of := users(name)) or method in of


def check_number(settings: Sized) -> None:
    """Check how many OUTs a sweep is to make.

    Raises:
        ConfigError: too many.
    """
    if len(settings) > MOST_SETTINGS:
        raise ConfigError(
            f"a sweep makes at most {MOST_SETTINGS} OUTs, and {len(settings)} are asked for: split the settings."
        )


def calibration_of(configs: Mapping[str, HPAConfig]) -> CalibrationOptions:
    """The options of the calibration run that the OUTs of a sweep share.

    Args:
        configs: by what the messages call each.

    Raises:
        ConfigError: they differ, or there is no OUT, or there are too many.
    """
    if not configs:
        raise ConfigError("a sweep needs at least one OUT: give the options of one.")
    check_number(configs)
    (first, options), *others = configs.items()
    for other, config in others:
        for item in fields(CalibrationOptions):
            was, now = getattr(options, item.name), getattr(config, item.name)
            if was != now:
                raise ConfigError(
                    f"{item.name} is {was} in {first} and {now} in {other}: the column statistics depend on it, and a "
                    "sweep computes them once, so give it once, for all."
                )
    return options.calibration


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping of option names to values in a YAML file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or is not a mapping.
    """
    try:
        values = parse_yaml(read_bounded(path, YAML_BYTES))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): give --config a YAML file.") from None
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}: write one option a line, as in 'p-max: 15'.")
    return values


def option_fields() -> dict[str, tuple[Any, str]]:
    """Each option's default and help text, in order."""
    return {item.name: (item.default, item.metadata["help"]) for item in fields(HPAConfig)}


def option_words(name: str) -> tuple[str, ...]:
    """The words that an option may be, where those are given."""
    return _words(get_type_hints(HPAConfig)[name])


def _words(hint: Any) -> tuple[str, ...]:
    return get_args(hint) if get_origin(hint) is Literal else ()
