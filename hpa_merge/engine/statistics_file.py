"""The file that stores column statistics, so that a merge with other options runs no sample."""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from hpa_merge.engine.beginnings import BEGINNING, Beginning
from hpa_merge.engine.hessian_files import HessianFiles, remove_others
from hpa_merge.engine.statistics import ModelStatistics, StatisticsKey
from hpa_merge.engine.statistics_place import DAMAGED
from hpa_merge.errors import OutputError
from hpa_merge.files.disk import write_whole
from hpa_merge.files.statistics import FORMAT, MARK, open_statistics, telling_damage
from hpa_merge.report.records import RoutingRecord
from hpa_merge.report.schema import routing_of

__all__ = ["hessian_files", "read_statistics", "write_statistics"]


def read_statistics(
    path: Path,
    keys: Sequence[StatisticsKey],
    device: torch.device,
    anew: Collection[str] = (),
    whole: Collection[str] = (),
) -> tuple[dict[str, ModelStatistics], tuple[RoutingRecord, ...], tuple[str, ...]]:
    """Read the statistics that fit ``keys`` from the file at ``path``, if there is one.

    Args:
        keys: what the statistics have to depend on.
        device: where Hessians go.
        anew: purposes of the statistics that are computed whatever the file holds.
        whole: purposes of the statistics that must have Hessians.

    Returns:
        The statistics that fit, by purpose; the routing drift, if both halves fit; why the others are computed, a
        sentence each.

    Raises:
        StatisticsError: the file is damaged, or is not a statistics file; it is never overwritten.
    """
    found: dict[str, ModelStatistics] = {}
    routing: tuple[RoutingRecord, ...] = ()
    notes = []
    with telling_damage(path, DAMAGED):
        if not path.exists():
            return {}, (), ()
        with open_statistics(path, "pt") as (handle, described):
            for key in keys:
                content = described[key.purpose]
                if key.purpose in anew:
                    continue
                if difference := key.difference(content["fingerprint"]):
                    notes.append(
                        f"The statistics {path} were made with {difference}: "
                        f"the {key.purpose} half has to be computed again."
                    )
                    continue
                prefix = f"{key.purpose}:"
                names = [name for name in handle.keys() if name.startswith(prefix)]  # noqa: SIM118 - no mapping
                vectors = {name.removeprefix(prefix): handle.get_tensor(name) for name in names}
                read = ModelStatistics.read(key, content, vectors, hessian_files(path, key, device))
                if key.purpose in whole and not read.has_hessians():
                    notes.append(
                        f"The statistics {path} lack some Hessians: the {key.purpose} half has to be computed again."
                    )
                    continue
                found[key.purpose] = read
            if len(found) == len(keys):
                routing = routing_of(described.get("routing", []))
    return found, routing, tuple(notes)


def hessian_files(path: Path, key: StatisticsKey, device: torch.device) -> HessianFiles:
    """The files of the Hessians of one half, of which none is known yet."""
    return HessianFiles(path, key.purpose, key.fingerprint, key.columns, device)


def write_statistics(
    path: Path,
    statistics: Sequence[ModelStatistics],
    routing: Iterable[RoutingRecord] = (),
    beginning: Beginning | None = None,
) -> None:
    """Write the file at ``path``; after an error it is unchanged. Hessians that no longer belong to it are deleted.

    Args:
        routing: the routing drift between the two models of the statistics.
        beginning: what spares a later run the models and the encoding, if there is such.

    Raises:
        OutputError: the disk is full or refuses.
    """
    mixtures = [asdict(record) for record in routing]
    content: dict[str, Any] = {"format": FORMAT, **({"routing": mixtures} if mixtures else {})}
    content |= {each.purpose: each.description() for each in statistics}
    content |= {} if beginning is None else {BEGINNING: beginning.description()}
    tensors = {name: vector for each in statistics for name, vector in each.tensors().items()}
    try:
        write_whole(path, save(tensors, {MARK: json.dumps(content)}), through=True)
    except OSError as error:
        raise OutputError(
            f"the statistics {path} cannot be written ({error.strerror or error}): check the disk and the "
            "permissions; the same command with --resume continues."
        ) from error
    for each in statistics:
        keep = each.hessians.names() if each.hessians is not None else set()
        remove_others(path, each.purpose, keep)
