"""The panel of the page on other settings: what it shows, against merges with these settings."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from cases import TinyCase
from mixtures import make, mixtral
from report_pages import Page
from report_samples import mixture, with_shares

from hpa_merge import HPAConfig, MergeReport, sweep
from hpa_merge.methods.hpa import RULE
from hpa_merge.render.figures import figures_of
from hpa_merge.render.page import page_of
from hpa_merge.render.panels import panels_of
from hpa_merge.render.what_if import WhatIf, what_if_of
from hpa_merge.report.what_if import LEVELS, unpack_shares

Tiny = Callable[..., TinyCase]


def panel_of(report: MergeReport) -> WhatIf:
    found = what_if_of(report, panels_of(report.linears))
    assert found is not None
    return found


def share(data: Any, places: Iterable[int], at: int) -> float:
    """What the page's script computes."""
    chosen = [*places]
    counts = [data["counts"][n] for n in chosen]
    return (
        sum(c * unpack_shares(data["cells"][n])[at] for n, c in zip(chosen, counts, strict=True)) / sum(counts) / LEVELS
    )


# --- against merges ---


@pytest.mark.gate
@pytest.mark.parametrize("name", ["gpt2", "llava", "mixtral"])
def test_the_panel_shows_what_other_merges_undo(name: str, tiny: Tiny, tmp_path: Path) -> None:
    """In all, at each depth and of each projection, the experts of a block together."""
    case = make(mixtral, tmp_path) if name == "mixtral" else tiny(name)
    own = HPAConfig(p_max=12.0, p_min=3.0, alpha_max=1.0)
    assert RULE.grid is not None
    grid = RULE.grid(own)
    chosen = [grid.own, 0, len(grid.settings) // 3, len(grid.settings) - 2]
    outs = {tmp_path / f"out{place}": replace(own, **grid.settings[place]) for place in chosen}
    reports = sweep(case.old, case.new, outs, safety_calib=case.safety, task_calib=case.task, page=False)
    panel, places = panel_of(reports[tmp_path / f"out{grid.own}"]), range(10**6)
    data = panel.data
    assert sum(data["counts"]) == reports[tmp_path / "out0"].count("adapted")
    precision = 1.001 / LEVELS  # two roundings, of a weight and of a cell
    for place in chosen:
        merged = reports[tmp_path / f"out{place}"]
        adapted = [record for record in merged.linears if record.outcome == "adapted"]
        everywhere = share(data, places[: len(data["cells"])], place)
        assert everywhere == pytest.approx(fmean(r.energy_restored for r in adapted), abs=precision)
        for stack, shown, of_data in zip(panels_of(merged.linears), panel.stacks, data["stacks"], strict=True):
            assert shown.title == stack.title
            for names, found, key in ((shown.depths, "depths", 0), (shown.projections, "projections", 1)):
                for each, cells in zip(names, of_data[found], strict=True):
                    records = [r for cell, rs in stack.cells.items() if str(cell[key]) == each.name for r in rs]
                    undone = fmean(r.energy_restored for r in records if r.energy_restored is not None)
                    assert share(data, cells, place) == pytest.approx(undone, abs=precision)
                    if place == grid.own:
                        assert each.share == pytest.approx(undone, abs=precision)
    assert data["own"] == grid.own
    assert panel.share == pytest.approx(share(data, places[: len(data["cells"])], grid.own), abs=precision)


# --- what the page has ---


def test_the_panel_as_it_is_without_a_script() -> None:
    report = with_shares(mixture(2, 2))
    report = replace(report, run=replace(report.run, statistics={"file": "s.safetensors"}, out="my out"))
    panel = panel_of(report)
    assert [(each.label[:5], each.positions, each.own) for each in panel.sliders] == [
        *(("p_max", 8, 2), ("p_min", 4, 1)),
        ("α: we", 4, 2),
    ]
    assert panel.values[panel.own] == ("15 %", "5 %", "0.4 to 0.8")
    assert panel.table.head == ("setting", "α 0 to 0", "α 0.2 to 0.4", "α 0.4 to 0.8", "α 0.8 to 1.6")
    assert [row[0] for row in panel.table.rows][:3] == [
        *("p_max 5 %, p_min 1.7 %", "p_max 10 %, p_min 3.3 %"),
        "p_max 15 %, p_min 5 %",
    ]
    assert panel.table.rows[2][1:] == ("36.0 %", "37.0 %", "38.0 %", "39.0 %")  # the 36th to the 39th setting
    assert panel.command == "hpa-merge old new --safety-calib s.jsonl --stats s.safetensors -o 'my out-what-if'"
    assert panel.data["command"][1][0] == "--p-max 5 --p-min 0 --alpha-min 0 --alpha-max 0"
    assert panel.data["command"][1][panel.own] == ""  # the defaults
    page = Page(page_of(report, figures_of(report)))
    words = " ".join(page.words.split())
    assert "38.0 % of the update is undone by this merge" in words
    assert "By depth: 38.0 % in block 0, 38.0 % in block 1" in words
    sliders = [each for each in page.all("input") if each["type"] == "range"]
    labels = {each["for"] for each in page.all("label")}
    assert [(each["max"], each["value"]) for each in sliders] == [("7", "2"), ("3", "1"), ("3", "2")]
    assert {each["id"] for each in sliders} <= labels
    assert {each["for"] for each in page.all("output")} == {each["id"] for each in sliders}
    assert page.data["what_if"] == json.loads(json.dumps(panel.data))


def test_a_report_that_lacks_it_has_no_panel() -> None:
    report = with_shares(mixture(2, 1))
    first, *rest = report.linears
    for changed in (
        replace(report, what_if=None),  # of an earlier version
        replace(report, linears=(replace(first, what_if=None), *rest)),
        replace(report, linears=(replace(first, what_if="AA"), *rest)),
        replace(report, linears=()),
    ):
        assert what_if_of(changed, panels_of(changed.linears)) is None
    text = page_of(replace(report, what_if=None), figures_of(report))
    assert 'id="what-if"' not in text
    text = page_of(replace(report, what_if=None, config={**report.config, "method": "regmean"}), figures_of(report))
    assert "What other settings of regmean would undo does not follow from" in text
    assert "<input" not in text


@pytest.mark.gate
def test_it_takes_at_most_200_kB_of_a_page() -> None:
    """Of 560 linears; the experts of a block share a cell, so that those of a mixture take no more."""
    plain = mixture(80, 1)
    figures = figures_of(plain)
    before, after = (len(page_of(report, figures)) for report in (plain, with_shares(plain)))
    assert 100_000 < after - before < 200_000
    data = panel_of(with_shares(mixture(2, 30))).data
    assert [*data["counts"]] == 2 * [1, 1, 1, 1, 29, 29, 29]
