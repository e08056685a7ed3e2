"""OLD and NEW by their names on the Hugging Face Hub: ``org/name[:folder][@revision]`` becomes a folder and a commit.

Only huggingface_hub uses the network, the cache and the tokens. The list of a repository's files is checked before any
weight is fetched. Only safetensors and side files are fetched: no pickle, no other format.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path, PurePosixPath
from shutil import disk_usage
from typing import final

import huggingface_hub
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import httpx

from hpa_merge.checkpoint.adapter_folder import is_adapter_list, refuse_neighbours
from hpa_merge.checkpoint.folder import read_config, refuse_devices
from hpa_merge.checkpoint.kinds import candidates
from hpa_merge.checkpoint.sidefiles import MADE
from hpa_merge.checkpoint.weight_files import ADAPTER, ADAPTER_CONFIG, choose, is_index
from hpa_merge.errors import CheckpointError, InputError
from hpa_merge.files.names import REPORT
from hpa_merge.files.parsing import INDEX as LIMITS
from hpa_merge.files.parsing import read_json
from hpa_merge.inputs.hub_errors import reading, unreachable
from hpa_merge.inputs.names import MODEL, is_remote

__all__ = ["TIMEOUT", "Source", "check_room", "commits_of", "listed_before", "locate"]

CONFIG = "config.json"

TIMEOUT = 30.0
"""Seconds that the Hub may take to list a repository."""


@final
@dataclass(frozen=True)
class Source:
    """A checkpoint and its folder.

    Attributes:
        name: as given.
        folder: the folder with its files.
        guarded: the folder that must not be written to: ``folder``, or the repository's folder in the cache.
        commit: the commit's hash; None for a folder that was not downloaded.
        note: a sentence for the user, if there is one.
    """

    name: str
    folder: Path
    guarded: Path
    commit: str | None = None
    note: str = ""


@final
@dataclass(frozen=True)
class _Found:
    """A repository whose files have been checked, except for the weights.

    Attributes:
        inner: the folder in the repository, with a slash at its end; empty for the repository's own.
        folder: that folder of the snapshot in the cache, with its config.
        snapshot: the snapshot, whose name is the commit.
        missing: the files to fetch, with their bytes.
    """

    role: str
    name: str
    repo: str
    revision: str | None
    inner: str
    folder: Path
    snapshot: Path
    missing: Mapping[str, int]
    note: str = ""


def locate(given: Mapping[str, str | Path]) -> tuple[Source, ...]:
    """The folder of each checkpoint, by role, OLD or NEW; checkpoints on the Hub are fetched into its cache.

    No weight is fetched before all checkpoints have been checked and there is room for all of them.

    Raises:
        CheckpointError: a checkpoint does not exist, may not be read, has no safetensors or is quantised; the Hub
            cannot be reached, and the cache is not complete; the disk is full; a folder holds something that must not
            be read.
    """
    found = {role: _look(str(name), role) for role, name in given.items() if is_remote(name)}
    check_room({f"{each.role} {each.name}": sum(each.missing.values()) for each in found.values()})
    for each in found.values():
        if each.missing:
            with reading(f"{each.role} {each.name}", each.repo, each.revision):
                # the commit, so that all files are of one; patterns that mean one file each
                wanted = [escape(each.inner + file) for file in each.missing]
                snapshot_download(each.repo, revision=each.snapshot.name, allow_patterns=wanted)
    for role, name in given.items():
        if role not in found and Path(name).is_dir():
            refuse_devices(Path(name), role)
    return tuple(_source(name, found.get(role)) for role, name in given.items())


def commits_of(sources: Iterable[Source]) -> dict[str, str]:
    """The commit of each source from the Hub, by its name with the revision."""
    return {source.name: source.commit for source in sources if source.commit is not None}


def _source(given: str | Path, found: _Found | None) -> Source:
    if found is None:
        return Source(str(Path(given)), Path(given), Path(given))
    return Source(found.name, found.folder, found.snapshot.parent.parent, found.snapshot.name, found.note)


def _look(name: str, role: str) -> _Found:
    """What has to be fetched from a repository; errors as :func:`locate`."""
    match = MODEL.fullmatch(name)
    assert match is not None
    repo, revision = match["repo"], match["revision"]
    inner = f"{match['inner']}/" if match["inner"] else ""
    with reading(f"{role} {name}", repo, revision):
        folder = _fetch_config(repo, revision, inner, role, name).parent
        snapshot = folder.parents[inner.count("/") - 1] if inner else folder
        commit = snapshot.name
        unreached: Exception | None = None
        note = ""
        try:
            listed = HfApi().model_info(repo, revision=commit, files_metadata=True, timeout=TIMEOUT).siblings or []
            files = _inside({entry.rfilename: entry.size or 0 for entry in listed}, inner)
        except (HfHubHTTPError, httpx.HTTPError, OfflineModeIsEnabled) as error:
            unreached = error
            files = _inside(listed_before(repo, commit), inner)
            if not files:
                files = {p.relative_to(folder).as_posix(): 0 for p in folder.rglob("*") if not p.is_dir()}
                note = (
                    f"{role} {name} came from the cache as it is: the Hub could not be reached to list its other files."
                )
        first = _first(files, folder, role, name)
        if is_index(first) and not (folder / first).exists() and unreached is None:
            hf_hub_download(repo, inner + first, revision=commit)
        if note:  # shards that are not in the cache are not listed
            files |= dict.fromkeys(_shards(folder, first), 0)
        wanted = [*_with_shards(first, files, folder, f"{role} {name}"), *_choose_others(files)]
        missing = {file: files.get(file, 0) for file in wanted if not (folder / file).exists()}
        if missing and unreached is not None:
            raise CheckpointError(
                f"{role} {name}: {min(missing)} is not in the cache, and {unreachable()}: "
                "run it once with access to the Hub."
            ) from unreached
    return _Found(role, name, repo, revision, inner, folder, snapshot, missing, note)


def _inside(files: Mapping[str, int], inner: str) -> dict[str, int]:
    """The files of a folder of the repository, relative to it."""
    return {file.removeprefix(inner): size for file, size in files.items() if file.startswith(inner)}


def _fetch_config(repo: str, revision: str | None, inner: str, role: str, name: str) -> Path:
    """The configuration in the cache, fetched if the Hub can be reached.

    Raises:
        CheckpointError: the repository has none.
        Exception: as huggingface_hub raises it.
    """
    unreached: Exception | None = None
    for config in (CONFIG, ADAPTER_CONFIG):
        try:
            offline = unreached is not None
            return Path(hf_hub_download(repo, inner + config, revision=revision, local_files_only=offline))
        except LocalEntryNotFoundError as error:  # huggingface_hub has tried to reach the Hub for a while
            unreached = unreached or error
        except EntryNotFoundError:
            continue
    if unreached is not None:
        raise unreached
    listed = HfApi().model_info(repo, revision=revision, timeout=TIMEOUT).siblings or []
    paths = [PurePosixPath(entry.rfilename) for entry in listed]
    several = sorted(path.parent.as_posix() for path in paths if path.name == ADAPTER_CONFIG)
    if several and not inner:
        shown = ", ".join(several[:10]) + (f" and {len(several) - 10} more" if len(several) > 10 else "")
        raise CheckpointError(
            f"{role} {name} holds adapters in the folders {shown}: give one of these, as in {repo}:{several[0]}."
        )
    raise CheckpointError(f"{role} {name} has no config.json on the Hub: give a model in the format of transformers.")


def listed_before(repo: str, commit: str, repo_type: str = "model") -> dict[str, int]:
    """The files of a repository that huggingface_hub noted at an earlier download; empty if it did not."""
    try:
        return {
            entry.path: entry.size
            for entry in huggingface_hub.get_cached_repo_tree(repo, revision=commit, repo_type=repo_type)
        }
    except Exception:  # an older huggingface_hub, or no note
        return {}


def _first(files: Collection[str], folder: Path, role: str, name: str) -> str:
    """The adapter's weights, or the weight file or index that transformers opens first.

    Raises:
        CheckpointError: as :func:`choose`, :func:`read_config` and :func:`refuse_neighbours` do.
    """
    place = f"{role} {name}"
    names = {f"{top}/" if rest else top for top, _, rest in (file.partition("/") for file in files)}
    if is_adapter_list(names):
        refuse_neighbours(names, place)
        return ADAPTER if ADAPTER in names else choose(names, {}, place)
    # read here, so that a model that cannot be dequantised is refused before its weights are fetched
    return choose(names, read_config(folder, role) if CONFIG in names else {}, place)


def _with_shards(first: str, files: Collection[str], folder: Path, place: str) -> list[str]:
    """The weight file ``first``, or an index and its shards, which :class:`~hpa_merge.checkpoint.Checkpoint` reads.

    Raises:
        CheckpointError: the repository lacks a shard.
    """
    shards = _shards(folder, first)  # none if the index is broken; opening the checkpoint will say so
    if lost := sorted(shards.difference(files)):
        raise CheckpointError(
            f"{place} has no {lost[0]}, though its {first} names it: give another revision, or tell its authors."
        )
    return [first, *sorted(shards)]


def _shards(folder: Path, first: str) -> set[str]:
    """The names of the weight files in an index; empty if ``first`` is none, or a broken one."""
    if not is_index(first):
        return set()
    try:
        return {str(shard) for shard in read_json(folder / first, LIMITS)["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _choose_others(files: Collection[str]) -> list[str]:
    """The side files, judged by their names, and the report with the history of the model."""
    paths = [path for path in map(PurePosixPath, files) if not path.is_absolute() and ".." not in path.parts]
    found = {path.as_posix() for path in candidates(paths)} | {REPORT, ADAPTER_CONFIG}
    return [file for file in files if file in found and (file == REPORT or file not in MADE)]


def check_room(missing: Mapping[str, int], kind: type[InputError] = CheckpointError) -> None:
    """Check that the cache has room for the missing files.

    Args:
        missing: bytes to fetch, by the name for messages.
        kind: the error to raise.

    Raises:
        InputError: there is no room.
    """
    needed = sum(missing.values())
    cache = Path(constants.HF_HUB_CACHE)
    place = next((path for path in (cache, *cache.parents) if path.exists()), cache)
    free = disk_usage(place).free if needed else 0
    if needed > free:
        names = " and ".join(name for name, size in missing.items() if size)
        raise kind(
            f"{names}: {needed / 1e9:.1f} GB have to be fetched, and only {free / 1e9:.1f} GB are free in the cache "
            f"{cache}: free some space, or set HF_HOME to a folder on another disk."
        )
