"""The README's picture of the demo's result: what its program draws, and the figures that the text has."""

import re
import sys
from xml.etree import ElementTree

import pytest
from pages import ROOT
from report_samples import results

SVG = "{http://www.w3.org/2000/svg}"


def said(svg: ElementTree.Element) -> list[str]:
    return [str(each.text) for each in svg.iter(f"{SVG}text")]


def test_the_program_draws_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    monkeypatch.delitem(sys.modules, "picture", raising=False)
    from picture import draw

    found = results()
    svg = ElementTree.fromstring(draw(found))
    values = [
        f"{figure.value:.0f}" for model in found.models for figure in (model.asr, *model.tasks.values()) if figure
    ]
    assert sorted(text for text in said(svg) if text.isdigit()) == sorted(values)
    assert len(svg.findall(f"{SVG}rect")) == 2 * len(values)


def test_the_picture_shows_what_the_readme_says() -> None:
    svg = ElementTree.parse(ROOT / "docs" / "demo.svg").getroot()
    assert svg.get("role") == "img"
    assert all(svg.findtext(f"{SVG}{name}") for name in ("title", "desc"))
    assert "prefers-color-scheme:dark" in str(svg.findtext(f"{SVG}style"))
    assert (ROOT / "docs" / "demo.svg").stat().st_size < 8000
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    attacks = re.search(r"([\d.]+) % of them succeed \(([\d.]+) % with old, ([\d.]+) % with new\)", readme)
    assert attacks is not None
    out, old, new = (f"{float(figure):.0f}" for figure in attacks.groups())
    assert [text for text in said(svg) if text.isdigit()][:3] == [old, new, out]
    assert f"Attacks that succeed: {old} % with the aligned model, {new} % after tuning, {out} % repaired" in readme
