"""Rename a finished folder to OUT, whole or not at all; the writer and the search of settings both use this."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from hpa_merge.checkpoint.files import remove
from hpa_merge.checkpoint.output import Places, overlaps, telling
from hpa_merge.checkpoint.replacing import check_replaceable
from hpa_merge.errors import OutputError
from hpa_merge.files.disk import overlap, sync_folder

__all__ = ["publish_folder"]


def publish_folder(
    folder: Path,
    out: Path,
    inputs: Sequence[str | Path],
    *,
    overwrite: bool,
    unchanged: Callable[[], None] = lambda: None,
    on_publish: Callable[[], None] = lambda: None,
) -> None:
    """Make every check once more, and rename ``folder`` to ``out``.

    An OUT that is replaced is moved aside first. It is moved back if the rename fails, and deleted after it.

    Args:
        folder: finished and durable.
        inputs: folders and files that are never written to nor deleted.
        overwrite: whether an existing OUT may be replaced.
        unchanged: raises if an input has changed.
        on_publish: called as soon as the new OUT is there.

    Raises:
        OutputError: somebody has made OUT meanwhile, or it must not be deleted, or the disk refuses; OUT and
            ``folder`` are then unchanged.
    """
    places = Places.of(out)
    with telling(f"{folder} cannot be renamed to {places.out}"):
        unchanged()
        if found := overlap([places.out], inputs):
            raise OutputError(overlaps(*found))
        aside = os.path.lexists(places.out)
        if aside and not overwrite:
            raise OutputError(
                f"OUT {places.out} exists already, and did not when this run began: the finished work is kept in "
                f"{folder}, so move OUT away and run the same command with --resume."
            )
        if aside:
            check_replaceable(places.out)
            if os.path.lexists(places.replaced):
                raise OutputError(
                    f"{places.replaced} exists, and the OUT that is replaced has to wait there: move it away, then run "
                    "the same command with --resume."
                )
            places.out.rename(places.replaced)
        try:
            folder.rename(places.out)
        except BaseException:
            if aside and not os.path.lexists(places.out):
                places.replaced.rename(places.out)
            raise
        on_publish()
        sync_folder(places.out.parent)
        if aside:
            remove(places.replaced)
