"""A finished folder appears as OUT, whole or not at all; a writer and a search of settings both end here."""

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
    """Rename ``folder`` to ``out``, when every check has been made once more.

    An OUT that is replaced steps aside first, comes back if the rename fails, and is deleted when the new one stands.

    Args:
        folder: finished and durable.
        inputs: folders and files that are never written to nor deleted.
        overwrite: whether an OUT that exists may be replaced.
        unchanged: raises where an input is not what was read.
        on_publish: called as soon as the new OUT stands there.

    Raises:
        OutputError: somebody has made OUT meanwhile, or what is there may not be deleted, or the disk refuses; OUT is
            as it was before, and ``folder`` too.
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
                    f"{places.replaced} is there, where the OUT that is replaced would wait: move it away, then run "
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
