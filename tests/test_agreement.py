"""The streamed merge against the textbook version in reference.py: the same decisions, the same weights.

Both see the same activations (test_lockstep.py: the forwards are bit-equal), and the reference goes on in float64. So
what may differ is the package's float32 arithmetic after them.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TinyCase
from precision import accumulated
from reference import LinearResult, Settings, as_rows, load_tensors, reference_merge, same_columns
from tiny_models import ARCHITECTURES, UNCHANGED_SUFFIXES, model_inputs
from torch import Tensor

from hpa_merge import HPAConfig, MergeReport, merge
from hpa_merge.errors import CalibrationError
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


def both(case: TinyCase, out: Path, **options: Any) -> Merged:
    """The package's merge and the reference's, with the same options."""
    config = HPAConfig(**options)
    settings = Settings(**{key: value for key, value in asdict(config).items() if key in vars(Settings())})
    report = merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task, config=config)
    inputs = [model_inputs(case.name, path) for path in (case.safety, case.task)]
    return Merged(report, load_tensors(out), reference_merge(case.old, case.new, *inputs, settings))


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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture(name: str, dtype: str, tiny: Callable[..., TinyCase], tmp_path: Path) -> None:
    merged = both(tiny(name, dtype), tmp_path / "out")
    check_decisions(merged)
    assert check_values(merged) >= 0.998
    unchanged = {record.name for record in merged.report.linears if record.outcome == "unchanged"}
    assert unchanged == {key for key in merged.tensors if key.endswith(UNCHANGED_SUFFIXES)}
    assert merged.report.count("uncalibrated") == 0


OPTIONS: dict[str, dict[str, Any]] = {
    "safety": {"selection": "safety"},
    "shared": {"selection": "shared"},
    "not orthogonal": {"orthogonal": False},
    "product": {"saliency": "product"},
    "numbers": {
        "p_max": 37.5,
        "p_min": 12.3,
        "focus_ratio": 1.3,
        "alpha_min": 0.0,
        "alpha_max": 1.7,
        "damping": 0.1,
    },
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", ["gpt2", "qwen2_tied", "qwen2_5_vl"])
def test_every_option(name: str, options: dict[str, Any], tiny: Callable[..., TinyCase], tmp_path: Path) -> None:
    merged = both(tiny(name), tmp_path / "out", **options)
    check_decisions(merged)
    assert check_values(merged) >= 0.998


# --- uncalibrated: LLaVA with safety samples that have no image ---


@pytest.fixture
def blind(tiny: Callable[..., TinyCase], tmp_path: Path) -> TinyCase:
    case = tiny("llava")
    lines = [line for line in case.safety.read_text().splitlines() if "image" not in line]
    path = tmp_path / "text-only.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return case._replace(safety=path)


@pytest.mark.parametrize("source", ["new", "old"])
def test_uncalibrated(source: str, blind: TinyCase, tmp_path: Path) -> None:
    merged = both(blind, tmp_path / "out", uncalibrated=source)
    check_decisions(merged)
    assert check_values(merged) >= 0.998
    there = load_tensors(blind.old if source == "old" else blind.new)
    unseen = {record.name for record in merged.report.linears if record.outcome == "uncalibrated"}
    assert unseen == {
        record.name
        for record in merged.report.linears
        if not record.name.startswith("language_model.") and not record.name.endswith(UNCHANGED_SUFFIXES)
    }
    assert any(name.startswith("multi_modal_projector.") for name in unseen)
    for name in unseen:
        assert torch.equal(merged.tensors[name], there[name]), name
    assert f"{len(unseen)} of the changed linears came from {source.upper()}" in merged.report.warnings[0]


def test_uncalibrated_as_an_error(blind: TinyCase, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(CalibrationError) as raised:
        merge(
            *(blind.old, blind.new, out),
            safety_calib=blind.safety,
            task_calib=blind.task,
            config=HPAConfig(uncalibrated="error"),
        )
    assert str(raised.value) == (
        "vision_tower.encoder.layers.0.mlp.fc1.weight changed and no token of the safety set reaches it: "
        "add samples that do, or choose --uncalibrated new or old."
    )
    assert not out.exists()
