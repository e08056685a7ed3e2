"""The files of a checkpoint folder next to its weights, and which of them belong to a merged model."""

import errno
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import final

from hpa_merge.checkpoint.kinds import belonging, holds_what_it_says, is_read
from hpa_merge.errors import InputError
from hpa_merge.files.inside import find_inside, open_inside, read_inside

__all__ = ["MADE", "SideFiles", "find_side_files", "links"]

MADE = {
    *("hpa_report.json", "hpa_report.html"),
    *("hpa_columns.png", "hpa_energy.png", "hpa_overlap.png", "hpa_balance.png", "hpa_kappa.png", "hpa_update.png"),
    *("hpa_saliency.png", "hpa_evaluation.png"),
}
"""Files at the top of OUT that describe that merge alone. If NEW is an OUT itself, its own are not copied."""

TEXT_BYTES = 2**22
"""The longest text that is searched for names of files: 4 MiB."""

TEXTS_BYTES = 2**24
"""The most bytes of a folder's texts that are searched: 16 MiB."""

LEADS_NOWHERE = (errno.ELOOP, errno.ENOENT)
"""Errors of a link that leads out of the folder, in a circle, or to no file."""


@final
@dataclass(frozen=True)
class SideFiles:
    """The files of a checkpoint folder next to its weights; paths are relative to the folder, sorted.

    Attributes:
        copied: config, tokenizer, processor, templates, licence …, which OUT gets byte for byte.
        left_out: everything else: other weights, files of the training, links out of the folder, entries that are not
            files, and files whose content does not fit their name. A subfolder of which nothing is copied is named
            instead of its files.
    """

    copied: tuple[Path, ...]
    left_out: tuple[Path, ...]

    def without(self, spare: re.Pattern[str]) -> "SideFiles":
        """The same, but that OUT does not get those whose whole path ``spare`` matches."""
        matched = {path for path in self.copied if spare.fullmatch(path.as_posix())}
        copied = tuple(path for path in self.copied if path not in matched)
        return SideFiles(copied, tuple(sorted({*self.left_out, *matched})))


def find_side_files(folder: Path, own: set[str]) -> SideFiles:
    """Sort every file of a folder and its subfolders; hidden files and those in ``own`` are in neither list.

    A link to a file of the folder counts as that file, and any other link is left out. Links to folders are never
    followed.

    Args:
        folder: the checkpoint folder.
        own: names, directly in the folder, of files that the caller handles.

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
    """Whether it is the folder's own regular file and holds what its name says; the target of a link must belong too.

    Raises:
        OSError: it cannot be read, for another reason than a link that leads nowhere.
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
    """The texts of a folder, read within the limits."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._left = folder, TEXTS_BYTES
        self._found: dict[PurePath, str] = {}

    def read(self, path: PurePath) -> str:
        """A file as text; empty if it may not be read, is too long, or is not the folder's own."""
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


@contextmanager
def links(files: Mapping[Path, Path | bytes], home: Path) -> Iterator[Path]:
    """A temporary folder with these files.

    Args:
        files: by relative path, the file that a link leads to, or the content.
        home: the folder that an error of the block names instead of the temporary one, which is gone then.
    """
    with tempfile.TemporaryDirectory(prefix="hpa-merge-") as name:
        for path, content in files.items():
            (made := Path(name) / path).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                made.write_bytes(content)
            else:
                made.symlink_to(content)
        try:
            yield Path(name)
        except InputError as error:
            raise type(error)(str(error).replace(name, str(home))) from error
