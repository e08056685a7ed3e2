"""CSV and TSV: a header, and one record a row; cells are text, an empty one and ``nan`` are null."""

import csv
import re
from collections.abc import Iterator
from typing import BinaryIO, final

from hpa_merge.counting import counted
from hpa_merge.errors import CalibrationError
from hpa_merge.files.parsing import LINE

__all__ = ["SUFFIXES", "read_delimited"]

SUFFIXES = (".csv", ".tsv", ".tab")

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons"}

NULLS = ("", "nan", "NaN", "<NA>")
"""Cells that hold nothing: how pandas and numpy print a value that is missing."""

_SAID = re.compile(r'"?sep=([,;\t|])"?')
"""Excel's first line, which says what separates the cells."""

INDEX = "Unnamed: 0"
"""What pandas calls a first column without a name: it is the index that its ``to_csv`` writes."""


def read_delimited(file: BinaryIO, label: str) -> Iterator[tuple[int, dict[str, object]]]:
    """Every row with its number, from 1; the header and rows without any content are not counted.

    Args:
        file: at its beginning, behind a byte mark.
        label: what the messages call the file.

    Raises:
        CalibrationError: it has no header whose names differ, a row of another length, a cell that does not end, a text
            that is not UTF-8.
    """
    csv.field_size_limit(max(csv.field_size_limit(), LINE.size))
    lines = _Lines(file, label)
    first = next(lines, "")
    said = _SAID.fullmatch(first.strip())
    if said:
        first = next(lines, "")
    lines.returned = first
    rows = csv.reader(lines, delimiter=said[1] if said else _separator(first, label), strict=True)
    number = 0
    header: list[str] = []
    while True:
        lines.begin(number if header else None)
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise CalibrationError(
                f"{lines.place}: not valid CSV ({error}): put cells with quotes or line feeds between quotes, and "
                "double the quotes inside."
            ) from None
        if row is None:
            return
        if not header:
            header = _header(row, label)
            continue
        if not any(row):
            continue
        number += 1
        if len(row) != len(header):
            raise CalibrationError(
                f"{label}: row {number} has {counted(len(row), 'cell')}, and the "
                f"header {counted(len(header), 'name')}: put cells that hold "
                "the separator or line feeds between quotes."
            )
        yield number, {name: _cell(name, text) for name, text in zip(header, row, strict=True)}


def _cell(name: str, text: str) -> object:
    if name == INDEX and text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    return None if text in NULLS else text


def _header(row: list[str], label: str) -> list[str]:
    names = [name.strip() for name in row]
    if names and not names[0]:
        names[0] = INDEX
    if "" in names:
        raise CalibrationError(f"{label}: column {names.index('') + 1} has no name: give the file a header.")
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise CalibrationError(
            f'{label}: two columns have the name "{twice:.80}": rename one; if that is no name, give the file a header.'
        )
    return names


def _separator(header: str, label: str) -> str:
    """What separates the names of a header: it is what stands there outside of quotes."""
    plain = "".join(header.split('"')[::2])
    found = [sign for sign in SEPARATORS if sign in plain]
    if len(found) > 1:
        raise CalibrationError(
            f"{label}: the header has {' and '.join(SEPARATORS[sign] for sign in found)}, and one of them separates "
            "its names: put names with the other between quotes, or rename them."
        )
    return found[0] if found else ","


@final
class _Lines:
    """The lines of a text, of which one row takes no more than ``LINE`` does.

    Attributes:
        returned: a line that comes once more.
        place: of the row that is being read, for messages.
    """

    def __init__(self, file: BinaryIO, label: str) -> None:
        self._file, self._label = file, label
        self._taken = 0
        self.returned = ""
        self.place = label

    def begin(self, behind: int | None) -> None:
        """The next row begins, behind so many; None: it is the header."""
        self._taken = 0
        self.place = f"{self._label}: {'the header' if behind is None else f'row {behind + 1}'}"

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.returned:
            line, self.returned = self.returned, ""
            return line
        raw = self._file.readline(LINE.size + 1)
        self._taken += len(raw)
        if self._taken > LINE.size:
            raise CalibrationError(
                f"{self.place} is longer than {LINE.size} bytes: look for a quote that does not end, or take it out."
            )
        if not raw:
            raise StopIteration
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CalibrationError(
                f"{self.place} has a byte that is not UTF-8 ({raw[error.start]:#04x}): save the file as UTF-8."
            ) from None
