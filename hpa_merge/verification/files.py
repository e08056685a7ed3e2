"""Checks that a folder has the files of its report's manifest, byte for byte, and no others."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from hpa_merge.checkpoint import Checkpoint, is_adapter, open_adapter
from hpa_merge.checkpoint.adapter_folder import CONFIG
from hpa_merge.checkpoint.files import digest
from hpa_merge.checkpoint.sidefiles import MADE
from hpa_merge.checkpoint.unreadable import unreadable
from hpa_merge.errors import CheckpointError
from hpa_merge.files.inside import NotInside, find_inside
from hpa_merge.files.names import CARD, REPORT
from hpa_merge.report.manifest import Listing, digest_of_file, names_weights_alone
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.words import shortened
from hpa_merge.verification.findings import Findings
from hpa_merge.verification.weights import read_files

__all__ = ["check_files", "digest_of", "list_files", "open_out", "weight_files"]


def open_out(folder: Path) -> Checkpoint:
    """OUT: a checkpoint, or an adapter.

    Raises:
        CheckpointError: it is neither, or not complete.
    """
    if is_adapter(folder):
        return replace(open_adapter(folder, "OUT"), index=CONFIG)
    return Checkpoint.open(folder, "OUT")


def weight_files(checkpoint: Checkpoint) -> list[str]:
    """The names of the shards and of the index, if any."""
    return [*checkpoint.disk_shards, *([checkpoint.index] if checkpoint.index else [])]


def list_files(merged: Checkpoint) -> Listing:
    """The files of OUT.

    Raises:
        CheckpointError: a subfolder cannot be read.
    """
    try:
        return Listing.of(merged.folder)
    except OSError as error:
        raise CheckpointError(unreadable(merged.folder, merged.role, str(error.filename), error)) from error


def check_files(
    merged: Checkpoint, report: MergeReport, found: Listing, on_file: Callable[[str], None], findings: Findings
) -> frozenset[str]:
    """Compare every file of OUT with the manifest, and look at every value of the weights.

    Args:
        found: the files of OUT.
        on_file: called with each name before the file is read; weight files are read side by side.

    Returns:
        The tensors that hold NaN or infinity.

    Raises:
        CheckpointError: a file cannot be read.
    """
    weights, manifest = weight_files(merged), report.manifest
    findings.problems += merged.notes
    there = found.files.difference((CARD, REPORT))
    digests: dict[str, str] = {}
    not_finite: set[str] = set()
    with closing(read_files(merged)) as reading:
        for name in merged.disk_shards:
            on_file(name)
            read = next(reading)
            digests[name] = read.digest
            not_finite |= read.not_finite
            findings.problems += _check_digest(merged, name, manifest, digests)
            findings.checked["weight files"] += 1
    index = [merged.index] if merged.index else []
    for name in [*index, *sorted(manifest.keys() & there.difference(weights))]:
        on_file(name)
        findings.problems += _check_digest(merged, name, manifest, digests)
        findings.checked["other files"] += 1
    missing = manifest.keys() - there
    findings.problems += [f"{name} is in the report's manifest and not in OUT." for name in sorted(missing - MADE)]
    if drawn := sorted(missing & MADE):
        findings.unchecked.append(
            f"{shortened(drawn)}: drawn by the merge and missing in OUT; the model does not need them."
        )
    others = there.difference(manifest, weights)
    if names_weights_alone(report):
        carried = {path.as_posix() for path in merged.side_files().copied} | MADE
        if unnamed := sorted(others & carried):
            findings.unchecked.append(
                f"The report names only the weights, as in earlier versions: it is not known whether "
                f"{shortened(unnamed)} came from the merge."
            )
        others -= carried
    findings.problems += [
        f"{name} is in OUT and not in the report's manifest{_remedy(name)}." for name in sorted(others)
    ]
    for name in sorted(found.files & {CARD, REPORT}):
        findings.problems += _check_place(merged, name)
    if CARD in found.files:
        findings.unchecked.append(f"{CARD} may be edited, and was not checked.")
    if found.hidden:
        findings.unchecked.append(f"Hidden, and not checked: {shortened(found.hidden)}.")
    return frozenset(not_finite)


def digest_of(checkpoint: Checkpoint, path: str | Path) -> str:
    """SHA-256 of a file of a checkpoint, in hexadecimal; weights may be links to other folders.

    Raises:
        CheckpointError: it cannot be read, or is another file outside the folder.
    """
    if str(path) in checkpoint.shards:
        try:
            return digest(checkpoint.folder / path)
        except OSError as error:
            raise CheckpointError(unreadable(checkpoint.folder, checkpoint.role, str(path), error)) from error
    with checkpoint.open_side_file(Path(path)) as file:
        return digest_of_file(file)


def _check_place(merged: Checkpoint, name: str) -> Iterator[str]:
    """Check that a file whose content is not compared is inside OUT."""
    try:
        find_inside(merged.folder, name)
    except NotInside as error:
        yield f"{name} is not OUT's own: {error.strerror}."
    except OSError as error:
        yield f"{name} is not OUT's own: it cannot be read ({error.strerror})."


def _check_digest(
    merged: Checkpoint, name: str, manifest: Mapping[str, str], known: Mapping[str, str]
) -> Iterator[str]:
    """Compare a file with the manifest; ``known``: the digests of files that have been read."""
    if name not in manifest:
        yield f"{name} is in OUT and not in the report's manifest."
        return
    try:
        found = known.get(name) or digest_of(merged, name)
    except CheckpointError as error:
        if isinstance(error.__cause__, NotInside):
            yield f"{name} is not OUT's own: {error.__cause__.strerror}."
            return
        raise
    if found != manifest[name]:
        wrong = f"{name} is not the file that the merge wrote: SHA-256 {manifest[name]} expected, {found} found"
        yield f"{wrong}{_remedy(name)}."


def _remedy(name: str) -> str:
    """What to do about a drawn file: an interrupted ``hpa-merge report`` leaves one that does not fit."""
    return ": draw it again with hpa-merge report" if name in MADE else ""
