"""docs/hpa_report.schema.json: current, a schema, and strict enough to refuse what is no report.

That every report which any test makes fits it is seen to in conftest.py.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from hpa_merge.report.json_schema import report_schema, schema_text
from hpa_merge.report.rows import COLUMNS, GROUP_COLUMNS
from hpa_merge.report.schema import SCHEMA_VERSION

ROOT = Path(__file__).parents[2]


@pytest.fixture
def golden() -> dict[str, Any]:
    """The report of the example, with what it leaves out."""
    report = json.loads((ROOT / "examples" / "ci_regression" / "golden_report.json").read_text(encoding="utf-8"))
    run = {"old": "old", "new": "new", "device": "cpu", "seconds": 1, "peak_host_bytes": 1, "peak_device_bytes": None}
    return report | {"run": {**run, "versions": {}}, "manifest": {}}


def test_the_committed_schema_is_current() -> None:
    """Else: ``python -m hpa_merge.report.json_schema docs/hpa_report.schema.json``."""
    assert (ROOT / "docs" / "hpa_report.schema.json").read_text(encoding="utf-8") == schema_text()


def test_it_is_a_schema_that_says_what_every_field_is() -> None:
    schema = report_schema()
    Draft202012Validator.check_schema(schema)
    assert schema["properties"]["schema_version"]["const"] == SCHEMA_VERSION
    assert schema["properties"]["drift"]["description"].startswith("how far the linear weights moved")
    records = [schema, *schema["$defs"].values()]
    undescribed = [n for record in records for n, of in record["properties"].items() if not of.get("description")]
    assert set(undescribed) == UNDESCRIBED


UNDESCRIBED = {"device", "new", "old", "peak_device_bytes", "peak_host_bytes", "seconds", "versions"}
UNDESCRIBED |= {"name"}
"""Those that say all of it by their name."""


def test_the_golden_report_fits(golden: dict[str, Any]) -> None:
    Draft202012Validator(report_schema()).validate(golden)
    Draft202012Validator(report_schema()).validate(golden | {"of_a_later_version": 1})


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 1},
        {"linears": [{"name": "a"}]},
        {"linears": 3},
        {"drift": {"distance": "far"}},
        {"history": [{"old": "a"}]},
        {"passed_through": {"embedding": 1.5}},
        {"evaluation": 3},
    ],
)
def test_what_is_no_report_does_not_fit(change: dict[str, Any], golden: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Draft202012Validator(report_schema()).validate(golden | change)


def test_an_outcome_that_there_is_not(golden: dict[str, Any]) -> None:
    golden["linears"][0]["outcome"] = "lost"
    with pytest.raises(ValidationError):
        Draft202012Validator(report_schema()).validate(golden)


def test_the_page_on_formats_names_every_field() -> None:
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    schema = report_schema()
    for record in (schema, *schema["$defs"].values()):
        missing = [name for name in record["properties"] if f"`{name}`" not in page]
        assert not missing
    for name in (*COLUMNS, *GROUP_COLUMNS["depth"], *GROUP_COLUMNS["projection"]):
        assert f"`{name}`" in page
