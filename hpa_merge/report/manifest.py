"""The manifest: which files of OUT the report vouches for, and what else may lie there.

Every file that a merge publishes is in it, but for two: the model card, which people edit, and the report, which cannot
hold its own digest. Reports of earlier versions name the weight files and their index alone.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import final

from hpa_merge.checkpoint.sidefiles import MADE, is_side_file
from hpa_merge.inside import open_inside
from hpa_merge.names import REPORT
from hpa_merge.report.card import CARD
from hpa_merge.report.schema import MergeReport

__all__ = ["Listing", "completed", "digest_inside", "names_weights_alone", "sealed"]


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
    names = [name for name in sorted(Listing.of(folder).files - own) if is_side_file(PurePath(name))]
    if "config.json" not in names:
        return report
    manifest = report.manifest | {name: digest_inside(folder, name) for name in names}
    note = (
        "The manifest of this report named the weights alone; the files beside them were added to it when the report "
        "was drawn again, as they were then."
    )
    return replace(report, manifest=manifest, run=replace(report.run, notes=(*report.run.notes, note)))


def digest_inside(folder: Path, name: str | PurePath) -> str:
    """SHA-256 of a file of a folder, in hexadecimal.

    Raises:
        NotInside: it is not the folder's own.
        OSError: it is not there, or cannot be read.
    """
    state = hashlib.sha256()
    with open_inside(folder, name) as file:
        while content := file.read(2**22):
            state.update(content)
    return state.hexdigest()


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
