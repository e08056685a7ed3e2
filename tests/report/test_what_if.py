"""What other settings would undo, as a report has it: the text of a linear, the grid, and a method without it."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from cases import REPORT
from report_samples import report_of

from hpa_merge import HPAConfig
from hpa_merge.errors import CheckpointError
from hpa_merge.methods import RULES
from hpa_merge.report.schema import read_report
from hpa_merge.report.what_if import LEVELS, are_shares, missing_because, pack_shares, unpack_shares


def test_shares_as_text() -> None:
    assert pack_shares([0.0, 1.0, 1 / LEVELS, 64 / LEVELS, 1 + 1e-9, -1e-17]) == "AA//ABBA//AA"
    shares = [n / 997 for n in range(998)]
    assert [n / LEVELS for n in unpack_shares(pack_shares(shares))] == pytest.approx(shares, abs=0.5 / LEVELS + 1e-12)
    assert unpack_shares("") == []
    assert [are_shares(text) for text in ("", "AA+/", "A", "A=", "AAé0", "AA" * 1025)] == [True, True, *[False] * 4]


def grid() -> dict[str, Any]:
    config = HPAConfig()
    assert config.rule.grid is not None
    return json.loads(json.dumps(asdict(config.rule.grid(config))))


def read(folder: Path, what_if: Any) -> Any:
    content = json.loads(report_of(what_if=None).to_json())
    assert "what_if" not in content
    (folder / REPORT).write_text(json.dumps(content | {"what_if": what_if}))
    return read_report(folder).what_if


def test_a_grid_is_read_as_it_was_written(tmp_path: Path) -> None:
    config = HPAConfig()
    assert config.rule.grid is not None
    assert read(tmp_path, grid()) == config.rule.grid(config)
    assert read(tmp_path, None) is None


def without_a_setting(grid: dict[str, Any]) -> None:
    grid["settings"].pop()


def of_another_option(grid: dict[str, Any]) -> None:
    grid["settings"][3]["--p-max 90; rm"] = 1.0


def of_a_word(grid: dict[str, Any]) -> None:
    grid["sliders"][0]["options"] = ["method"]


def without_an_option(grid: dict[str, Any]) -> None:
    del grid["settings"][5]["p_max"]


def with_a_negative_value(grid: dict[str, Any]) -> None:
    grid["settings"][5]["p_max"] = -1.0


def elsewhere(grid: dict[str, Any]) -> None:
    grid["own"] = 128


def of_one_position(grid: dict[str, Any]) -> None:
    grid["sizes"] = [128, 1, 1]


def endless(grid: dict[str, Any]) -> None:
    grid["sizes"], grid["settings"] = [8, 64, 4], grid["settings"] * 16


def without_a_slider(grid: dict[str, Any]) -> None:
    grid["sliders"].pop()


CHANGES = [without_a_setting, of_another_option, of_a_word, without_an_option, with_a_negative_value, elsewhere]


@pytest.mark.parametrize("change", [*CHANGES, of_one_position, endless, without_a_slider])
def test_a_grid_that_cannot_be(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    changed = grid()
    change(changed)
    with pytest.raises(CheckpointError, match="is not a report of hpa-merge"):
        read(tmp_path, changed)


def test_why_a_method_has_none() -> None:
    assert {rule.name for rule in RULES if missing_because(rule.name)} == {
        *("regmean", "null-space", "model-tailor", "blocks")
    }
    assert missing_because("of another version") == ""
    assert missing_because("regmean") == (
        "What other settings of regmean would undo does not follow from what a merge gathers: each safety weight needs "
        "a factorisation of its own. hpa-merge sweep makes several OUTs from one read of OLD and NEW, and compares "
        "them."
    )


def test_an_own_value_that_no_slider_offers() -> None:
    config = replace(HPAConfig(), p_max=80.0, p_min=70.0)
    assert config.rule.grid is not None
    found = config.rule.grid(config)
    assert found.sizes == (9, 5, 4)
    assert found.settings[found.own] == {"p_max": 80.0, "p_min": 70.0, "alpha_min": 0.4, "alpha_max": 0.8}
    assert all(setting["p_min"] <= setting["p_max"] for setting in found.settings)
