"""``hpa-merge inspect`` for programs: CSV, JSON, the function in Python, and a start without torch."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cases import REPORT
from inspecting import command, csv_of

import hpa_merge
from hpa_merge.errors import ConfigError
from hpa_merge.report.rows import COLUMNS, GROUP_COLUMNS, ranges
from hpa_merge.report.schema import MergeReport, read_report

pytestmark = pytest.mark.usefixtures("eighty_columns")


def test_csv(outs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_of(capsys, outs / "out1", outs / "out3"))))
    reports = {name: read_report(outs / name) for name in ("out1", "out3")}
    assert len(rows) == sum(len(report.linears) for report in reports.values())
    assert list(rows[0]) == ["out", *COLUMNS]
    for row, (name, record) in zip(rows, [(n, r) for n, x in reports.items() for r in x.linears], strict=True):
        assert (row["out"], row["name"], row["outcome"]) == (name, record.name, record.outcome)
        assert row["alpha"] == ("" if record.alpha is None else repr(record.alpha))
        assert row["restored_columns"] == ranges(record.restored_columns)
        assert float(row["distance"]) == record.distance
    for by in ("depth", "projection"):
        found = list(csv.DictReader(io.StringIO(csv_of(capsys, outs / "out1", "--by", by))))
        assert list(found[0]) == ["out", *GROUP_COLUMNS[by]]
    assert command(outs / "out1", "--csv", "-o", tmp_path / "file.csv") == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "file.csv").read_text() == csv_of(capsys, outs / "out1")


PACKED = ("restored", "new_columns", "what_if")
"""Fields of a linear that rows leave out, or show in another form."""


def test_json(outs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(outs / "out2", outs / "out3", "--json", "--layer", "lm_head") == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["format"], content["schema_version"], content["by"]) == ("hpa-merge inspection", 2, "linear")
    for each, name in zip(content["reports"], ("out2", "out3"), strict=True):
        report = json.loads((outs / name / REPORT).read_text(encoding="utf-8"))
        assert each["name"] == name
        assert each["round"] == len(report["history"]) + 1
        for field in ("config", "history", "drift", "run", "manifest", "evaluation", "warnings"):
            assert each[field] == report[field]
        (row,) = each["rows"]
        (record,) = [record for record in report["linears"] if record["name"].endswith("lm_head.weight")]
        assert {key: row[key] for key in record if key not in PACKED} == {
            key: value for key, value in record.items() if key not in PACKED
        }


def test_statistics_for_programs(outs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(outs / "stats", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    (summary,) = content["statistics"]
    rows = list(csv.DictReader(io.StringIO(csv_of(capsys, outs / "stats"))))
    linears = [linear for half in summary["halves"] for linear in half["linears"]]
    assert [row["name"] for row in rows] == [linear["name"] for linear in linears]
    assert [float(row["median"]) for row in rows] == [linear["median"] for linear in linears]
    assert {half["purpose"] for half in summary["halves"]} == {"safety", "task"}


def test_from_python(outs: Path) -> None:
    found = hpa_merge.inspect(outs / "out1", outs / "out2", layer="lm_head")
    assert [each.name for each in found.reports] == ["out1", "out2"]
    assert isinstance(found.reports[0].report, MergeReport)
    assert [len(each.linears) for each in found.reports] == [1, 1]
    assert len(found.reports[0].report.linears) > 1
    with pytest.raises(ConfigError, match="no path is given"):
        hpa_merge.inspect()


def test_folders_of_one_name(outs: Path, tmp_path: Path) -> None:
    shutil.copytree(outs / "out1", tmp_path / "out1")
    found = hpa_merge.inspect(outs / "out1", tmp_path / "out1" / REPORT)
    assert [each.name for each in found.reports] == [str(outs / "out1"), str(tmp_path / "out1" / REPORT)]


def test_it_imports_no_torch(outs: Path) -> None:
    program = (
        "import sys\nfrom hpa_merge.cli import main\n"
        f"main(['inspect', {str(outs / 'out1')!r}])\nmain(['inspect', {str(outs / 'stats')!r}, '--csv'])\n"
        "print([name for name in ('torch', 'transformers', 'huggingface_hub') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
