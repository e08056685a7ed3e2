"""A merge of quantised checkpoints makes what dequantising them first, and then merging, makes: byte for byte."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mixtures
import pytest
import torch
import transformers
from checkpoint_folders import everything
from quantised import dequantise, quantise
from safetensors.torch import load_file
from tiny_models import make_calibration, make_pair

from hpa_merge import HPAConfig, merge, verify
from hpa_merge.engine.preview import preview
from hpa_merge.engine.request import MergeRequest
from hpa_merge.report.schema import MergeReport

pytest.importorskip("compressed_tensors")
pytest.importorskip("bitsandbytes")

pytestmark = pytest.mark.gate

OF_THE_RUN = ("README.md", "hpa_report.json")

Pair = tuple[Path, Path, Path, Path]


def text(folder: Path) -> Pair:
    return *make_pair("qwen3", folder, dtype=torch.bfloat16), *make_calibration("qwen3", folder)


def vision(folder: Path) -> Pair:
    return *make_pair("llava", folder, dtype=torch.float16), *make_calibration("llava", folder)


def mixture(folder: Path) -> Pair:
    def gpt_oss() -> transformers.PreTrainedModel:
        sizes = {**mixtures.SIZES, "intermediate_size": 64}
        config = transformers.GptOssConfig(
            **sizes, head_dim=8, num_local_experts=4, num_experts_per_tok=2, rope_parameters={"rope_type": "default"}
        )
        return transformers.GptOssForCausalLM(config).bfloat16()

    case = mixtures.make(gpt_oss, folder)
    return case.old, case.new, case.safety, case.task


@pytest.mark.parametrize(
    ("make", "old_kind", "new_kind"),
    [(text, "fp8", "ct-int4-zero"), (vision, "nf4-nested", "gptq-order"), (mixture, "mxfp4", "fp8-stack")],
)
def test_the_same_bytes(make: Callable[[Path], Pair], old_kind: str, new_kind: str, tmp_path: Path) -> None:
    old, new, safety, task = make(tmp_path)
    outs: list[Path] = []
    reports: list[MergeReport] = []
    for write in (quantise, dequantise):
        folders = [write(old, tmp_path / f"{write.__name__}-old", old_kind)]
        folders.append(write(new, tmp_path / f"{write.__name__}-new", new_kind))
        outs.append(tmp_path / f"out-{write.__name__}")
        reports.append(merge(*folders, outs[-1], safety_calib=safety, task_calib=task, page=False))
    found, expected = ({k: v for k, v in everything(out).items() if k not in OF_THE_RUN} for out in outs)
    assert found.keys() == expected.keys()
    assert [name for name in expected if json_or_bytes(name, found) != json_or_bytes(name, expected)] == []
    assert [record for record in reports[0].linears if record.outcome == "adapted"]
    assert reports[0].linears == reports[1].linears
    assert reports[0].run.dequantised.keys() == {"old", "new"}
    assert reports[0].run.contents["out"] == reports[1].run.contents["out"]
    if make is text:
        folders = [tmp_path / "quantise-old", tmp_path / "quantise-new"]
        assert not verify(outs[0], *folders).problems
        request = MergeRequest.of(*folders, {tmp_path / "plan": HPAConfig()}, safety_calib=safety, task_calib=task)
        (plan,) = preview(request).values()
        assert plan.dequantised == reports[0].run.dequantised
        assert plan.dequantised == {"old": "14 weights in block FP8", "new": "14 weights in int4 by group"}
        assert plan.dtype == reports[0].run.dtype == "bfloat16"
        weights, others = (
            sum(path.stat().st_size for path in place.iterdir() if (path.suffix == ".safetensors") == kind)
            for place, kind in ((outs[0], True), (folders[1], False))
        )
        assert weights <= plan.bytes_out <= weights + others


def json_or_bytes(name: str, files: dict[str, bytes]) -> object:
    """What is compared: config.json and the index are written again, with the same content and the true size."""
    if name not in ("config.json", "model.safetensors.index.json"):
        return files[name]
    return {key: value for key, value in json.loads(files[name]).items() if key != "metadata"}


def test_another_dtype(tmp_path: Path) -> None:
    """``dtype="float32"`` is a merge of the checkpoints that ``from_pretrained(dtype=float32)`` saves."""
    old, new, safety, task = text(tmp_path)
    for folder in (old, new):
        saved = shutil.copytree(folder, tmp_path / f"cast-{folder.name}")
        for shard in saved.glob("*.safetensors*"):
            shard.unlink()
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        model.save_pretrained(saved)
    options = {"safety_calib": safety, "task_calib": task, "page": False}
    merge(old, new, tmp_path / "out", config=HPAConfig(dtype="float32"), **options)
    merge(tmp_path / "cast-old", tmp_path / "cast-new", tmp_path / "expected", **options)
    expected = load_file(tmp_path / "expected" / "model.safetensors")
    found = {k: v for shard in (tmp_path / "out").glob("*.safetensors") for k, v in load_file(shard).items()}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"
