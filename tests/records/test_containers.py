"""The containers: the same records come out of every one, and what cannot be read is refused with a sentence."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from data_files import RECORDS, as_lines, exhaust, refused, write_all
from measured import measured

from hpa_merge.calibration import read_samples
from hpa_merge.records import read_records
from hpa_merge.records.containers import packed


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_every_container_gives_the_same_records_and_counts_them_from_one(tmp_path: Path) -> None:
    for name, path in write_all(tmp_path, RECORDS).items():
        found = list(read_records(path))
        assert [record for _, record in found] == RECORDS, name
        assert [place for place, _ in found] == [f"{path}:{number}" for number in (1, 2, 3)], name


def test_samples_come_from_every_container_and_the_draw_is_the_same(tmp_path: Path) -> None:
    paths = write_all(tmp_path, [{key: record[key] for key in ("prompt", "response")} for record in RECORDS])
    drawn = {}
    for name, path in paths.items():
        found = read_samples(path, limit=2, seed=1)
        assert found.available == 3, name
        drawn[name] = [(sample.source.rpartition(":")[2], sample.turns) for sample in found.samples]
    assert all(each == drawn["s.jsonl"] for each in drawn.values())


# --- CSV and TSV ---

CSV = [
    ("a.csv", "prompt,response\nx,y\n", [{"prompt": "x", "response": "y"}]),
    ("a.CSV", "\ufeffprompt,response\r\nx,y\r\n", [{"prompt": "x", "response": "y"}]),
    ("a.tsv", "prompt\tresponse\nx, z\ty\n", [{"prompt": "x, z", "response": "y"}]),
    ("a.tab", "prompt\tresponse\nx\ty", [{"prompt": "x", "response": "y"}]),
    ("a.csv", "prompt;response\n1,5;y\n", [{"prompt": "1,5", "response": "y"}]),  # as spreadsheets write it
    ("a.csv", "goal\nx, y\n".replace("x, y", '"x, y"'), [{"goal": "x, y"}]),
    ("a.csv", '"a, b";c\n1;2\n', [{"a, b": "1", "c": "2"}]),
    ("a.csv", 'prompt,response\n"two\nlines","say ""no"""\n', [{"prompt": "two\nlines", "response": 'say "no"'}]),
    ("a.csv", "prompt,image\nx,\n\n,,\n".replace(",,", ","), [{"prompt": "x", "image": None}]),
    ("a.csv", "prompt , response\nNA, y\n", [{"prompt": "NA", "response": " y"}]),
    ("a.csv", ",prompt\n0,x\n7,y\n", [{"Unnamed: 0": 0, "prompt": "x"}, {"Unnamed: 0": 7, "prompt": "y"}]),
    ("a.csv", '{"prompt": "x"}\n', [{"prompt": "x"}]),  # JSON by its content
]


@pytest.mark.parametrize(("name", "content", "records"), CSV)
@pytest.mark.parametrize("zipped", [False, True])
def test_tables_of_text(tmp_path: Path, name: str, content: str, records: list[Any], zipped: bool) -> None:
    path = tmp_path / (f"{name}.gz" if zipped else name)
    path.write_bytes(gzip.compress(content.encode()) if zipped else content.encode())
    found = list(read_records(path))
    assert [record for _, record in found] == records
    assert [place for place, _ in found] == [f"{path}:{number}" for number in range(1, len(records) + 1)]


CELLS = [
    ('choices,q\n"[""a"", ""b""]",[x]\n', {"choices": ["a", "b"], "q": "[x]"}),
    ('messages\n"[{""role"": ""user"", ""content"": ""x""}]"\n', {"messages": [{"role": "user", "content": "x"}]}),
    ('images,answer\n"[""a.png""]","{""a"": 1}"\n', {"images": ["a.png"], "answer": '{"a": 1}'}),
    ('Choices\n"[\'a\', ""b\'s""]"\n', {"Choices": ["a", "b's"]}),
    ("Options\n\"{'A': None, 'B': True}\"\n", {"Options": {"A": None, "B": True}}),
    ("chosen\n\"[{'role': 'user', 'content': 'x'}]\"\n", {"chosen": [{"role": "user", "content": "x"}]}),
    ("image,img\n[1].png,\"['a.png']\"\n", {"image": "[1].png", "img": ["a.png"]}),
    ("image,choices\na.png,\n", {"image": "a.png", "choices": None}),
    ('input_ids\n"[1, 2]"\n', {"input_ids": [1, 2]}),
    (
        'chosen\n"[{""role"": ""assistant"", ""content"": ""x""}]"\n',
        {"chosen": [{"role": "assistant", "content": "x"}]},
    ),
    ('prompt,completion\n"[1, 2]","[{""a"": 1}]"\n', {"prompt": "[1, 2]", "completion": '[{"a": 1}]'}),
]


@pytest.mark.parametrize(("content", "record"), CELLS)
def test_cells_are_json_where_their_field_is_an_array_or_an_object(
    tmp_path: Path, content: str, record: dict[str, Any]
) -> None:
    assert [found for _, found in read_records(written(tmp_path / "a.csv", content))] == [record]


def test_a_field_that_is_mapped_to_one_has_json_too(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", 'opts,q\n"[""a""]","[""b""]"\n')
    assert next(read_records(path))[1] == {"opts": '["a"]', "q": '["b"]'}
    assert next(read_records(path, names={"choices": "opts", "question": "q"}))[1] == {"opts": ["a"], "q": '["b"]'}


BROKEN = [
    ("a.csv", "a,a\n1,2\n", ': two columns have the name "a": rename one; if that is no name, give the file a header.'),
    ("a.csv", "a,,c\n1,2,3\n", ": column 2 has no name: give the file a header."),
    (
        "a.csv",
        "a,b\tc\n1,2\n",
        ": the header has commas and tabs, and one of them separates its names: put names with ",
    ),
    ("a.csv", "a,b\n1,2\n3\n", ": row 2 has 1 cell, and the header 2 names: put cells that hold the separator or "),
    ("a.csv", "a,b\n1,2,3\n", ": row 1 has 3 cells, and the header 2 names: "),
    ("a.csv", 'a,b\n"1,2\n', ": row 1: not valid CSV (unexpected end of data): put cells with quotes or line feeds "),
    ("a.csv", 'a,b\n"1"x,2\n', ": row 1: not valid CSV (',' expected after '\"'): "),
    ("a.csv", "a,b\r1,2\r", ": the header: not valid CSV (new-line character seen in unquoted field"),
    ("a.csv", b"a,b\n1,\xe9\n", ": row 1 has a byte that is not UTF-8 (0xe9): save the file as UTF-8."),
    ("a.csv", "a,b\n1,2\n".encode("utf-16"), " is text in UTF-16 or UTF-32, or no text: save it as UTF-8."),
    ("a.jsonl", '{"text": "a"}'.encode("utf-16-le"), " is text in UTF-16 or UTF-32, or no text: save it as UTF-8."),
    (
        "a.csv",
        "choices\n\"['a' 'b']\"\n",
        ':1: the cell of "choices" begins like an array or an object and is none in ',
    ),
    ("a.csv", "answers\n\"['a'\n 'b']\"\n", ':1: the cell of "answers" begins like an array or an object and is none'),
    ("a.csv", 'answers\n"[1, {2}]"\n', ':1: the cell of "answers" begins like an array or an object and is none in '),
    (
        "a.csv",
        'choices\n"[nan, array([1])]"\n',
        ':1: the cell of "choices" begins like an array or an object and is none',
    ),
    (
        "a.tsv",
        'messages\n"[{""role"": }]"\n',
        ':1: the cell of "messages" begins like an array or an object and is none',
    ),
    ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\n", " is the pointer of a file that Git LFS has not "),
    ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", " is the pointer of a file that Git LFS has not "),
    ("a.xlsx", b"PK\x03\x04rest", " is a zip archive or a spreadsheet: unpack it, or save it as JSON Lines, CSV or "),
    ("a.jsonl.zst", b"\x28\xb5\x2f\xfdrest", " is packed with zstd: unpack it."),
    ("a.jsonl.xz", b"\xfd7zXZ\0", " is packed with xz: unpack it."),
    ("a.pkl", b"\x80\x04rest", " is a pickle, which could run code: save it as JSON Lines, CSV or Parquet."),
    ("a.json", b"<!DOCTYPE html><html>", " is a web page: fetch the file itself."),
    ("a.tar", b"a.txt".ljust(257, b"1") + b"ustar", " is a tar archive: unpack it."),
    (
        "a.jsonl.gz",
        gzip.compress(b'{"text": "a"}\n')[:-9],
        " is packed with gzip and not whole: fetch or pack it again.",
    ),
    ("a.jsonl.gz", b"\x1f\x8b\x08rest of it", " is packed with gzip and not whole: fetch or pack it again."),
    ("a.gz", gzip.compress(gzip.compress(b"{}")), " is packed with gzip, and what is in it is no text: unpack it."),
    ("a.gz", gzip.compress(b"PAR1...."), " is packed with gzip, and what is in it is no text: unpack it."),
    ("a.gz", gzip.compress(b"PK\x03\x04...."), " is a zip archive or a spreadsheet: "),
    ("a.parquet", b"PAR1 and nothing of it", " is damaged, or of a kind that pyarrow does not read (ArrowInvalid: "),
    (
        "a.feather",
        b"ARROW1\0\0 and nothing of it",
        " is damaged, or of a kind that pyarrow does not read (ArrowInvalid: ",
    ),
    ("a.arrow", b"\xff\xff\xff\xff\x10\0\0\0....", " is damaged, or of a kind that pyarrow does not read ("),
]


@pytest.mark.parametrize(
    ("name", "content", "sentence"), BROKEN, ids=[f"{name} {words:.30}" for name, _, words in BROKEN]
)
def test_what_cannot_be_read(tmp_path: Path, name: str, content: bytes | str, sentence: str) -> None:
    path = written(tmp_path / name, content)
    said = refused(path)
    assert said.startswith(f"{path}{sentence}")
    assert said.endswith(".")
    assert "\n" not in said


@pytest.mark.gate
def test_a_row_that_does_not_end_takes_no_more_than_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("wb") as file:
        file.write(b'a,b\n1,2\n3,"')
        for _ in range(40):
            file.write(b"x" * 2**20 + b"\n")
    taken = measured(exhaust, path)
    assert taken.error is not None
    assert taken.error[1] == (
        f"{path}: row 2 is longer than 16777216 bytes: look for a quote that does not end, or take it out."
    )
    assert taken.peak < 2**28


# --- one JSON object ---


def test_the_field_that_holds_the_records_can_be_chosen(tmp_path: Path) -> None:
    both = {"train": [{"text": "a"}], "note": "x", "test": [{"text": "b"}, {"text": "c"}]}
    path = written(tmp_path / "a.json", json.dumps(both))
    assert refused(path) == (
        f'{path} is one object with several arrays of records, "train" and "test": choose one, as in {path}:train.'
    )
    assert list(read_records(f"{path}:test")) == [(f"{path}:1", {"text": "b"}), (f"{path}:2", {"text": "c"})]
    assert refused(f"{path}:val") == (f'{path} has no array of objects "val": of its fields, arrays are test, train.')
    lines = written(tmp_path / "a.csv", "a\n1\n")
    assert refused(f"{lines}:train") == f"{lines} is one table, and has no train to choose: leave out :train."
    array = written(tmp_path / "b.json", '[{"text": "a"}]')
    assert refused(f"{array}:train") == f"{array} is one array, and has no field train: leave out :train."
    strange = written(tmp_path / "c:train", '{"text": "a"}')  # a path that exists wins
    assert list(read_records(strange)) == [(f"{strange}:1", {"text": "a"})]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    "record",
    [
        {"messages": [{"role": "user", "content": "x"}]},
        {"conversations": [{"from": "human", "value": "x"}], "id": "1"},
        {"instruction": "x", "response": "y", "tags": ["a"]},
        {"text": "x"},
    ],
)
def test_one_object_may_be_one_record(tmp_path: Path, record: dict[str, Any], indent: int | None) -> None:
    path = written(tmp_path / "a.json", json.dumps(record, indent=indent))
    assert list(read_records(path)) == [(f"{path}:1", record)]


def test_an_object_that_may_be_either_is_refused_but_on_a_line(tmp_path: Path) -> None:
    record = {"sources": [{"page": 1}], "instruction": "x", "response": "y"}
    lines = written(tmp_path / "a.jsonl", as_lines([record]))
    assert [found for _, found in read_records(lines)] == [record]
    path = written(tmp_path / "a.json", json.dumps(record, indent=1))
    assert refused(path) == (
        f'{path} is one object with "instruction" and an array "sources", so that it may be one record or hold '
        f"several: choose those with {path}:sources, or write the record on one line of JSON Lines."
    )


@pytest.mark.gate
def test_records_with_names_are_not_held(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with path.open("w") as file:
        file.write("{\n")
        file.writelines(f'"{number}": {{"text": "{"x" * 1000}"}},\n' for number in range(20_000))
        file.write('"last": 1}')
    taken = measured(exhaust, path)
    assert taken.error is not None
    assert taken.error[1].startswith(f"{path} is one object of more than 16777216 bytes that holds no array of records")
    assert taken.peak < 2**28


# --- gzip ---


def test_what_gzip_becomes_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "LEAST", 2**12)
    path = written(tmp_path / "a.jsonl.gz", gzip.compress(b"\n" * 2**20))
    most = packed.RATIO * path.stat().st_size
    assert refused(path) == (
        f"{path} unpacks to more than {most} bytes, 200 for each of its own: no data set does, so check it, or unpack "
        "it yourself."
    )
