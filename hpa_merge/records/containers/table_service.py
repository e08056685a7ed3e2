"""What runs in the child process that reads Parquet and Arrow: rows as JSON, and the bytes that JSON cannot hold."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

from hpa_merge.errors import CalibrationError
from hpa_merge.records.containers.tables import ARROW_FILE, ARROW_STREAM, BYTES

__all__ = ["TableService"]

ANSWER = 2**23
"""Bytes of rows that are sent at a time; one longer row is sent alone."""

BATCH = 2**22
"""Bytes of which the rows of Parquet are read at a time, by what the file says of their size."""

MOST_ROWS = 1024

PART = 64
"""Rows of a batch of Arrow that become Python's values at a time."""

LARGEST = 2**28
"""Bytes of one row: 256 MiB. An image has some megabytes, a minute of sound ten."""


@final
class TableService:
    """The methods that :func:`hpa_merge.records.containers.tables.read_table` calls."""

    def __init__(self) -> None:
        self._rows: Iterator[tuple[bytes, list[bytes]]] = iter(())
        self._label = ""

    def open(self, path: Path, label: str) -> tuple[None, bytes]:
        """Open a file."""
        import pyarrow

        pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # the others reserve more than there may be
        pyarrow.set_cpu_count(1)
        self._label = label
        self._rows = self._read(path)
        return None, b""

    def rows(self) -> tuple[list[list[int]], bytes]:
        """The next rows: for each the length of its JSON and of what belongs to it, and all of that; none at the end.

        Raises:
            CalibrationError: the file is damaged.
        """
        sizes: list[list[int]] = []
        parts: list[bytes] = []
        taken = 0
        for text, blobs in self._rows:
            sizes.append([len(text), *map(len, blobs)])
            parts += [text, *blobs]
            taken += sum(sizes[-1])
            if taken >= ANSWER:
                break
        return sizes, b"".join(parts)

    def _read(self, path: Path) -> Iterator[tuple[bytes, list[bytes]]]:
        try:
            for number, row in enumerate(_rows_of(path, self._label), start=1):
                yield _packed(row, f"{self._label}:{number}")
        except (CalibrationError, MemoryError):
            raise
        except Exception as error:  # whatever the library raises
            said = " ".join(str(error).split())
            raise CalibrationError(
                f"{self._label} is damaged, or of a kind that pyarrow does not read ({type(error).__name__}: "
                f"{said:.200}): write or fetch it again."
            ) from error


def _rows_of(path: Path, label: str) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        head = file.read(8)
    batches = _arrow(path, head) if head.startswith((ARROW_FILE, ARROW_STREAM)) else _parquet(path)
    names: list[str] = []
    for batch in batches:
        if not names:
            names = batch.schema.names
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise CalibrationError(f'{label}: two columns have the name "{twice:.80}": rename one.')
        for start in range(0, batch.num_rows, PART):
            yield from batch.slice(start, PART).to_pylist()


def _parquet(path: Path) -> Iterator[Any]:
    """The rows of one group after another; pages are unpacked one at a time."""
    from pyarrow import parquet

    with parquet.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            each = max(1, group.total_byte_size // max(1, group.num_rows))
            rows = min(MOST_ROWS, max(1, BATCH // each))
            yield from file.iter_batches(batch_size=rows, row_groups=[number], use_threads=False)


def _arrow(path: Path, head: bytes) -> Iterator[Any]:
    from pyarrow import ipc, memory_map

    with memory_map(str(path)) as mapped:
        if head.startswith(ARROW_FILE):
            file = ipc.open_file(mapped)
            yield from (file.get_batch(number) for number in range(file.num_record_batches))
        else:
            yield from ipc.open_stream(mapped)


def _packed(row: dict[str, Any], where: str) -> tuple[bytes, list[bytes]]:
    """A row as JSON, and its bytes.

    Raises:
        CalibrationError: it is too large.
    """
    blobs: list[bytes] = []
    text = json.dumps(_plain(row, blobs), ensure_ascii=False, allow_nan=False).encode()
    if len(text) + sum(map(len, blobs)) > LARGEST:
        raise CalibrationError(f"{where}: the row has more than {LARGEST} bytes: take it out.")
    return text, blobs


def _plain(value: Any, blobs: list[bytes]) -> Any:
    """A value of Arrow's as JSON has it; bytes go to ``blobs``."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        blobs.append(value)
        return {BYTES: len(blobs) - 1}
    if isinstance(value, dict):
        if BYTES in value:
            raise ValueError("a column has a name that stands for bytes")
        return {str(name): _plain(item, blobs) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, blobs) for item in value]
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
