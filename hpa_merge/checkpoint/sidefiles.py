"""What lies in a checkpoint folder beside its weights, and which of it belongs into a merged model."""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import final

from hpa_merge.checkpoint.kinds import belonging, holds_what_it_says, is_read
from hpa_merge.files.inside import find_inside, open_inside, read_inside

__all__ = ["MADE", "SideFiles", "find_side_files"]

MADE = {
    *("hpa_report.json", "hpa_report.html"),
    *("hpa_columns.png", "hpa_energy.png", "hpa_overlap.png", "hpa_balance.png", "hpa_kappa.png", "hpa_update.png"),
    *("hpa_saliency.png", "hpa_evaluation.png"),
}
"""Files at the top of OUT that speak of that merge alone: where NEW is an OUT itself, its own are not carried over."""

TEXT_BYTES = 2**22
"""Of a text that is looked at for what it names: 4 MiB; a longer one names nothing."""

TEXTS_BYTES = 2**24
"""Of all those of a folder together: 16 MiB; what comes after them names nothing."""


LEADS_NOWHERE = (errno.ELOOP, errno.ENOENT)
"""Errors of a link that leads out of the folder, in a circle, or to no file."""


@final
@dataclass(frozen=True)
class SideFiles:
    """The files of a checkpoint folder beside its weights; paths are relative to the folder, sorted.

    Attributes:
        copied: config, tokenizer, processor, templates, licence …: they belong into OUT byte for byte.
        left_out: all else: other weights, what training left, links out of the folder, what is no file or has another
            content than its name says. A subfolder without any copied file is named instead of its files.
    """

    copied: tuple[Path, ...]
    left_out: tuple[Path, ...]


def find_side_files(folder: Path, own: set[str]) -> SideFiles:
    """Sort every file of a folder and its subfolders; what is hidden, or named in ``own``, is in neither list.

    A link to a file of the folder counts as that file, any other link is left out. A link to a folder is never
    followed.

    Args:
        folder: the checkpoint folder.
        own: names, directly in the folder, of the files that the caller looks after.

    Raises:
        OSError: a subfolder, or a file that belongs to the model, cannot be read.
    """
    paths = [path for path in _walk(folder) if path.as_posix() not in own]
    wanted = belonging(paths, _Texts(folder).read)
    copied = {path for path in paths if path in wanted and _is_own(folder, path, wanted)}
    carried = {parent for path in copied for parent in path.parents}
    left_out = {_topmost(path, carried) for path in paths if path not in copied}
    return SideFiles(copied=tuple(sorted(copied)), left_out=tuple(sorted(left_out)))


def _walk(folder: Path) -> Iterator[Path]:
    """Every file, and every link to a folder, that is not hidden; relative to ``folder``."""

    def fail(error: OSError) -> None:
        raise error

    for root, folders, files in os.walk(folder, onerror=fail):
        here = Path(root)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from ((here / name).relative_to(folder) for name in (*links, *files) if not name.startswith("."))


def _is_own(folder: Path, path: Path, wanted: set[PurePath]) -> bool:
    """Whether it is a regular file of the folder's own; where a link leads to another one, that has to belong too.

    What has another content than its name says is not: a pickle, an archive.

    Raises:
        OSError: it cannot be read, and is not left out for that.
    """
    try:
        real = find_inside(folder, path)
        with open_inside(folder, path) as file:
            beginning = file.read(TEXT_BYTES)
    except OSError as error:
        if error.errno in LEADS_NOWHERE:
            return False
        raise
    if not holds_what_it_says(path, beginning):
        return False
    root = Path(os.path.realpath(folder))
    return is_read(path) or not real.is_relative_to(root) or real.relative_to(root) in {path, *wanted}


def _topmost(path: Path, carried: set[Path]) -> Path:
    """The file, or the outermost folder around it from which nothing is copied."""
    return next((parent for parent in reversed(path.parents[:-1]) if parent not in carried), path)


@final
class _Texts:
    """The texts of a folder, as many as may be read."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._left = folder, TEXTS_BYTES
        self._found: dict[PurePath, str] = {}

    def read(self, path: PurePath) -> str:
        """A file as text; empty where it may not be read, is long, or is not the folder's own.

        Raises:
            OSError: the disk fails.
        """
        if path not in self._found:
            try:
                content = read_inside(self._folder, path, min(TEXT_BYTES, self._left))
            except OSError as error:
                if error.errno not in (*LEADS_NOWHERE, errno.EFBIG, errno.EACCES):
                    raise
                content = b""
            self._left -= len(content)
            self._found[path] = content.decode("utf-8", "replace")
        return self._found[path]
