"""Data sets in the containers that people have, written by the libraries that people write them with."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import feather, ipc, parquet

from hpa_merge.errors import CalibrationError
from hpa_merge.records import read_records

Records = Sequence[dict[str, Any]]

RECORDS = [
    {"prompt": "Wie heißt das?", "response": "Käse", "score": 1.5},
    {"prompt": "2 + 2", "response": "4\nfour", "score": None},
    {"prompt": "a, b; c\td", "response": '"quoted"', "score": -1.0},
]


def as_lines(records: Records) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def write_stream(path: Path, table: pyarrow.Table) -> None:
    """As ``datasets`` writes its files."""
    with path.open("wb") as file, ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=1000)


def save_to_disk(folder: Path, records: Records, shards: int = 1) -> None:
    """What ``Dataset.save_to_disk`` writes, which takes ten times as long to import."""
    folder.mkdir(parents=True)
    names = [f"data-{number:05}-of-{shards:05}.arrow" for number in range(shards)]
    for number, name in enumerate(names):
        write_stream(folder / name, pyarrow.Table.from_pylist(list(records[number::shards])))
    state = {"_data_files": [{"filename": name} for name in names], "_format_type": None, "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


def write_all(folder: Path, records: Records) -> dict[str, Path]:
    """The same records in every container, by what it is called."""
    table, lines = pyarrow.Table.from_pylist(list(records)), as_lines(records)
    contents = {
        "s.jsonl": lines,
        "s.ndjson": b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n"),
        "array.json": json.dumps(list(records)).encode(),
        "lines.json": lines,
        "data.json": json.dumps({"version": "1.0", "info": {"year": 2026}, "data": list(records)}).encode(),
        "pretty.json": json.dumps({"questions": list(records), "license": ["none"]}, indent=2).encode(),
        "s.jsonl.gz": gzip.compress(lines),
        "array.json.gz": gzip.compress(json.dumps(list(records)).encode()),
        "named.txt": gzip.compress(lines),
    }
    paths = {name: folder / name for name in contents}
    for name, content in contents.items():
        paths[name].write_bytes(content)
    parquet.write_table(table, folder / "s.parquet", row_group_size=2)
    feather.write_feather(table, folder / "s.feather", chunksize=2)
    write_stream(folder / "s.arrow", table)
    (folder / "parquet.bin").write_bytes((folder / "s.parquet").read_bytes())
    save_to_disk(folder / "saved", records)
    others = ("s.parquet", "s.feather", "s.arrow", "parquet.bin", "saved")
    return paths | {name: folder / name for name in others}


def refused(given: str | Path) -> str:
    """The sentence with which reading the records ends."""
    with pytest.raises(CalibrationError) as caught:
        list(read_records(given))
    return str(caught.value)


def exhaust(path: Path) -> None:
    """Read every record and keep none."""
    for _ in read_records(path):
        pass
