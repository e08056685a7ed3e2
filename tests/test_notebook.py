"""The example notebook: its cells run in their order, with a kernel's bars, and show tables instead of long texts."""

import ast
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpa_merge.demo import DemoFiles
from hpa_merge.progress import in_notebook

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook" / "merge.ipynb"


def cells() -> list[str]:
    """The code of the cells."""
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]


def run(source: str, names: dict[str, Any]) -> Any:
    """Run a cell as a kernel does; returns the value of its last expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a Jupyter kernel has that tells one."""
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))


@pytest.mark.gate
@pytest.mark.usefixtures("kernel", "drawing")
def test_the_notebook_runs(
    demo: DemoFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pandas")
    monkeypatch.delenv("TQDM_DISABLE")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(demo.folder, "demo")
    monkeypatch.setattr("hpa_merge.demo.make_demo", lambda folder: DemoFiles(folder))  # it is there already
    assert in_notebook()
    names: dict[str, Any] = {}
    shown = [run(cell, names) for cell in cells()]
    drawn = capsys.readouterr().err
    assert "merging" in drawn
    assert "evaluating" in drawn
    tables = [value for value in shown if hasattr(value, "_repr_html_")]
    assert len(tables) == 5
    assert all(len(value._repr_html_()) < 20_000 for value in tables)
    assert all(len(repr(value)) < 200 for value in (names["report"], names["evaluation"]))
    assert shown[-1].problems == ()
    assert names["report"].evaluation is not None


def test_it_has_no_outputs_and_no_counts() -> None:
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert len(code) > 4
    assert not [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None]
