"""Every layout that people have becomes what it means, as calibration sample and as test; or is refused by name."""

import subprocess
import sys
from pathlib import Path

import pytest
from layout_cases import Case, render
from layout_table import CASES

from hpa_merge.calibration import read_samples
from hpa_merge.errors import CalibrationError, EvaluationError, InputError
from hpa_merge.evaluation.prompts import PromptFile
from hpa_merge.records import ReadingOptions

NAMES = [case.name for case in CASES]


def options(case: Case) -> ReadingOptions:
    return ReadingOptions(**case.options)


def place(path: Path, sentence: str) -> str:
    """A message without the place that it begins with."""
    start = str(path)
    assert sentence.startswith(start)
    return sentence.removeprefix(start).lstrip(":#0123456789 ")


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_a_layout_as_calibration_file(case: Case, tmp_path: Path) -> None:
    path = case.write(tmp_path)
    if case.refused:
        with pytest.raises(CalibrationError) as caught:
            read_samples(path, 9, 0, options(case), purpose=case.purpose)
        assert place(path, str(caught.value)) == case.refused.replace("{folder}", str(tmp_path))
        return
    made = read_samples(path, 9, 0, options(case), purpose=case.purpose)
    assert render(made.samples[0], tmp_path) == case.sample
    assert set(made.passed_over) == set(case.passed)
    assert made.dropped == case.dropped


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_a_layout_as_test_file(case: Case, tmp_path: Path) -> None:
    path = case.write(tmp_path)
    refused = case.refused if case.refused_test is None else case.refused_test
    if refused:
        with pytest.raises(InputError) as caught:
            PromptFile(path, case.purpose, options=options(case))
        assert isinstance(caught.value, CalibrationError if case.refused_test is None else EvaluationError)
        assert place(path, str(caught.value)) == refused.replace("{folder}", str(tmp_path))
        return
    file = PromptFile(path, case.purpose, options=options(case))
    first = next(iter(file))
    expected = case.sample.rpartition(" / ")[0] if case.prompt is None else case.prompt
    assert render(first.sample, tmp_path) == expected
    answer = case.sample.rpartition(" / assistant: ")[2] if case.sample else ""
    if case.references or not answer.startswith("("):
        assert first.references == (case.references or ((answer,) if answer else ()))
    assert first.choices == case.choices
    assert first.category == case.category or not case.category
    assert set(file.passed_over) == set(case.passed)


def test_rows_have_names_of_their_own_and_are_many() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 90


def test_the_table_of_the_documentation_is_up_to_date() -> None:
    script = Path(__file__).resolve().parents[2] / "docs" / "data_layouts.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or "python docs/data_layouts.py writes it anew"
