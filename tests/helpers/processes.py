"""Processes that a process has started, by /proc."""

import contextlib
from pathlib import Path


def descendants(number: int) -> list[int]:
    """Numbers of the processes that a process has started, and those that these have."""
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = (entry / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[1]
                found.setdefault(int(parent), []).append(int(entry.name))
    inner = found.get(number, [])
    return [*inner, *(deeper for child in inner for deeper in descendants(child))]
