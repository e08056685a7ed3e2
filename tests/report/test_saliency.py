"""The cells of the two focus scores: against a slow count, packed and joined, and in the report of a merge."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import TinyCase
from reference import load_tensors
from torch import Tensor

from hpa_merge import HPAConfig, MergeReport, merge
from hpa_merge.core import column_budget, retained_share, select_columns
from hpa_merge.report.packing import saliency_cells
from hpa_merge.report.saliency import join_cells, pack_cells, pack_runs, unpack_cells

Tiny = Callable[..., TinyCase]


def counted(epsilon: Tensor, zeta: Tensor, restored: Tensor) -> dict[tuple[int, int], tuple[int, int]]:
    """The cells, column by column, as the record's description has them."""
    columns, back = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
    for e, z, k in zip(epsilon.tolist(), zeta.tolist(), restored.tolist(), strict=True):
        if e > 0 and z > 0:
            place = math.floor(4 * math.log10(e)), math.floor(4 * math.log10(z))
            columns[place] += 1
            back[place] += k
    return {place: (count, back[place]) for place, count in columns.items()}


def of_runs(text: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """The cells, as the page's script reads them."""
    for run in text.split():
        i, j, *counts = run.split(",")
        for n, count in enumerate(counts):
            columns, _, back = count.partition(".")
            yield (int(i), int(j) + n), (int(columns, 16), int(back or "0", 16))


@pytest.mark.parametrize("seed", range(5))
def test_cells_against_a_slow_count(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    epsilon, zeta = (10 ** (3 * torch.randn(500, generator=generator, dtype=torch.float64) - 5) for _ in range(2))
    epsilon[torch.rand(500, generator=generator) < 0.1] = 0.0
    restored = torch.rand(500, generator=generator) < 0.2
    cells = saliency_cells(epsilon, zeta, restored)
    assert cells == counted(epsilon, zeta, restored)
    assert unpack_cells(pack_cells(cells)) == cells
    assert dict(of_runs(pack_runs(cells))) == cells
    halves = [saliency_cells(epsilon[part], zeta[part], restored[part]) for part in (slice(0, 200), slice(200, None))]
    assert join_cells(halves) == cells


def test_cells_by_hand() -> None:
    epsilon = torch.tensor([1.0, 1.5, 10.0, 0.0, 1e-300])
    zeta = torch.tensor([1.0, 1.0, 0.1, 1.0, 1.0])
    restored = torch.tensor([False, True, True, True, False])
    packed = "0,0,2,1 4,-4,1,1"
    assert pack_cells(saliency_cells(epsilon, zeta, restored)) == packed  # 1e-300 is 0 in float32
    assert unpack_cells(packed) == {(0, 0): (2, 1), (4, -4): (1, 1)}
    assert pack_runs({(0, 0): (26, 0), (0, 1): (2, 1), (0, 3): (1, 0), (4, -4): (1, 1)}) == "0,0,1a,2.1 0,3,1 4,-4,1.1"


@pytest.mark.parametrize("columns", [0, 3])
def test_without_an_update_there_are_no_cells(columns: int) -> None:
    assert saliency_cells(torch.zeros(columns), torch.ones(columns), torch.ones(columns, dtype=torch.bool)) == {}
    assert pack_cells({}) == pack_runs({}) == ""
    assert unpack_cells("") == join_cells([]) == {}


@pytest.mark.parametrize("saliency", ["quotient", "product"])
def test_the_selection_has_the_scores_that_it_went_by(saliency: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    energy, safety, task = torch.randn(3, 64, generator=generator, dtype=torch.float64).exp()
    n_restored = column_budget(retained_share(0, 4, 15, 5), 64)
    selection = select_columns(energy, safety, task, n_restored=n_restored, n_focus=2 * n_restored, saliency=saliency)
    for found, inverse in ((selection.epsilon, safety), (selection.zeta, task)):
        expected = energy * inverse if saliency == "product" else energy / inverse
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def run(case: TinyCase, out: Path, **options: Any) -> MergeReport:
    return merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task, config=HPAConfig(**options))


@pytest.mark.parametrize("name", ["llama", "gpt2", "llava", "phi3", "qwen2_5_vl"])
def test_the_report_counts_every_changed_column(name: str, tiny: Tiny, tmp_path: Path) -> None:
    case = tiny(name)
    report = run(case, tmp_path / "out")
    old, new = load_tensors(case.old), load_tensors(case.new)
    assert report.count("adapted") > 5
    for record in report.linears:
        if record.outcome != "adapted":
            assert record.saliency is None
            continue
        cells = unpack_cells(str(record.saliency))
        before, after = (tensors[record.name.partition("[")[0]] for tensors in (old, new))
        if before.ndim != 2:
            continue
        changed = (before != after).any(dim=1 if name == "gpt2" and "lm_head" not in record.name else 0)
        restored = sum(bool(changed[j]) for j in record.restored_columns)
        assert (sum(c for c, _ in cells.values()), sum(k for _, k in cells.values())) == (int(changed.sum()), restored)


@pytest.mark.parametrize("method", ["random", "energy", "linear", "safe-delta"])
def test_methods_without_focus_scores_have_no_cells(method: str, tiny: Tiny, tmp_path: Path) -> None:
    report = run(tiny("llama"), tmp_path / "out", method=method)
    assert report.count("adapted") > 5
    assert all(record.saliency is None for record in report.linears)


def test_statistics_from_a_file_give_the_same_cells(tiny: Tiny, tmp_path: Path) -> None:
    case, stats = tiny("llama"), tmp_path / "stats.safetensors"
    calibration = {"safety_calib": case.safety, "task_calib": case.task, "stats": stats}
    first, second = (merge(case.old, case.new, tmp_path / name, **calibration) for name in ("one", "two"))
    assert second.run.statistics["safety"] == "read"
    assert [record.saliency for record in first.linears] == [record.saliency for record in second.linears]
