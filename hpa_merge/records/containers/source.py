"""Where the records of a set lie on this machine: a file, a folder of ``save_to_disk``, or files of the Hub's cache."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

from hpa_merge.errors import CalibrationError
from hpa_merge.files.parsing import CONFIG, read_json

__all__ = ["DataSource", "is_saved", "local_source", "split_path"]

DICT_FILE, STATE_FILE = "dataset_dict.json", "state.json"
"""What ``save_to_disk`` writes: the splits of a DatasetDict, and the files of a Dataset."""


@final
@dataclass(frozen=True)
class DataSource:
    """A set of records, as the user names it and as it lies here.

    Attributes:
        name: as it was given; reports have it.
        files: what is read, in this order.
        folder: where relative paths of media start.
        guarded: the file, or the folder that nothing is to be written into.
        field: of a file that is one JSON object, the field that holds the records; empty where that is to be found.
        place: what a record's place begins with, where records are counted through all files; None: they are counted by
            the lines, the items or the rows of the one file.
        commit: of a data set on the Hub its hash.
        note: what the user should know of it; empty where there is nothing.
    """

    name: str
    files: tuple[Path, ...]
    folder: Path
    guarded: Path
    field: str = ""
    place: str | None = None
    commit: str = ""
    note: str = ""

    def where(self, number: int, running: int) -> str:
        """The place of a record: its number in its file, or through all files."""
        return f"{self.files[0]}:{number}" if self.place is None else f"{self.place}{running}"


def local_source(given: str | Path, kind: str = "calibration") -> DataSource:
    """The file or folder of a path; a path that does not exist may have a split, or a field, behind a colon.

    Args:
        kind: what the messages call it.

    Raises:
        CalibrationError: it does not exist, or is a folder of another kind or with several splits.
    """
    path, *parts = split_path(given)
    part = ":".join(parts)
    if path.is_dir():
        return _saved(path, part, str(given), kind)
    return DataSource(str(given), (path,), path.parent, path, field=part)


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` of ``datasets`` wrote a folder."""
    return (folder / DICT_FILE).is_file() or (folder / STATE_FILE).is_file()


def split_path(given: str | Path) -> tuple[Path, *tuple[str, ...]]:
    """The path, and what stands behind its last colons, up to two, where there is a path without that and none with."""
    words = str(given).split(":")
    for count in range(min(3, len(words))):
        head, parts = ":".join(words[: len(words) - count]), words[len(words) - count :]
        if head and all(parts) and _exists(Path(head)):
            return Path(head), *parts
    return (Path(given),)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long
        return False


def _saved(folder: Path, split: str, name: str, kind: str) -> DataSource:
    """The files of a folder that ``save_to_disk`` of ``datasets`` wrote."""
    if (folder / DICT_FILE).is_file():
        splits = _strings(folder / DICT_FILE, "splits")
        if not split and len(splits) == 1:
            split = splits[0]
        if split not in splits:
            said = f"has no split {split}" if split else "has several splits"
            raise CalibrationError(
                f"the {kind} data {folder} {said}: choose one of {', '.join(splits)}, as in {folder}:{splits[0]}."
            )
        return _shards(folder / split, folder, name, f"{folder} {split} ")
    if not is_saved(folder):
        raise CalibrationError(
            f"the {kind} data {folder} is a folder, and none that save_to_disk of datasets wrote: give a file of it."
        )
    if split:
        raise CalibrationError(f"the {kind} data {folder} has no splits: leave out :{split}.")
    return _shards(folder, folder, name, f"{folder}:")


def _shards(folder: Path, whole: Path, name: str, place: str) -> DataSource:
    state = folder / STATE_FILE
    if _strings(state, "_indices_files", optional=True) or _strings(state, "_indices_data_files", optional=True):
        raise CalibrationError(
            f"{folder} keeps an order of its rows in files of their own, as old releases of datasets did: load it and "
            "save it again."
        )
    names = _strings(state, "_data_files")
    for each in names:
        if Path(each).name != each:
            raise CalibrationError(f"{state} names {each:.80}, no file of its folder: save the data set again.")
    return DataSource(name, tuple(folder / each for each in names), whole, whole, place=place)


def _strings(file: Path, field: str, *, optional: bool = False) -> list[str]:
    """The names that a field of a JSON file lists, as such or as ``{"filename": …}``."""
    try:
        content = read_json(file, CONFIG)
        values = (content.get(field) or []) if optional else content[field]
        names = [value["filename"] if isinstance(value, dict) else value for value in values]
        if all(isinstance(name, str) and name for name in names) and (names or optional):
            return names
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise CalibrationError(f"{file} is not as save_to_disk of datasets writes it: save the data set again.")
