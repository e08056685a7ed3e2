"""Several ranks write the bytes that one process writes, and together read every byte once."""

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import TinyCase, content
from ranks import on_ranks

from hpa_merge import HPAConfig, merge, sweep

pytestmark = pytest.mark.gate

Tiny = Callable[..., TinyCase]


def counted() -> Counter[str]:
    """Counts the bytes that this process reads of each weight file from now on."""
    read: Counter[str] = Counter()
    preadv = os.preadv

    def count(descriptor: int, buffers: Any, offset: int, *flags: int) -> int:
        done = preadv(descriptor, buffers, offset, *flags)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        read[path.parent.name] += done
        return done

    os.preadv = count  # type: ignore[assignment]
    return read


def write_ids(path: Path, *lengths: int) -> Path:
    """A calibration file of so many samples of token ids; no child process reads them."""
    draw = torch.Generator().manual_seed(len(lengths))
    rows = [torch.randint(3, 200, (length,), generator=draw).tolist() for length in lengths]
    path.write_text("".join(f"{json.dumps({'input_ids': row})}\n" for row in rows))
    return path


# Of 64 columns, 52 tokens are multiplied, and so are 66 tokens of a leaf; of 112 columns, 90 and 114.
SAFETY = (200, 9, 70)  # fewer than ranks; one leaf whose Gram matrix travels
TASK = (5, 30, 8, 90, 7, 11, 6, 130, 3, 20, 40, 7, 9, 4, 8, 31, 6, 5, 22)  # two leaves of several samples


@pytest.fixture(scope="module")
def text(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> TinyCase:
    folder = tmp_path_factory.mktemp("ids")
    case = tiny("llama", "bfloat16")
    return case._replace(safety=write_ids(folder / "s.jsonl", *SAFETY), task=write_ids(folder / "t.jsonl", *TASK))


def merge_text(case: TinyCase, folder: Path) -> None:
    """Two OUTs and the statistics; then one OUT from these alone, and one with the samples of one set."""
    folder.mkdir(exist_ok=True)
    calibration: dict[str, Any] = {"safety_calib": case.safety, "task_calib": case.task, "page": False}
    outs = {folder / "a": HPAConfig(), folder / "b": HPAConfig(p_max=30.0, embeddings="old")}
    sweep(case.old, case.new, outs, stats=folder / "stats", **calibration)
    merge(case.old, case.new, folder / "c", stats=folder / "stats", **calibration)
    calibration["task_calib"] = case.safety
    merge(case.old, case.new, folder / "d", stats=folder / "stats", **calibration)


def made(folder: Path) -> dict[str, Any]:
    outs: dict[str, Any] = {path.name: content(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    return outs | {"stats": (folder / "stats").read_bytes() if (folder / "stats").exists() else b""}


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_same_bytes(size: int, text: TinyCase, one: dict[str, Any], tmp_path: Path) -> None:
    assert on_ranks(size, lambda rank: merge_text(text, tmp_path / "out"), tmp_path) == [None] * size
    assert made(tmp_path / "out") == one


@pytest.fixture(scope="module")
def one(text: TinyCase, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("one") / "out"
    merge_text(text, folder)
    return made(folder)
