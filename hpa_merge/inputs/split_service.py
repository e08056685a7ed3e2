"""What runs in the child process that finds the files of a split, by their names and the README of a data set."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from hpa_merge.errors import CalibrationError

__all__ = ["SplitService"]

Splits = Mapping[str, Sequence[str]]
"""The files of a configuration by split, relative to the data set's folder."""


@final
class SplitService:
    """The method that :func:`hpa_merge.inputs.data_sets.locate_data` calls."""

    def choose(
        self, name: str, repo: str, folder: str, first: str, second: str, converted: bool
    ) -> tuple[dict[str, Any], bytes]:
        """The split that is meant, and its files.

        Args:
            name: what the messages call the data set.
            folder: holds a folder ``names``, with empty files of its files' names and its README.
            first, second: configuration and split, or one of them, or neither: empty.
            converted: the Hub's own copy in Parquet, ``configuration/split/number.parquet``.

        Raises:
            CalibrationError: there is none, or several.
        """
        try:
            configs = _converted(Path(folder, "names")) if converted else _found(folder)
            config, split = _chosen(name, repo, configs, first, second)
            splits = configs.splits(config)
        except CalibrationError:
            raise
        except Exception as error:  # whatever the library raises at a stranger's README and names
            said = " ".join(str(error).replace(f"{folder}/names", repo).replace(folder, repo).split())
            raise CalibrationError(
                f"{name}: it cannot be known which files belong together ({type(error).__name__}: {said:.200}): give "
                "a file of it."
            ) from error
        if not split and len(splits) == 1:
            split = next(iter(splits))
        if split not in splits:
            told = f"has no split {split}" if split else "has several splits"
            shown = repo if len(configs.names) == 1 else f"{repo}:{config}"
            raise CalibrationError(
                f"{name} {told}: choose one of {_shortened(splits)}, as in {shown}:{next(iter(splits), 'train')}."
            )
        return {"split": split, "files": list(splits[split])}, b""


@final
@dataclass(frozen=True)
class _Configs:
    """The configurations of a data set.

    Attributes:
        names: all of them.
        default: the one that is read where none is given; empty where one has to be.
        splits: what gives the splits of one.
    """

    names: tuple[str, ...]
    default: str
    splits: Callable[[str], Splits]


def _chosen(name: str, repo: str, configs: _Configs, first: str, second: str) -> tuple[str, str]:
    """The configuration that is meant, and the split, empty where it was not given.

    Raises:
        CalibrationError: it cannot be known, or is not there.
    """
    if first in configs.names:
        if not second and configs.default not in ("", first) and first in configs.splits(configs.default):
            raise CalibrationError(
                f"{name}: {first} is a configuration, and a split of {configs.default}: give both, as in "
                f"{repo}:{configs.default}:{first}."
            )
        return first, second
    if second or not configs.default:
        told = f"has no configuration {first}" if first else "has several configurations"
        shown = f"{repo}:{configs.names[0]}"
        raise CalibrationError(f"{name} {told}: choose one of {_shortened(configs.names)}, as in {shown}.")
    return configs.default, first


def _found(folder: str) -> _Configs:
    """The configurations as ``datasets`` finds them; the folder is all that it is given."""
    import datasets

    place = os.path.realpath(f"{folder}/names")

    def splits(config: str) -> Splits:
        builder = datasets.load_dataset_builder(place, name=config, cache_dir=f"{folder}/cache")
        files = builder.config.data_files or {}
        return {str(split): [os.path.relpath(file, place) for file in found] for split, found in files.items()}

    names = tuple(datasets.get_dataset_config_names(place))
    default = names[0] if len(names) == 1 else datasets.get_dataset_default_config_name(place) or ""
    return _Configs(names, default, splits)


def _converted(folder: Path) -> _Configs:
    """The configurations of the Hub's own copy in Parquet."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        config, split, *_ = path.relative_to(folder).parts
        found.setdefault(config, {}).setdefault(split, []).append(path.relative_to(folder).as_posix())
    default = "default" if "default" in found else next(iter(found)) if len(found) == 1 else ""
    return _Configs(tuple(found), default, found.__getitem__)


def _shortened(names: Collection[str]) -> str:
    """The first of the names."""
    shown = ", ".join(list(names)[:20])
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")
