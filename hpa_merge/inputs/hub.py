"""OLD and NEW by their names on the Hugging Face Hub: ``org/name[@revision]`` becomes a folder and a commit.

The network, the cache and the tokens are huggingface_hub's alone. What a repository has is looked at before any weight
is fetched, and of it only safetensors and side files are: no pickle, no other format. The cache is never written to by
anybody else.
"""

import re
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

from hpa_merge.checkpoint.folder import INDEX, read_config, refuse_devices
from hpa_merge.checkpoint.kinds import candidates
from hpa_merge.checkpoint.sidefiles import MADE
from hpa_merge.errors import CheckpointError, InputError
from hpa_merge.files.names import REPORT
from hpa_merge.files.parsing import INDEX as LIMITS
from hpa_merge.files.parsing import read_json
from hpa_merge.inputs.hub_errors import telling, unreachable

__all__ = ["TIMEOUT", "Source", "check_room", "commits_of", "is_remote", "listed_before", "locate"]

NAME = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w.-]*\w)(?:@(?P<revision>[^\s@]+))?", re.ASCII)

CONFIGS = ("config.json", "adapter_config.json")
"""A repository without any of them holds no checkpoint, and no adapter."""

ADAPTER = "adapter_model.safetensors"

TIMEOUT = 30.0
"""Seconds that the Hub may take to say what a repository has."""


@final
@dataclass(frozen=True)
class Source:
    """Where a checkpoint lies.

    Attributes:
        name: as it was given.
        folder: with its files.
        guarded: the folder that nothing is to be written into: ``folder``, or all that the cache has of the repository.
        commit: its hash; None for a folder that is no download.
        note: what the user should know of it; empty where there is nothing.
    """

    name: str
    folder: Path
    guarded: Path
    commit: str | None = None
    note: str = ""


@final
@dataclass(frozen=True)
class _Found:
    """A repository of which everything but the weights has been looked at.

    Attributes:
        folder: the snapshot in the cache, with its config.
        missing: files that are to be fetched, with their bytes.
    """

    role: str
    name: str
    repo: str
    revision: str | None
    folder: Path
    missing: Mapping[str, int]
    note: str = ""


def is_remote(given: str | Path) -> bool:
    """Whether it is a name on the Hub: a string of that form, with no folder of that name here."""
    return isinstance(given, str) and NAME.fullmatch(given) is not None and not Path(given).exists()


def locate(given: Mapping[str, str | Path]) -> tuple[Source, ...]:
    """The folder of each checkpoint, by its role, OLD or NEW; those on the Hub are fetched into its cache.

    No weight is fetched before all have been looked at, and unless there is room for all of them.

    Raises:
        CheckpointError: one is not there, may not be read, holds no safetensors or is quantised; the Hub cannot be
            reached, and the cache has not all of it; the disk is full; a folder holds what is not to be read.
    """
    found = {role: _look(str(name), role) for role, name in given.items() if is_remote(name)}
    check_room({f"{each.role} {each.name}": sum(each.missing.values()) for each in found.values()})
    for each in found.values():
        if each.missing:
            with telling(f"{each.role} {each.name}", each.repo, each.revision):
                # the commit, so that all files are of one; patterns that mean one file each
                snapshot_download(each.repo, revision=each.folder.name, allow_patterns=[*map(escape, each.missing)])
    for role, name in given.items():
        if role not in found and Path(name).is_dir():
            refuse_devices(Path(name), role)
    return tuple(_source(name, found.get(role)) for role, name in given.items())


def commits_of(sources: Iterable[Source]) -> dict[str, str]:
    """The commit of each that is from the Hub, by its name with the revision."""
    return {source.name: source.commit for source in sources if source.commit is not None}


def _source(given: str | Path, found: _Found | None) -> Source:
    if found is None:
        return Source(str(Path(given)), Path(given), Path(given))
    return Source(found.name, found.folder, found.folder.parent.parent, found.folder.name, found.note)


def _look(name: str, role: str) -> _Found:
    """What has to be fetched of a repository.

    Raises:
        CheckpointError: see :func:`locate`.
    """
    match = NAME.fullmatch(name)
    assert match is not None
    repo, revision = match["repo"], match["revision"]
    with telling(f"{role} {name}", repo, revision):
        config = _fetch_config(repo, revision, role, name)
        folder, commit = config.parent, config.parent.name
        if config.name == CONFIGS[0]:
            read_config(folder, role)  # what is quantised need not be fetched
        unreached: Exception | None = None
        note = ""
        try:
            listed = HfApi().model_info(repo, revision=commit, files_metadata=True, timeout=TIMEOUT).siblings or []
            files = {entry.rfilename: entry.size or 0 for entry in listed}
        except (HfHubHTTPError, httpx.HTTPError, OfflineModeIsEnabled) as error:
            unreached = error
            files = listed_before(repo, commit)
            if not files:
                files = {p.relative_to(folder).as_posix(): 0 for p in folder.rglob("*") if not p.is_dir()}
                note = (
                    f"{role} {name} came from the cache as it is there, for the Hub could not be asked what else "
                    "belongs to it."
                )
        if INDEX in files and not (folder / INDEX).exists() and unreached is None:
            hf_hub_download(repo, INDEX, revision=commit)
        if note:  # what is not in the cache is not listed either
            files |= dict.fromkeys(_shards(folder), 0)
        wanted = [*_choose_weights(files, folder, role, name), *_choose_others(files)]
        missing = {file: files.get(file, 0) for file in wanted if not (folder / file).exists()}
        if missing and unreached is not None:
            raise CheckpointError(
                f"{role} {name}: {min(missing)} is not in the cache, and {unreachable()}: "
                "run it once with the Hub in reach."
            ) from unreached
    return _Found(role, name, repo, revision, folder, missing, note)


def _fetch_config(repo: str, revision: str | None, role: str, name: str) -> Path:
    """The configuration in the cache, fetched if the Hub is in reach; the folder that it is in is called as the commit.

    Raises:
        CheckpointError: the repository has none.
        Exception: as huggingface_hub raises it.
    """
    unreached: Exception | None = None
    for config in CONFIGS:
        try:
            return Path(hf_hub_download(repo, config, revision=revision, local_files_only=unreached is not None))
        except LocalEntryNotFoundError as error:  # the Hub is not in reach, as huggingface_hub has tried for a while
            unreached = unreached or error
        except EntryNotFoundError:
            continue
    if unreached is not None:
        raise unreached
    raise CheckpointError(f"{role} {name} has no config.json on the Hub: give a model in the format of transformers.")


def listed_before(repo: str, commit: str, repo_type: str = "model") -> dict[str, int]:
    """The files of a repository as huggingface_hub noted them at an earlier download; empty where it did not."""
    try:
        return {
            entry.path: entry.size
            for entry in huggingface_hub.get_cached_repo_tree(repo, revision=commit, repo_type=repo_type)
        }
    except Exception:  # an older huggingface_hub, or none was noted
        return {}


def _choose_weights(files: Collection[str], folder: Path, role: str, name: str) -> list[str]:
    """The weight files among ``files`` that :class:`~hpa_merge.checkpoint.Checkpoint` will read.

    Raises:
        CheckpointError: there is none, or it cannot be known which.
    """
    found = sorted(f for f in files if f.endswith(".safetensors") and "/" not in f and not f.startswith("."))
    if INDEX in files:
        shards = _shards(folder)  # none where the index is broken, which is told when it is opened
        if lost := sorted(shards.difference(files)):
            raise CheckpointError(
                f"{role} {name} has no {lost[0]}, though its {INDEX} names it: give another revision, or tell its "
                "authors."
            )
        return [INDEX, *sorted(shards)]
    if "model.safetensors" in found:
        return ["model.safetensors", *([ADAPTER] if ADAPTER in found and CONFIGS[1] in files else [])]
    if len(found) > 1:
        raise CheckpointError(
            f"{role} {name} has {len(found)} *.safetensors files ({found[0]} …) and no {INDEX} that says which belong "
            "together: give another revision, or a folder with one."
        )
    if not found:
        others = sorted(f for f in files if PurePosixPath(f).suffix in (".bin", ".pt", ".pth", ".gguf", ".h5"))
        only = f", only {others[0]}" if others else ""
        raise CheckpointError(
            f"{role} {name} has no *.safetensors file{only}, and nothing else is read: give a revision that has some, "
            "or convert it, with from_pretrained and then save_pretrained of transformers."
        )
    return found


def _shards(folder: Path) -> set[str]:
    """The names of the weight files in the index of a folder; empty where it has none, or a broken one."""
    try:
        return {str(shard) for shard in read_json(folder / INDEX, LIMITS)["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _choose_others(files: Collection[str]) -> list[str]:
    """What belongs beside the weights as far as names say, and the report that knows of rounds before."""
    paths = [path for path in map(PurePosixPath, files) if not path.is_absolute() and ".." not in path.parts]
    found = {path.as_posix() for path in candidates(paths)} | {REPORT, CONFIGS[1]}
    return [file for file in files if file in found and (file == REPORT or file not in MADE)]


def check_room(missing: Mapping[str, int], kind: type[InputError] = CheckpointError) -> None:
    """Check that there is room in the cache for what is missing.

    Args:
        missing: bytes that have to be fetched, by what the messages call that.

    Raises:
        InputError: there is not; of the ``kind``.
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
