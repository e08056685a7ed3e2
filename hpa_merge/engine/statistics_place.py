"""Where a statistics file may lie, and whether a file there is one; needs no torch."""

import os
from collections.abc import Sequence
from pathlib import Path

from hpa_merge.checkpoint.output import Places
from hpa_merge.errors import StatisticsError
from hpa_merge.files.disk import inside
from hpa_merge.files.statistics import open_statistics, telling_damage

__all__ = ["DAMAGED", "check_place", "check_readable", "folder_of"]

DAMAGED = ", and nothing else is overwritten: give another path, or delete the file."
"""The end of the sentence about a file that is not a whole statistics file."""


def folder_of(stats: Path) -> Path:
    """The folder of the Hessians that belong to the statistics file ``stats``."""
    return stats.parent / f"{stats.name}.hessians"


def check_readable(path: Path) -> None:
    """Check that a file at ``path``, if there is one, is a statistics file; its vectors are not read.

    Raises:
        StatisticsError: it is not.
    """
    with telling_damage(path, DAMAGED):
        if path.exists():
            with open_statistics(path, "np"):
                pass


def check_place(path: Path, inputs: Sequence[Path], outs: Sequence[Path]) -> None:
    """Check that the file may lie there; nothing is created.

    Raises:
        StatisticsError: it would lie in OLD, NEW or an OUT, or in a folder that does not exist or cannot be written to;
            something else is in the place of the folder of its Hessians.
    """
    ours, folder = path.resolve(), folder_of(path)
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
        raise StatisticsError(
            f"the Hessians of the statistics {path} go into the folder {folder}, and something else is in its place: "
            "choose another path."
        )
    if (found := inside(path, inputs) or inside(folder, inputs)) is not None:
        raise StatisticsError(
            f"the statistics {path} would lie in the input {found}, and inputs are never written to: "
            "choose a path outside of it."
        )
    for out in outs:
        places = Places.of(out)
        if (found := inside(path, (places.out, places.partial, places.journal, places.replaced))) is not None:
            raise StatisticsError(
                f"the statistics {path} would lie in {found}, which belongs to OUT: choose a path outside of it."
            )
    if not ours.parent.is_dir():
        raise StatisticsError(
            f"the statistics {path} cannot be written, because the folder {path.absolute().parent} does not exist: "
            "create it first."
        )
    if not os.path.lexists(path) and not os.access(ours.parent, os.W_OK | os.X_OK):
        raise StatisticsError(
            f"the statistics {path} cannot be written, because you may not write to {path.absolute().parent}: "
            "choose another place."
        )
