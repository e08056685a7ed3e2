"""``hpa-merge score``: the metrics of a sequence of tuning steps, and what is refused."""

import json
from pathlib import Path

import pytest
from evaluation_cases import rows, status

from hpa_merge.report.evaluation import Evaluation, Figure, ModelResult


def result(name: str, asr: float, **tasks: float) -> ModelResult:
    def figure(value: float) -> Figure:
        return Figure(value, value, value, 10)

    figures = {task: figure(value) for task, value in tasks.items()}
    return ModelResult(
        name, name, {"s": figure(asr)}, figures, {}, dict.fromkeys(tasks, "exact"), figure(asr), None, None
    )


def write(path: Path, *models: ModelResult) -> None:
    path.write_text(Evaluation(models, "phrases", {}).to_json())


STEPS = (
    result("base", 3, a=1, b=2, old=90),
    result("one", 13, a=80, b=2, old=80),
    result("two", 33, a=50, b=70, old=60),
)


def test_score_prints_the_metrics_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, model in zip((2, 9, 10), STEPS, strict=True):  # 10 comes after 9
        write(tmp_path / f"step{number}.json", model)
    assert status("score", tmp_path, "--tasks", "a,b") == 0
    table = rows(capsys.readouterr().out)
    for line in (
        "0 base (aligned) 3.0 1.0 2.0",
        "1 one a 13.0 80.0 2.0",
        "2 two b 33.0 50.0 70.0",
        "AP, average performance ↑ 60.0 70.0",
        "BWT, backward transfer ↑ -30.0",
        "just learned ↑ 75.0",
        "MASR, mean attack success ↓ 33.0 23.0",
        "DASR, its rise ↓ +30.0 +20.0",
    ):
        assert line in table
    assert status("score", tmp_path, "--tasks", "a,b", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ap"], found["bwt"], found["dasr"], found["tasks"]) == (60, -30, 30, ["a", "b"])


def test_score_reads_all_steps_from_one_file_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "all.json", *STEPS)
    assert status("score", tmp_path, "--tasks", "a,b") == 0
    assert "BWT, backward transfer ↑ -30.0" in rows(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("models", "options", "sentence"),
    [
        (STEPS, [], "there are 2 tuning steps after base and 3 tasks (a, b, old): name with --tasks those"),
        (STEPS[:1], [], "there are results of base alone: a sequence begins with the aligned model"),
        (STEPS, ["--tasks", "a,c"], "two, step 2, has no result on c, which was learned by then"),
        ((STEPS[0], ModelResult("x", "x", {}, STEPS[1].tasks, {}, {})), ["--tasks", "a"], "not all the safety sets of"),
        ((), [], "holds no results of an evaluation (it has no model)"),
    ],
)
def test_score_refuses_what_is_no_sequence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], models: tuple, options: list[str], sentence: str
) -> None:
    write(tmp_path / "all.json", *models)
    assert status("score", tmp_path, *options) == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "holds no results of an evaluation (Expecting"),
        ("[]", "hpa-merge eval --json did not write it"),
        (
            '{"format": "hpa-merge evaluation", "schema_version": 7}',
            "it has schema_version 7, and this version reads 1",
        ),
        ('{"format": "hpa-merge evaluation"}', "it has schema_version None, and this version reads 1"),
        ('{"format": "hpa-merge evaluation", "schema_version": 1, "models": [{"name": 3}]}', "holds no results"),
    ],
)
def test_score_refuses_files_of_something_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, sentence: str
) -> None:
    (tmp_path / "r.json").write_text(content)
    assert status("score", tmp_path) == 2
    assert sentence in capsys.readouterr().err
    (tmp_path / "r.json").unlink()
    assert status("score", tmp_path) == 2
    assert "holds no .json file" in capsys.readouterr().err
    assert status("score", tmp_path / "gone") == 2
    assert "cannot be read (No such file or directory)" in capsys.readouterr().err
