"""The run waits for its device as often as its design says: for each leaf of samples, not for each sample."""

import json
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import TinyCase
from torch.utils._python_dispatch import TorchDispatchMode

import hpa_merge
from hpa_merge import merge
from hpa_merge.core.leaves import LEAVES
from hpa_merge.engine import loop
from hpa_merge.model import hooks

WAITING = {"aten::_local_scalar_dense", "aten::equal", "aten::masked_select", "aten::nonzero", "aten::unique_dim"}
"""Operations that give a number, or a shape that depends on values: on a CUDA device the process waits for them."""

PACKAGE = str(Path(hpa_merge.__file__).parent)


class Waits(TorchDispatchMode):
    """Counts such operations by the file of the package that asks for them; what a model's own forward asks for, by
    the file that calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.curvatures = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        indices = args[1] if func._schema.name in ("aten::index", "aten::index_put_") else ()
        masks = any(isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in indices)
        if masks or func._schema.name in WAITING:
            frames = (frame.f_code.co_filename for frame, _ in traceback.walk_stack(None))
            self.counts[next(name for name in frames if name.startswith(PACKAGE)).removeprefix(f"{PACKAGE}/")] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    """Those while units are run and merged."""
    mode, real, made = Waits(), loop._Loop._merge_unit, hooks.GatheredLeaves

    def merge_unit(self: Any, *arguments: Any) -> None:
        with mode:
            real(self, *arguments)

    def gathered(*arguments: Any, **options: Any) -> Any:
        mode.curvatures += 1
        return made(*arguments, **options)

    monkeypatch.setattr(loop._Loop, "_merge_unit", merge_unit)
    monkeypatch.setattr(hooks, "GatheredLeaves", gathered)
    return mode


@pytest.mark.gate
def test_more_samples_do_not_wait_more(tiny: Callable[..., TinyCase], tmp_path: Path, waits: Waits) -> None:
    case, found = tiny("llama", "bfloat16"), []
    draw = torch.Generator().manual_seed(0)
    for count in (LEAVES, 2 * LEAVES):
        path = tmp_path / f"{count}.jsonl"
        rows = torch.randint(3, 500, (count, 120), generator=draw).tolist()  # a leaf of 120 tokens is multiplied
        path.write_text("".join(f"{json.dumps({'input_ids': row})}\n" for row in rows))
        waits.counts.clear()
        report = merge(
            case.old, case.new, tmp_path / f"out{count}", safety_calib=path, task_calib=path, page=False,
            config=hpa_merge.HPAConfig(safety_samples=count),
        )  # fmt: skip
        del waits.counts["model/lockstep.py"]  # transformers' own masks
        found.append(Counter(waits.counts))
        assert {record.safety_tokens for record in report.linears if record.outcome == "adapted"} == {120 * count}
    assert found[0] == found[1]
    assert waits.curvatures >= 4
    assert found[0]["core/magnitudes.py"] <= waits.curvatures // 2 * (LEAVES + 1)
    assert found[0]["core/diagonal.py"] <= waits.curvatures // 2
    assert not [name for name in found[0] if name.startswith(("model/hooks", "engine/calibration_run"))]
