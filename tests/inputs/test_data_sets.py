"""Data sets by their names on the Hub, against a server on this machine that speaks as the Hub does."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pyarrow
import pytest
from cases import TinyCase
from data_files import as_lines
from hub_server import Hub, Repository, serve
from huggingface_hub import constants
from pyarrow import parquet

import hpa_merge
from hpa_merge.errors import CalibrationError, OutputError
from hpa_merge.evaluation.collecting import Suite
from hpa_merge.inputs import data_sets
from hpa_merge.inputs.data_sets import locate_data
from hpa_merge.inputs.names import is_data_set
from hpa_merge.records import read_records
from hpa_merge.report.redaction import _places_of

NAME = "lab/refusals"

CONFIGS = """---
configs:
- config_name: main
  default: true
  data_files:
  - split: train
    path: data/train-*.parquet
  - split: test
    path: data/test.parquet
- config_name: extra
  data_files: more/*.parquet
---
# Refusals
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with a data set of two configurations; the cache is empty."""
    served = tmp_path / "served"
    (served / "data").mkdir(parents=True)
    (served / "more").mkdir()
    prompts = {f"data/train-{number:05}-of-00002": [f"p{number}a", f"p{number}b"] for number in range(2)}
    for name, texts in (prompts | {"data/test": ["t"], "more/x": ["m"]}).items():
        parquet.write_table(pyarrow.table({"prompt": texts}), served / f"{name}.parquet")
    (served / "README.md").write_text(CONFIGS)
    (served / "refusals.py").write_text("raise SystemExit('run')")
    hub = Hub({f"datasets/{NAME}": Repository({"main": served})})
    stop = serve(hub)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "cache" / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between two tries
    huggingface_hub.close_session()
    yield hub
    huggingface_hub.close_session()
    stop()


def served(hub: Hub, name: str = NAME) -> Path:
    return hub.repositories[f"datasets/{name}"].branches["main"]


def commit(hub: Hub, name: str = NAME, branch: str = "main") -> str:
    return hub.repositories[f"datasets/{name}"].commits[branch]


def refused(given: str) -> str:
    with pytest.raises(CalibrationError) as caught:
        locate_data(given)
    return str(caught.value)


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()


def test_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["a/b", "a/b:train", "a/b:main:train", "a/b@v1", "a/b:main:train@refs/convert/parquet", "A1.x/b_c-d.e:x"]
    paths = ["b", "a/b.jsonl", "a/b.parquet", "a/b.JSON", "a/b.csv.gz", "./a/b", "/a/b", "a/b/c", "a/b:c:d:e", "a/b@"]
    assert [given for given in names + paths if is_data_set(given)] == names
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert not any(map(is_data_set, ["a/b", "a/b:train", Path("a/b")]))


def test_the_files_of_a_split_are_read_at_one_commit(hub: Hub) -> None:
    found = locate_data(f"{NAME}:train")
    assert (found.commit, found.name, found.note) == (commit(hub), f"{NAME}:train", "")
    places, records = zip(*read_records(found), strict=True)
    assert [record["prompt"] for record in records] == ["p0a", "p0b", "p1a", "p1b"]
    assert list(places) == [f"{NAME}@{commit(hub)[:12]} train {number}" for number in (1, 2, 3, 4)]
    assert hub.fetched() == {"README.md", "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"}


@pytest.mark.gate
@pytest.mark.parametrize(
    ("given", "prompts"),
    [(":test", ["t"]), (":main:test", ["t"]), (":extra", ["m"]), (":extra:train", ["m"]), (":extra@main", ["m"])],
)
def test_configurations_and_splits(hub: Hub, given: str, prompts: list[str]) -> None:
    assert [record["prompt"] for _, record in read_records(locate_data(NAME + given))] == prompts  # type: ignore[index]


@pytest.mark.gate
@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("", "has several splits: choose one of train, test, as in lab/refusals:main:train."),
        (":main", "has several splits: choose one of train, test, as in lab/refusals:main:train."),
        (":val", "has no split val: choose one of train, test, as in lab/refusals:main:train."),
        (":extra:test", "has no split test: choose one of train, as in lab/refusals:extra:train."),
        (":x:train", "has no configuration x: choose one of main, extra, as in lab/refusals:main."),
        ("@v9", ": the Hub has no revision v9 of it: give a branch, a tag or a commit of "),
    ],
)
def test_what_cannot_be_chosen(hub: Hub, given: str, sentence: str) -> None:
    said = refused(NAME + given)
    assert said.startswith(f"the calibration data {NAME}{given}{' ' if sentence[0] != ':' else ''}{sentence}")
    assert said.endswith(".")


@pytest.mark.gate
def test_configurations_without_a_default(hub: Hub) -> None:
    (served(hub) / "README.md").write_text(CONFIGS.replace("  default: true\n", ""))
    said = "has several configurations: choose one of main, extra, as in lab/refusals:main."
    assert refused(NAME) == f"the calibration data {NAME} {said}"


@pytest.mark.gate
def test_names_of_files_say_the_splits_where_no_readme_does(hub: Hub) -> None:
    (served(hub) / "README.md").unlink()
    shutil.rmtree(served(hub) / "more")
    (served(hub) / "data" / "test.parquet").unlink()
    assert len(list(read_records(locate_data(NAME)))) == 4


@pytest.mark.gate
def test_the_code_of_a_data_set_is_never_run(hub: Hub) -> None:
    for name in ("data", "more"):
        shutil.rmtree(served(hub) / name)
    assert refused(NAME) == (
        f"the calibration data {NAME} is made by code of its own (refusals.py), which is never run: give its Parquet "
        f"copy, {NAME}@refs/convert/parquet, where the Hub has one."
    )


@pytest.mark.gate
def test_the_hub_s_own_copy_in_parquet_keeps_configurations_apart(hub: Hub, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for config, split in (("a", "train"), ("a", "test"), ("b", "train")):
        (copy / config / split).mkdir(parents=True)
        parquet.write_table(pyarrow.table({"text": [f"{config} {split}"]}), copy / config / split / "0000.parquet")
    branch = "refs/convert/parquet"
    hub.repositories["datasets/lab/old"] = Repository({"main": served(hub), branch: copy})
    found = locate_data(f"lab/old:b@{branch}")
    assert [record for _, record in read_records(found)] == [{"text": "b train"}]
    assert found.commit == commit(hub, "lab/old", branch)
    assert "several configurations: choose one of a, b" in refused(f"lab/old@{branch}")


@pytest.mark.gate
@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (("a.jpg", "b.jpg"), "no file of JSON, CSV, Parquet or Arrow: check the name, or give a file."),
        (("a.txt", "b.txt", "notes.json"), "files such as a.txt, and only JSON, CSV, Parquet and Arrow are read: "),
    ],
)
def test_files_of_other_kinds_are_refused(hub: Hub, tmp_path: Path, files: tuple[str, ...], sentence: str) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in files:
        (folder / name).write_bytes(b"x")
    hub.repositories["datasets/lab/pictures"] = Repository({"main": folder})
    said = refused("lab/pictures")
    assert said.startswith(f"the calibration data lab/pictures holds {sentence}")


@pytest.mark.gate
def test_a_folder_as_hf_download_leaves_it(hub: Hub) -> None:
    folder = served(hub)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "train.parquet").write_bytes(b"no part of it")
    found = locate_data(f"{folder}:train")
    assert [place for place, _ in read_records(found)] == [f"{folder} train {number}" for number in (1, 2, 3, 4)]
    assert (found.guarded, found.commit) == (folder, "")
    assert [record for _, record in read_records(locate_data(f"{folder}:extra:train"))] == [{"prompt": "m"}]
    assert refused(str(folder)) == (
        f"the calibration data {folder} has several splits: choose one of train, test, as in {folder}:main:train."
    )


@pytest.mark.gate
@pytest.mark.parametrize(
    "readme",
    [
        "---\nconfigs: 3\n---\n",
        "---\nconfigs:\n- data_files: x\n---\n",
        "---\n[\n---\n",
        "---\nconfigs:\n- config_name: a\n  data_files: ../../x.json\n---\n",
    ],
)
def test_readmes_that_say_nothing_of_use(hub: Hub, readme: str) -> None:
    (served(hub) / "README.md").write_text(readme)
    said = refused(NAME)
    assert said.startswith(f"the calibration data {NAME}: it cannot be known which files belong together (")
    assert "/tmp" not in said


@pytest.mark.gate
def test_offline_the_cache_is_read(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = list(read_records(locate_data(f"{NAME}:train")))
    offline(monkeypatch)
    found = locate_data(f"{NAME}:train")
    assert list(read_records(found)) == expected
    assert found.note == (
        f"{NAME}:train came from the cache as of commit {commit(hub)[:12]}, because the Hub could not be asked."
    )
    assert refused(f"{NAME}:test") == (
        f"the calibration data {NAME}:test: data/test.parquet is not in the cache, and HF_HUB_OFFLINE keeps the Hub "
        "out of reach: run it once with access to the Hub."
    )
    assert refused("lab/other") == (
        "the calibration data lab/other is no file or folder here and not in the cache, and HF_HUB_OFFLINE keeps the "
        "Hub out of reach: check the name, or run it once with access to the Hub."
    )


@pytest.mark.gate
def test_private_gated_and_missing(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused("lab/none") == (
        "the calibration data lab/none is no file or folder here, and no data set on the Hub that you may see: check "
        "the name, or, if it is private, log in with 'hf auth login'."
    )
    repository = hub.repositories[f"datasets/{NAME}"]
    repository.private = True
    assert "no data set on the Hub that you may see" in refused(f"{NAME}:train")
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 30)
    assert locate_data(f"{NAME}:test").files
    repository.gated = True
    assert refused(f"{NAME}:train") == (
        f"the calibration data {NAME}:train is gated, and you may not read it: ask for access at "
        f"{hub.address}/datasets/{NAME}, then log in with 'hf auth login'."
    )


def test_without_the_library_the_command_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_sets, "find_spec", lambda name: None)
    assert refused(NAME) == (
        f"the calibration data {NAME} is no file or folder here, and data sets on the Hub are read with the library "
        "datasets: pip install '.[data]' in hpa-merge's checkout."
    )


@pytest.mark.gate
def test_a_merge_with_a_data_set_of_the_hub(hub: Hub, tiny: Callable[..., TinyCase], tmp_path: Path) -> None:
    case = tiny("llama")
    data = [json.loads(line) for line in case.safety.read_text().splitlines()]
    shutil.rmtree(served(hub) / "more")
    (served(hub) / "README.md").unlink()
    for path in (served(hub) / "data").iterdir():
        path.unlink()
    (served(hub) / "data" / "train.jsonl").write_bytes(as_lines(data))
    options = {"task_calib": case.task, "page": False}
    local = hpa_merge.merge(case.old, case.new, tmp_path / "local", safety_calib=case.safety, **options)
    report = hpa_merge.merge(case.old, case.new, tmp_path / "out", safety_calib=NAME, **options)
    assert report.safety is not None
    assert report.safety.file == NAME
    assert report.run.commits == {NAME: commit(hub)}
    assert report.run.contents["out"] == local.run.contents["out"]
    assert f"--safety-calib {NAME}@{commit(hub)}" in (tmp_path / "out" / "README.md").read_text()
    inside = Path(constants.HF_HUB_CACHE) / "datasets--lab--refusals" / "out"
    with pytest.raises(OutputError):
        hpa_merge.merge(case.old, case.new, inside, safety_calib=NAME, **options)
    assert not os.path.lexists(inside)


def test_an_evaluation_says_the_commits_and_keeps_the_names(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "tests.jsonl").write_bytes(as_lines([{"prompt": "p"}]))
    local = str(tmp_path / "tests.jsonl")
    suite = Suite.of({"hub": f"{NAME}:test", "local": local}, {}, {}, {})
    assert suite.commits == {f"{NAME}:test": commit(hub)}
    evaluation = {"files": suite.files, "run": {"commits": suite.commits}}
    assert list(_places_of(evaluation, set())) == [local]
