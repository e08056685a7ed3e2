"""The folder next to OUT in which a tuning merges its settings and keeps the answers: made, resumed, cleared."""

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from hpa_merge.checkpoint.files import remove
from hpa_merge.checkpoint.output import Places, telling
from hpa_merge.checkpoint.replacing import check_replaceable
from hpa_merge.config import HPAConfig
from hpa_merge.errors import ConfigError, OutputError
from hpa_merge.evaluation.collecting import is_answers
from hpa_merge.files.disk import Foreign, mount_points, open_written, write_whole
from hpa_merge.files.inside import read_inside
from hpa_merge.files.names import is_plain_name
from hpa_merge.files.parsing import CONFIG, parse_json

__all__ = [
    "ANSWERS",
    "CONFIRMING",
    "claim",
    "clear",
    "keep",
    "left_by_error",
    "remove_settings",
    "setting_folders",
    "vacate",
    "workplace",
]

ANSWERS = ".answers"
CONFIRMING = ".confirming"
"""Where the answers to the prompts of the choice and of its confirmation lie in the workplace; no setting can have such
a name."""

MARK = ".hpa-merge.tune"
"""The file by which a workplace is known for one; no setting can have that name."""

MARK_BYTES = 1 << 20
"""The mark is empty, or after an error has the names of the settings, as JSON. A longer file is not a mark."""


def workplace(out: Path) -> Path:
    """The folder next to OUT in which the settings are merged, absolute."""
    return Path(f"{Places.of(out).out}.tune")


def setting_folders(out: Path, settings: Mapping[str, HPAConfig]) -> dict[Path, HPAConfig]:
    """The settings by the folders in which they are merged.

    Raises:
        ConfigError: a name would be a folder elsewhere than in :func:`workplace`.
    """
    for name in settings:
        if not is_plain_name(name):
            raise ConfigError(f"a setting has the name {name!r}: it has to be a plain folder name.")
    return {workplace(out) / name: setting for name, setting in settings.items()}


def claim(place: Path, *, resume: bool) -> None:
    """Make the workplace, or take up the one of an earlier run.

    Raises:
        OutputError: it is there and is not to be resumed, or is none; or it cannot be made.
    """
    if os.path.lexists(place) and not resume:
        raise OutputError(f"{place} is there from a run that was interrupted: resume it with --resume, or delete it.")
    with telling(f"the folder {place} cannot be made"):
        for folder in (place, place / ANSWERS, place / CONFIRMING):
            if folder.is_symlink() or any(mount_points(folder)):
                raise Foreign(f"{folder.name} is a link or a mount point")
        place.mkdir(exist_ok=True)
        new = not any(place.iterdir())
        try:
            mark = open_written(place / MARK, new=new)
        except FileNotFoundError:
            raise OutputError(
                f"{place} is not the folder of a tuning that was interrupted: move it away, or choose another OUT."
            ) from None
        try:
            os.truncate(mark, 0)
        finally:
            os.close(mark)


def keep(place: Path, settings: Iterable[Path]) -> None:
    """Keep what is merged for the next run, after an error, unless there are unfinished merges. Never raises."""
    if not any(os.path.lexists(Places.of(folder).partial) for folder in settings):
        with suppress(OSError):
            write_whole(place / MARK, json.dumps([folder.name for folder in settings]).encode())


def left_by_error(place: Path) -> set[Path]:
    """The settings of a run that ended with an error there; empty if there is no such run."""
    try:
        names = [] if place.is_symlink() else parse_json(read_inside(place, MARK, MARK_BYTES), CONFIG)
    except (OSError, ValueError):
        return set()
    return {place / name for name in names if is_plain_name(name)} if isinstance(names, list) else set()


def clear(place: Path, settings: Iterable[Path]) -> None:
    """Delete the settings and the answers, and the workplace unless something else lies in it. Never raises."""
    remove_settings(settings)
    for answers in (place / ANSWERS, place / CONFIRMING):
        folders = [path for path in _within(answers) if not path.is_symlink()]
        for folder in folders:
            for path in _within(folder):
                if is_answers(path.name):
                    remove(path)
        for folder in (*folders, answers):
            with suppress(OSError):
                folder.rmdir()
    vacate(place)


def remove_settings(settings: Iterable[Path]) -> None:
    """Delete these settings, unless something else lies in their folders. Never raises."""
    for folder in settings:
        with suppress(OutputError, OSError):
            check_replaceable(folder)
            remove(folder)


def vacate(place: Path) -> None:
    """Delete the workplace where nothing is left in it. Never raises."""
    with suppress(OSError):
        if _within(place) == [place / MARK]:
            (place / MARK).unlink()
            place.rmdir()


def _within(folder: Path) -> list[Path]:
    """What lies in a folder; nothing where there is none."""
    with suppress(OSError):
        return list(folder.iterdir())
    return []
