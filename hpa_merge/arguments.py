"""Checks the arguments of the public functions by their annotations, before anything runs.

What can only be meant one way is accepted: a mapping of options for an :class:`HPAConfig`, and one file or a list of
files for a mapping from names to files, which are then named after the files.
"""

import inspect
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache, wraps
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from hpa_merge.config import HPAConfig
from hpa_merge.counting import listed_words
from hpa_merge.errors import ConfigError

__all__ = ["check_counts", "checked"]

P = ParamSpec("P")
R = TypeVar("R")

SHOWN = 60
"""The most characters of a wrong value that are shown."""


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Have the arguments of a function checked.

    The function raises ``ConfigError`` for an argument of another type, and ``TypeError``, as Python does, for one that
    it does not have.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def run(*arguments: P.args, **options: P.kwargs) -> R:
        hints, more = _hints(function)
        if unknown := options.keys() - signature.parameters.keys() - more.keys():
            raise TypeError(_unknown(function.__name__, min(unknown), [*signature.parameters, *more]))
        bound = signature.bind(*arguments, **options)
        for name, value in bound.arguments.items():
            if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = {key: _taken(key, more[key], each) for key, each in value.items()}
            elif signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
                bound.arguments[name] = tuple(_taken(name, hints[name], each) for each in value)
            else:
                bound.arguments[name] = _taken(name, hints[name], value)
        return function(*bound.args, **bound.kwargs)

    return run


@cache
def _hints(function: Callable[..., Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The types of a function's parameters, and those of the keyword arguments in its ``**options``."""
    hints = get_type_hints(inspect.unwrap(function))
    unpacked = [get_args(hint)[0] for hint in hints.values() if get_origin(hint) is typing.Unpack]
    return hints, {name: hint for each in unpacked for name, hint in get_type_hints(each).items()}


def _unknown(function: str, name: str, names: Sequence[str]) -> str:
    close = get_close_matches(name, names, n=1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    return f"{function}() has no argument {name}{meant}."


def check_counts(**counts: float | None) -> None:
    """Check that numbers of things are not 0 or less.

    Raises:
        ConfigError: one is.
    """
    for name, count in counts.items():
        if count is not None and not count >= 1:
            raise ConfigError(f"{name} is {count:g}: it has to be 1 or more.")


class _UnfitError(Exception):
    """A value is not of a type."""


def _taken(name: str, hint: Any, value: Any) -> Any:
    """The value as its type.

    Raises:
        ConfigError: it is of another one.
    """
    try:
        return _as(hint, value, name)
    except _UnfitError:
        plain = value is None or isinstance(value, str | int | float)
        shown = f"{value!r:.{SHOWN}}" if plain else f"of the type {type(value).__name__}"
        raise ConfigError(f"{name} is {shown}: it has to be {_words(hint)}.") from None


def _as(hint: Any, value: Any, name: str) -> Any:
    """The value as this type; raises :class:`_UnfitError`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        for each in arguments:
            try:
                return _as(each, value, name)
            except _UnfitError:
                continue
        raise _UnfitError
    if origin is typing.Literal and value in arguments:
        return value
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(hint, value, name)
    if isinstance(origin, type) and issubclass(origin, Iterable):
        if isinstance(value, str | bytes | Mapping | os.PathLike) or not isinstance(value, Iterable):
            raise _UnfitError
        return [_as(arguments[0], each, name) for each in value]
    return _single(hint, origin, value, name)


def _single(hint: Any, origin: Any, value: Any, name: str) -> Any:
    """A value that holds no others, as this type."""
    number = not isinstance(value, bool)
    if hint is int and number and isinstance(value, Integral):
        return int(value)
    if hint is float and number and isinstance(value, Real):
        return value if isinstance(value, int | float) else float(value)
    if hint is Path and isinstance(value, os.PathLike) and isinstance(os.fspath(value), str):
        return value if isinstance(value, Path) else Path(value)
    if hint is HPAConfig and isinstance(value, Mapping):
        return HPAConfig.from_mapping(value, name)
    if origin is Callable and callable(value):
        return value
    if isinstance(hint, type) and hint not in (int, float) and isinstance(value, hint):
        return value
    raise _UnfitError


def _mapping(hint: Any, value: Any, name: str) -> Any:
    """A mapping as this type; files without names are named after themselves."""
    kinds = get_args(hint)
    if isinstance(value, Mapping):
        return {_as(kinds[0], key, name): _as(kinds[1], each, name) for key, each in value.items()}
    if not _is_path(kinds[1]):
        raise _UnfitError
    single = isinstance(value, str | os.PathLike)
    files = [Path(each) for each in _as(Sequence[kinds[1]], [value] if single else value, name)]  # type: ignore[valid-type]
    named = {file.stem: file for file in files}
    if len(named) < len(files):
        raise ConfigError(f"{name} has two files of the same name: give a mapping from names to files.")
    return named


def _is_path(hint: Any) -> bool:
    return set(get_args(hint)) == {str, Path}


WORDS = {
    **{str: "text", int: "a whole number", float: "a number", bool: "True or False", Path: "a path"},
    HPAConfig: "an HPAConfig, or a mapping of its options",
}
"""What a type is called."""

SEVERAL = {str: "texts", int: "whole numbers", HPAConfig: "HPAConfigs"}
"""What several values of a type are called."""


def _words(hint: Any) -> str:
    """A type in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is typing.Literal:
        return listed_words(map(repr, arguments), "or")
    if origin in (Union, types.UnionType):
        kinds = [each for each in arguments if each is not types.NoneType]
        if {str, Path} <= set(kinds):
            kinds = [Path, *(each for each in kinds if each not in (str, Path))]
        return listed_words(map(_words, kinds), "or")
    if isinstance(origin, type) and issubclass(origin, Mapping):
        keys = "paths" if _is_path(arguments[0]) else "names"
        return f"a mapping from {keys} to {_several(arguments[1])}"
    if origin is Callable:
        return "a function"
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return f"a list of {_several(arguments[0])}"
    return WORDS.get(hint) or f"a {getattr(hint, '__name__', hint)}"


def _several(hint: Any) -> str:
    return "paths" if _is_path(hint) else SEVERAL.get(hint, "values")
