"""What can be refused before torch is imported: an input that is not there or broken, and an OUT that cannot be made.

:func:`hpa_merge.engine.setup.prepare` makes these checks too, some seconds later: it imports torch and transformers.
"""

import json
import re
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from hpa_merge.checkpoint import Checkpoint, check_outputs, is_adapter, needed_bytes, open_adapter
from hpa_merge.checkpoint.folder import find_shards, read_described, readable
from hpa_merge.checkpoint.weight_files import ADAPTER
from hpa_merge.engine.patterns import fits
from hpa_merge.engine.request import MergeRequest
from hpa_merge.engine.statistics_place import check_place, check_readable
from hpa_merge.engine.template_file import read_template
from hpa_merge.errors import CheckpointError, ConfigError
from hpa_merge.files.architectures import is_original_llava
from hpa_merge.inputs.names import is_data_set, is_remote
from hpa_merge.libraries.torch_build import is_for_cpus_alone
from hpa_merge.libraries.transformers_tables import is_own_class, is_unknown_type, version_of_transformers
from hpa_merge.quantisation import check_method, configurations
from hpa_merge.records import Purpose, ReadingOptions, local_source
from hpa_merge.records.sampling import read_samples

__all__ = ["SMALL", "is_quick", "needs_no_model", "refuse_early", "refuse_folder"]

SMALL = 2**22
"""Bytes of a file of samples up to which it is read here, and again by the merge: 4 MiB."""

BLOCK = re.compile(r"\.\d+\.")
"""The name of a tensor in a list of modules, such as the blocks of a model."""

TEXT = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")
"""Files of samples that this process reads itself."""


@final
@dataclass(frozen=True)
class Early:
    """What is known of a request before torch is imported.

    Attributes:
        request: what is asked for.
        made: the folder of the OUTs, if it is made when everything has been checked.
        opened: those of OLD and NEW that lie here and can be opened without torch, which no quantised one can.
    """

    request: MergeRequest
    made: Path | None
    opened: dict[str, Checkpoint] = field(default_factory=dict)

    @property
    def folders(self) -> dict[str, Path]:
        """The checkpoints that lie here, by role."""
        return {role: Path(name) for role, name in self.request.checkpoints.items() if not is_remote(name)}

    @property
    def making(self) -> list[Path]:
        """The OUTs that are made, apart from those in a folder that is made later."""
        request = self.request
        return [out for out in request.outs if out.parent != self.made and not (request.skip_complete and out.exists())]


def refuse_early(request: MergeRequest, made: Path | None = None) -> None:
    """Check what needs neither torch nor the network.

    Args:
        made: the folder of the OUTs, if it is made when everything has been checked.

    Raises:
        InputError: as :func:`hpa_merge.engine.setup.prepare`.
    """
    early = Early(request, made)
    with ExitStack() as stack:
        for check in CHECKS:
            check(early)
        for opened in early.opened.values():
            stack.enter_context(opened)


def needs_no_model(request: MergeRequest) -> bool:
    """Whether the statistics file holds what spares the merge its models, as far as a look at it shows.

    If it turns out to need them after all, they are imported later.
    """
    from hpa_merge.engine.beginnings import has_beginning

    whole = all(config.output_format != "adapter" for config in request.outs.values())
    return request.stats is not None and whole and request.first is None and has_beginning(request.stats)


def refuse_folder(folder: Path, role: str, *, adapter: bool, towered: bool = False) -> Checkpoint | None:
    """Check that a folder has a model's configuration and its weight files, and that these are whole.

    Args:
        adapter: whether it may be an adapter.
        towered: whether a vision tower is given, which says more of what is wrong than the model's type.

    Returns:
        The checkpoint; None if it is quantised, because its weights cannot be opened without torch.

    Raises:
        CheckpointError: it has not.
    """
    if adapter and is_adapter(folder):
        return open_adapter(folder, role)
    config = read_described(folder, role)
    find_shards(folder, role, config)
    if described := dict(configurations(config)):
        for key, found in described.items():
            with readable(folder, role, key, found):
                check_method(found)
        return None
    kind, own = config.get("model_type"), "auto_map" in config
    own |= towered or is_original_llava(config)
    if isinstance(kind, str) and not own and is_unknown_type(kind):
        raise CheckpointError(
            f"{role}'s config.json has the model_type {kind!r:.60}, which transformers {version_of_transformers()} "
            "does not have: install a version that does, or correct the file."
        )
    return Checkpoint.open(folder, role)


def _refuse_sets(early: Early) -> None:
    """Refuse files of samples that are missing or, if they are small, hold other records."""
    for purpose, files in early.request.calibration_files.items():
        options = early.request.reading(purpose)
        for file in files:
            _refuse_samples(file, "safety" if purpose == "safety" else "task", options)


def _refuse_template(early: Early) -> None:
    """Refuse a chat template that cannot be read."""
    config = early.request.calibration
    read_template(config.chat_template, config.template_arg, config.template_date)


def _refuse_folders(early: Early) -> None:
    """Refuse checkpoints that are incomplete or broken."""
    for role, folder in early.folders.items():
        towered = early.request.vision_tower is not None
        if (opened := refuse_folder(folder, role, adapter=role == "NEW", towered=towered)) is not None:
            early.opened[role] = opened


def _refuse_places(early: Early) -> None:
    """Refuse an OUT that cannot be made, or for which the disk has no room."""
    request, new = early.request, early.opened.get("NEW")
    whole = all(config.output_format != "adapter" for config in request.outs.values())
    as_stored = request.calibration.dtype == "auto" and new is not None and new.shards != (ADAPTER,)
    needed = needed_bytes(new) if new is not None and whole and as_stored else 0
    folders = list(early.folders.values())
    check_outputs(early.making, folders, request.overwrite, needed=needed, resume=request.resume)


def _refuse_statistics(early: Early) -> None:
    """Refuse a statistics file that is another file, or may not lie there."""
    request = early.request
    if request.stats is not None:
        files = [file for each in request.calibration_files.values() for file in each if file.exists()]
        check_place(request.stats, (*early.folders.values(), *files), list(request.outs))
        check_readable(request.stats)


def _refuse_expressions(early: Early) -> None:
    """Refuse expressions that leave out every tensor."""
    names = early.opened["OLD"].tensors if "OLD" in early.opened else {}
    for config in early.request.outs.values():
        if names and (config.include or config.exclude) and not any(fits(config, name) for name in names):
            raise ConfigError("include and exclude leave no linear to adapt: change the expressions.")


def _refuse_device(early: Early) -> None:
    """Refuse a CUDA device if torch was built without CUDA."""
    device = early.request.calibration.device
    if device.startswith("cuda") and is_for_cpus_alone():
        raise ConfigError(f"device is {device} and this machine has 0 CUDA devices: use cpu.")


def _refuse_pair(early: Early) -> None:
    """Refuse two models of other types, or of other sizes in a block; what is rarer shows when they are built."""
    if any(early.opened.get(role) is None or early.opened[role].overlay is not None for role in ("OLD", "NEW")):
        return
    old, new = early.opened["OLD"], early.opened["NEW"]
    if new.shards == (ADAPTER,):
        return
    types = [str(each.config.get("model_type")) for each in (old, new)]
    names = [str((each.config.get("architectures") or [""])[0]) for each in (old, new)]
    if types[0] != types[1]:
        own = all(map(is_own_class, types, names))
        nested = any(f'"{kind}"' in json.dumps(each.config) for kind, each in zip(types, (new, old), strict=True))
        if own and not nested:
            raise CheckpointError(
                f"OLD is a {names[0]} and NEW is a {names[1]}: give the checkpoints before and after tuning of one "
                "model."
            )
        return
    sizes = [{name: value for name, value in each.config.items() if type(value) is int} for each in (old, new)]
    if names[0] != names[1] or sizes[0] == sizes[1]:
        return
    for config in early.request.outs.values():
        if {config.language, config.vision, config.projector} != {"merge"}:
            continue
        for key, info in new.tensors.items():
            before = old.tensors.get(key)
            if before is None or before.shape == info.shape or not (BLOCK.search(key) and fits(config, key)):
                continue
            raise CheckpointError(
                f"{key} has shape {list(before.shape)} in OLD and {list(info.shape)} in NEW: give the checkpoints "
                "before and after tuning of one model, or take this tensor from NEW with --exclude."
            )


CHECKS = (
    _refuse_sets,
    _refuse_template,
    _refuse_device,
    _refuse_folders,
    _refuse_places,
    _refuse_statistics,
    _refuse_expressions,
    _refuse_pair,
)
"""What is checked before torch is imported, in this order: files of samples, options, headers, what follows of them."""


def _refuse_samples(file: Path, purpose: Purpose, options: ReadingOptions) -> None:
    """Check that a file of samples exists and, if it is small, that its records are samples.

    Raises:
        CalibrationError: it does not, or they are not.
    """
    if is_data_set(file) or file.is_dir():
        return
    if is_quick(file):
        read_samples(local_source(file, "calibration"), 1, 0, options, purpose=purpose)


def is_quick(file: Path) -> bool:
    """Whether reading a file of records ends at once: it is small and read in this process, or it is missing."""
    return not file.exists() or (file.suffix.lower() in TEXT and file.is_file() and file.stat().st_size <= SMALL)
