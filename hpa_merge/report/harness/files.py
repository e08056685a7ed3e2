"""Finds files of results, and reads them within bounds: JSON, and the header in a log of inspect-ai.

Such a log, ``*.eval``, is a zip archive. inspect-ai packs its members with zstd, which Python's zipfile lacks.
"""

import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, final

from hpa_merge.errors import EvaluationError, extra
from hpa_merge.files.parsing import Limits, parse_json, read_json
from hpa_merge.report.benchmarks import ROLES, Role

__all__ = ["Given", "content_of", "files_in", "given_of"]

RESULTS = Limits(2**28, 2**31)
"""A file of results. Those of lm-evaluation-harness have up to 2 MB; a log of inspect-ai in JSON has every sample."""

FILES = 2_000
"""The most files in a folder of results."""

MEMBERS = 2**26
"""The most bytes of an archive's directory, which zipfile reads whole: half a million samples take 50 MB."""

HEADER = "header.json"

ZSTD = 93
"""zstd in a zip archive."""


@final
@dataclass(frozen=True)
class Given:
    """What the user gave: a file or a folder, and whose results are in it if that was said."""

    path: Path
    role: Role | None = None


def given_of(word: str | Path) -> Given:
    """``old=FILE``, ``new=FILE``, ``out=FILE`` or ``FILE``; a folder likewise."""
    role, sign, path = str(word).partition("=")
    if sign and role.lower() in ROLES:
        return Given(Path(path), cast(Role, role.lower()))
    return Given(Path(word))


def files_in(folder: Path) -> list[Path]:
    """The JSON files and logs below a folder, by name; links to folders are not followed.

    Raises:
        EvaluationError: there are too many, or the folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise EvaluationError(
            f"the folder {error.filename} cannot be read ({error.strerror or error}): check its permissions."
        ) from error

    found: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += (Path(place) / name for name in sorted(names) if name.endswith((".json", ".eval")))
        if len(found) > FILES:
            raise EvaluationError(f"{folder} has more than {FILES} files: give the folder of one model's results.")
    return found


def content_of(path: Path) -> Any:
    """The JSON value of a file, or of the header of an archive.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not such a file, is too large, or is packed in a way that is not installed.
    """
    if path.suffix != ".eval":
        return read_json(path, RESULTS)
    if not path.is_file():
        raise FileNotFoundError(2, os.strerror(2), str(path))
    try:
        with zipfile.ZipFile(_checked(path)) as archive:
            if HEADER not in archive.namelist():
                raise ValueError(f"it has no {HEADER}: the run was not complete")
            member = archive.getinfo(HEADER)
            if max(member.file_size, member.compress_size) > RESULTS.size:
                raise ValueError(f"its {HEADER} is longer than {RESULTS.size} bytes")
            if member.compress_type == ZSTD:
                return parse_json(_unpacked(path, member), RESULTS)
            with archive.open(member) as file:
                return parse_json(file.read(RESULTS.size + 1), RESULTS)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ValueError(f"it is not a log of inspect-ai: {error}") from error


def _checked(path: Path) -> Path:
    """An archive whose directory has a possible size.

    Raises:
        ValueError: it has not.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2**16 - 22))
        end = file.read()
    place = end.rfind(b"PK\5\6")
    if place >= 0 and int.from_bytes(end[place + 12 : place + 16], "little") > MEMBERS:
        raise ValueError("its directory is too long")
    return path


def _unpacked(path: Path, member: zipfile.ZipInfo) -> bytes:
    """The content of a member that is packed with zstd.

    Raises:
        ValueError: pyarrow is not installed, or the content is broken.
    """
    try:
        import pyarrow
    except ImportError:
        raise ValueError(
            f"it is packed with zstd, which needs pyarrow: {extra('data')}, or write it as JSON with "
            "inspect log convert --to json"
        ) from None
    with path.open("rb") as file:
        file.seek(member.header_offset)
        head = file.read(30)
        file.seek(int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little"), os.SEEK_CUR)
        packed = file.read(member.compress_size)
    try:
        with pyarrow.CompressedInputStream(pyarrow.BufferReader(packed), "zstd") as stream:
            return bytes(stream.read(RESULTS.size + 1))
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(f"its {HEADER} is broken: {error}") from error


def named(given: Given) -> Iterator[tuple[Path, bool]]:
    """The files of what was given, each with whether it was named itself.

    Raises:
        EvaluationError: a folder cannot be read, or has too many files.
    """
    if given.path.is_dir():
        yield from ((path, False) for path in files_in(given.path))
    else:
        yield given.path, True
