"""Weights that a model uses elsewhere than in their module's forward, or more than once, in whole merges."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import REPORT, TinyCase, content
from families import FAMILIES
from family_pairs import Pair, make_pair
from reference import load_tensors
from torch import Tensor
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP

from hpa_merge import merge
from hpa_merge.engine import loop
from hpa_merge.verification import verify


def fused(self: LlamaMLP, x: Tensor) -> Tensor:
    """What it computes, with weights that are joined before the product, and one that is taken by einsum."""
    gate, up = F.linear(x, torch.cat([self.gate_proj.weight, self.up_proj.weight])).chunk(2, dim=-1)
    return torch.einsum("bsi,oi->bso", self.act_fn(gate) * up, self.down_proj.weight)


def test_products_beside_the_modules_change_nothing(
    tiny: Callable[..., TinyCase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Llama whose forwards multiply with its weights in other ways is merged as one that calls its modules."""
    case = tiny("llama")
    reports = []
    attend = LlamaAttention.forward

    def attending(self: LlamaAttention, *args: object, **kwargs: object) -> object:
        for linear in (self.q_proj, self.v_proj):
            linear.forward = lambda x, linear=linear: x @ linear.weight.T
        try:
            return attend(self, *args, **kwargs)
        finally:
            del self.q_proj.forward, self.v_proj.forward

    for name in ("called", "used"):
        reports.append(merge(case.old, case.new, tmp_path / name, safety_calib=case.safety, task_calib=case.task))
        monkeypatch.setattr(LlamaMLP, "forward", fused)
        monkeypatch.setattr(LlamaAttention, "forward", attending)
    called, used = reports
    assert used.count("adapted") == called.count("adapted") > 0
    for one, other in zip(called.linears, used.linears, strict=True):
        assert (one.name, one.outcome, one.safety_tokens, one.task_tokens, one.restored) == (
            *(other.name, other.outcome, other.safety_tokens, other.task_tokens, other.restored),
        )
    found = load_tensors(tmp_path / "used")
    for key, value in load_tensors(tmp_path / "called").items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def looping(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A model whose blocks run several times."""
    family = next(family for family in FAMILIES if family.name == "HRM-Text")
    return make_pair(replace(family, name="looping"), tmp_path_factory.mktemp("looping"))


def sorted_content(folder: Path) -> dict[str, Any]:
    """Every file of an OUT, without the order in which its linears were merged."""
    files = content(folder)
    files[REPORT]["linears"].sort(key=lambda record: record["name"])
    return files


@pytest.mark.gate
def test_a_model_that_loops_is_recorded_resumed_and_verified(
    looping: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"safety_calib": looping.safety, "task_calib": looping.task}
    stats = tmp_path / "stats.safetensors"
    made = merge(looping.old, looping.new, tmp_path / "out", **files, stats=stats)
    assert made.count("adapted") > 20
    shapes = {record.safety_tokens for record in made.linears if record.outcome == "adapted"}
    assert len(shapes) > 1  # the blocks read each token several times, the head once
    again = verify(tmp_path / "out", looping.old, looping.new, **files)
    assert not again.problems

    wanted = sorted_content(tmp_path / "out")
    merge(looping.old, looping.new, tmp_path / "replayed", **files, stats=stats)
    assert sorted_content(tmp_path / "replayed") == wanted

    finish = loop._Loop._merge_unit
    merged: list[object] = []

    def interrupted(self: loop._Loop, unit: object, pairs: list[object], passed: object) -> None:
        if len(merged) > 2:
            raise KeyboardInterrupt
        finish(self, unit, pairs, passed)
        if self._prepared.returning and pairs:
            merged.append(unit)

    monkeypatch.setattr(loop._Loop, "_merge_unit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        merge(looping.old, looping.new, tmp_path / "resumed", **files)
    monkeypatch.setattr(loop._Loop, "_merge_unit", finish)
    assert (tmp_path / "resumed.partial").is_dir()
    merge(looping.old, looping.new, tmp_path / "resumed", **files, resume=True)
    assert sorted_content(tmp_path / "resumed") == wanted
