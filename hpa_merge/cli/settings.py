"""The settings of a sweep: a YAML list of options, one entry for each OUT.

Imports neither torch nor transformers, as :mod:`hpa_merge.config` does.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from hpa_merge.config import HPAConfig, calibration_of, check_number
from hpa_merge.errors import ConfigError
from hpa_merge.evaluation.candidates import fitting, name_of
from hpa_merge.files.names import is_plain_name
from hpa_merge.files.parsing import read_bounded
from hpa_merge.files.parsing_yaml import YAML_BYTES, parse_yaml
from hpa_merge.methods import method_of

__all__ = ["read_settings"]


def read_settings(path: Path, base: Mapping[str, Any]) -> dict[str, HPAConfig]:
    """The options of each OUT by its name, in the order of the file.

    Args:
        path: a YAML list of mappings of option names to values, with an optional ``name``.
        base: options for all entries whose method uses them, unless an entry has others.

    Raises:
        ConfigError: the file cannot be read, is not such a list, or is too long; an entry has an unknown option, a
            wrong value, a name that is not a plain folder name or occurs twice, or differs from the first in an
            option that the statistics depend on.
    """
    try:
        entries = parse_yaml(read_bounded(path, YAML_BYTES))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): give a YAML list of settings.") from None
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(entries, list) or not entries:
        found = "an empty list" if entries == [] else f"a {type(entries).__name__}" if entries else "nothing"
        raise ConfigError(f"{path} holds {found}: write a list of settings, one per line, as in '- p-max: 10'.")
    with _of_file(path):
        check_number(entries)
    configs: dict[str, HPAConfig] = {}
    places: dict[str, str] = {}
    for number, entry in enumerate(entries, start=1):
        place = f"{path}, setting {number}"
        if not isinstance(entry, dict):
            raise ConfigError(f"{place} is a {type(entry).__name__}: write options, as in '- p-max: 10'.")
        given = entry.pop("name", None)
        name = name_of(entry) if given is None else given
        _check_name(name, place, chosen=given is not None)
        if name in places:
            raise ConfigError(f"{place} has the name {name!r}, as {places[name]} has: give each its own name.")
        try:
            configs[name] = HPAConfig.from_mapping(
                {**fitting(base, method_of({**base, **entry})), **entry}, source=place
            )
        except ConfigError as error:
            sentence = str(error)
            raise ConfigError(sentence if sentence.startswith(place) else f"{place}: {sentence}") from None
        places[name] = f"setting {number}"
    with _of_file(path):
        calibration_of({places[name]: config for name, config in configs.items()})
    return configs


@contextmanager
def _of_file(path: Path) -> Iterator[None]:
    """Name the file in errors about the settings as a whole."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _check_name(name: Any, place: str, *, chosen: bool) -> None:
    """Check the name of an OUT.

    Raises:
        ConfigError: it is not a plain folder name.
    """
    if not is_plain_name(name):
        if chosen:
            raise ConfigError(f"{place} has the name {name!r}: it has to be a plain folder name.")
        raise ConfigError(f"{place} would have the name {name!r}, which is not a plain folder name: give it a name.")
