"""What results show in Python and in a notebook, and their data frames."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from report_samples import HOSTILE, evaluation, mixture, report, results

from hpa_merge.errors import ConfigError
from hpa_merge.evaluation.safety_set import SafetySet
from hpa_merge.evaluation.tuning import Tuning
from hpa_merge.publishing.upload import PushReport
from hpa_merge.report.evaluation import read_evaluation
from hpa_merge.report.inspecting import Inspection, Named
from hpa_merge.report.schema import MergeReport, read_report
from hpa_merge.report.showing import Shown
from hpa_merge.verification.findings import VerifyReport


def tuning() -> Tuning:
    first = results().models[0]
    return Tuning(first, first, {"p_max=10": first, "p_max=20": replace(first, name="b")}, "p_max=20", {})


RESULTS: dict[str, Callable[[], Shown]] = {
    "a merge of 18,192 linears": mixture,
    "a measured merge": lambda: replace(mixture(1, 8), evaluation=evaluation()),
    "an evaluation": results,
    "a tuning": tuning,
    "reports": lambda: Inspection((Named("out", "out", made := mixture(2, 8), made.linears),), (), by="depth"),
    "a verification": lambda: VerifyReport((), {"weight files": 1, "tensors from NEW": 2}, ("The names.",)),
    "a push": lambda: PushReport("", "", (), {"model.safetensors": 10}, (), (), ()),
    "a safety set": lambda: SafetySet((), 3, {"unsafe": 3}),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_is_short(name: str) -> None:
    result = RESULTS[name]()
    assert repr(result).startswith(f"<{type(result).__name__}: ")
    assert len(repr(result)) < 200
    html = result._repr_html_()
    assert html.startswith("<table>")
    assert len(html) < 10_000
    rows = result.rows()
    assert all(row.keys() == rows[0].keys() for row in rows)
    pandas = pytest.importorskip("pandas")
    frame = result.to_frame("pandas")
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == len(rows)


def test_the_verdict_comes_first() -> None:
    measured = RESULTS["a measured merge"]()
    assert measured.summary()[1][0] == ("safe again?", measured.verdict.answer)
    assert measured.verdict.gate in repr(measured)
    assert "1 weight file, 2 tensors from NEW" in RESULTS["a verification"]()._repr_html_()


def test_names_do_not_leave_their_cells() -> None:
    html = report((), architecture=HOSTILE)._repr_html_()
    assert "<img" not in html
    assert "<script" not in html


class Uneven(Shown):
    """A result whose rows have different columns."""

    def summary(self) -> tuple[str, list[tuple[str, str]]]:
        return "2 things", []

    def rows(self) -> list[dict[str, Any]]:
        return [{"a": 1}, {"a": 2, "b": "x"}]


def test_the_library_is_the_one_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, name, None)
        other = {"pandas": "polars", "polars": "pandas"}[name]
        monkeypatch.setitem(sys.modules, other, SimpleNamespace(DataFrame=lambda columns, of=other: (of, columns)))
        assert Uneven().to_frame() == (other, {"a": [1, 2], "b": [None, "x"]})
        with pytest.raises(ConfigError, match=rf"^{name} is not installed: install it, or use rows\(\)"):
            Uneven().to_frame(name)
    for name in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"(pandas or polars|polars or pandas) is not installed"):
        Uneven().to_frame()


def test_paths_are_strings_or_paths(tmp_path: Path) -> None:
    made: MergeReport = report(())
    (tmp_path / "hpa_report.json").write_text(made.to_json(), encoding="utf-8")
    (tmp_path / "e.json").write_text(results().to_json(), encoding="utf-8")
    assert read_report(str(tmp_path)) == read_report(tmp_path)
    assert read_evaluation(str(tmp_path / "e.json")) == read_evaluation(tmp_path / "e.json")
