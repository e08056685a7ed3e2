"""``compute_dtype``: a float32 run of a bfloat16 pair is the run of the upcast one, and no run mixes dtypes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import TinyCase, content
from mixtures import gpt_oss, make, mixtral
from quantised import quantise
from ranks import on_ranks
from safetensors.torch import load_file, save_file
from statistics_runs import described, interrupt, raising, run, started_roles  # noqa: F401 - a fixture

from hpa_merge import HPAConfig
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.engine import compute_dtype, machine
from hpa_merge.engine.machine import slow_dtypes
from hpa_merge.engine.meta_models import meta_model
from hpa_merge.engine.preview import preview
from hpa_merge.engine.request import MergeRequest
from hpa_merge.engine.setup import prepare
from hpa_merge.errors import OutputError
from hpa_merge.report.facts import report_facts
from hpa_merge.verification import verify

CPU = torch.device("cpu")
Tiny = Callable[..., TinyCase]


def upcast(folder: Path, to: Path) -> Path:
    """The checkpoint in float32, as ``model.float()`` and ``save_pretrained`` make it."""
    shutil.copytree(folder, to)
    for path in to.glob("*.safetensors"):
        tensors = load_file(path)
        save_file({name: value.float() for name, value in tensors.items()}, path, {"format": "pt"})
    config = (to / "config.json").read_text()
    assert '"bfloat16"' in config
    (to / "config.json").write_text(config.replace('"bfloat16"', '"float32"'))
    return to


def bfloat16_of(name: str, tiny: Tiny, folder: Path) -> TinyCase:
    if name in ("mixtral", "gpt_oss"):
        case = make({"mixtral": mixtral, "gpt_oss": gpt_oss}[name], folder / "made")
        return case._replace(old=downcast(case.old), new=downcast(case.new))
    return tiny(name, "bfloat16")


def downcast(folder: Path) -> Path:
    for path in folder.glob("*.safetensors"):
        save_file({name: value.bfloat16() for name, value in load_file(path).items()}, path, {"format": "pt"})
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"float32"', '"bfloat16"'))
    return folder


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.gate) for name in ("qwen2_tied", "llava", "mixtral", "gpt_oss")]
)
def test_float32_statistics_are_those_of_the_upcast_pair(name: str, tiny: Tiny, tmp_path: Path) -> None:
    case = bfloat16_of(name, tiny, tmp_path)
    floats = case._replace(**{each: upcast(getattr(case, each), tmp_path / each) for each in ("old", "new")})
    report = run(case, tmp_path / "a", tmp_path / "a.stats", compute_dtype="float32")
    assert run(floats, tmp_path / "b", tmp_path / "b.stats").run.compute_dtype == report.run.compute_dtype
    assert report.run.compute_dtype == {"safety": "float32", "task": "float32"}
    found, expected = load_file(tmp_path / "a.stats"), load_file(tmp_path / "b.stats")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert {value.dtype for value in load_file(next((tmp_path / "a").glob("*.safetensors"))).values()} == {
        torch.bfloat16
    }


def test_weights_in_few_bits_run_in_float32_too(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama", "bfloat16")
    few = case._replace(**{each: quantise(getattr(case, each), tmp_path / each, "fp8") for each in ("old", "new")})
    report = run(few, tmp_path / "out", compute_dtype="float32")
    assert report.run.compute_dtype == {"safety": "float32", "task": "float32"}
    assert report.run.dequantised


@pytest.mark.gate
def test_statistics_keep_their_dtype(tiny: Tiny, tmp_path: Path, started: list[str]) -> None:
    """``auto`` takes the dtype of the file; those of another dtype that is asked for are computed."""
    case, stats = tiny("llama", "bfloat16"), tmp_path / "stats"
    first = run(case, tmp_path / "a", stats, compute_dtype="float32")
    started.clear()
    read = run(case, tmp_path / "b", stats)
    assert (started, read.run.compute_dtype) == ([], first.run.compute_dtype)
    other = run(case, tmp_path / "c", stats, compute_dtype="bfloat16")
    assert started == ["OLD", "NEW"]
    assert [note for note in other.warnings if "safety compute_dtype float32, and now it is bfloat16" in note]
    assert described(stats)["task"]["fingerprint"]["task compute_dtype"] == "bfloat16"


@pytest.mark.gate
def test_a_run_is_resumed_in_its_dtype(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama", "bfloat16")
    run(case, tmp_path / "whole", compute_dtype="float32")
    interrupt(case, tmp_path / "out", None, 2, compute_dtype="float32")
    with pytest.raises(OutputError, match="was begun with safety compute_dtype float32, and now it is bfloat16: "):
        run(case, tmp_path / "out", resume=True, compute_dtype="bfloat16")
    report = run(case, tmp_path / "out", resume=True)  # auto, here in bfloat16
    assert report.run.compute_dtype == {"safety": "float32", "task": "float32"}
    weights = [{p.name: p.read_bytes() for p in (tmp_path / f).glob("*.safetensors")} for f in ("whole", "out")]
    assert weights[0] == weights[1]


@pytest.mark.gate
def test_verify_runs_in_the_dtype_of_the_report(tiny: Tiny, tmp_path: Path) -> None:
    """Which is that of the statistics, and not of the options."""
    case, stats = tiny("llama", "bfloat16"), tmp_path / "stats"
    run(case, tmp_path / "first", stats, compute_dtype="float32")
    report = run(case, tmp_path / "out", stats)
    assert report.config["compute_dtype"] == "auto"
    assert report.run.compute_dtype == {"safety": "float32", "task": "float32"}
    assert ("samples run in", "float32") in report_facts(report)
    found = verify(tmp_path / "out", case.old, case.new, safety_calib=case.safety, task_calib=case.task)
    assert found.problems == ()
    assert not any("fingerprint" in line for line in found.unchecked)


# --- what auto is ---


def processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    """A processor that Linux describes so."""
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machine, "Path", lambda path: tmp_path / Path(path).name)


@pytest.mark.parametrize(
    ("text", "slow"),
    [
        ("flags\t\t: fpu avx512f amx_bf16 avx512_fp16\n", set()),
        ("flags\t\t: fpu avx2 avx512f\nflags: amx_bf16\n", {"bfloat16", "float16"}),
        ("flags\t\t: avx512_bf16 avx512f\n", {"float16"}),
        ("Features\t: fp asimd asimdhp\n", {"bfloat16"}),
        ("Features\t: fp asimd asimdhp bf16\n", set()),
        ("processor : 0\n", set()),
        ("", set()),
    ],
)
def test_slow_processors(text: str, slow: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    processor(monkeypatch, tmp_path, text)
    assert slow_dtypes(CPU) == slow
    assert slow_dtypes(torch.device("cuda")) == frozenset()


def test_a_slow_processor_is_told(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the plan, and it changes nothing."""
    case, told = tiny("llama", "bfloat16"), {}
    monkeypatch.setattr(compute_dtype, "slow_dtypes", lambda device: frozenset({"bfloat16"}))
    for dtype in ("auto", "float32"):
        outs = {tmp_path / "out": HPAConfig(compute_dtype=dtype)}
        (made,) = preview(MergeRequest(case.old, case.new, outs, case.safety, (case.task,))).values()
        told[made.compute_dtype["task"]] = [note for note in made.notes if "--compute-dtype float32" in note]
    assert (len(told["bfloat16"]), told["float32"]) == (1, [])


@pytest.mark.gate
def test_all_ranks_run_in_the_same_dtype(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The statistics lie where the first rank finds them; and two ranks make the statistics of one in float32."""
    case, stats = tiny("llama", "bfloat16"), tmp_path / "stats"
    run(case, tmp_path / "one", stats, compute_dtype="float32")
    real = compute_dtype.fingerprints_in

    def work(rank: int) -> Any:
        if rank:
            monkeypatch.setattr(compute_dtype, "fingerprints_in", raising(AssertionError("not its own")))
        read = run(case, tmp_path / "read", stats).run.compute_dtype
        return read, run(case, tmp_path / "two", tmp_path / "two.stats", compute_dtype="float32").run.compute_dtype

    assert real(stats)
    floats = {"safety": "float32", "task": "float32"}
    assert on_ranks(2, work, tmp_path) == [(floats, floats)] * 2
    assert (tmp_path / "two.stats").read_bytes() == stats.read_bytes()
    one, read, two = (content(tmp_path / name) for name in ("one", "read", "two"))
    assert two == one
    weights = {name for name in one if name.endswith(".safetensors")}
    assert {name: read[name] for name in weights} == {name: one[name] for name in weights}


# --- memory ---


@pytest.mark.parametrize("name", ["llama", "phi3", "gpt_oss"])
def test_casts_count_in_the_forecast(name: str, tiny: Tiny, tmp_path: Path) -> None:
    """Loading a unit takes the bytes that are forecast; a tensor that is cast and converted at once takes more."""
    case = bfloat16_of(name, tiny, tmp_path)
    with Checkpoint.open(case.new, "NEW") as checkpoint:
        computing = dict.fromkeys((torch.bfloat16,), torch.float32)
        own, cast = meta_model(checkpoint, CPU), meta_model(checkpoint, CPU, computing=computing)
        for unit in cast.units:
            tensors = cast.load(unit, checkpoint.read)
            parameters = cast.model.get_submodule(unit.name).parameters()
            kept = {value.data_ptr(): value.nbytes for value in (*tensors.values(), *parameters)}
            assert sum(kept.values()) <= cast.nbytes(unit) <= 2 * sum(kept.values())
            assert own.nbytes(unit) < cast.nbytes(unit)
            cast.free(unit)
    with_each = {}
    for dtype in ("bfloat16", "float32"):
        request = MergeRequest.of(
            case.old, case.new, {tmp_path / "out": HPAConfig(compute_dtype=dtype)},
            safety_calib=case.safety, task_calib=case.task,
        )  # fmt: skip
        with prepare(request) as prepared:
            with_each[dtype] = prepared.memory.host
    assert with_each["bfloat16"] < with_each["float32"]
