"""Every option that decides the result, in one frozen, validated place; the command line and the YAML mirror it.

Imports neither torch nor transformers: a wrong option is reported before either is loaded.
"""

import math
import re
from collections.abc import Mapping, Sized
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, final, get_args, get_origin, get_type_hints

import yaml

from hpa_merge.errors import ConfigError
from hpa_merge.files.parsing import read_bounded
from hpa_merge.files.parsing_yaml import YAML_BYTES, parse_yaml

Method = Literal["hpa", "linear", "safe-delta", "model-tailor", "blocks", "random", "energy"]
Selection = Literal["balanced", "safety", "shared"]
Saliency = Literal["quotient", "product"]
Uncalibrated = Literal["new", "old", "error"]
Policy = Literal["merge", "new", "old"]
Conversation = Literal["auto", "v1", "llava_llama_2", "mistral_instruct"]

SHARED = ("damping", "safety_samples", "task_samples", "max_length", "seed", "conversation", "device")
"""What the column statistics depend on: the same in all OUTs of a sweep."""

MOST_SETTINGS = 1000
"""OUTs of one sweep at most: each is a whole checkpoint."""

SETS: dict[str, tuple[str, ...]] = {
    "hpa": ("safety", "task"),
    "safe-delta": ("safety",),
    "model-tailor": ("task",),
}
"""The calibration sets that a method looks at; the others look at the weights alone."""

COLUMNS, CURVATURE = ("hpa", "random", "energy"), tuple(SETS)

USERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("p_max", "p_min", "orthogonal"), COLUMNS),
    **dict.fromkeys(("focus_ratio", "alpha_min", "alpha_max", "selection", "saliency"), ("hpa",)),
    "weight": ("linear",),
    "safety_budget": ("safe-delta",),
    "patch_share": ("model-tailor",),
    "compensation": ("safe-delta", "model-tailor"),
    "blocks": ("blocks",),
    "uncalibrated": CURVATURE,
}
"""The methods that use an option; all of them use one that is not here, or it belongs to the calibration sets."""


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@final
@dataclass(frozen=True)
class HPAConfig:
    """The options of a merge; the defaults are the papers'.

    Raises:
        ConfigError: a value of the wrong type, out of its range, or contradicting another; an option that the method
            does not use is not its default.
    """

    method: Method = _option("hpa", "The rule: HPA, or one that it is compared with.")
    p_max: float = _option(15.0, "Percent of the columns put back in the first block.")
    p_min: float = _option(5.0, "Percent of the columns put back after the last block.")
    focus_ratio: float = _option(2.0, "Size of the focus sets, as a multiple of the columns put back.")
    alpha_min: float = _option(0.4, "Least weight of the task score in the balanced score.")
    alpha_max: float = _option(0.8, "Greatest weight of the task score in the balanced score.")
    damping: float = _option(0.01, "Damping of the Hessians, relative to their mean diagonal.")
    selection: Selection = _option("balanced", "Which columns are put back: the method, or one of its two ablations.")
    orthogonal: bool = _option(True, "Remove from the update what points along the old weights.")
    saliency: Saliency = _option("quotient", "Focus score: energy divided by [H⁻¹]_jj, or multiplied by it.")
    weight: float = _option(0.5, "linear: the part of the update that stays.")
    safety_budget: float = _option(0.1, "safe-delta: how much safety the changes that stay may cost, s in the paper.")
    patch_share: float = _option(10.0, "model-tailor: percent of a weight's values that stay new.")
    compensation: bool = _option(True, "safe-delta, model-tailor: let other values make up for those that are given.")
    blocks: str = _option("6-14", "blocks: those of the text stack that are put back, counted from 0, such as 0-2,7.")
    include: tuple[str, ...] = _option((), "Adapt only linears whose tensor name matches REGEX. Repeatable.")
    exclude: tuple[str, ...] = _option((), "Take linears whose tensor name matches REGEX from NEW. Repeatable.")
    vision: Policy = _option("merge", "The encoders of images, video and sound: merged, or all of NEW or OLD.")
    projector: Policy = _option("merge", "What lies between those and the text.")
    language: Policy = _option("merge", "The text model, without the next two.")
    head: Policy = _option("merge", "The output embeddings, where they are not tied.")
    embeddings: Policy = _option("new", "The embeddings and what is tied to them: new or old.")
    uncalibrated: Uncalibrated = _option("new", "Changed linears that no calibration token reaches in both sets.")
    safety_samples: int = _option(8, "Safety samples used at most, drawn with the seed.")
    task_samples: int = _option(128, "Task samples used at most, drawn with the seed.")
    max_length: int = _option(2048, "Tokens of a sample used at most.")
    seed: int = _option(0, "Seed of the draw.")
    conversation: Conversation = _option("auto", "Prompts of a checkpoint in LLaVA's own layout.")
    device: str = _option("auto", "Where the arithmetic runs: auto, cpu, cuda or cuda:INDEX.")

    def __post_init__(self) -> None:
        for item in fields(self):
            self._check_type(item.name, item.default)
        for name in ("p_max", "p_min", "patch_share"):
            self._check(name, 0.0 <= getattr(self, name) <= 100.0, "a percentage between 0 and 100")
        self._check("weight", 0.0 <= self.weight <= 1.0, "between 0 and 1")
        for name in ("alpha_min", "alpha_max", "safety_budget"):
            self._check(name, getattr(self, name) >= 0.0, "at least 0")
        self._check("focus_ratio", self.focus_ratio >= 1.0, "at least 1, for the columns come from the focus set")
        self._check("damping", self.damping > 0.0, "greater than 0, for a Hessian without damping may have no inverse")
        for name in ("safety_samples", "task_samples", "max_length"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        self._check("blocks", _ranges(self.blocks) is not None, "block numbers and ranges of them, such as 0-2,7")
        for name, choices in get_type_hints(type(self)).items():
            if words := get_args(choices) if get_origin(choices) is Literal else ():
                self._check(name, getattr(self, name) in words, f"one of {', '.join(words)}")
        if self.embeddings == "merge":
            raise ConfigError("embeddings is 'merge': only linear weights can be merged, so set it to new or old.")
        self._check("device", bool(re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device)), "auto, cpu, cuda or cuda:INDEX")
        for low, high in (("p_min", "p_max"), ("alpha_min", "alpha_max")):
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
                    f"leave it out, or choose {' or '.join(USERS[item.name])}."
                )

    @property
    def sets(self) -> tuple[str, ...]:
        """The calibration sets that the method looks at: ``safety``, ``task``, both, or none."""
        return sets_of(self.method)

    @property
    def whole_inverse(self) -> bool:
        """Whether the method takes more of the curvature than ``[H⁻¹]_jj``."""
        return self.compensation and self.method in USERS["compensation"]

    def chosen_blocks(self) -> set[int]:
        """The places in the text stack that ``blocks`` names."""
        return set(_ranges(self.blocks) or ())

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], source: str = "the configuration") -> "HPAConfig":
        """The configuration of a mapping as YAML gives it; option names with dashes or underscores.

        Raises:
            ConfigError: a name that is no option, or a value that ``HPAConfig`` refuses.
        """
        names = {item.name for item in fields(cls)}
        known: dict[str, Any] = {}
        for key, value in values.items():
            name = str(key).replace("-", "_")
            if name not in names:
                raise ConfigError(f"{source} has no option {key!r}: the options are {', '.join(sorted(names))}.")
            if name in ("include", "exclude") and (value is None or isinstance(value, str)):
                value = () if value is None else (value,)
            known[name] = str(value) if name == "blocks" and type(value) is int else value
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


def sets_of(method: Any) -> tuple[str, ...]:
    """The calibration sets that a method looks at; none where there is no such method."""
    return SETS.get(str(method), ())


def uses(method: str, option: str) -> bool:
    """Whether an option means anything to a method."""
    return method in USERS.get(option, (method,))


def _ranges(text: str) -> list[int] | None:
    """The numbers that ``0-2,7`` names; None where it names none or is no such text."""
    if not re.fullmatch(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*", text):
        return None
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found or None


def check_number(settings: Sized) -> None:
    """Check how many OUTs a sweep is to make.

    Raises:
        ConfigError: too many.
    """
    if len(settings) > MOST_SETTINGS:
        raise ConfigError(
            f"a sweep makes at most {MOST_SETTINGS} OUTs, and {len(settings)} are asked for: split the settings."
        )


def check_shared(configs: Mapping[str, HPAConfig]) -> None:
    """Whether the OUTs of a sweep can share their statistics; ``configs`` by what the messages call each.

    Raises:
        ConfigError: they cannot, or there is none, or there are too many.
    """
    if not configs:
        raise ConfigError("a sweep needs at least one OUT: give the options of one.")
    check_number(configs)
    (first, options), *others = configs.items()
    for other, config in others:
        for name in SHARED:
            was, now = getattr(options, name), getattr(config, name)
            if was != now:
                raise ConfigError(
                    f"{name} is {was} in {first} and {now} in {other}: the column statistics depend on it, and a sweep "
                    "computes them once, so give it once, for all."
                )


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
    """Each option's default and help text, in order: what the command line is made from."""
    assert all(item.default is not MISSING for item in fields(HPAConfig))
    return {item.name: (item.default, item.metadata["help"]) for item in fields(HPAConfig)}
