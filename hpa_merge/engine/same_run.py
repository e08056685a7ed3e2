"""Whether all ranks were started for the same merge: their OUT would belong to none otherwise.

Files count by their content, so that each machine may have copies of its own, with other paths and times.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.checkpoint.content import content_digest
from hpa_merge.checkpoint.kinds import PROCESSOR, TEMPLATES, TOKENIZER
from hpa_merge.config import HPAConfig
from hpa_merge.engine.beginnings import encoding_versions
from hpa_merge.engine.inputs import MergeInputs
from hpa_merge.engine.machine import versions
from hpa_merge.engine.request import MergeRequest
from hpa_merge.engine.sets import GivenSet
from hpa_merge.engine.statistics import StatisticsKey
from hpa_merge.errors import ConfigError
from hpa_merge.files.inside import read_inside
from hpa_merge.ranks import Group
from hpa_merge.records import Media, Sample

__all__ = ["check_same", "of_first", "what_runs"]

LARGEST = 2**28
"""Bytes that a file of a tokenizer may have to be compared."""


def what_runs(
    request: MergeRequest, inputs: MergeInputs, sets: Sequence[GivenSet], device: torch.device
) -> dict[str, Any]:
    """What has to be the same on all ranks, by name; ``sets``: the safety and the task set."""
    contents = {f"content of {name.upper()}": content for name, content in inputs.lineage.contents.items()}
    contents |= {f"tokenizer and configuration of {each.role}": _side_files(each) for each in inputs.read}
    contents |= {f"vision tower of {each.role}": _tower(each) for each in inputs.read if each.external}
    contents |= {
        f"library of {each.role}": each.unpacking.library for each in inputs.read if each.unpacking is not None
    }
    names = ("safety samples", "task samples")
    contents |= {name: _samples(given.samples.samples) for name, given in zip(names, sets, strict=True)}
    outs = {f"OUT number {number + 1}": str(out.absolute()) for number, out in enumerate(request.outs)}
    options = {
        f"{name} of {out}": value
        for out, config in zip(outs, request.outs.values(), strict=True)
        for name, value in _options(config).items()
    }
    used = {f"version of {name}": version for name, version in (encoding_versions() | versions()).items()}
    return {
        **contents,
        **outs,
        **options,
        **used,
        "threads": torch.get_num_threads(),
        "kind of device": device.type,
        "resume": request.resume,
        "stats": str(request.stats),
    }


def of_first(group: Group, key: StatisticsKey) -> StatisticsKey:
    """``key`` as the first rank has it: checkpoints whose content is the same have other times on other machines.

    Raises:
        ConfigError, HPAError: as :func:`check_same`, for everything else in it.
    """
    if group.size == 1:
        return key
    check_same(group, {name: value for name, value in key.fingerprint.items() if name not in ("OLD", "NEW")})
    return replace(key, fingerprint=group.gather(key.fingerprint)[0])


def check_same(group: Group, runs: Mapping[str, Any]) -> None:
    """Compare what runs with the first rank's.

    Raises:
        ConfigError: something differs; names the first.
        HPAError: as :meth:`Group.gather`.
    """
    first, *others = group.gather(dict(runs))
    for rank, theirs in enumerate(others, start=1):
        for name in sorted(first.keys() | theirs.keys()):
            if first.get(name) != theirs.get(name):
                raise ConfigError(
                    f"process {rank + 1} of {group.size} has {name} {theirs.get(name)!s:.100}, and process 1 has "
                    f"{first.get(name)!s:.100}: start all with the same files, options, versions and number of threads "
                    "(OMP_NUM_THREADS)."
                )


def _options(config: HPAConfig) -> dict[str, Any]:
    """The options of an OUT but for its device, which may be another one of the same kind."""
    return {name: value for name, value in asdict(config).items() if name != "device"}


def _side_files(checkpoint: Checkpoint) -> str:
    """SHA-256 of what makes model inputs of samples: the configuration, and the files of tokenizer and processor."""
    state = hashlib.sha256(json.dumps(checkpoint.config, sort_keys=True, default=str).encode())
    for folder in (*checkpoint.folders, *([checkpoint.tower] if checkpoint.tower is not None else [])):
        for path in sorted(path.name for path in folder.iterdir()):
            if any(kind.fullmatch(path) for kind in (TOKENIZER, TEMPLATES, PROCESSOR)):
                with suppress(OSError):  # what is not read here is not read for the samples either
                    state.update(path.encode() + hashlib.sha256(read_inside(folder, path, LARGEST)).digest())
    return state.hexdigest()


def _tower(checkpoint: Checkpoint) -> str:
    return content_digest((checkpoint.tensors[name] for name in checkpoint.external), checkpoint.descriptor)


def _samples(samples: Iterable[Sample]) -> str:
    """SHA-256 of samples, wherever they lie; of a medium that is a file, its size counts."""
    state = hashlib.sha256()
    for sample in samples:
        turns = [(turn.role, [*map(_part, turn.parts)], turn.extras) for turn in sample.turns]
        state.update(repr((sample.text, sample.input_ids, sample.tools, turns)).encode("utf-8", "surrogatepass"))
    return state.hexdigest()


def _part(part: str | Media) -> object:
    if isinstance(part, str):
        return part
    found = part.content
    return part.kind, found.stat().st_size if isinstance(found, Path) else hashlib.sha256(found).hexdigest()
