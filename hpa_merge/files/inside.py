"""Which files of a folder are its own: regular files that lie in it, or in the blobs of the Hub's cache that it is of.

A folder that somebody else has made may hold links to whatever its user can read: a key, ``/proc/self/environ``. So a
file is read, copied or published only where it is the folder's own, wherever the links to it pass. Hidden files are
not: a link with a plain name does not make them public. In the Hub's cache
(``models--org--name/snapshots/commit/file -> ../../blobs/hash``) the files of a snapshot lie in that repository's
``blobs``.

Weights are no part of this: people keep them on another disk, and of what a link leads to only tensors are read.
"""

import errno
import os
import stat
from pathlib import Path, PurePath
from typing import BinaryIO, final

__all__ = ["NotInside", "TooLong", "find_inside", "open_inside", "read_inside"]

WITHOUT_LINKS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""How a file is opened whose links are resolved: one that has taken its place since is not followed or waited for."""


@final
class NotInside(OSError):
    """A file is not its folder's own; ``strerror`` says what it is."""

    def __init__(self, what: str, path: Path) -> None:
        super().__init__(errno.ELOOP, what, str(path))

    def sentence(self, file: str) -> str:
        """What to tell of it; ``file`` is what the sentence calls it."""
        return f"{file} is not read, for {self.strerror}: put the file itself there."


@final
class TooLong(OSError):
    """A file has more bytes than any of its kind; ``strerror`` says how many are too many."""

    def __init__(self, most: int, path: Path) -> None:
        super().__init__(errno.EFBIG, f"it is longer than {most} bytes", str(path))

    def sentence(self, file: str) -> str:
        """What to tell of it; ``file`` is what the sentence calls it."""
        return f"{file} is not read, for {self.strerror}: shorten it, or fetch it again."


def find_inside(folder: Path, path: str | PurePath) -> Path:
    """Where a file of a folder lies, with no link left in it.

    Args:
        path: relative to ``folder``.

    Raises:
        NotInside: it is not the folder's own.
        OSError: it is not there, or cannot be looked at.
    """
    root, relative = _resolve(folder, path)
    return root / relative


def open_inside(folder: Path, path: str | PurePath) -> BinaryIO:
    """A file of a folder, open for reading.

    Links are resolved once, and no link is followed after that: what is put into the place of the file, or of a folder
    on the way, between the check and the opening is not opened.

    Raises:
        NotInside: it is not the folder's own.
        OSError: it is not there, or cannot be opened.
    """
    root, relative = _resolve(folder, path)
    *folders, name = relative.parts
    here = os.open(root, WITHOUT_LINKS | os.O_DIRECTORY)
    try:
        for part in folders:
            below = os.open(part, WITHOUT_LINKS | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        descriptor = os.open(name, WITHOUT_LINKS, dir_fd=here)
    finally:
        os.close(here)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotInside("it is no regular file", folder / path)
    return os.fdopen(descriptor, "rb")


def read_inside(folder: Path, path: str | PurePath, most: int) -> bytes:
    """The content of a file of a folder.

    Args:
        most: bytes that it may have; of a longer file none is read.

    Raises:
        NotInside: it is not the folder's own.
        TooLong: it is longer.
        OSError: it is not there, or cannot be read.
    """
    with open_inside(folder, path) as file:
        size = os.fstat(file.fileno()).st_size
        content = b"" if size > most else file.read(most + 1)  # it may grow meanwhile
    if max(size, len(content)) > most:
        raise TooLong(most, folder / path)
    return content


def _resolve(folder: Path, path: str | PurePath) -> tuple[Path, PurePath]:
    """The folder that a file belongs to, and its place in it, with no link in either.

    Raises:
        NotInside, OSError: as :func:`find_inside`.
    """
    root = Path(os.path.realpath(folder, strict=True))
    real = Path(os.path.realpath(folder / path, strict=True))
    if real.is_relative_to(root):
        relative = real.relative_to(root)
        linked = real != root / path
        if linked and any(part.startswith(".") for part in relative.parts):
            raise NotInside("it is a link to a hidden file", folder / path)
    elif root.parent.name == "snapshots" and real.parent == root.parent.parent / "blobs":
        root, relative = real.parent, Path(real.name)
    else:
        raise NotInside("it is a link that leads out of the folder", folder / path)
    mode = os.lstat(real).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / path))
    if not stat.S_ISREG(mode):
        raise NotInside("it is no regular file", folder / path)
    return root, relative
