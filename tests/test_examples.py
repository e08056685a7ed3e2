"""The examples do what their READMEs say: the command of the regression example gives the golden report."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest

from hpa_merge.cli import main

EXAMPLE = Path(__file__).parent.parent / "examples" / "ci_regression"


@pytest.fixture(scope="module")
def compare():
    spec = importlib.util.spec_from_file_location("compare", EXAMPLE / "compare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def merged(tmp_path, monkeypatch):
    """The example's folder with the result of the command that its README gives."""
    folder = tmp_path / "ci_regression"
    shutil.copytree(EXAMPLE, folder)
    monkeypatch.chdir(folder)
    command = next(line for line in Path("README.md").read_text().splitlines() if line.startswith("hpa-merge "))
    with pytest.raises(SystemExit) as stopped:
        sys.exit(main(command.split()[1:]))
    assert not stopped.value.code
    return folder


def test_the_regression_example_agrees_with_its_golden_report(merged, compare, capsys):
    assert compare.main("out/hpa_report.json", "golden_report.json") == 0
    assert capsys.readouterr().out.endswith("the reports agree\n")


def test_a_golden_report_of_another_schema_is_one_line(compare, capsys):
    earlier = EXAMPLE.parent.parent / "tests" / "report" / "version_1" / "january.json"
    assert compare.main(EXAMPLE / "golden_report.json", earlier) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("schema_version is 2 and was 1: ")


def test_the_comparison_finds_another_decision_and_a_figure_that_moved(compare, tmp_path, capsys):
    golden = json.loads((EXAMPLE / "golden_report.json").read_text())
    linear = golden["linears"][0]
    name = linear["name"]
    linear["n_restored"] += 1
    linear["alpha"] *= 1.01
    (tmp_path / "found.json").write_text(json.dumps(golden))
    assert compare.main(tmp_path / "found.json", EXAMPLE / "golden_report.json") == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" is ")[0] for line in lines] == [f"linears.{name}.alpha", f"linears.{name}.n_restored"]
