"""The two focus scores of a weight's columns as a histogram, which fits into some hundred characters.

The plane of ``log10 ε̄`` and ``log10 ζ̄`` is divided into cells of a quarter decade. A cell counts its columns, and those
of them that are restored.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

__all__ = ["CELLS_PER_DECADE", "Cells", "join_cells", "pack_cells", "pack_runs", "unpack_cells"]

CELLS_PER_DECADE = 4

Cells = Mapping[tuple[int, int], tuple[int, int]]
"""By ``(i, j)``: the number of columns with ``⌊4 log10 ε̄⌋ = i`` and ``⌊4 log10 ζ̄⌋ = j``, and of restored ones."""


def pack_cells(cells: Cells) -> str:
    """Cells as text for :class:`hpa_merge.report.records.LinearRecord`: ``i,j,columns,restored`` and spaces."""
    return " ".join(f"{i},{j},{columns},{restored}" for (i, j), (columns, restored) in sorted(cells.items()))


def unpack_cells(packed: str) -> dict[tuple[int, int], tuple[int, int]]:
    """The inverse of :func:`pack_cells`.

    Raises:
        ValueError: the text holds something else.
    """
    cells = {}
    for cell in packed.split():
        i, j, columns, restored = map(int, cell.split(","))
        cells[i, j] = columns, restored
    return cells


def pack_runs(cells: Cells) -> str:
    """Cells as shorter text, for the page: runs ``i,j,counts…`` of cells side by side, separated by blanks.

    ``j`` is that of the first cell. Each count of columns is hexadecimal, and ``.restored`` follows if that is not 0.
    """
    runs: list[str] = []
    for (i, j), (columns, restored) in sorted(cells.items()):
        start = "," if (i, j - 1) in cells else f" {i},{j},"
        runs.append(f"{start}{columns:x}.{restored:x}" if restored else f"{start}{columns:x}")
    return "".join(runs).strip()


def join_cells(several: Iterable[Cells]) -> dict[tuple[int, int], tuple[int, int]]:
    """The sum of the cells of several weights."""
    columns: Counter[tuple[int, int]] = Counter()
    restored: Counter[tuple[int, int]] = Counter()
    for cells in several:
        for place, (of_cell, of_restored) in cells.items():
            columns[place] += of_cell
            restored[place] += of_restored
    return {place: (count, restored[place]) for place, count in columns.items()}
