"""benchmarks/gpu runs a merge as several ranks, and compares how fast each number of them is."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def merging() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "gpu" / "merging.py"
    spec = importlib.util.spec_from_file_location("merging", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_rank_says_what_it_has(merging: ModuleType) -> None:
    code = "import json, os; print(1); print(json.dumps([os.environ.get(k) for k in ('RANK', 'WORLD_SIZE')]))"
    command = [sys.executable, "-S", "-c", code]
    assert merging.run_ranks(command, 3) == [["0", "3"], ["1", "3"], ["2", "3"]]
    (alone,) = merging.run_ranks(command, 1)
    assert alone[0] is None


def test_one_that_fails_ends_all(merging: ModuleType) -> None:
    code = "import os, sys, time; sys.exit(3) if os.environ['RANK'] == '1' else time.sleep(600)"
    with pytest.raises(subprocess.CalledProcessError) as raised:
        merging.run_ranks([sys.executable, "-S", "-c", code], 2)
    assert raised.value.returncode == 3


def run(out: str, *seconds: float) -> dict[str, Any]:
    ranks = [
        {
            "seconds": each,
            "host bytes": 2e9,
            "device bytes": None,
            "parts": {"samples": each / 2} | ({"x": 1.0} if n else {}),
        }
        for n, each in enumerate(seconds)
    ]
    return {"out": out, "ranks": ranks}


def test_the_slowest_rank_counts(merging: ModuleType) -> None:
    """Of the run in the middle; the ideal is as many times as fast as there are more processes."""
    text = merging.compare_ranks({2: [run("a", 40.0, 44.0)], 4: [run("a", 1.0), run("a", 20.0, 27.5), run("b", 90.0)]})
    assert "| 2 | 44.00 s | 1.00 | 100% | 2.00, 2.00 GB | – | the same bytes |" in text
    assert "| 4 | 27.50 s | 1.60 | 80% | 2.00, 2.00 GB | – | **other bytes** |" in text
    assert "| processes | rank | samples | x |" in text
    assert "| 2 | 0 | 20.00 s | 0.00 s |" in text
    assert "| 4 | 1 | 13.75 s | 1.00 s |" in text
