"""Files that commands write where the user says, such as ``--json`` and ``-o``: none costs a checkpoint or a file."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cases import TinyCase
from checkpoint_folders import everything, write_raw
from evaluation_cases import jsonl, status

from hpa_merge import merge
from hpa_merge.cli.model_options import check_place
from hpa_merge.errors import EvaluationError

JSON = '{\n "format": "hpa-merge evaluation",\n "schema_version": 1}'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A checkpoint that the command does not read."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    write_raw(folder / "model.safetensors", {}, b"")
    return folder


def refused(path: Path, **options: bool) -> str:
    before = everything(path.parent)
    with pytest.raises(EvaluationError) as caught:
        check_place("--json", path, [], **options)
    assert everything(path.parent) == before
    return str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "new.json", "tokenizer.json"])
def test_nothing_is_written_into_a_checkpoint(name: str, model: Path) -> None:
    assert f"would lie in the checkpoint {model}, which is never written to" in refused(model / name)


@pytest.mark.parametrize("name", ["config.json", "new.json", "model.safetensors"])
def test_nor_through_a_link(name: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "r.json").symlink_to(model / name)
    assert "would" in refused(tmp_path / "r.json")
    (tmp_path / "folder").symlink_to(model)
    assert "would lie in the checkpoint" in refused(tmp_path / "folder" / "r.json")


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "train.pt", "pytorch_model.bin.index.json"])
def test_a_file_of_weights_is_not_replaced(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(JSON)
    (tmp_path / "r.json").symlink_to(tmp_path / name)
    for path in (tmp_path / name, tmp_path / "r.json"):
        assert f"would replace the weight file {tmp_path / name}" in refused(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("package.json", '{"name": "mine"}'),
        ("report.json", '{"format": "other", "x": "hpa-merge "}'),
        ("table.csv", "name,phone\n"),
        ("out.csv", "out,of,office\n"),
        ("key.json", "-----BEGIN KEY-----"),
        ("notes", "work"),
    ],
)
def test_a_file_that_no_command_wrote_is_not_replaced(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert "would replace a file that hpa-merge did not write: choose another place, or move it" in refused(
        tmp_path / name
    )
    assert "would replace a file that hpa-merge did not write" in refused(tmp_path / name, overwrite=True)


@pytest.mark.parametrize("content", ["", JSON, '{"format":"hpa-merge inspection"}', "out,name,outcome,unit\n"])
def test_what_a_command_wrote_is_replaced(content: str, tmp_path: Path) -> None:
    (tmp_path / "r").write_text(content)
    check_place("--json", tmp_path / "r", [])


def test_a_picture_is_replaced_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "holiday.png").write_bytes(b"\x89PNG\r\n")
    assert "or give --overwrite" in refused(tmp_path / "holiday.png")
    check_place("--plot", tmp_path / "holiday.png", [], overwrite=True)
    (tmp_path / "secret.svg").write_bytes(b"-----BEGIN KEY-----")
    assert "would replace" in refused(tmp_path / "secret.svg", overwrite=True)


def test_a_folder_for_answers_is_no_checkpoint(model: Path) -> None:
    assert "change the checkpoint" in refused(model, folder=True)
    check_place("--answers", model.parent, [], folder=True)


def test_the_safety_set_is_written_into_no_checkpoint(model: Path, tmp_path: Path) -> None:
    from hpa_merge.errors import OutputError
    from hpa_merge.evaluation.safety_set import check_place

    (tmp_path / "s.jsonl").symlink_to(model / "model.safetensors")
    for place in (model / "s.jsonl", model / "config.json", tmp_path / "s.jsonl"):
        with pytest.raises(OutputError, match=r"would (lie in the checkpoint|replace the weight file)"):
            check_place(place, [], overwrite=True)


def test_answers_replace_nothing_else(
    tiny: Callable[..., TinyCase], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder for each model lies in the one that is given."""
    case, answers = tiny("llama"), tmp_path / "answers"
    tests = jsonl(tmp_path / "t.jsonl", {"prompt": "how?"})
    words = ["eval", case.old, "--safety-test", f"s={tests}", "--device", "cpu", "--max-new-tokens", 2]
    words += ["--answers", answers]
    mine = answers / "old" / "safety-s.jsonl"
    mine.parent.mkdir(parents=True)
    mine.write_text("work")
    assert status(*words) == 2
    assert f"{mine} would be replaced, and holds no answers of hpa-merge eval" in capsys.readouterr().err
    assert mine.read_text() == "work"
    mine.unlink()
    assert status(*words) == status(*words) == 0  # its own are replaced
    written = jsonl(mine, {"source": "t.jsonl:1", "prompt": "how?", "answer": "so"}).read_text()
    capsys.readouterr()
    words[words.index(f"s={tests}")] = f"s={mine}"
    assert status(*words) == 2
    assert f"{mine} would be replaced, and is a test file" in capsys.readouterr().err
    assert mine.read_text() == written
    mine.unlink()
    mine.parent.rmdir()
    mine.parent.symlink_to(case.new)
    before = everything(case.new)
    words[words.index(f"s={mine}")] = f"s={tests}"
    assert status(*words) == 2
    assert "would be written into the checkpoint" in capsys.readouterr().err
    assert everything(case.new) == before


def test_inspect_writes_over_nothing(
    tiny: Callable[..., TinyCase], tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, out = tiny("gpt2"), tmp_path / "out"
    merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task, page=False)
    (tmp_path / "link.json").symlink_to(model / "model.safetensors")
    before = everything(model)
    for place in (model / "config.json", tmp_path / "link.json"):
        assert status("inspect", out, "--json", "-o", place) == 2
        assert "Error: --output " in capsys.readouterr().err
    assert everything(model) == before
    for form in ("--json", "--csv"):
        place = tmp_path / f"r{form}"
        assert status("inspect", out, form, "-o", place) == status("inspect", out, form, "-o", place) == 0
