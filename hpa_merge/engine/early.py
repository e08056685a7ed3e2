"""What can be refused before torch is imported: an input that is not there or broken, and an OUT that cannot be made.

:func:`hpa_merge.engine.setup.prepare` makes these checks too, some seconds later: it imports torch and transformers.
"""

from pathlib import Path

from hpa_merge.checkpoint.adapter_folder import is_adapter, read_adapter_config
from hpa_merge.checkpoint.folder import find_shards, read_described
from hpa_merge.checkpoint.output import check_outputs
from hpa_merge.engine.request import MergeRequest
from hpa_merge.inputs.names import is_data_set, is_remote
from hpa_merge.records import Purpose, ReadingOptions, local_source
from hpa_merge.records.sampling import read_samples

__all__ = ["SMALL", "is_quick", "refuse_early", "refuse_folder"]

SMALL = 2**22
"""Bytes of a file of samples up to which it is read here, and again by the merge: 4 MiB."""

TEXT = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")
"""Files of samples that this process reads itself."""


def refuse_early(request: MergeRequest, made: Path | None = None) -> None:
    """Check what needs neither torch nor the network.

    Args:
        made: the folder of the OUTs, if it is made when everything has been checked.

    Raises:
        InputError: as :func:`hpa_merge.engine.setup.prepare`.
    """
    for purpose, files in request.calibration_files.items():
        options = request.reading(purpose)
        for file in files:
            _refuse_samples(file, "safety" if purpose == "safety" else "task", options)
    here = {role: Path(name) for role, name in request.checkpoints.items() if not is_remote(name)}
    for role, folder in here.items():
        refuse_folder(folder, role, adapter=role == "NEW")
    making = [out for out in request.outs if out.parent != made and not (request.skip_complete and out.exists())]
    check_outputs(making, list(here.values()), request.overwrite, needed=0, resume=request.resume)


def refuse_folder(folder: Path, role: str, *, adapter: bool) -> None:
    """Check that a folder has a model's configuration and its weight files, which are not opened.

    Args:
        adapter: whether it may be an adapter.

    Raises:
        CheckpointError: it has not.
    """
    if adapter and is_adapter(folder):
        read_adapter_config(folder, role)
    else:
        find_shards(folder, role, read_described(folder, role))


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
