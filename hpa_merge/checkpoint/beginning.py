"""How OUT.partial begins: laid out in full, or taken up where a run was interrupted.

The first rank does that under the locks of all journals. The others open what it has laid out.
"""

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from hpa_merge.checkpoint.files import checksum_at, write_at
from hpa_merge.checkpoint.joining import (
    Rank,
    Whole,
    journal_of,
    lock_others,
    same_run,
    whole_commits,
)
from hpa_merge.checkpoint.journal import Journal, commits_in, fingerprint_in
from hpa_merge.checkpoint.output import Places, busy, left_behind, telling
from hpa_merge.checkpoint.partial import Partial
from hpa_merge.checkpoint.reader import Checkpoint
from hpa_merge.checkpoint.shard import TensorInfo
from hpa_merge.errors import OutputError

__all__ = ["Layout", "follow", "lead"]

SEEN = 90.0
"""Seconds after which a rank sees what another one has made: NFS keeps names for up to 60 seconds by default."""


@final
@dataclass(frozen=True)
class Layout:
    """What OUT.partial gets from NEW.

    Attributes:
        heads: the header of each shard.
        sizes: the bytes of each shard.
        tensors: where each tensor lies.
        carried: relative paths of the side files that are copied.
        files: relative paths of everything.
    """

    heads: Mapping[str, bytes]
    sizes: Mapping[str, int]
    tensors: Mapping[str, TensorInfo]
    carried: tuple[str, ...]
    files: tuple[str, ...]

    @classmethod
    def of(cls, source: Checkpoint) -> "Layout":
        heads = {shard: source.header_bytes(shard) for shard in source.shards}
        sizes = {shard: len(head) for shard, head in heads.items()}
        for info in source.tensors.values():
            sizes[info.shard] = max(sizes[info.shard], info.stop)
        carried = tuple(path.as_posix() for path in source.side_files().copied)
        return cls(heads, sizes, source.tensors, carried, (*source.shards, str(source.index), *carried))


def lead(
    places: Places, folder: Partial, layout: Layout, fingerprint: Mapping[str, Any], *, resume: bool
) -> tuple[Journal, Whole]:
    """Lay OUT.partial out, or take up the run that was interrupted there.

    Args:
        folder: OUT.partial, not open yet.
        fingerprint: everything that the result depends on.
        resume: whether an interrupted run may be taken up.

    Returns:
        The journal, locked, and the commits of the run that is resumed.

    Raises:
        OutputError: another run is writing there, or the run to resume has another fingerprint, or the disk refuses.
    """
    journal, others = _open_journals(places)
    folder.ours.update(journal.side_files)  # NEW may have lost some since the run began
    try:
        if resume and os.path.lexists(places.replaced) and not os.path.lexists(places.out):
            with telling(f"{places.replaced} cannot be put back as {places.out}"):
                places.replaced.rename(places.out)  # killed between the two renames of an overwrite
        whole = _take_up(journal, others, folder, layout, fingerprint) if resume else None
        if whole is None:
            _claim(journal, folder, layout, resume=resume)
        for other in others:
            other.end()  # the first journal has what counts
    except BaseException:
        folder.close()
        for other in others:
            other.close()
        if folder.path.exists():
            journal.close()
        else:
            journal.end()
        raise
    if whole is not None:
        return journal, whole
    try:
        with telling(f"{folder.path} cannot be written"):
            folder.lay_out(layout.heads, layout.sizes)
            journal.begin(fingerprint, layout.carried)
    except BaseException:
        folder.remove()
        journal.end()
        raise
    return journal, Whole()


def follow(
    places: Places, folder: Partial, layout: Layout, fingerprint: Mapping[str, Any], *, rank: Rank
) -> tuple[Journal, Whole]:
    """Open what the first rank has laid out or taken up; arguments and result as those of :func:`lead`.

    Raises:
        OutputError: this rank does not see it, or makes another OUT, or the disk refuses.
    """
    path = journal_of(places.journal, rank.number)
    journal = None
    try:
        with telling(f"{folder.path} cannot be opened"):
            whole = whole_commits(_commits_soon(places, folder, layout), lambda _: True)
            first = fingerprint_in(places.journal)
        if found := _difference(first, fingerprint):
            name, was, now = map(_shown, found)
            raise OutputError(
                f"process {rank.number + 1} of {rank.count} has {name} {now}, and the first has {was}: give all the "
                "same inputs, options, versions and number of threads."
            )
        journal = _locked(path, folder.path)
        with telling(f"{path} cannot be written"):
            journal.cut(0)
            journal.begin(fingerprint, layout.carried)
    except BaseException:
        folder.close()
        if journal is not None:
            journal.close()
        raise
    return journal, whole


def _commits_soon(places: Places, folder: Partial, layout: Layout) -> list[dict[str, Any]]:
    """Open the folder that the first rank has laid out, and return the commits in its journal.

    Raises:
        OutputError: it is not there after :data:`SEEN`.
        OSError: it cannot be opened.
    """
    end = time.monotonic() + SEEN
    while True:
        with contextlib.suppress(FileNotFoundError):
            folder.take()
            if folder.is_laid_out(layout.sizes):
                return commits_in(places.journal)
        folder.close()
        if time.monotonic() > end:
            raise OutputError(
                f"{folder.path} was laid out by the first rank, and another rank does not see it: put OUT on a file "
                "system that all machines share."
            )
        time.sleep(0.05)


def _claim(journal: Journal, folder: Partial, layout: Layout, *, resume: bool) -> None:
    """Make an empty OUT.partial; replace one of a run that was interrupted before its journal began.

    Raises:
        OutputError: it cannot be made, or what is there must not be deleted.
    """
    with telling(f"{folder.path} cannot be made"):
        if resume and folder.path.is_dir():
            if not journal.lines and not folder.holds_only(layout.heads):
                raise OutputError(
                    f"{folder.path} has no journal and holds other files than a run writes first: move it away or "
                    "delete it."
                )
            folder.check_ours()
            folder.remove()
        try:
            folder.make()
        except FileExistsError as error:
            raise OutputError(left_behind(folder.path)) from error
        journal.cut(0)


def _take_up(
    journal: Journal, others: list[Journal], folder: Partial, layout: Layout, fingerprint: Mapping[str, Any]
) -> Whole | None:
    """Resume where the journals end, as far as their tensors have the bytes that were written.

    Returns:
        The commits; None if there is nothing to resume.

    Raises:
        OutputError: the run has another fingerprint, and the sentence names the first difference; or the folder holds
            something else.
    """
    if not journal.lines or not folder.path.is_dir():
        return None
    with telling(f"{folder.path} cannot be resumed"):
        folder.take()
        if not folder.is_laid_out(layout.sizes):
            return None
        folder.check_ours()
    begun, *lines = journal.lines
    if found := _difference(begun["fingerprint"], fingerprint):
        name, was, now = map(_shown, found)
        raise OutputError(
            f"{folder.path} was begun with {name} {was}, and now it is {now}: resume with the same, or delete the "
            "folder."
        )

    def is_intact(line: Mapping[str, Any]) -> bool:
        """Whether the tensors of a line are NEW's, and have the bytes that were written."""
        for name, written in line["tensors"].items():
            info = layout.tensors.get(name)
            if info is None or checksum_at(folder.descriptor(info.shard), info.start, info.stop) != written:
                return False
        return True

    with telling(f"{folder.path} cannot be resumed"):
        for shard, head in layout.heads.items():
            write_at(folder.descriptor(shard), memoryview(head), 0)
        joined = [*lines, *(line for other in others for line in same_run(journal, other))]
        whole = whole_commits(joined, is_intact)
        journal.keep(whole.lines)
    return whole


def _difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first name that two fingerprints do not have in common, and its value in each."""
    for name in sorted(first.keys() | second.keys()):
        if first.get(name) != second.get(name):
            return name, first.get(name), second.get(name)
    return None


def _shown(value: object, most: int = 200) -> str:
    """A value of a fingerprint for a sentence, shortened, because the journal may hold anything."""
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}…"


def _open_journals(places: Places) -> tuple[Journal, list[Journal]]:
    """The journals of OUT.partial, locked: the first one, and those that other ranks have left.

    Raises:
        OutputError: another run holds one, or one cannot be opened.
    """
    first = _locked(places.journal, places.partial)
    try:
        with telling(f"a journal next to {places.journal} cannot be used"):
            try:
                return first, lock_others(places.journal)
            except BlockingIOError as error:
                raise OutputError(busy(places.partial)) from error
    except BaseException:
        first.close()
        raise


def _locked(path: Path, partial: Path) -> Journal:
    """The journal at ``path``, locked; raises OutputError if another run holds it or it cannot be opened."""
    with telling(f"{path} cannot be written"):
        try:
            return Journal(path)
        except BlockingIOError as error:
            raise OutputError(busy(partial)) from error
