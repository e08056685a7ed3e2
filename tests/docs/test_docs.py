"""The documentation: every link leads somewhere, the site is made without a warning, and nothing is left out of it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from package_files import FLOORS
from pages import PAGES, ROOT, anchors, links

import hpa_merge
from hpa_merge.cli import COMMANDS

SITE_PAGES = (
    "index",
    "tutorial",
    "method",
    "calibration",
    "families",
    "performance",
    "guarantees",
    "faq",
    "cli",
    "python",
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    """As on a code host, where links are relative to the file."""
    for target in links(page):
        if re.match(r"[a-z]+:", target):
            assert target.startswith("https://"), target
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert found.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(found), target


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


def test_the_site_has_its_pages(site: Path) -> None:
    for name in SITE_PAGES:
        assert (site / f"{name}.html").is_file(), name
    for name in ("CHANGELOG", "benchmarks/README", "examples/continual_tuning/README", "examples/ci_workflow/README"):
        page = site / "repository" / Path(name).with_name(Path(name).name.replace("README", "index") + ".html")
        assert page.is_file(), page


def test_the_site_needs_no_other_host(site: Path) -> None:
    """Links lead elsewhere; nothing that a page is made of does."""
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        text = page.read_text(encoding="utf-8")
        tags = re.findall(r"<(?:script|link|img|iframe|source|video|audio|object|embed|form)\b[^>]*>", text)
        assert not [tag for tag in tags if re.search(r"=[\"']?(?:https?:)?//", tag)], page
        assert "googletagmanager" not in text
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_links_between_pages_lead_to_pages(site: Path) -> None:
    """Those that left docs/ too."""
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue
        body = re.findall(r"<article.*?</article>", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r'(?:href|src)="([^"#]+)(?:#[^"]*)?"', "".join(body)):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), (page, target)


def test_every_command_is_in_the_reference(site: Path) -> None:
    text = (site / "cli.html").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f'id="hpa-merge-{name}"' in text, name
    assert "Sentinel" not in text
    for option in ("--safety-calib", "--max-host-memory", "--no-orthogonal", "--max-task-drop", "--keep-all"):
        assert option in text


def test_what_the_python_reference_has_comes_from_the_docstrings(site: Path) -> None:
    text = (site / "python.html").read_text(encoding="utf-8")
    for name in ("merge", "evaluate", "HPAConfig", "MergeReport", "verify"):
        assert f'id="hpa_merge.{name}"' in text, name
    assert "Restore in NEW what OLD" in text
    assert "continual_metrics" in text
    assert ":func:" not in text
    assert ":class:" not in text


def test_the_guarantees_name_test_files_that_are_there() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_/]*test_[a-z_]+\.py)`", page))
    assert len(named) > 30
    assert not [name for name in named if not (ROOT / "tests" / name).is_file()]


def test_the_readme_names_every_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"`hpa-merge {name}" not in readme] == []
    assert len(readme.splitlines()) < 220


def test_the_changelogs_version_is_the_packages() -> None:
    released = re.findall(r"^## \[(\d[^]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert released[0] == hpa_merge.__version__


def test_the_architecture_names_what_there_is() -> None:
    """Every room of the package has a row, and every file that the page names is there."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "hpa_merge"
    rooms = {f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").is_file()}
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py", "__main__.py"}
    named = {name: int(floor) for floor, name in re.findall(r"^\| (\d+) \| `([^`]+)`", text, re.MULTILINE)}
    assert named.keys() == rooms | modules
    floors = {name: number for number, floor in enumerate(FLOORS, start=1) for name in floor}
    assert {name.rstrip("/").removesuffix(".py"): floor for name, floor in named.items()} == floors
    files = {name for name in re.findall(r"`([a-z_]+/[a-z_/]+\.py)`", text) if not name.startswith("tests/")}
    assert len(files) > 15
    assert not [name for name in files if not (package / name).is_file()]
