"""Memory: what a merge is allowed, how it keeps within it, and what it says where there is too little."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from cases import Call, TinyCase, assert_refused, content

import hpa_merge.engine.setup
from hpa_merge import HPAConfig, merge
from hpa_merge.cli.merging import Size
from hpa_merge.core import Curvature
from hpa_merge.engine.memory import Memory, allot
from hpa_merge.engine.request import Limits, MergeRequest
from hpa_merge.engine.setup import prepare
from hpa_merge.engine.statistics import ModelStatistics
from hpa_merge.errors import ConfigError, ResourceError

Tiny = Callable[..., TinyCase]

GB = 10**9
ANY = Limits()


def run(case: Any, out: Path, **options: Any) -> dict[str, Any]:
    merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task, **options)
    return content(out)


@pytest.fixture
def ready(tiny: Tiny, tmp_path: Path) -> Any:
    """A prepared merge, and its memory on another device, with other limits, or with known statistics."""
    case = tiny("llama")
    outs = {tmp_path / "out": HPAConfig()}
    with prepare(MergeRequest(case.old, case.new, outs, case.safety, (case.task,))) as prepared:

        def allotted(device: str, limits: Limits = ANY, runs: tuple[bool, bool] = (True, True)) -> Memory:
            plan = dataclasses.replace(prepared.plan, device=torch.device(device))
            sets = [
                each if needed else dataclasses.replace(each, known=ModelStatistics(each.key))
                for each, needed in zip(prepared.sets, runs, strict=True)
            ]
            return allot(plan, (prepared.inputs.old, prepared.inputs.new), sets, limits)

        yield allotted


# --- what is allotted ---


def test_without_limits_a_block_is_read_ahead(ready: Any) -> None:
    memory = ready("cpu")
    assert memory.prefetch == memory.queued > 0
    assert not memory.offload
    assert memory.device is None


def test_less_is_held_ahead_where_memory_is_scarce(ready: Any) -> None:
    free = ready("cpu")
    bare = free.host - 3 * free.prefetch
    scarce = ready("cpu", Limits(bare + 3 * 1000))
    assert scarce.prefetch == scarce.queued == 1000
    assert scarce.host == bare + 3 * 1000
    assert ready("cpu", Limits(bare)).prefetch == 0
    with pytest.raises(
        ConfigError, match=r"^max_memory is \d\.\d\d GB and this merge may take \d\.\d\d GB on the host"
    ):
        ready("cpu", Limits(bare - 1))


def test_tokens_wait_on_the_host_where_the_device_is_small(ready: Any) -> None:
    free = ready("cuda")
    assert not free.offload
    small = ready("cuda", Limits(free.device - 1))
    assert small.offload
    assert small.device < free.device
    assert small.host > free.host
    with pytest.raises(ConfigError, match=r"^max_memory is 0\.00 GB and this merge may take .* GB on cuda: raise it"):
        ready("cuda", Limits(small.device - 1))
    with pytest.raises(ConfigError, match=r"^max_host_memory is .* GB and this merge may take .* GB on the host"):
        ready("cuda", Limits(host=10**8))


def test_known_statistics_need_less(ready: Any) -> None:
    both, one, none = (ready("cpu", runs=runs).host for runs in ((True, True), (True, False), (False, False)))
    assert none < one < both


# --- and what comes of it ---


@pytest.mark.parametrize("name", ["gpt2", "llava", "phi3"])
def test_the_way_memory_is_used_changes_no_byte(
    name: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = tiny(name, "bfloat16")
    expected = run(case, tmp_path / "free")
    changes: tuple[dict[str, int], ...] = (
        {"prefetch": 0, "queued": 0},
        {"prefetch": 1000, "queued": 1000},
        {"offload": True},
    )
    for number, change in enumerate(changes):
        with monkeypatch.context() as patch:
            patch.setattr(
                hpa_merge.engine.setup, "allot", lambda *a, c=change, **k: dataclasses.replace(allot(*a, **k), **c)
            )
            assert run(case, tmp_path / str(number)) == expected


@pytest.mark.parametrize("n", [5, 40, 5000])
def test_what_waited_on_the_host_is_the_same(n: int) -> None:
    x = torch.randn(n, 12, generator=torch.Generator().manual_seed(0))
    at_once, later = Curvature(12), Curvature(12, offload=True)
    for batch in x.split(3):
        at_once.add(batch)
        later.add(batch)
    assert torch.equal(at_once.inverse_diagonal(0.01), later.inverse_diagonal(0.01))
    assert (later.tokens, later.peak) == (at_once.tokens, at_once.peak)


# --- memory that runs out ---


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=["device", "host", "python"],
)
@pytest.mark.parametrize("where", ["forward", "factor"])
def test_memory_runs_out(
    error: Exception, where: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, left = tiny("gpt2"), [9]
    expected = run(case, tmp_path / "whole")
    owner, name = (Curvature, "inverse_diagonal") if where == "factor" else (torch.nn.LayerNorm, "forward")
    real = getattr(owner, name)

    def fail(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise error
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        with pytest.raises(ResourceError) as caught:
            run(case, tmp_path / "out")
    sentence = str(caught.value)
    assert sentence.startswith("the memory of the host is full: this merge takes up to ")
    assert "set max_memory to a smaller limit and resume with --resume" in sentence
    assert run(case, tmp_path / "out", resume=True, max_memory=100 * GB) == expected


# --- the command ---


@pytest.mark.parametrize("options", [("--max-memory", "1MB"), ("--config", "max-memory: 1MB")], ids=["option", "yaml"])
def test_a_limit_that_cannot_be_kept_is_met_before_the_work(
    options: tuple[str, str], make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call()
    flag, value = options
    call.options = (flag, str(call.write("options.yaml", value)) if flag == "--config" else value, "--device", "cpu")
    assert_refused(call, capsys, "max_memory is 0.00 GB and this merge may take ")


# --- sizes ---


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GB", 24 * GB),
        ("24 gb", 24 * GB),
        ("1.5G", 1_500_000_000),
        ("16GiB", 16 * 2**30),
        ("500MB", 5 * 10**8),
        ("1e9", GB),
        (4096, 4096),
    ],
)
def test_sizes(text: Any, size: int) -> None:
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "many", "1..2GB", "24 GBs", "nan"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"is not a size: write it like 24GB, 500MB or 16GiB"):
        Size().convert(text, None, None)
