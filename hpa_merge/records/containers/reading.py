"""A source becomes its records: what each file is, its first bytes decide, and its name only where they do not."""

import gzip
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from hpa_merge.errors import CalibrationError
from hpa_merge.files.names import advice_on
from hpa_merge.records.containers.cells import STRUCTURED, parse_cells
from hpa_merge.records.containers.delimited import SUFFIXES, read_delimited
from hpa_merge.records.containers.json_text import beginning, read_json_text
from hpa_merge.records.containers.packed import GZIP, HEAD, Unpacked, refuse_foreign
from hpa_merge.records.containers.source import DataSource, local_source
from hpa_merge.records.containers.tables import is_table, read_table
from hpa_merge.records.names import fold

__all__ = ["read_records"]


def read_records(
    given: str | Path | DataSource, kind: str = "calibration", names: Mapping[str, str] | None = None
) -> Iterator[tuple[str, object]]:
    """Every record with its place: ``file:line``, ``file:item`` of an array, ``file:row`` of a table.

    Args:
        given: a file, a folder of ``save_to_disk``, or what :func:`hpa_merge.inputs.data_sets.locate_data` found.
        kind: what the messages call it.
        names: the field of the file that holds what a layout calls otherwise, by the layout's name for it: its cells in
            a table are JSON where the layout's would be.

    Raises:
        CalibrationError: it cannot be read, or is none of the containers that are.
    """
    source = given if isinstance(given, DataSource) else local_source(given, kind)
    mapped = {found for wanted, found in (names or {}).items() if fold(wanted) in STRUCTURED}
    running = 0
    for file in source.files:
        label = str(file) if source.place is None else f"{source.place.strip(' :')} ({file.name})"
        try:
            for number, record in _records(file, label, source.field, kind):
                running += 1
                where = source.where(number, running)
                if isinstance(record, _Row):
                    record = parse_cells(record, where, mapped)
                yield where, record
        except FileNotFoundError:
            raise CalibrationError(f"the {kind} file {file} does not exist: {advice_on(file.name)}.") from None
        except (gzip.BadGzipFile, zlib.error, EOFError):
            raise CalibrationError(f"{label} is packed with gzip and not whole: fetch or pack it again.") from None
        except OSError as error:
            raise CalibrationError(
                f"the {kind} file {file} cannot be read ({error.strerror or error}): check the path."
            ) from None


class _Row(dict[str, object]):
    """The record of a row, whose cells may hold JSON as text."""


def _records(path: Path, label: str, field: str, kind: str) -> Iterator[tuple[int, object]]:
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise CalibrationError(f"the {kind} file {path} is a pipe or a device: give a file.")
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    with path.open("rb") as raw:
        head = raw.read(HEAD)
        raw.seek(0)
        if is_table(head):
            _without_field(field, label)
            yield from ((number, _Row(row)) for number, row in read_table(path, label))
            return
        file: BinaryIO = raw
        if head.startswith(GZIP):
            file = Unpacked(raw, label)  # type: ignore[assignment]  # it has all that is asked of one
            head = file.read(HEAD)
            file.seek(0)
            if is_table(head) or head.startswith(GZIP):
                raise CalibrationError(f"{label} is packed with gzip, and what is in it is no text: unpack it.")
        refuse_foreign(head, label)
        first = beginning(file)
        if suffix in SUFFIXES and not first.startswith((b"{", b"[")):
            _without_field(field, label)
            yield from ((number, _Row(row)) for number, row in read_delimited(file, label))
        else:
            yield from read_json_text(file, first, label, suffix, field)


def _without_field(field: str, label: str) -> None:
    if field:
        raise CalibrationError(f"{label} is one table, and has no {field} to choose: leave out :{field}.")
