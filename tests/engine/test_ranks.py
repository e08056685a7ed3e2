"""Several ranks write the bytes that one process writes, and together read every byte once."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import REPORT, TinyCase, content
from mixtures import gpt_oss, make, mixtral
from ranks import on_ranks

from hpa_merge import HPAConfig, merge, sweep

pytestmark = pytest.mark.gate

Tiny = Callable[..., TinyCase]
Work = Callable[[Path], None]


def made(folder: Path, work: Work, size: int) -> dict[str, Any]:
    """What so many ranks make in ``folder``, which is removed: a note may name it."""
    folder.mkdir()
    if size == 1:
        work(folder)
    else:
        assert on_ranks(size, lambda rank: work(folder), folder.parent) == [None] * size
    found = {path.parent.name: content(path.parent) for path in folder.glob(f"*/{REPORT}")}
    found |= {path.name: path.read_bytes() for path in (*folder.glob("stats"), *folder.glob("stats.hessians/*"))}
    shutil.rmtree(folder)
    return found


def write_ids(path: Path, *lengths: int) -> Path:
    """A calibration file of so many samples of token ids; no child process reads them."""
    draw = torch.Generator().manual_seed(len(lengths))
    rows = [torch.randint(3, 200, (length,), generator=draw).tolist() for length in lengths]
    path.write_text("".join(f"{json.dumps({'input_ids': row})}\n" for row in rows))
    return path


# Of 64 columns, 52 tokens are multiplied, and so are 66 tokens of a leaf; of 112 columns, 90 and 114.
SAFETY = (200, 9, 70)  # fewer than ranks; leaves whose Gram matrices travel
TASK = (5, 30, 8, 90, 7, 11, 6, 130, 3, 20, 40, 7, 9, 4, 8, 31, 6, 5, 22)  # leaves of one and of two samples


@pytest.fixture(scope="module")
def text(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> TinyCase:
    folder = tmp_path_factory.mktemp("ids")
    case = tiny("llama", "bfloat16")
    return case._replace(safety=write_ids(folder / "s.jsonl", *SAFETY), task=write_ids(folder / "t.jsonl", *TASK))


def test_a_text_model(text: TinyCase, tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        """Two OUTs with statistics; an OUT from these alone; one with another set; one with Hessians."""
        files: dict[str, Any] = {"safety_calib": text.safety, "task_calib": text.task, "page": False}
        outs = {folder / "a": HPAConfig(), folder / "b": HPAConfig(p_max=30.0, embeddings="old")}
        sweep(text.old, text.new, outs, stats=folder / "stats", **files)
        merge(text.old, text.new, folder / "c", stats=folder / "stats", **files)
        merge(text.old, text.new, folder / "d", stats=folder / "stats", **files | {"task_calib": text.safety})

    alone = made(tmp_path / "out", work, 1)
    for size in (2, 3, 4):
        assert made(tmp_path / "out", work, size) == alone, size


@pytest.mark.parametrize("build", [mixtral, gpt_oss])
def test_experts_that_no_token_of_a_rank_reaches(build: Callable[..., Any], tmp_path: Path) -> None:
    case = make(build, tmp_path / "pair")

    def work(folder: Path) -> None:
        files: dict[str, Any] = {"safety_calib": case.safety, "task_calib": case.task, "page": False}
        merge(case.old, case.new, folder / "a", **files)
        config = HPAConfig(method="regmean", routers="merge")
        merge(case.old, case.new, folder / "b", config=config, stats=folder / "stats", stats_hessians=True, **files)

    alone = made(tmp_path / "out", work, 1)
    pooled = [each.get("pooled") for each in alone["a"][REPORT]["linears"]]
    assert any(pooled)
    assert not all(pooled[-6:])
    assert alone["a"][REPORT]["routing"]
    assert made(tmp_path / "out", work, 4) == alone


def test_images_on_some_ranks_only(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llava", "bfloat16")

    def work(folder: Path) -> None:
        merge(case.old, case.new, folder / "a", safety_calib=case.safety, task_calib=case.task, page=False)

    assert made(tmp_path / "out", work, 3) == made(tmp_path / "out", work, 1)
