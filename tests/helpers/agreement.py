"""A merge against the reference: the same decisions, and the same weights but for rounding."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from precision import accumulated
from reference import LinearResult, as_rows, same_columns
from torch import Tensor

from hpa_merge import MergeReport
from hpa_merge.report.records import LinearRecord

SUM = 2 * accumulated(10**5, torch.float64)
"""Of a sum in float64 over all entries of a weight, once by the package and once by the reference."""

SLACK = 2.0**-23
"""Of the largest weight: ``κ W_old`` and the difference are each rounded once in float32, to 2⁻²⁴ relative."""

ROUNDING = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
"""Half a unit in the last place, relative: the result is rounded once to NEW's dtype."""

STATUS = {"adapted": "merged", "unchanged": "unchanged", "uncalibrated": "uncalibrated"}


@dataclass(frozen=True)
class Merged:
    report: MergeReport
    tensors: dict[str, Tensor]
    expected: dict[str, LinearResult]

    def pairs(self) -> Iterator[tuple[LinearRecord, LinearResult]]:
        for record in self.report.linears:
            yield record, self.expected[record.name]


def check_decisions(merged: Merged) -> None:
    """Outcome, depth, budgets and numbers of every linear; restored columns but for near ties."""
    assert {record.name for record in merged.report.linears} == merged.expected.keys()
    for record, expected in merged.pairs():
        assert STATUS[record.outcome] == expected.status, record.name
        assert as_rows(expected.weight, expected.input_axis).shape == (record.rows, record.columns)
        if record.outcome == "unchanged":
            continue
        assert (record.safety_tokens, record.task_tokens) == expected.tokens, record.name
        if record.outcome == "uncalibrated":
            continue
        found = (record.block, record.blocks), record.share, record.n_restored, record.n_focus
        assert found == (expected.depth, expected.share, expected.n_restored, expected.n_focus), record.name
        assert same_columns(expected, record.restored_columns, expected.rtol), record.name
        span = expected.settings.alpha_max - expected.settings.alpha_min
        assert record.alpha == pytest.approx(expected.alpha, abs=span * expected.rtol)  # of a mean log of the scores
        kappa = expected.kappa if expected.settings.orthogonal else 0.0
        assert record.kappa == pytest.approx(kappa, abs=SUM), record.name
        energy = expected.energy
        restored_share = float(energy[record.restored_columns].sum() / energy.sum())
        assert record.energy_restored == pytest.approx(restored_share, rel=SUM, abs=SUM)
        if expected.margin > expected.rtol:
            assert record.n_shared == len(expected.choice.focus_safety & expected.choice.focus_task), record.name


def check_values(merged: Merged) -> float:
    """Every weight where the same columns were chosen; the share of the columns where they were."""
    agreeing = total = 0
    for record, expected in merged.pairs():
        weight = merged.tensors[record.name]
        rounding = ROUNDING[str(weight.dtype).removeprefix("torch.")]
        found, wanted = (as_rows(w.double(), expected.input_axis) for w in (weight, expected.weight))
        if record.outcome == "adapted":
            other = torch.tensor(sorted(expected.restored ^ set(record.restored_columns)), dtype=torch.long)
            agreeing += record.columns - len(other)
            total += record.columns
            found[:, other] = wanted[:, other]
        error = (found - wanted).abs() - rounding * wanted.abs()
        assert error.max() <= SLACK * wanted.abs().max(), record.name
    return agreeing / total
