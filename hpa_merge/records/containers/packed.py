"""What a file is by its first bytes: gzip is unpacked within bounds, and foreign formats are refused by name."""

import gzip
import io
import os
from typing import BinaryIO, final

from hpa_merge.errors import CalibrationError

__all__ = ["GZIP", "HEAD", "Unpacked", "refuse_foreign"]

HEAD = 512
"""Bytes of a file that say what it is."""

GZIP = b"\x1f\x8b"

LEAST, RATIO = 2**26, 200
"""What a packed file may become: so many bytes, and so many for each of its own. JSON of data sets packs to a third up
to a thirtieth; gzip's format allows a thousandth, of which blank lines would be read for hours."""

UNPACK = "unpack it"
CONVERT = "save it as JSON Lines, CSV or Parquet"
FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "the pointer of a file that Git LFS has not fetched", "run git lfs pull"),
    (b"PK\x03\x04", "a zip archive or a spreadsheet", f"{UNPACK}, or {CONVERT}"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", UNPACK),
    (b"\xfd7zXZ", "packed with xz", UNPACK),
    (b"BZh", "packed with bzip2", UNPACK),
    (b"7z\xbc\xaf", "a 7z archive", UNPACK),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet or document", CONVERT),
    (b"FEA1", "Feather of version 1", "save it as version 2, or as Parquet"),
    (b"PARE", "encrypted Parquet", "save it unencrypted"),
    (b"\x80\x02", "a pickle, which could run code", CONVERT),
    (b"\x80\x03", "a pickle, which could run code", CONVERT),
    (b"\x80\x04", "a pickle, which could run code", CONVERT),
    (b"\x80\x05", "a pickle, which could run code", CONVERT),
    (b"\x89HDF", "HDF5", CONVERT),
    (b"SQLite format 3", "an SQLite database", CONVERT),
    (b"Obj\x01", "Avro", CONVERT),
    (b"ORC", "ORC", CONVERT),
    (b"%PDF", "a PDF", CONVERT),
    (b"<!DOCTYPE", "a web page", "fetch the file itself"),
    (b"<!doctype", "a web page", "fetch the file itself"),
    (b"<html", "a web page", "fetch the file itself"),
)
"""Beginnings of files that are no text of records: what they are, and what helps."""


def refuse_foreign(head: bytes, label: str) -> None:
    """Refuse a file by its beginning, of up to ``HEAD`` bytes.

    Raises:
        CalibrationError: it is nothing that is read.
    """
    found = next(((what, remedy) for magic, what, remedy in FOREIGN if head.startswith(magic)), None)
    if found is None and head[257:262] == b"ustar":
        found = "a tar archive", UNPACK
    if found is None and (head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head[:4]):
        found = "text in UTF-16 or UTF-32, or no text", "save it as UTF-8"
    if found is not None:
        raise CalibrationError(f"{label} is {found[0]}: {found[1]}.")


@final
class Unpacked(gzip.GzipFile):
    """A gzip file open for reading, which may not become more than its size allows."""

    def __init__(self, file: BinaryIO, label: str) -> None:
        super().__init__(fileobj=file, mode="rb")
        self._label, self._taken = label, 0
        self._most = max(LEAST, RATIO * os.fstat(file.fileno()).st_size)

    def read(self, size: int | None = -1) -> bytes:
        return self._counted(super().read(size))

    def readline(self, size: int | None = -1) -> bytes:
        return self._counted(super().readline(size))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._taken = super().seek(offset, whence)
        return self._taken

    def _counted(self, content: bytes) -> bytes:
        self._taken += len(content)
        if self._taken > self._most:
            raise CalibrationError(
                f"{self._label} unpacks to more than {self._most} bytes, {RATIO} for each of its own: no data set "
                "does, so check it, or unpack it yourself."
            )
        return content
