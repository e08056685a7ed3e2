"""What is known before the work: which linears changed, how much memory and disk a merge takes, what cannot succeed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import CARD, REPORT, TinyCase
from safetensors.torch import load_file, save_file

from hpa_merge import HPAConfig, merge
from hpa_merge.engine.memory import allot
from hpa_merge.engine.preview import preview
from hpa_merge.engine.request import Limits, MergeRequest
from hpa_merge.engine.setup import prepare
from hpa_merge.errors import NumericalError
from hpa_merge.report.planned import PlanReport

Tiny = Callable[..., TinyCase]


def look(case: TinyCase, out: Path, **options: Any) -> PlanReport:
    return preview(MergeRequest(case.old, case.new, {out: HPAConfig(**options)}, case.safety, (case.task,)))[out]


@pytest.mark.parametrize("name", ["llama", "gpt2", "llava"])
def test_the_plan_says_what_the_merge_then_does(name: str, tiny: Tiny, tmp_path: Path) -> None:
    case = tiny(name)
    plan = look(case, tmp_path / "out", exclude=(r"layers\.1\.",))
    assert not list(tmp_path.iterdir())
    config = HPAConfig(exclude=(r"layers\.1\.",))
    report = merge(case.old, case.new, tmp_path / "out", safety_calib=case.safety, task_calib=case.task, config=config)
    assert (plan.architecture, plan.safety, plan.task) == (report.architecture, report.safety, report.task)
    assert plan.passed_through == report.passed_through
    for unit in plan.units:
        records = [record for record in report.linears if record.unit == unit.name]
        outcomes = [record.outcome for record in records]
        assert unit.changed == outcomes.count("adapted")
        assert unit.unchanged + unit.excluded == len(outcomes) - unit.changed
        shares = {record.share for record in records if record.share is not None}
        assert unit.share is None or shares in ({unit.share}, set())
    assert sum(unit.changed for unit in plan.units) == report.count("adapted")
    made = (REPORT, CARD)
    carried = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name not in made]
    assert sum(path.stat().st_size for path in carried) == plan.bytes_out


def test_nan_in_a_linear_is_met_before_the_work(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama").copied_to(tmp_path)
    shard = next(
        path for path in case.new.glob("*.safetensors") if "model.layers.2.mlp.up_proj.weight" in load_file(path)
    )
    tensors = load_file(shard)
    tensors["model.layers.2.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(tensors, shard)
    with pytest.raises(NumericalError, match=r"^NEW's tensor model\.layers\.2\.mlp\.up_proj\.weight holds NaN"):
        look(case, tmp_path / "out")


def test_the_forecast_grows_with_what_a_merge_holds(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama")

    def host(device: str = "cpu", **options: Any) -> tuple[int, int | None]:
        outs = {tmp_path / "out": HPAConfig(**options)}
        with prepare(MergeRequest(case.old, case.new, outs, case.safety, (case.task,))) as ready:
            plan = replace(ready.plan, device=torch.device(device))
            expected = allot(plan, (ready.inputs.old, ready.inputs.new), ready.sets, Limits())
        return expected.host, expected.device

    few, many = host(task_samples=1), host(task_samples=6)
    assert many[0] > few[0]
    assert few[1] is None
    on_host, on_device = host("cuda")
    assert on_device is not None
    assert on_host < many[0] + on_device
    for method in ("safe-delta", "model-tailor"):
        whole, diagonal = (host("cuda", method=method, compensation=on)[1] for on in (True, False))
        assert whole is not None
        assert diagonal is not None
        assert whole > diagonal > 0


def test_a_vocabulary_that_grew_is_named(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("qwen2_tied").copied_to(tmp_path)
    key = "model.embed_tokens.weight"
    assert look(case, tmp_path / "out").reshaped == ()
    for path in case.new.glob("*.safetensors"):
        tensors = load_file(path)
        if key in tensors:
            tensors[key] = torch.cat([tensors[key], tensors[key][:8]])
            save_file(tensors, path, metadata={"format": "pt"})
    config = case.new / "config.json"
    config.write_text(config.read_text().replace('"vocab_size": 512', '"vocab_size": 520'))
    plan = look(case, tmp_path / "out")
    assert plan.reshaped == (f"{key} is [512, 64] in OLD and [520, 64] in NEW: NEW's is taken.",)
    report = merge(case.old, case.new, tmp_path / "out", safety_calib=case.safety, task_calib=case.task)
    assert report.count("adapted") == 20
