"""The manifest: which files of OUT the report vouches for, and what else may lie there.

Every file that a merge publishes is in it, but for two: the model card, which people edit, and the report, which cannot
hold its own digest. Reports of earlier versions name the weight files and their index alone.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, final

from hpa_merge.checkpoint.sidefiles import MADE, find_side_files
from hpa_merge.files.inside import open_inside
from hpa_merge.files.names import CARD, REPORT
from hpa_merge.report.schema import MergeReport

__all__ = ["Listing", "completed", "digest_of_file", "names_weights_alone", "sealed"]

CHUNK = 2**22
"""Bytes that are read at once."""


@final
@dataclass(frozen=True)
class Listing:
    """What lies in a folder; paths as in a manifest.

    Attributes:
        files: whatever is no folder, and links to folders.
        hidden: the topmost of what is hidden, which no library loads.
    """

    files: frozenset[str]
    hidden: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path) -> "Listing":
        """List a folder; no link is followed.

        Raises:
            OSError: a subfolder cannot be read.
        """
        found: dict[bool, set[str]] = {False: set(), True: set()}
        for path, hidden in _walk(folder):
            found[hidden].add(path.relative_to(folder).as_posix())
        return cls(frozenset(found[False]), tuple(sorted(found[True])))


def names_weights_alone(report: MergeReport) -> bool:
    """Whether a report is older than manifests that name every file: each checkpoint has a config.json."""
    return "config.json" not in report.manifest


def sealed(report: MergeReport, drawn: Mapping[str, bytes]) -> MergeReport:
    """A report whose manifest has the files that are drawn of it, and none that were drawn before."""
    kept = {name: digest for name, digest in report.manifest.items() if name not in MADE}
    made = {name: hashlib.sha256(content).hexdigest() for name, content in drawn.items()}
    return replace(report, manifest=kept | made)


def completed(report: MergeReport, folder: Path) -> MergeReport:
    """A report that names the weights alone, with the files that lie beside them now; a note says so.

    Raises:
        OSError: one cannot be read, or is not the folder's own.
    """
    own = {*report.manifest, *MADE, CARD, REPORT}
    names = [path.as_posix() for path in find_side_files(folder, own).copied]
    if "config.json" not in names:
        return report
    manifest = report.manifest | {name: _digest(folder, name) for name in names}
    note = (
        "The manifest of this report named the weights alone; the files beside them were added to it when the report "
        "was drawn again, as they were then."
    )
    return replace(report, manifest=manifest, run=replace(report.run, notes=(*report.run.notes, note)))


def digest_of_file(file: BinaryIO) -> str:
    """SHA-256 of a file that is open for reading, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    state = hashlib.sha256()
    while content := file.read(CHUNK):
        state.update(content)
    return state.hexdigest()


def _digest(folder: Path, name: str) -> str:
    with open_inside(folder, name) as file:
        return digest_of_file(file)


def _walk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Every file and link, and the topmost hidden folders; whether each is hidden."""

    def fail(error: OSError) -> None:
        raise error

    for root, folders, files in os.walk(folder, onerror=fail):
        here = Path(root)
        yield from ((here / name, name.startswith(".")) for name in files)
        yield from ((here / name, True) for name in folders if name.startswith("."))
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from ((here / name, False) for name in folders if (here / name).is_symlink())
