"""What other budgets and another α would restore, against a choice of columns for each."""

from typing import Any

import pytest
import torch

from hpa_merge.core import energies_restored, select_columns

ALPHAS = [(0.0, 0.0), (0.4, 0.8), (1.0, 2.0)]


@pytest.mark.parametrize("columns", [1, 7, 64, 300])
@pytest.mark.parametrize("ties", [False, True])
def test_they_are_those_of_the_chosen_columns(columns: int, ties: bool) -> None:
    generator = torch.Generator().manual_seed(columns)
    energy, safety, task = (10 ** torch.randn(columns, generator=generator).double() for _ in range(3))
    energy[: columns // 8] = 0.0
    if ties:  # whole numbers, many of them equal
        energy, safety, task = (3 * energy).round(), safety.round() + 1, task.round() + 1
    budgets = [(n, min(columns, f * n)) for n in {0, 1, columns // 7, columns // 2, columns} for f in (1, 2, 3)]
    assert float(energy.sum()) > 0.0
    rules: list[dict[str, Any]] = [{"selection": "safety"}, {"selection": "shared"}, {}, {"excess": "keep"}]
    for rule in (*rules, {"saliency": "product", "averaging": "log-mean"}):
        found = energies_restored(energy, safety, task, budgets=budgets, alphas=ALPHAS, **rule)
        assert found.shape == (len(budgets), len(ALPHAS))
        for row, (n, focus) in zip(found, budgets, strict=True):
            for value, (low, high) in zip(row, ALPHAS, strict=True):
                limits = {"n_restored": n, "n_focus": focus, "alpha_min": low, "alpha_max": high}
                restored = select_columns(energy, safety, task, **limits, **rule).restored
                # a sum of that many positive terms, in two orders
                assert float(value) == pytest.approx(float(energy[restored].sum()), rel=columns * 2**-52, abs=1e-300)
