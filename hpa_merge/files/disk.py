"""Writing to disk: open a file of ours, replace it as a whole, and tell it from somebody else's.

Plain functions that raise OSError. A file of ours is a regular file with one name: no link is followed, and no pipe or
device is opened.
"""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "UNFINISHED",
    "Foreign",
    "identity",
    "inside",
    "mount_points",
    "open_written",
    "overlap",
    "replacing",
    "sync_folder",
    "write_whole",
]

PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Flags of every file that is opened here. Without O_NONBLOCK, opening a pipe would wait."""

UNFINISHED = ".hpa-merge.partial."
"""The prefix of a file that :func:`write_whole` has not finished; a killed run may leave one."""


class Foreign(OSError):
    """Something else is in the place of a file or a folder of ours; ``strerror`` says what."""

    def __init__(self, what: str) -> None:
        super().__init__(errno.EEXIST, what)


def open_written(
    path: str | Path, *, new: bool = False, missing: bool = False, dir_fd: int | None = None, mode: int = 0o666
) -> int:
    """Open a file of ours for reading and writing, and return its descriptor.

    Args:
        path: of the file; relative to ``dir_fd`` if that is given.
        new: create the file, which must not exist.
        missing: create the file if it does not exist.
        mode: permissions of a new file, before the umask.

    Raises:
        Foreign: it is a link, a pipe, a device or a folder, or it has other names.
        OSError: it cannot be opened.
    """
    create = os.O_CREAT | os.O_EXCL if new else os.O_CREAT if missing else 0
    if not new:
        with contextlib.suppress(FileNotFoundError):
            _check(os.stat(path, dir_fd=dir_fd, follow_symlinks=False))  # opening a device may have an effect
    try:
        descriptor = os.open(path, os.O_RDWR | PLAIN | create, mode, dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Foreign("it is a link") from error
        raise
    try:
        _check(os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(found: os.stat_result) -> None:
    """Raise Foreign, which says what it is, unless it is a regular file with one name."""
    if stat.S_ISLNK(found.st_mode):
        raise Foreign("it is a link")
    if stat.S_ISDIR(found.st_mode):
        raise Foreign("it is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise Foreign("it is a pipe, a socket or a device")
    if found.st_nlink > 1:
        raise Foreign("it is a hard link: the file has other names too")


@contextlib.contextmanager
def replacing(path: str | Path, *, through: bool = False) -> Iterator[BinaryIO]:
    """Replace the content of a file at once: at any moment the old or the new content is there, and it is durable.

    The block writes to a new file in the same folder, which is renamed at the end. So a link at ``path`` is replaced,
    never followed, and a file with other names keeps its content under those.

    Args:
        through: if ``path`` is a link, the user's own, replace the file that it leads to.

    Raises:
        Foreign: it is a folder, a pipe, a socket or a device.
        OSError: the disk refuses; the file is then unchanged.
    """
    target = os.path.realpath(path) if through else os.fspath(path)
    mode = None
    with contextlib.suppress(FileNotFoundError):
        there = os.lstat(target)
        if stat.S_ISREG(there.st_mode):
            if not os.access(target, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), target)
            mode = stat.S_IMODE(there.st_mode)
        elif not stat.S_ISLNK(there.st_mode):
            _check(there)
    folder = os.path.dirname(target)  # noqa: PTH120
    temporary = os.path.join(folder, f"{UNFINISHED}{secrets.token_hex(8)}")  # noqa: PTH118
    with os.fdopen(open_written(temporary, new=True), "wb") as file:
        try:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, target)  # noqa: PTH105 - a name that is not UTF-8 stays as it is
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108
            raise
    sync_folder(folder or ".")


def write_whole(path: str | Path, content: bytes, *, through: bool = False) -> None:
    """Replace the content of a file; arguments and errors as :func:`replacing`."""
    with replacing(path, through=through) as file:
        file.write(content)


def sync_folder(path: str | Path) -> None:
    """Make a folder's names durable, if the file system can; some network file systems cannot."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def identity(path: str | Path) -> tuple[int, int] | None:
    """Device and inode of a path, links followed, which identify it under any name; None if it does not exist."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return found.st_dev, found.st_ino


def mount_points(folder: Path) -> Iterator[Path]:
    """Mount points at ``folder`` or below it; those below, and bind mounts, on Linux only."""
    real = Path(os.path.realpath(folder))
    if real.is_mount():
        yield real
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
            name = line.split(b" ")[4].decode("latin-1")  # the kernel writes a blank as \040
            place = Path(os.fsdecode(name.encode("latin-1").decode("unicode_escape").encode("latin-1")))
            if place.is_relative_to(real):
                yield place


def inside(place: str | Path, folders: Iterable[str | Path]) -> Path | None:
    """The first of ``folders`` that ``place`` is or lies in; None if there is none. ``place`` need not exist.

    Paths are compared by device and inode, so a bind mount, a link, or another spelling on a file system that ignores
    case counts as the same folder.
    """
    above = _above(place)
    for each in map(Path, folders):
        if Path(os.path.realpath(place)).is_relative_to(os.path.realpath(each)) or above & _within(each):
            return each
    return None


def overlap(places: Iterable[Path], inputs: Iterable[str | Path]) -> tuple[Path, Path] | None:
    """The first of ``places`` that is, lies in or holds one of ``inputs``, with that input; None if there is none.

    Args:
        places: paths that need not exist; a link counts as its target.
    """
    given = [Path(each) for each in inputs]
    for place in places:
        if (found := inside(place, given)) is not None:
            return place, found
        for each in given:
            if inside(each, [place]) is not None:
                return place, each
    return None


def _above(place: str | Path) -> set[tuple[int, int]]:
    """The identities of ``place`` and of every folder above it, as far as they exist."""
    real = Path(os.path.realpath(place))
    return {found for path in (real, *real.parents) if (found := identity(path)) is not None}


def _within(place: Path) -> set[tuple[int, int]]:
    """The identities of ``place`` and of every folder below it; no link is followed."""
    real = os.path.realpath(place)
    names = [real, *(os.path.join(root, name) for root, folders, _ in os.walk(real) for name in folders)]  # noqa: PTH118
    return {found for path in names if not (path != real and os.path.islink(path)) and (found := identity(path))}  # noqa: PTH114
