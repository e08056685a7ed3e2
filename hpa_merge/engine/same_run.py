"""Whether all ranks were started for the same merge: their OUT would belong to none otherwise."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from hpa_merge.config import HPAConfig
from hpa_merge.engine.inputs import MergeInputs
from hpa_merge.engine.machine import versions
from hpa_merge.engine.request import MergeRequest
from hpa_merge.errors import ConfigError
from hpa_merge.ranks import Group

__all__ = ["check_same", "what_runs"]


def what_runs(request: MergeRequest, inputs: MergeInputs, device: torch.device) -> dict[str, Any]:
    """What has to be the same on all ranks, by name. Checkpoints may lie in different places: their content counts."""
    contents = {f"content of {name.upper()}": content for name, content in inputs.lineage.contents.items()}
    outs = {f"OUT number {number + 1}": str(out.absolute()) for number, out in enumerate(request.outs)}
    options = {
        f"{name} of {out}": value
        for out, config in zip(outs, request.outs.values(), strict=True)
        for name, value in _options(config).items()
    }
    used = {f"version of {name}": version for name, version in versions().items()}
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
