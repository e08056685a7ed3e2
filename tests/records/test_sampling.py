"""Files: JSON Lines and arrays, their faults by name and number, and the draw."""

import json
import random
from pathlib import Path

import pytest
from media import picture

from hpa_merge.calibration import read_samples
from hpa_merge.errors import CalibrationError
from hpa_merge.records import Sample


def write(path: Path, *records: object) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    return path


def read_all(path: Path) -> list[Sample]:
    return list(read_samples(path, limit=100, seed=0).samples)


def test_lines_are_numbered_from_one_and_blank_ones_skipped(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes('\ufeff\n{"text": "a\u2028b"}\r\n \n{"text": "ü"}\n'.encode())
    assert read_all(path) == [Sample(f"{path}:2", text="a\u2028b"), Sample(f"{path}:4", text="ü")]


def test_an_array_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps([{"text": "a"}, {"text": "b"}], indent=2))
    assert read_all(path) == [Sample(f"{path}:1", text="a"), Sample(f"{path}:2", text="b")]


def test_sources_name_the_file_as_the_user_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("s.jsonl"), {"text": "a"})
    assert read_all(Path("s.jsonl"))[0].source == "s.jsonl:1"


def test_images_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").touch()
    path = write(tmp_path / "data" / "s.jsonl", {"prompt": "x", "output": "y", "image": "a.png"})
    assert read_all(path)[0].images == (picture(tmp_path / "data" / "a.png"),)


def test_the_draw_is_seeded_and_in_file_order(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", *({"text": str(number)} for number in range(50)))
    texts = [int(sample.text or "") for sample in read_samples(path, limit=8, seed=3).samples]
    assert texts == sorted(random.Random(3).sample(range(50), 8))
    assert texts == [int(sample.text or "") for sample in read_samples(path, limit=8, seed=3).samples]
    assert texts != [int(sample.text or "") for sample in read_samples(path, limit=8, seed=4).samples]


@pytest.mark.parametrize("limit", [3, 4])
def test_a_small_file_is_taken_whole(tmp_path: Path, limit: int) -> None:
    path = write(tmp_path / "s.jsonl", {"text": "c"}, {"text": "a"}, {"text": "b"})
    assert [sample.text for sample in read_samples(path, limit=limit, seed=1).samples] == ["c", "a", "b"]


def test_the_limit_counts_samples_and_not_lines(tmp_path: Path) -> None:
    pairs = [{"safe_instruction": str(number), "response": "No."} for number in range(3)]
    path = write(tmp_path / "s.jsonl", {"instr-resp": pairs}, {"text": "a"})
    assert len(read_samples(path, limit=2, seed=0).samples) == 2
    assert [sample.source for sample in read_all(path)] == [f"{path}:1#1", f"{path}:1#2", f"{path}:1#3", f"{path}:2"]


JSON_HINT = "write one JSON object a line, or one array"
BROKEN = [
    (b"", " holds no sample: write one JSON object a line."),
    (b"\n \n", " holds no sample: write one JSON object a line."),
    (b"[]", " holds no sample: write one JSON object a line."),
    (b'{"text": "a"}\nnot json', f":2: not valid JSON at column 1 (Expecting value): {JSON_HINT}."),
    (b'{"text": "a"', f":1: not valid JSON at column 13 (Expecting ',' delimiter): {JSON_HINT}."),
    (b'{"text": "a"} {"text": "b"}', f":1: not valid JSON at column 15 (Extra data): {JSON_HINT}."),
    (b'[\n{"text": "a"}\nx]', f": not valid JSON at line 3 column 1 (Expecting ',' delimiter): {JSON_HINT}."),
    (b'{"text": "a"}\n{"text": "\xff"}', ":2: byte 11 is not UTF-8: save the file as UTF-8."),
    (b'{"text": "a"}\n{"text": ""}', ':2: "text" is empty: give it a text or remove the sample.'),
    (b'[{"text": "a"}, {"text": 3}]', ':2: "text" is a number: give a string.'),
    (
        b'{"input_ids": [' + b"9" * 5000 + b"]}",
        ":1: this JSON is too large to be read: write shorter numbers and nest less deeply.",
    ),
    (b'{"a": ' + b"[" * 100_000, ":1: this JSON is too large to be read: write shorter numbers and nest less deeply."),
]


@pytest.mark.parametrize(("content", "sentence"), BROKEN)
def test_broken_files(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(content)
    with pytest.raises(CalibrationError) as caught:
        read_samples(path, limit=1, seed=0)
    assert str(caught.value) == f"{path}{sentence}"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError) as caught:
        read_all(tmp_path / "s.jsonl")
    assert str(caught.value) == f"the calibration file {tmp_path / 's.jsonl'} does not exist: check the path."
    with pytest.raises(CalibrationError) as caught:
        read_all(tmp_path)
    assert str(caught.value) == (
        f"the calibration data {tmp_path} is a folder, and none that save_to_disk of datasets wrote: give a file of it."
    )
