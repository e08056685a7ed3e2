"""The page in a real browser: Chromium draws every chart, and complains of nothing. Skipped where it is not there."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from cases import DRAW
from report_samples import evaluation, hostile, mixture, with_shares

from hpa_merge.render.figures import SALIENCY, figures_of
from hpa_merge.render.panels import panels_of
from hpa_merge.render.what_if import what_if_of
from hpa_merge.report.records import RoundRecord
from hpa_merge.report.saliency import unpack_cells
from hpa_merge.report.schema import MergeReport

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")

QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)


def opened(page: Path, scratch: Path, *options: str) -> tuple[str, str]:
    """The document after its scripts have run, and what the browser logged."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *QUIET, f"--user-data-dir={scratch}", "--enable-logging=stderr", "--v=0", *options]
    command += ["--virtual-time-budget=20000", "--dump-dom", page.as_uri()]
    environment = {**os.environ, "HOME": str(scratch)}
    done = subprocess.run(command, capture_output=True, timeout=120, env=environment, check=True)
    return done.stdout.decode(), done.stderr.decode(errors="replace")


def written(report: MergeReport, folder: Path) -> Path:
    path = folder / "hpa_report.html"
    path.write_bytes(DRAW(report).files["hpa_report.html"])
    return path


def full() -> MergeReport:
    past = RoundRecord("first", "tuned", "2026-01-02T03:04:05Z", {"method": "hpa"}, None, None, 7, 0.1, 0.25)
    return replace(with_shares(mixture(4, 8)), evaluation=evaluation(), history=(past,))


@pytest.mark.parametrize("report", [full, hostile], ids=["full", "hostile"])
def test_every_chart_is_there_and_nothing_complained_of(report: Callable[[], MergeReport], tmp_path: Path) -> None:
    made = report()
    figures = figures_of(made)
    document, log = opened(written(made, tmp_path), tmp_path / "profile")
    assert 'data-ready="yes"' in document  # the script ran to its end
    charts = re.findall(r'<div class="chart[^>]*data-figure="([^"]+)"', document)
    assert sorted(charts) == sorted(figures)
    for file, figure in figures.items():
        (label,) = re.findall(rf'aria-label="([^"]*)" data-figure="{file}"', document)
        assert unescape(label) == f"{figure.title}. {figure.description}"
    assert document.count("<svg") >= 6
    assert '<p class="choice"><label for="layer">' in document  # no longer hidden
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []
    assert "<img src=x" not in document


@pytest.mark.gate
def test_a_slider_shows_what_its_setting_undoes(tmp_path: Path) -> None:
    """The page begins with the sliders at the merge's own setting: here at another one, which the data name."""
    report = with_shares(mixture(2, 3))
    page, panel = written(report, tmp_path), what_if_of(report, panels_of(report.linears))
    assert panel is not None
    text = page.read_text(encoding="utf-8")
    assert text.count(f'"own":{panel.own},') == 1
    page.write_text(text.replace(f'"own":{panel.own},', '"own":77,'), encoding="utf-8")
    document, log = opened(page, tmp_path / "profile")
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []
    (section,) = re.findall(r'<section id="what-if".*?</section>', document, flags=re.DOTALL)
    assert re.findall(r'aria-valuetext="([^"]*)"', section) == [*panel.values[77]] == ["25 %", "25 %", "0.2 to 0.4"]
    assert re.findall(r"<output[^>]*>([^<]*)<", section) == ["25 %", "25 %", "0.2 to 0.4"]
    assert "<strong>77.0 %</strong> of the update" in section
    assert {*re.findall(r"By depth: <b>([^<]*)</b>", section)} == {"77.0"}
    assert {*re.findall(r'<span class="figure"><strong>([^<]*)</strong> 38.0', section)} == {"77.0"}
    assert re.findall(r'class="chosen" d="M0.1 100v(-[0-9.]*)h', section) == ["-77.0"]
    start, words, end = panel.data["command"]
    assert f"<code>{start} {words[77]} {end}</code>" in section
    assert words[77] == "--p-max 25 --p-min 25 --alpha-min 0.2 --alpha-max 0.4"


@pytest.mark.gate
def test_a_chosen_layer_shows_its_own_columns(tmp_path: Path) -> None:
    """A script of the test chooses the last layer, which the page's policy would not run."""
    report = mixture(2, 3)
    page = written(report, tmp_path)
    layers = figures_of(report)[SALIENCY].layers
    choose = """<script>document.querySelector("#layer").value = "LAST";
        document.querySelector("#layer").dispatchEvent(new Event("change"));</script></body>"""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    page.write_text(text.replace("</body>", choose.replace("LAST", str(len(layers) - 1))), encoding="utf-8")
    document, log = opened(page, tmp_path / "profile")
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []
    cells = unpack_cells([*layers.values()][-1])
    columns, restored = (sum(each) for each in zip(*cells.values(), strict=True))
    assert f"by their two scores: {restored} of {columns} were restored." in document
    (section,) = re.findall(r'<section id="columns".*?</section>', document, flags=re.DOTALL)
    assert section.count('<th scope="row"') == len(cells)
