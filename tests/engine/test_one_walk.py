"""A merge with known statistics goes over each weight as often as it has to: nothing is read back, no thread waits."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import TinyCase, content
from statistics_runs import run

from hpa_merge.checkpoint import Checkpoint, direct, writer
from hpa_merge.checkpoint.direct import ShardFile
from hpa_merge.core import threads
from hpa_merge.methods import applying

Tiny = Callable[..., TinyCase]


@pytest.mark.parametrize("name", ["llama", "phi3", "gpt2"])
def test_no_linear_is_read_back_to_be_hashed(
    name: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tensors are written in the order of the file, but for small ones; and past the cache, here from one page."""
    case, stats, back = tiny(name, "bfloat16"), tmp_path / "statistics", []
    report = run(case, tmp_path / "computed", stats)
    linears = {linear.name for linear in report.linears}
    real = ShardFile.pieces
    for module in (direct, writer):
        monkeypatch.setattr(module, "WORTH", 1)
    monkeypatch.setattr(
        ShardFile, "pieces", lambda file, start, stop: back.append(stop - start) or real(file, start, stop)
    )
    run(case, tmp_path / "read", stats)
    with Checkpoint.open(case.new, "NEW") as new:
        others = sum(info.nbytes for key, info in new.tensors.items() if key not in linears)
    assert sum(back) <= others
    assert content(tmp_path / "read") == content(tmp_path / "computed")


@pytest.mark.parametrize("method", ["hpa", "energy", "null-space"])
def test_columns_are_chosen_on_one_thread(
    method: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors are too short to be divided. A rule that multiplies matrices has all threads."""
    found: Counter[int] = Counter()
    real = applying.measure_update

    def measure_update(*weights: Any) -> Any:
        found[torch.get_num_threads()] += 1
        return real(*weights)

    monkeypatch.setattr(applying, "measure_update", measure_update)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        run(tiny("gpt2", "bfloat16"), tmp_path / "out", method=method)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert set(found) == {3 if method == "null-space" else 1}


def test_threads_come_back_after_an_error() -> None:
    before = torch.get_num_threads()

    @threads.one_thread()
    def fail(times: int) -> None:
        assert torch.get_num_threads() == 1
        if times:
            fail(times - 1)
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fail(2)
        assert torch.get_num_threads() == before
