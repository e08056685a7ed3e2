"""Every option that decides the result, in one frozen, validated place; the command line and the YAML mirror it.

Imports neither torch nor transformers: a wrong option is reported before either is loaded.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, fields
from datetime import date
from difflib import get_close_matches
from pathlib import Path, PurePath
from typing import Any, Literal, final, get_args, get_origin, get_type_hints

import yaml

from hpa_merge.counting import listed_words
from hpa_merge.errors import ConfigError
from hpa_merge.files.parsing import CONFIG, parse_json, read_bounded
from hpa_merge.files.parsing_yaml import YAML_BYTES, parse_yaml
from hpa_merge.methods import RuleOptions, users
from hpa_merge.methods.rule import NOT_NEGATIVE, Bound, option

Uncalibrated = Literal["new", "old", "error"]
Policy = Literal["merge", "new", "old"]
Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Conversation = Literal["auto", "v1", "llava_llama_2", "mistral_instruct"]

POSITIVE = Bound(lambda x: x > 0.0, "greater than 0, because a Hessian without damping may have no inverse")
RANK = Bound(lambda x: x >= 0, "at least 0, where 0 means no approximation")
COUNT = Bound(lambda x: x >= 1, "at least 1")
MAPS = Bound(lambda texts: all(re.fullmatch(r"(\w+:)?[^:=]+=.+", text, re.DOTALL) for text in texts), "WANTED=GIVEN")
SHARES = Bound(lambda shares: all(share > 0.0 for share in shares), "numbers greater than 0")
DEVICE = Bound(lambda text: bool(re.fullmatch(r"auto|cpu|cuda(:\d+)?", text)), "auto, cpu, cuda or cuda:INDEX")


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


DAY = Bound(_is_day, "a day as 2024-07-26")

TEMPLATE_DATE = "2024-07-26"
"""The day that Llama 3's own chat templates take where they have no clock."""

MAX_FRAMES = 8
"""Frames of a video: of most models, 2,048 tokens hold so many."""

MIN_EXPERT_TOKENS = 32
"""With ``n`` tokens the mean square of a column, if it is normally distributed, has a standard error of ``√(2/n)`` of
itself: 25 % here."""

RESERVED = {
    "add_generation_prompt",
    "chat_template",
    "continue_final_message",
    "conversation",
    "messages",
    "padding",
    "processor_kwargs",
    "raise_exception",
    "sanitize_control_tokens",
    "strftime_now",
    "tokenize",
    "tokenizer_kwargs",
    "tools",
    "truncation",
}
"""Names that a chat template reads, or transformers' function takes, and that no argument may have; nor may those that
begin as the next ones do."""

RESERVED_BEGINNINGS = ("load_audio", "max_length", "return_")

PYTHON = {"True": True, "False": False, "None": None}
"""How Python writes what JSON calls true, false and null; as text each would be true in a template."""
MAP, IGNORED, FOLDER = "[SET:]WANTED=GIVEN", "[SET:]NAME", "[SET:]FOLDER"
"""What the help calls a value of ``--map``, ``--ignore-field`` and ``--image-folder``."""

MOST_SETTINGS = 1000
"""OUTs of one sweep at most: each is a whole checkpoint."""


@dataclass(frozen=True)
class CalibrationOptions:
    """What the calibration run depends on, and the column statistics with it: the same in all OUTs of a sweep."""

    damping: float = option(0.01, "Damping of the Hessians, relative to their mean diagonal.", POSITIVE)
    safety_samples: int = option(8, "Use at most N safety samples, drawn with the seed.", COUNT)
    task_samples: int = option(128, "Use at most N task samples, drawn with the seed.", COUNT)
    task_share: tuple[float, ...] = option(
        (), "Share of a --task-calib among the task samples, in their order. Repeatable.", SHARES, metavar="NUMBER"
    )
    dtype: Dtype = option("auto", "Read OLD and NEW in this dtype and write OUT in it; auto: in theirs.")
    compute_dtype: Dtype = option("auto", "Run the samples in this dtype; auto: in that of OLD and NEW.")
    min_expert_tokens: int = option(
        MIN_EXPERT_TOKENS,
        "Experts that read fewer than N tokens of a set get the curvature of all experts of their layer.",
        NOT_NEGATIVE,
    )
    max_length: int = option(2048, "Use at most N tokens of each sample.", COUNT)
    max_frames: int = option(MAX_FRAMES, "Use at most N frames of each video.", COUNT)
    seed: int = option(0, "Seed of the draw.")
    conversation: Conversation = option("auto", "Conversation template of a checkpoint in LLaVA's own layout.")
    chat_template: str = option("", "Chat template: a file, or a name that the checkpoint has.", metavar="FILE|NAME")
    template_arg: tuple[str, ...] = option(
        (), "Argument of the chat template, such as enable_thinking=false. Repeatable.", metavar="KEY=VALUE"
    )
    template_date: str = option(TEMPLATE_DATE, "The date that chat templates get as today's.", DAY, metavar="DATE")
    device: str = option("auto", "Device that computes: auto, cpu, cuda or cuda:INDEX.", DEVICE)
    map: tuple[str, ...] = option(
        (), "Read the field GIVEN as the field that layouts call WANTED. Repeatable.", MAPS, metavar=MAP
    )
    ignore_field: tuple[str, ...] = option((), "Ignore a field of the records. Repeatable.", metavar=IGNORED)


@dataclass(frozen=True)
class OutOptions(RuleOptions):
    """What one OUT depends on: the rule and its options, and which weights it is for."""

    include: tuple[str, ...] = option(
        (), "Adapt only linears whose tensor name matches REGEX. Repeatable.", metavar="REGEX"
    )
    exclude: tuple[str, ...] = option(
        (), "Take linears whose tensor name matches REGEX from NEW. Repeatable.", metavar="REGEX"
    )
    vision: Policy = option("merge", "Encoders of images, video and audio: merge them, or take NEW's or OLD's.")
    projector: Policy = option("merge", "Projector between the encoders and the text model.")
    language: Policy = option("merge", "Text model, without head and embeddings.")
    head: Policy = option("merge", "Output embeddings, if they are not tied.")
    routers: Policy = option("new", "Routers of a mixture, in parts that are merged: NEW's, OLD's, or merged.")
    embeddings: Policy = option("new", "Embeddings and what is tied to them: new or old.")
    uncalibrated: Uncalibrated = option(
        "new", "Changed linears that no token of one of the sets reaches: take NEW's or OLD's, or stop."
    )

    output_format: Literal["model", "adapter"] = option(
        "model", "OUT is a whole model or, where NEW is a LoRA, an adapter on OLD."
    )
    adapter_rank: int = option(
        0,
        "Approximate an update that is not a LoRA by one of rank N (with --output-format adapter).",
        RANK,
        metavar="N",
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
            self._check_type(item.name, item.default, get_args(hints[item.name]))
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
        template_arguments(self.template_arg)
        self._check_adapter()
        for item in fields(self):
            if not uses(self.method, item.name) and getattr(self, item.name) != item.default:
                raise ConfigError(
                    f"{item.name} is {getattr(self, item.name)!r} and the method {self.method} does not use it: "
                    f"leave it out, or choose {listed_words(users(item.name), 'or')}."
                )

    def _check_adapter(self) -> None:
        """Raise ConfigError if OUT is an adapter and the rule makes none, or if OUT is a whole model and has a rank."""
        if self.output_format == "model" and self.adapter_rank:
            raise ConfigError(
                f"adapter_rank is {self.adapter_rank}, and OUT is a whole model: set output_format to adapter, or "
                "leave the rank out."
            )
        reason = self.rule.no_lora(self) if self.output_format == "adapter" and not self.adapter_rank else ""
        if reason:
            raise ConfigError(
                f"output_format is adapter, and the method {self.method} makes no LoRA of NEW's rank, because "
                f"{reason}, or approximate the update with --adapter-rank N."
            )

    @property
    def calibration(self) -> CalibrationOptions:
        """The options of the calibration run alone."""
        return CalibrationOptions(**{item.name: getattr(self, item.name) for item in fields(CalibrationOptions)})

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], source: str = "the configuration") -> "HPAConfig":
        """The configuration of a mapping as YAML gives it; option names with dashes or underscores.

        Raises:
            ConfigError: a name that is not an option, or a value that ``HPAConfig`` refuses.
        """
        options = {item.name: item for item in fields(cls)}
        known: dict[str, Any] = {}
        for key, value in values.items():
            name = str(key).replace("-", "_")
            if name not in options:
                close = get_close_matches(name, options, n=1)
                meant = f" (did you mean {close[0]}?)" if close else ""
                raise ConfigError(
                    f"{source} has no option {key!r}{meant}: the options are {', '.join(sorted(options))}."
                )
            if isinstance(options[name].default, tuple) and (value is None or isinstance(value, str | int | float)):
                value = () if value is None else (value,)
            elif isinstance(options[name].default, tuple) and isinstance(value, Mapping):
                value = tuple(
                    f"{key}={item if name == 'map' else json.dumps(item, ensure_ascii=False, default=str)}"
                    for key, item in value.items()
                )
            elif isinstance(options[name].default, str) and (type(value) is int or isinstance(value, date)):
                value = str(value)  # a word that YAML takes for a number or a day
            known[name] = value
        return cls(**known)

    def _check_type(self, name: str, default: Any, kinds: tuple[Any, ...]) -> None:
        value = getattr(self, name)
        if isinstance(default, bool):
            self._check(name, isinstance(value, bool), "true or false")
        elif isinstance(default, int):
            self._check(name, isinstance(value, int) and not isinstance(value, bool), "a whole number")
        elif isinstance(default, float):
            self._check(name, _is_number(value), "a number")
            object.__setattr__(self, name, float(value))
        elif isinstance(default, tuple):
            kind, words = (float, "numbers") if float in kinds else (str, "words")
            fits = _is_number if kind is float else lambda item: isinstance(item, str)
            self._check(name, isinstance(value, list | tuple) and all(map(fits, value)), f"a list of {words}")
            object.__setattr__(self, name, tuple(map(kind, value)))
        else:
            if isinstance(value, PurePath):  # such as that of a chat template
                object.__setattr__(self, name, str(value))
            self._check(name, isinstance(value, str | PurePath), "a word")

    def _check(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise ConfigError(f"{name} is {getattr(self, name)!r}: it has to be {wanted}.")


def template_arguments(given: Sequence[str]) -> dict[str, Any]:
    """The arguments of a chat template by name: ``KEY=VALUE`` each, with a value that is JSON, or else text.

    Raises:
        ConfigError: one is not of that form, has a name that is taken, or is given twice.
    """
    arguments: dict[str, Any] = {}
    for item in given:
        name, sign, value = item.partition("=")
        if not sign or not name.isidentifier():
            raise ConfigError(f"template_arg is {item!r}: it has to be KEY=VALUE, as enable_thinking=false.")
        if name in RESERVED or name.startswith(RESERVED_BEGINNINGS):
            raise ConfigError(f"template_arg gives {name}, which transformers itself gives a template: leave it out.")
        if name in arguments:
            raise ConfigError(f"template_arg gives {name} twice: give it once.")
        try:
            arguments[name] = PYTHON[value] if value in PYTHON else parse_json(value, CONFIG, finite=True)
        except ValueError:
            arguments[name] = value
    return arguments


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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


def option_metavar(name: str) -> str | None:
    """What the help calls an option's value, where that is given."""
    return {item.name: item.metadata["metavar"] for item in fields(HPAConfig)}[name] or None


def option_item(name: str) -> type:
    """The type of each value of an option that may be given several times."""
    return float if float in get_args(get_type_hints(HPAConfig)[name]) else str


def option_words(name: str) -> tuple[str, ...]:
    """The words that an option may be, where those are given."""
    return _words(get_type_hints(HPAConfig)[name])


def _words(hint: Any) -> tuple[str, ...]:
    return get_args(hint) if get_origin(hint) is Literal else ()
