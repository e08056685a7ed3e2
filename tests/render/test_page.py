"""The page and the pictures of a report: which files there are, what they hold, and what they never do."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from cases import CARD, DRAW, REPORT, TinyCase
from evaluation_cases import status
from PIL import Image
from report_pages import PAGE, Page
from report_samples import HOSTILE, evaluation, hostile, mixture

from hpa_merge import HPAConfig, MergeReport, merge, sweep
from hpa_merge.checkpoint.sidefiles import MADE
from hpa_merge.isolation import Limits
from hpa_merge.render import folder
from hpa_merge.render.charts import HeatMap
from hpa_merge.render.figures import EVALUATION, SALIENCY, Figure, figures_of
from hpa_merge.render.panels import panels_of
from hpa_merge.report.measures import MEASURES
from hpa_merge.report.records import DriftRecord, RoundRecord
from hpa_merge.verification import verify

pytestmark = pytest.mark.gate

Tiny = Callable[..., TinyCase]


def run(case: TinyCase, out: Path, **options: Any) -> MergeReport:
    switches = {name: options.pop(name) for name in ("page", "overwrite") if name in options}
    calibration = {"safety_calib": case.safety, "task_calib": case.task, **switches}
    return merge(case.old, case.new, out, **calibration, config=HPAConfig(**options))


# --- the files ---


@pytest.mark.usefixtures("drawing")
def test_a_merge_draws_a_page_and_pictures(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llava")
    report = run(case, tmp_path / "one")
    run(case, tmp_path / "two")
    pictures = {measure.file for measure in MEASURES} | {SALIENCY}
    made = {path.name for path in (tmp_path / "one").iterdir()} - {path.name for path in case.new.iterdir()}
    assert made == {REPORT, CARD, PAGE, *pictures}
    assert made <= MADE | {CARD}
    card = (tmp_path / "one" / CARD).read_text(encoding="utf-8")
    assert [name for name in sorted(pictures) if f"]({name})" in card] == ["hpa_columns.png", SALIENCY]
    for name in pictures:
        picture = (tmp_path / "one" / name).read_bytes()
        assert picture == (tmp_path / "two" / name).read_bytes()
        assert len(picture) < 150_000
        with Image.open(BytesIO(picture)) as image:
            assert image.format == "PNG"
            assert 500 < image.width < 1600
    assert report.warnings == []
    assert not verify(tmp_path / "one", case.old, case.new).problems


def test_every_file_that_can_be_made_is_known_as_such() -> None:
    assert {*(measure.file for measure in MEASURES), SALIENCY, EVALUATION, PAGE, REPORT} == MADE


@pytest.mark.usefixtures("drawing")
def test_no_page(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama")
    run(case, tmp_path / "out", page=False)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {p.name for p in case.new.iterdir()} | {REPORT, CARD}
    calibration = {"safety_calib": case.safety, "task_calib": case.task}
    outs = {tmp_path / "with": HPAConfig(), tmp_path / "other": HPAConfig(p_max=20)}
    sweep(case.old, case.new, outs, **calibration, page=False)
    assert not any((out / PAGE).exists() for out in outs)


@pytest.mark.gate
@pytest.mark.usefixtures("drawing")
def test_what_an_earlier_merge_drew_is_not_carried_over(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama")
    run(case, tmp_path / "first")
    assert (tmp_path / "first" / PAGE).exists()
    again = case._replace(new=tmp_path / "first")
    report = run(again, tmp_path / "second", page=False)
    assert {path.name for path in (tmp_path / "second").iterdir()} == {p.name for p in case.new.iterdir()} | {
        REPORT,
        CARD,
    }
    assert report.left_out == ()
    assert not verify(tmp_path / "second", case.old, tmp_path / "first").problems


# --- drawing never costs a merge ---


@pytest.mark.usefixtures("drawing", "without_pictures")
def test_without_the_libraries_out_is_published(tiny: Tiny, tmp_path: Path) -> None:
    report = run(tiny("llama"), tmp_path / "out")
    (note,) = report.warnings
    assert note.startswith("hpa_report.html and its pictures were not drawn (ModuleNotFoundError: no vl_convert): ")
    assert note.endswith("fix that, then run hpa-merge report OUT.")
    assert json.loads((tmp_path / "out" / REPORT).read_text())["warnings"] == [note]
    assert not [path for path in (tmp_path / "out").iterdir() if path.suffix in (".png", ".html")]


def test_where_drawing_fails_out_is_published(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(report: MergeReport) -> dict[str, bytes]:
        raise ValueError("no ink")

    monkeypatch.setattr(folder, "draw", fail)
    report = run(tiny("gpt2"), tmp_path / "out")
    assert "were not drawn (ValueError: no ink)" in report.warnings[0]
    assert not verify(tmp_path / "out").problems


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\x00b", "a\ud800b"])
def test_a_name_with_a_control_character_is_drawn_without_it(name: str) -> None:
    """A picture is made from XML, which cannot hold it."""
    report = mixture(2, 1)
    record = replace(report.linears[0], name=f"{name}.weight", stack=name)
    files = DRAW(replace(report, architecture=name, linears=(record, *report.linears[1:]))).files
    with Image.open(BytesIO(files["hpa_columns.png"])) as image:
        assert image.format == "PNG"


@pytest.mark.usefixtures("drawing")
def test_drawing_that_does_not_come_to_an_end_costs_no_merge(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "DRAWING", Limits(0.05, 600.0))
    report = run(tiny("llama"), tmp_path / "out")
    assert list(report.warnings) == [
        "hpa_report.html and its pictures were not drawn (it does not come to an end within 0.05 seconds of computing):"
        " fix that, then run hpa-merge report OUT."
    ]
    assert not verify(tmp_path / "out").problems


# --- what the page holds ---


@pytest.mark.parametrize(
    ("name", "method", "expected"),
    [
        ("llava", "hpa", {"columns", "energy", "overlap", "balance", "kappa", "update", "saliency"}),
        ("gpt2", "hpa", {"columns", "energy", "overlap", "balance", "kappa", "update", "saliency"}),
        ("qwen2_5_vl", "random", {"columns", "energy", "kappa", "update"}),
        ("phi3", "energy", {"columns", "energy", "kappa", "update"}),
        ("llama", "linear", {"update"}),
        ("llama", "safe-delta", {"columns", "energy", "update"}),
        ("llama", "model-tailor", {"columns", "energy", "update"}),
        ("llama", "blocks", {"columns", "energy", "update"}),
    ],
)
def test_figures(name: str, method: str, expected: set[str], tiny: Tiny, tmp_path: Path) -> None:
    options = {"blocks": "0-1"} if method == "blocks" else {}
    report = run(tiny(name), tmp_path / "out", method=method, **options)
    figures = figures_of(report)
    assert {file.removeprefix("hpa_").removesuffix(".png") for file in figures} == expected
    for figure in figures.values():
        check_figure(figure)
    page = Page(DRAW(report).files[PAGE].decode())
    check_page(page, figures)
    assert report.architecture in page.words
    if method == "hpa":
        assert {row[0] for table in figures["hpa_balance.png"].tables for row in table.rows} >= {"0", "1", "2"}


def check_figure(figure: Figure) -> None:
    """Title, unit, words for those who cannot see it, and a table with a cell for each coloured one of a map."""
    assert all((figure.title, figure.unit, figure.about, figure.good, figure.description, figure.tables))
    for table in figure.tables:
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.head)}
    if isinstance(figure.chart, HeatMap):
        for panel, table in zip(figure.chart.panels, figure.tables, strict=True):
            for column, row, colour in panel.cells:
                shown = table.rows[row][1] if panel.outside else table.rows[column][row + 1]
                assert (colour != "") == ("%" in shown or shown[-1:].isdigit())


def check_page(page: Page, figures: dict[str, Figure]) -> None:
    """One heading of the first level, landmarks, and every chart with a label and a table; nothing from elsewhere."""
    assert page.all("html") == [{"lang": "en"}]
    assert [len(page.all(tag)) for tag in ("h1", "main", "header", "footer", "nav", "title")] == [1] * 6
    charts = [element for element in page.all("div") if "data-figure" in element]
    assert sorted(str(chart["data-figure"]) for chart in charts) == sorted(figures)
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    assert len(page.all("figure")) == len(charts) <= len(page.all("summary"))
    assert page.all("img") == []
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    assert not any("url(" in text or "@import" in text for tag, text in page.texts if tag == "style")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_page_says_what_was_done(tiny: Tiny, tmp_path: Path) -> None:
    report = run(tiny("llava"), tmp_path / "out", exclude=("q_proj",), uncalibrated="new")
    page = Page(DRAW(report).files[PAGE].decode())
    words = " ".join(page.words.split())
    assert f"has {len(report.linears)} linear weights; {report.count('adapted')} of them were adapted" in words
    for record in report.linears:
        if record.outcome != "adapted":
            assert record.name in words
    for name, version in report.run.versions.items():
        assert f"{name} {version}" in words
    assert report.run.fingerprint in words
    assert "--exclude q_proj none" in words
    assert "None: the merge was called from Python." in words
    command = "hpa-merge 'o l d' new -o out"
    page = Page(DRAW(replace(report, run=replace(report.run, command=command))).files[PAGE].decode())
    assert ("code", command) in page.texts


@pytest.mark.gate
def test_evaluation_and_rounds() -> None:
    plain = mixture(2, 2)
    page = Page(DRAW(plain).files[PAGE].decode())
    assert "What was measured" not in page.words
    assert "Not known: nobody measured whether attacks succeed." in page.words
    assert "Earlier rounds" not in page.words
    past = RoundRecord("first", "tuned", "2026-01-02T03:04:05Z", {"method": "hpa"}, None, None, 7, 0.1, 0.25)
    past = replace(past, drift=DriftRecord(1.0, 50.0, 7, from_first=0.02, from_first_at_most=0.02))
    now = DriftRecord(2.0, 50.0, 7, from_first_at_most=0.0604)
    report = replace(plain, evaluation=evaluation(), history=(past,), drift=now)
    figures = figures_of(report)
    check_figure(figures[EVALUATION])
    assert "attack success on refusals (less is better): old 0.0 (0.0–5.0), new 78.0" in (
        figures[EVALUATION].description
    )
    page = Page(DRAW(report).files[PAGE].decode())
    check_page(page, figures)
    words = " ".join(page.words.split())
    assert "2.0 % of them succeed (0.0 % with old, 78.0 % with new)" in words
    assert "1 first tuned 2026-01-02T03:04:05Z hpa 7 10.0 % 25.0 % 2.00 % 2.00 %" in words
    assert "4.00 % ≤ 6.04 %" in words


@pytest.mark.gate
def test_a_report_of_an_earlier_version_has_a_page() -> None:
    """Its records lack what was not noted then."""
    plain = mixture(2, 2)
    records = tuple(replace(record, saliency=None) for record in plain.linears)
    report = replace(plain, linears=records, run=replace(plain.run, command="", finished=""))
    assert SALIENCY not in figures_of(report)
    Page(DRAW(report).files[PAGE].decode())
    nothing = replace(plain, linears=())
    assert figures_of(nothing) == {}
    assert "0 linear weights" in Page(DRAW(nothing).files[PAGE].decode()).words


# --- names of others ---


def test_no_string_of_the_report_gets_out_of_its_place() -> None:
    report = hostile()
    text = DRAW(report).files[PAGE].decode()
    page = Page(text)
    check_page(page, figures_of(report))
    assert "onerror" not in {name for _, attributes in page.elements for name in attributes}
    assert not [src for image in page.all("img") if not (src := str(image["src"])).startswith("data:image/png")]
    assert [element.get("type") for element in page.all("script")] == ["application/json", None]
    assert HOSTILE in page.words
    policy = next(str(e["content"]) for e in page.all("meta") if e.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy


# --- size ---


@pytest.mark.parametrize("blocks", [4, pytest.param(48, marks=pytest.mark.gate)])
def test_a_mixture_of_18000_linears_has_a_page_of_a_few_megabytes(blocks: int) -> None:
    report = mixture(blocks)
    assert len(report.linears) == 379 * blocks
    figures = figures_of(report)
    files = DRAW(report).files
    assert len(files[PAGE]) < 1_500_000
    assert max(len(content) for name, content in files.items() if name != PAGE) < 300_000
    assert len(figures["hpa_columns.png"].chart.panels[0].cells) == 7 * blocks
    (panel,) = panels_of(report.linears)
    assert panel.projections == ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert len(panel.cells[3, "up_proj"]) == 125


def test_panels_tell_projections_of_one_name_apart(tiny: Tiny, tmp_path: Path) -> None:
    report = run(tiny("llava"), tmp_path / "llava")
    panels = {panel.title: panel for panel in panels_of(report.linears)}
    assert [*panels][-1] == "outside the blocks"
    assert sum("vision" in title for title in panels) == 1
    assert all(len(records) == 1 for panel in panels.values() for records in panel.cells.values())
    report = run(tiny("gpt2"), tmp_path / "gpt2")
    panel, *_ = panels_of(report.linears)
    assert panel.projections == ("c_attn", "c_fc", "attn.c_proj", "mlp.c_proj")
    assert sum(len(records) for panel in panels_of(report.linears) for records in panel.cells.values()) == len(
        report.linears
    )


# --- the command ---


@pytest.mark.usefixtures("drawing")
def test_the_command_line_is_in_the_report_and_no_page_leaves_it_out(tiny: Tiny, tmp_path: Path) -> None:
    case, out = tiny("llama"), tmp_path / "out here"
    words = [case.old, case.new, "--safety-calib", case.safety, "--task-calib", case.task, "-o", out, "-q"]
    assert status(*words) == 0
    run_ = json.loads((out / REPORT).read_text())["run"]
    assert run_["command"].startswith(f"hpa-merge {case.old} {case.new} --safety-calib")
    assert f"-o '{out}' -q" in run_["command"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", run_["finished"])
    assert (out / PAGE).exists()
    assert status(*words, "--no-page", "--overwrite") == 0
    assert not (out / PAGE).exists()
