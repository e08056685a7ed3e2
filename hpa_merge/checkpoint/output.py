"""Where OUT may be made, and the sentences for the errors of the disk."""

import contextlib
import errno
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from hpa_merge.checkpoint.joining import journals
from hpa_merge.checkpoint.journal import fingerprint_in, is_locked
from hpa_merge.checkpoint.replacing import check_replaceable
from hpa_merge.errors import OutputError
from hpa_merge.files.disk import Foreign, mount_points, overlap

__all__ = [
    "Places",
    "begun_with",
    "busy",
    "check_output",
    "check_outputs",
    "left_behind",
    "overlaps",
    "telling",
]


@final
@dataclass(frozen=True)
class Places:
    """OUT and the paths next to it that are used while it is made; all absolute.

    Attributes:
        out: the finished folder.
        partial: the folder in which it is made.
        journal: says what is durable in that folder; also the lock of the run that makes it. If several ranks make it,
            those after the first have journals next to this one, which :mod:`hpa_merge.checkpoint.joining` names.
        replaced: where an OUT that is replaced waits until the new one is there.
    """

    out: Path
    partial: Path
    journal: Path
    replaced: Path

    @classmethod
    def of(cls, out: str | Path) -> "Places":
        path = os.path.abspath(out)  # noqa: PTH100 - resolve() would follow a link that OUT itself may be
        return cls(*(Path(path + ending) for ending in ("", ".partial", ".partial.journal", ".replaced")))


def check_output(
    out: str | Path,
    inputs: Sequence[str | Path],
    overwrite: bool,
    *,
    needed: int = 0,
    beside: int = 0,
    resume: bool = False,
) -> None:
    """Check that OUT can be made there; nothing is created, so a dry run can check too.

    Args:
        out: the folder to make.
        inputs: what is never written to nor deleted: the folders of OLD and NEW, and every other file that is read.
        overwrite: whether an existing OUT may be replaced.
        needed: bytes that have to be free on the disk, unless a run is resumed.
        beside: bytes that other OUTs of this run will take there.
        resume: whether an interrupted run may be resumed there.

    Raises:
        OutputError: OUT is, holds or lies in an input; it exists and must not be replaced or deleted
            (:func:`check_replaceable`); an interrupted run left its folders there; its parent is missing or cannot be
            written to; the disk is too full.
    """
    places = Places.of(out)
    out, partial, replaced = places.out, places.partial, places.replaced
    if found := overlap((out, partial, places.journal, replaced), inputs):
        raise OutputError(overlaps(*found))
    with telling(f"OUT {out} cannot be made"):
        if os.path.lexists(out):
            if not overwrite:
                raise OutputError(f"OUT {out} exists already: choose another folder{_or_replace(out)}.")
            check_replaceable(out)
        with telling(f"the journal {places.journal} cannot be used"):
            locked = any(map(is_locked, journals(places.journal)))
        if locked:
            raise OutputError(busy(partial))
        if os.path.lexists(partial):
            if not resume:
                raise OutputError(left_behind(partial))
            if partial.is_symlink() or not partial.is_dir() or any(mount_points(partial)):
                raise OutputError(
                    f"{partial} is a link, a file or a mount point, and not the folder of an interrupted run: remove "
                    "it, or choose another OUT."
                )
            needed, beside = 0, 0
        if os.path.lexists(replaced) and (os.path.lexists(out) or not resume):
            raise OutputError(
                f"{replaced} holds the OUT that an interrupted run was about to replace: move it away or delete it."
            )
        if not out.parent.is_dir():
            raise OutputError(
                f"OUT {out} cannot be made, because the folder {out.parent} does not exist: create it first."
            )
        if not os.access(out.parent, os.W_OK | os.X_OK):
            raise OutputError(
                f"OUT {out} cannot be made, because you may not write to {out.parent}: choose another place."
            )
        free = shutil.disk_usage(out.parent).free
        if free < needed + beside:
            others = f", the OUTs before it {_size(beside)}," if beside else ""
            raise OutputError(
                f"OUT {out} needs {_size(needed)}{others} and only {_size(free)} are free there: free some space, or "
                "choose another disk."
            )


def _or_replace(out: Path) -> str:
    """The other remedy where ``out`` exists, if it may be deleted."""
    try:
        check_replaceable(out)
    except (OutputError, OSError):
        return ""
    return ", or replace it with --overwrite"


def check_outputs(
    outs: Sequence[str | Path], inputs: Sequence[str | Path], overwrite: bool, *, needed: int, resume: bool = False
) -> None:
    """Check that several OUTs of ``needed`` bytes each can be made at once, each as :func:`check_output` does.

    Raises:
        OutputError: one cannot; two of them overlap; a disk is too full for its OUTs.
    """
    owners: dict[Path, Path] = {}
    for out in outs:
        for place in _all_of(Places.of(out)):
            if place in owners:
                raise OutputError(f"OUT {owners[place]} and OUT {out} would both use {place}: choose another place.")
            owners[place] = Path(out)
    for place, out in owners.items():
        for parent in place.parents:
            if parent in owners:
                raise OutputError(f"OUT {out} would lie in OUT {owners[parent]}: choose another place.")
    taken: Counter[int] = Counter()
    for out in outs:
        places = Places.of(out)
        parent = places.out.parent
        disk = parent.stat().st_dev if parent.is_dir() else -1
        check_output(out, inputs, overwrite, needed=needed, beside=taken[disk], resume=resume)
        if not os.path.lexists(places.partial):
            taken[disk] += needed


def begun_with(out: str | Path) -> dict[str, Any]:
    """The fingerprint of the run that was interrupted at OUT; empty if there is none that can be read."""
    try:
        return fingerprint_in(Places.of(out).journal)
    except OSError:
        return {}


def _all_of(places: Places) -> tuple[Path, ...]:
    """Every path that OUT may take, with the links in its parent resolved."""
    folder = places.out.parent.resolve()
    return tuple(folder / path.name for path in (places.out, places.partial, places.journal, places.replaced))


@contextlib.contextmanager
def telling(failure: str) -> Iterator[None]:
    """Raise every OSError of the block as a sentence that begins with ``failure``."""
    try:
        yield
    except OSError as error:
        if isinstance(error, Foreign):
            remedy = "remove it, or choose another place for OUT"
        elif error.errno == errno.EXDEV:
            remedy = "it is a mount point or part of a container's image, so choose another place for OUT"
        elif error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            remedy = "free some space, or choose another disk for OUT"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            remedy = "check the permissions, or choose another place for OUT"
        else:
            remedy = "check the disk, or choose another place for OUT"
        raise OutputError(f"{failure} ({error.strerror or error}): {remedy}.") from error


def overlaps(place: Path, given: Path) -> str:
    """The sentence for an OUT that overlaps an input."""
    return f"OUT {place} overlaps the input {given}, and inputs are never written to: choose a folder outside of it."


def busy(partial: Path) -> str:
    """The sentence for an OUT that another run is making."""
    return f"another run is writing {partial}: wait for it, or choose another OUT."


def left_behind(partial: Path) -> str:
    """The sentence for a folder that an interrupted run left."""
    return f"{partial} is there from a run that was interrupted: resume it with --resume, or delete it."


def _size(count: float) -> str:
    """A number of bytes for people: ``14.2 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
