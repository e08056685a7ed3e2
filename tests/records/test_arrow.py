"""Parquet, Arrow and the folders that ``save_to_disk`` of datasets writes."""

import datetime
import decimal
import math
from pathlib import Path

import pyarrow
import pytest
from data_files import RECORDS, exhaust, refused, save_to_disk, write_all, write_stream
from measured import measured
from pyarrow import parquet

from hpa_merge.records import read_records
from hpa_merge.records.containers import tables
from hpa_merge.records.containers.table_service import ANSWER

# --- Parquet and Arrow ---


def test_values_that_json_has_not(tmp_path: Path) -> None:
    day = datetime.datetime(2026, 2, 3, 4, 5)
    table = pyarrow.table(
        {
            "image": [{"bytes": b"\x89PNG\0", "path": "a.png"}],
            "pages": [[{"bytes": b"one", "path": None}, {"bytes": None, "path": "b.png"}]],
            "raw": [b"\xff\0"],
            "nan": [math.nan],
            "infinite": [[math.inf, 1.0]],
            "day": [day.date()],
            "time": [day],
            "nanoseconds": pyarrow.array([1], pyarrow.timestamp("ns")),
            "price": [decimal.Decimal("1.50")],
            "map": pyarrow.array([[("k", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
            "category": pyarrow.array(["a"]).dictionary_encode(),
            "long": pyarrow.array(["x"], pyarrow.large_string()),
            "messages": ['[{"role": "user", "content": "x"}]'],
            "empty": pyarrow.nulls(1),
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    write_stream(tmp_path / "a.arrow", table)
    for name in ("a.parquet", "a.arrow"):
        ((_, record),) = read_records(tmp_path / name)
        assert record == {
            "image": {"bytes": b"\x89PNG\0", "path": "a.png"},
            "pages": [{"bytes": b"one", "path": None}, {"bytes": None, "path": "b.png"}],
            "raw": b"\xff\0",
            "nan": None,
            "infinite": [None, 1.0],
            "day": "2026-02-03",
            "time": "2026-02-03T04:05:00",
            "nanoseconds": "1970-01-01T00:00:00.000000001",
            "price": "1.50",
            "map": [["k", 1]],
            "category": "a",
            "long": "x",
            "messages": [{"role": "user", "content": "x"}],
            "empty": None,
        }


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    twice = pyarrow.Table.from_arrays([pyarrow.array(["x"]), pyarrow.array(["y"])], names=["text", "text"])
    write_stream(tmp_path / "a.arrow", twice)
    assert refused(tmp_path / "a.arrow") == f'{tmp_path / "a.arrow"}: two columns have the name "text": rename one.'


def test_damage_in_the_middle_is_met_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": [str(number) for number in range(5000)]}), path, row_group_size=1000)
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 2] = b"\xff" * (len(content) // 2 - len(content) // 3)
    path.write_bytes(content)
    assert refused(path).startswith(f"{path} is damaged, or of a kind that pyarrow does not read (")


@pytest.mark.gate
def test_a_large_row_group_takes_bounded_memory(tmp_path: Path) -> None:
    """One group of 100 MB, most of it images: the reading process holds the rows in use and those read ahead."""
    path = tmp_path / "a.parquet"
    image = bytes(range(256)) * 400
    rows = [{"image": {"bytes": image, "path": f"{number}.png"}, "text": "x" * 100} for number in range(500)]
    table = pyarrow.Table.from_pylist(rows)
    parquet.write_table(pyarrow.concat_tables([table] * 2), path, compression="none", use_dictionary=False)
    assert path.stat().st_size > 100 * 10**6
    small = tmp_path / "small.parquet"
    parquet.write_table(table.slice(0, 1), small)
    few, taken = measured(exhaust, small), measured(exhaust, path)
    assert (few.error, taken.error) == (None, None)
    # Beyond what one row takes with its imports: the rows in use and those read ahead, each received and joined.
    assert taken.peak - few.peak < 4 * ANSWER


def test_without_the_library_the_command_to_install_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_all(tmp_path, RECORDS)["s.parquet"]
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    assert (
        refused(path)
        == f"{path} is Parquet or Arrow, which pyarrow reads: pip install '.[data]' in hpa-merge's checkout."
    )


# --- save_to_disk ---


def test_folders_of_save_to_disk(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "set", [{"text": str(number)} for number in range(5)], shards=2)
    found = list(read_records(tmp_path / "set"))
    assert [record["text"] for _, record in found] == ["0", "2", "4", "1", "3"]  # type: ignore[index]
    assert [place for place, _ in found] == [f"{tmp_path / 'set'}:{number}" for number in (1, 2, 3, 4, 5)]

    splits = tmp_path / "splits"
    for split in ("train", "test"):
        save_to_disk(splits / split, [{"text": split}])
    (splits / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert refused(splits) == (
        f"the calibration data {splits} has several splits: choose one of train, test, as in {splits}:train."
    )
    assert list(read_records(f"{splits}:test")) == [(f"{splits} test 1", {"text": "test"})]
    assert refused(f"{splits}:x").startswith(f"the calibration data {splits} has no split x: choose one of train, test")
    (splits / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert list(read_records(splits)) == [(f"{splits} train 1", {"text": "train"})]


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ('{"_data_files": [{"filename": "../../secret.arrow"}]}', "no file of its folder: save the data set again."),
        ('{"_data_files": []}', "is not as save_to_disk of datasets writes it: save the data set again."),
        ("[]", "is not as save_to_disk of datasets writes it: save the data set again."),
        ('{"_data_files": [{"filename": "a"}], "_indices_files": [{"filename": "b"}]}', "load it and save it again."),
    ],
)
def test_folders_that_are_not_as_save_to_disk_writes_them(tmp_path: Path, state: str, sentence: str) -> None:
    save_to_disk(tmp_path / "set", RECORDS)
    (tmp_path / "set" / "state.json").write_text(state)
    assert refused(tmp_path / "set").endswith(sentence)


def test_a_folder_has_its_own_files_alone(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "set", RECORDS)
    file = tmp_path / "set" / "data-00000-of-00001.arrow"
    file.rename(tmp_path / "secret.arrow")
    file.symlink_to(tmp_path / "secret.arrow")
    assert refused(tmp_path / "set") == (
        f"{file} is not read, because it is a link that leads out of the folder: put the file itself there."
    )
    file.unlink()
    assert refused(tmp_path / "set") == f"{file} cannot be read (No such file or directory): check the data set."


@pytest.mark.gate
def test_what_datasets_itself_saves_is_read(tmp_path: Path) -> None:
    import datasets

    made = datasets.Dataset.from_list(RECORDS)
    made.save_to_disk(tmp_path / "set", num_shards=2)
    datasets.DatasetDict({"train": made, "test": made.select([2, 0])}).save_to_disk(tmp_path / "splits")
    assert [record for _, record in read_records(tmp_path / "set")] == RECORDS
    assert [record for _, record in read_records(f"{tmp_path / 'splits'}:test")] == [RECORDS[2], RECORDS[0]]
