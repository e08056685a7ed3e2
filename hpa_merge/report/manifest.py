"""The manifest: the digests of OUT's files.

It has every file that a merge publishes but two: the model card, which people edit, and the report, which cannot hold
its own digest. Reports of earlier versions name only the weight files and their index.
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
"""Bytes per read."""


@final
@dataclass(frozen=True)
class Listing:
    """The content of a folder; paths as in a manifest.

    Attributes:
        files: everything that is not a folder, and links to folders.
        hidden: hidden files and folders, which no library loads; the content of a hidden folder is not listed.
    """

    files: frozenset[str]
    hidden: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path) -> "Listing":
        """List a folder without following links.

        Raises:
            OSError: a subfolder cannot be read.
        """
        found: dict[bool, set[str]] = {False: set(), True: set()}
        for path, hidden in _walk(folder):
            found[hidden].add(path.relative_to(folder).as_posix())
        return cls(frozenset(found[False]), tuple(sorted(found[True])))


def names_weights_alone(report: MergeReport) -> bool:
    """Whether a report's manifest names the weights alone, as in earlier versions: it has no configuration."""
    return ("adapter_config.json" if report.is_adapter else "config.json") not in report.manifest


def sealed(report: MergeReport, drawn: Mapping[str, bytes]) -> MergeReport:
    """A report whose manifest has these drawn files, and no earlier ones."""
    kept = {name: digest for name, digest in report.manifest.items() if name not in MADE}
    made = {name: hashlib.sha256(content).hexdigest() for name, content in drawn.items()}
    return replace(report, manifest=kept | made)


def completed(report: MergeReport, folder: Path) -> MergeReport:
    """An earlier version's report with the digests of the files that are next to the weights now, and a note.

    Raises:
        OSError: one cannot be read, or is not inside the folder.
    """
    own = {*report.manifest, *MADE, CARD, REPORT}
    names = [path.as_posix() for path in find_side_files(folder, own).copied]
    if "config.json" not in names:
        return report
    manifest = report.manifest | {name: _digest(folder, name) for name in names}
    note = (
        "The manifest of this report named only the weights; the other files were added when the report was drawn "
        "again, as they were then."
    )
    return replace(report, manifest=manifest, run=replace(report.run, notes=(*report.run.notes, note)))


def digest_of_file(file: BinaryIO) -> str:
    """SHA-256 of an open file, in hexadecimal."""
    state = hashlib.sha256()
    while content := file.read(CHUNK):
        state.update(content)
    return state.hexdigest()


def _digest(folder: Path, name: str) -> str:
    with open_inside(folder, name) as file:
        return digest_of_file(file)


def _walk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Every file, link and hidden folder, and whether it is hidden."""

    def fail(error: OSError) -> None:
        raise error

    for root, folders, files in os.walk(folder, onerror=fail):
        here = Path(root)
        yield from ((here / name, name.startswith(".")) for name in files)
        yield from ((here / name, True) for name in folders if name.startswith("."))
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from ((here / name, False) for name in folders if (here / name).is_symlink())
