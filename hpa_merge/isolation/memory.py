"""Free memory of the machine and of the control groups of this process, as in a container."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["free_memory"]

VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = ("memory.max", "memory.current", "inactive_file")
"""For a control group: the file with its limit, the file with its use, and the key in memory.stat for cached files,
which the system drops when memory is short."""


def free_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that can be taken without swapping; None if the system does not tell.

    Args:
        proc: the system's folder about itself and this process.
        groups: the system's folder about control groups.
    """
    found: list[int] = []
    with suppress(OSError, ValueError, StopIteration):
        lines = (proc / "meminfo").read_text(encoding="ascii").splitlines()
        found.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")))
    with suppress(OSError, ValueError):
        for line in (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                found += _left(groups, path, VERSION_2)
            elif "memory" in controllers.split(","):
                found += _left(groups / "memory", path, VERSION_1)
    return min(found, default=None)


def _left(root: Path, path: str, names: tuple[str, str, str]) -> Iterator[int]:
    """The bytes that the limits of a group and of its parents leave; a container may see only the outermost."""
    limit, taken, files = names
    own = root / path.lstrip("/")
    for folder in (own, *own.parents):
        with suppress(OSError, ValueError, StopIteration):  # a group without a limit has no file, or the word max
            most, used = (int((folder / name).read_text(encoding="ascii")) for name in (limit, taken))
            lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
            dropped = next(int(line.split()[1]) for line in lines if line.split()[0] == files)
            yield max(0, most - used + dropped)
        if folder == root:
            return
