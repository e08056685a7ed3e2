"""Which files of a folder are its own: regular files in it or, for a snapshot in the Hub's cache, in its blobs.

A folder from somebody else may hold links to anything that its user can read: a key, ``/proc/self/environ``. So a file
is read, copied or published only if its links end at the folder's own file. Hidden files are excluded: a link with a
plain name must not make them public. In the Hub's cache
(``models--org--name/snapshots/commit/file -> ../../blobs/hash``) the files of a snapshot lie in that repository's
``blobs``.

Weights are an exception: people keep them on other disks, and only tensors are read from the target of a link.
"""

import errno
import os
import stat
from pathlib import Path, PurePath
from typing import BinaryIO, final

__all__ = ["NotInside", "TooLong", "find_inside", "open_inside", "read_inside"]

WITHOUT_LINKS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Flags for a path without links: a link that has replaced it since is not followed, a pipe not waited for."""


@final
class NotInside(OSError):
    """A file is not its folder's own; ``strerror`` says what it is."""

    def __init__(self, what: str, path: Path) -> None:
        super().__init__(errno.ELOOP, what, str(path))

    def sentence(self, file: str) -> str:
        """The sentence about ``file``."""
        return f"{file} is not read, because {self.strerror}: put the file itself there."


@final
class TooLong(OSError):
    """A file is longer than its kind may be; ``strerror`` names the limit."""

    def __init__(self, most: int, path: Path) -> None:
        super().__init__(errno.EFBIG, f"it is longer than {most} bytes", str(path))

    def sentence(self, file: str) -> str:
        """The sentence about ``file``."""
        return f"{file} is not read, because {self.strerror}: shorten it, or fetch it again."


def find_inside(folder: Path, path: str | PurePath) -> Path:
    """The resolved path of a file of a folder.

    Args:
        path: relative to ``folder``.

    Raises:
        NotInside: it is not the folder's own.
        OSError: it does not exist, or cannot be read.
    """
    root, relative = _resolve(folder, path)
    return root / relative


def open_inside(folder: Path, path: str | PurePath) -> BinaryIO:
    """Open a file of a folder for reading; arguments and errors as :func:`find_inside`.

    Links are resolved once, and no link is followed after that. So a link that replaces the file, or a folder above it,
    between the check and the opening is not followed.
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
        raise NotInside("it is not a regular file", folder / path)
    return os.fdopen(descriptor, "rb")


def read_inside(folder: Path, path: str | PurePath, most: int) -> bytes:
    """The content of a file of a folder; errors as :func:`find_inside`.

    Args:
        most: the most bytes that it may have.

    Raises:
        TooLong: it is longer.
    """
    with open_inside(folder, path) as file:
        size = os.fstat(file.fileno()).st_size
        content = b"" if size > most else file.read(most + 1)  # it may grow meanwhile
    if max(size, len(content)) > most:
        raise TooLong(most, folder / path)
    return content


def _resolve(folder: Path, path: str | PurePath) -> tuple[Path, PurePath]:
    """The folder that holds a file, and the file's path in it, both resolved; errors as :func:`find_inside`."""
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
        raise NotInside("it is not a regular file", folder / path)
    return root, relative
