"""What a user says of the fields and the media of a run's sets, ``[SET:]…`` in words, becomes the options of each set.

A word is of every set, or of the one that it names: ``safety:answer=refusal`` is of the safety set alone, and wins over
``answer=reply``.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from hpa_merge.errors import ConfigError
from hpa_merge.records.options import ReadingOptions

__all__ = ["SETS", "reading_of_sets", "reading_options", "several"]

One = TypeVar("One", str, str | Path)

SETS = ("safety", "task", "benign")
"""What a word may name: calibration sets, and test files by what they are for."""


def reading_options(
    purpose: str,
    names: str | Iterable[str] = (),
    ignored: str | Iterable[str] = (),
    folders: str | Path | Iterable[str | Path] = (),
) -> ReadingOptions:
    """How the files of a set are read.

    Args:
        purpose: one of ``SETS``.
        names: ``[SET:]WANTED=GIVEN``: the field GIVEN is what layouts call WANTED.
        ignored: ``[SET:]NAME``: fields that carry nothing for a model.
        folders: ``[SET:]FOLDER``: where relative paths of media start.

    Raises:
        ConfigError: a word names no set, is not of that form or contradicts another; a folder is not there.
    """
    names, ignored, folders = several(names), several(ignored), several(folders)
    renamed: dict[tuple[bool, str], str] = {}
    for word in names:
        for own, pair in _of(purpose, word):
            wanted, sign, given = pair.partition("=")
            if not (wanted and sign and given):
                raise ConfigError(f"map is {word!r}: write it as WANTED=GIVEN, such as answer=output_text.")
            if renamed.setdefault((own, wanted), given) != given:
                raise ConfigError(f"map gives {wanted} as {renamed[own, wanted]} and as {given}: give it once.")
    places: dict[bool, Path] = {}
    for folder in folders:
        for own, name in _of(purpose, str(folder)):
            if not Path(name).is_dir():
                raise ConfigError(f"image_folder is {name}, which is no folder: check the path.")
            if places.setdefault(own, Path(name)) != Path(name):
                raise ConfigError(
                    f"image_folder is {places[own]} and {name}: give one, or one for each set, as in {SETS[0]}:{name}."
                )
    return ReadingOptions(
        names={wanted: given for (_, wanted), given in sorted(renamed.items())},  # those of the one set come last
        ignored=frozenset(name for word in ignored for _, name in _of(purpose, word)),
        media_folder=places.get(True, places.get(False)),
    )


def reading_of_sets(
    names: str | Iterable[str] = (),
    ignored: str | Iterable[str] = (),
    folders: str | Path | Iterable[str | Path] = (),
) -> dict[str, ReadingOptions]:
    """How the files of each set are read, by its name; as :func:`reading_options`."""
    return {purpose: reading_options(purpose, names, ignored, folders) for purpose in SETS}


def several(given: One | Iterable[One]) -> Iterable[One]:
    """One value as a list of one: a text is not a list of its letters."""
    return (given,) if isinstance(given, str | Path) else given


def _of(purpose: str, word: str) -> list[tuple[bool, str]]:
    """The word without its set, and whether it had one; nothing where it is of another."""
    head, colon, rest = word.partition(":")
    if not colon or head not in SETS:
        return [(False, word)]
    return [(True, rest)] if head == purpose else []
