"""The data sets of a run by their names: a path, or ``org/name[:config][:split][@revision]`` on the Hub.

A path that exists wins. Of a data set on the Hub the files of one split are fetched into its cache, at one commit, and
read as any other file is; no code of a data set is ever run. Without the Hub the cache is read. A folder here may have
the same form, as ``hf download`` leaves one.
"""

from collections.abc import Mapping, Sequence
from glob import escape
from importlib.util import find_spec
from itertools import islice
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import httpx

from hpa_merge.errors import CalibrationError
from hpa_merge.files.parsing import read_bounded
from hpa_merge.inputs.hub import TIMEOUT, check_room, listed_before
from hpa_merge.inputs.hub_errors import reading, unreachable
from hpa_merge.inputs.names import DATA_SET, READ, is_data_set
from hpa_merge.isolation import Child, Limits, Stopped
from hpa_merge.records import DataSource, local_source
from hpa_merge.records.containers.source import is_saved, own_files, split_path
from hpa_merge.records.containers.tables import EXTRA

__all__ = ["locate_data"]

CONVERTED = "refs/convert/parquet"
"""Where the Hub keeps its own copy of a data set in Parquet."""

README = "README.md"
"""It says which files belong to a configuration and to a split."""

README_BYTES = 2**24

SERVICE = "hpa_merge.inputs.split_service:SplitService"

CHOOSING = Limits(computing=120.0, waiting=600.0)
"""To import ``datasets``, and to compare the names of some ten thousand files with its patterns."""

MEMORY = 2**32

MOST_FILES = 200_000
"""Files of a repository; the Hub's advice is 100,000."""

SHORT = 12
"""Characters of a commit's hash in the place of a record."""


def locate_data(given: str | Path, kind: str = "calibration") -> DataSource:
    """Where the records of a set lie; those on the Hub are fetched into its cache.

    Args:
        kind: what the messages call it.

    Raises:
        CalibrationError: it is not there or may not be read, or it cannot be known which split is meant; the Hub cannot
            be reached, and the cache has not all of it; the disk is full.
    """
    name = f"the {kind} data {given}"
    if not is_data_set(given):
        path, *parts = split_path(given)
        if not path.is_dir() or is_saved(path):
            return local_source(given, kind)
        return _folder(str(given), path, parts, name)
    _check_library(f"{name} is no file or folder here, and data sets on the Hub are read with the library datasets")
    found = DATA_SET.fullmatch(str(given))
    assert found is not None
    repo, revision, parts = found["repo"], found["revision"], list(filter(None, (found["first"], found["second"])))
    with reading(name, repo, revision, "data set"):
        files, snapshot, reached = _listed(repo, revision)
        commit, note = snapshot.name, ""
        chosen = _choose(name, repo, parts, files, snapshot, converted=(revision or "").endswith(CONVERTED))
        missing = {file: files[file] for file in chosen["files"] if not (snapshot / file).exists()}
        if missing and not reached:
            raise CalibrationError(
                f"{name}: {min(missing)} is not in the cache, and {unreachable()}: run it once with access to the Hub."
            )
        check_room({name: sum(missing.values())}, CalibrationError)
        if missing:
            snapshot_download(repo, repo_type="dataset", revision=commit, allow_patterns=[*map(escape, missing)])
        if not reached:
            note = f"{given} came from the cache as of commit {commit[:SHORT]}, because the Hub could not be asked."
    return DataSource(
        str(given),
        tuple(snapshot / file for file in chosen["files"]),
        folder=snapshot,
        guarded=snapshot.parent.parent,
        place=f"{repo}@{commit[:SHORT]} {chosen['split']} ",
        commit=commit,
        note=note,
    )


def _listed(repo: str, revision: str | None) -> tuple[Mapping[str, int], Path, bool]:
    """The files of a repository with their bytes, the folder of its commit in the cache, and whether the Hub was asked.

    Raises:
        Exception: as huggingface_hub raises it.
    """
    snapshot = Path(snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=[README]))
    try:
        info = HfApi().dataset_info(repo, revision=snapshot.name, files_metadata=True, timeout=TIMEOUT)
        return {entry.rfilename: entry.size or 0 for entry in info.siblings or []}, snapshot, True
    except (HfHubHTTPError, httpx.HTTPError, OfflineModeIsEnabled):
        files = listed_before(repo, snapshot.name, "dataset")
        files = files or {p.relative_to(snapshot).as_posix(): 0 for p in snapshot.rglob("*") if not p.is_dir()}
        return files, snapshot, False


def _folder(given: str, folder: Path, parts: Sequence[str], name: str) -> DataSource:
    """The files of a split in a folder that has the form of a data set on the Hub.

    Raises:
        CalibrationError: as :func:`locate_data`.
    """
    paths = islice((path for path in folder.rglob("*") if path.is_file()), MOST_FILES + 1)
    visible = (path.relative_to(folder) for path in paths)
    files = {path.as_posix(): 0 for path in visible if not any(part.startswith(".") for part in path.parts)}
    chosen = _choose(name, str(folder), parts, files, folder)
    files_of_split = own_files(folder, chosen["files"])
    return DataSource(given, files_of_split, folder, folder, place=f"{folder} {chosen['split']} ")


def _check_library(sentence: str) -> None:
    """Check that ``datasets`` is there.

    Raises:
        CalibrationError: it is not; ``sentence`` says why it is needed.
    """
    if find_spec("datasets") is None:
        raise CalibrationError(f"{sentence}: {EXTRA}.")


def _choose(
    name: str, shown: str, parts: Sequence[str], files: Mapping[str, int], folder: Path, *, converted: bool = False
) -> dict[str, Any]:
    """The split that is meant, and its files.

    Args:
        name, shown: what the messages call the data set, and how an example of a choice begins.
        parts: the configuration, the split, or both.
        folder: with the README.
        converted: it is the Hub's own copy in Parquet.

    Raises:
        CalibrationError: there is none, or several; its files are of a kind that is not read.
    """
    first, second = [*parts, "", ""][:2]
    readme = folder / README
    paths = [path for path in files if not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts]
    if len(paths) > MOST_FILES:
        raise CalibrationError(f"{name} has more than {MOST_FILES} files: fetch what you need of it.")
    data = [path for path in paths if path.lower().endswith(READ)]
    script = f"{PurePosixPath(shown).name}.py"
    if not data and script in files:
        raise CalibrationError(
            f"{name} is made by code of its own ({script}), which is never run: give its Parquet copy, {shown}"
            f"@{CONVERTED}, where the Hub has one."
        )
    if not data:
        raise CalibrationError(f"{name} holds no file of JSON, CSV, Parquet or Arrow: check the name, or give a file.")
    _check_library(f"{name} is a folder as the Hub has them, which is read with the library datasets")
    with TemporaryDirectory(prefix="hpa-merge-") as work:  # the names alone, for a library that compares them
        for path in paths:
            place = Path(work, "names", path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(read_bounded(readme, README_BYTES) if path == README and readme.exists() else b"")
        child = Child(SERVICE, MEMORY)
        try:
            chosen: dict[str, Any]
            chosen, _ = child.call("choose", name, shown, work, first, second, converted, limits=CHOOSING)
        except Stopped as stopped:
            raise CalibrationError(
                f"{name}: what its {README} says of its files takes too much ({stopped}): give a file of it."
            ) from stopped
        finally:
            child.close()
    if odd := next((file for file in chosen["files"] if not file.lower().endswith(READ)), None):
        raise CalibrationError(
            f"{name} holds files such as {odd}, and only JSON, CSV, Parquet and Arrow are read: give another data set, "
            "or fetch it and write one of those."
        )
    return chosen
