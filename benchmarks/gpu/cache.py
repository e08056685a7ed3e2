"""The page cache: which files lie in it, and getting them out of it."""

import ctypes
import mmap
import os
from pathlib import Path


def weights(folder: Path, checkpoints: tuple[str, ...] = ("old", "new")) -> list[Path]:
    return [path for name in checkpoints for path in sorted((folder / name).glob("*.safetensors"))]


def drop_from_cache(files: list[Path]) -> float | None:
    """Ask that the files leave the page cache; the share of them that stayed, None where the system does not tell."""
    if not hasattr(os, "posix_fadvise"):
        return None
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return cached_share(files)


def cached_share(files: list[Path]) -> float | None:
    """How much of the files lies in the page cache, by ``mincore``; None where the system does not tell."""
    libc = ctypes.CDLL(None, use_errno=True)
    cached = pages = 0
    for path in files:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE) as view:  # writable: a copy
            count = -(-len(view) // mmap.PAGESIZE)
            states = (ctypes.c_ubyte * count)()
            start = ctypes.c_char.from_buffer(view)
            failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(len(view)), states)
            del start
        if failed:
            return None
        cached += sum(state & 1 for state in bytes(states))
        pages += count
    return cached / pages
