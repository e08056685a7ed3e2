"""The streamed merge against the textbook version in reference.py: the same decisions, the same weights.

Both see the same activations (model/test_lockstep.py: the forwards are bit-equal), and the reference goes on in
float64. So what may differ is the package's float32 arithmetic after them.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from agreement import Merged, check_decisions, check_values
from cases import TinyCase
from reference import Settings, load_tensors, reference_merge
from tiny_models import ARCHITECTURES, UNCHANGED_SUFFIXES, model_inputs

from hpa_merge import HPAConfig, merge
from hpa_merge.errors import CalibrationError


def both(case: TinyCase, out: Path, **options: Any) -> Merged:
    """The package's merge and the reference's, with the same options."""
    config = HPAConfig(**options)
    settings = Settings(**{key: value for key, value in asdict(config).items() if key in vars(Settings())})
    report = merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task, config=config)
    inputs = [model_inputs(case.name, path) for path in (case.safety, case.task)]
    return Merged(report, load_tensors(out), reference_merge(case.old, case.new, *inputs, settings))


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
        "add samples that reach it, or choose --uncalibrated new or old."
    )
    assert not out.exists()
