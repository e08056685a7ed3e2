"""A rank that dies, or whose disk is full, ends all; nothing is published, and any number of ranks resumes."""

import os
import random
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import TinyCase, content
from interruptions import beside
from ranks import on_ranks

from hpa_merge import HPAConfig, merge
from hpa_merge.checkpoint import CheckpointWriter
from hpa_merge.errors import OutputError, RankError
from hpa_merge.ranks import Group

pytestmark = pytest.mark.gate

MOMENTS = int(os.environ.get("HPA_MERGE_MOMENTS", "3"))
"""How many kills there are; the gate has few, and by hand there may be many."""

HANGING = 10.0
"""Seconds that the others wait for a rank that hangs; a run that only waits for its turn takes less."""

EVENTS = ((Group, "gather"), (CheckpointWriter, "write"), (CheckpointWriter, "copy"), (CheckpointWriter, "commit"))
"""What a moment is counted in."""

Tiny = Callable[..., TinyCase]
Merge = Callable[..., Any]


@pytest.fixture(scope="module")
def call(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Merge:
    """``call(out, resume=False)``: a merge of which every rank makes this call."""
    case, folder = tiny("llama", "bfloat16"), tmp_path_factory.mktemp("ids")
    safety, task = folder / "safety.jsonl", folder / "task.jsonl"
    safety.write_text("".join(f'{{"input_ids": {[3 + n % 90 for n in range(length)]}}}\n' for length in (60, 9, 70)))
    task.write_text("".join(f'{{"input_ids": {[5 + n % 80 for n in range(length)]}}}\n' for length in (30, 8, 90, 7)))

    def run(out: Path, *, resume: bool = False) -> None:
        files: dict[str, Any] = {"safety_calib": safety, "task_calib": task, "page": False, "resume": resume}
        merge(case.old, case.new, out, config=HPAConfig(), **files)

    return run


@pytest.fixture(scope="module")
def alone(call: Merge, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process makes."""
    out = tmp_path_factory.mktemp("alone") / "out"
    call(out)
    return content(out)


def counting(at: int, happens: Callable[[], None]) -> list[int]:
    """Have ``happens`` called at the event of that number; returns how many there have been."""
    count = [0]
    for owner, name in EVENTS:
        real = getattr(owner, name)

        def event(*arguments: Any, _real: Callable[..., Any] = real, **options: Any) -> Any:
            count[0] += 1
            if count[0] == at:
                happens()
            return _real(*arguments, **options)

        setattr(owner, name, event)  # in a process that ends
    return count


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_rank_is_killed_at_any_moment(call: Merge, alone: dict[str, Any], tmp_path: Path) -> None:
    def counted(rank: int) -> int:
        count = counting(-1, lambda: None)
        call(tmp_path / "counted")
        return count[0]

    events = on_ranks(3, counted, tmp_path)
    assert content(tmp_path / "counted") == alone
    seed = time.time_ns()
    draw = random.Random(seed)
    for moment in range(MOMENTS):
        dying = draw.randrange(3)
        at, out = draw.randint(1, events[dying]), tmp_path / f"out-{moment}"

        def work(rank: int, dying: int = dying, at: int = at, out: Path = out) -> None:
            if rank == dying:
                counting(at, die)
            call(out)

        ends = on_ranks(3, work, tmp_path)
        if not out.exists():  # after it, the ranks only tell each other that it is there
            assert all(isinstance(end, RankError) for rank, end in enumerate(ends) if rank != dying), (
                seed,
                dying,
                at,
                ends,
            )
            size = draw.choice((1, 2, 4))
            if size == 1:
                call(out, resume=True)
            else:
                again = on_ranks(size, lambda rank, out=out: call(out, resume=True), tmp_path)  # type: ignore[misc]
                assert again == [None] * size, (seed, dying, at, again)
        assert content(out) == alone, (seed, dying, at)
        assert beside(out) == [out.name], (seed, dying, at)


@pytest.mark.parametrize("full", [0, 2])
def test_the_disk_of_a_rank_is_full(full: int, call: Merge, alone: dict[str, Any], tmp_path: Path) -> None:
    """All ranks end with the same sentence."""
    out = tmp_path / "out"

    def work(rank: int) -> None:
        if rank == full:
            counting(45, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)))
        call(out)

    ends = on_ranks(3, work, tmp_path)
    assert all(isinstance(end, OutputError) for end in ends), ends
    (sentence,) = {str(end) for end in ends}
    assert "(File too large): free some space, or choose another disk for OUT." in sentence
    assert "out.partial" in beside(out)
    assert "out" not in beside(out)
    assert on_ranks(2, lambda rank: call(out, resume=True), tmp_path) == [None, None]
    assert content(out) == alone
    assert beside(out) == ["out"]


def test_a_rank_hangs(call: Merge, alone: dict[str, Any], tmp_path: Path) -> None:
    """The others wait for it as long as they may, and end; OUT does not appear, and is made when it is gone."""
    out, pids, stopped = tmp_path / "out", tmp_path / "pids", 0
    pids.mkdir()

    def work(rank: int) -> None:
        (pids / f"{rank}").write_text(f"{os.getpid()}")
        if rank == stopped:
            counting(75, lambda: os.kill(os.getpid(), signal.SIGSTOP))
        try:
            call(out)
        finally:  # as the launcher does when one has ended
            os.kill(int((pids / f"{stopped}").read_text()), signal.SIGKILL)

    ends = on_ranks(3, work, tmp_path, seconds=HANGING)
    for rank, end in enumerate(ends):
        assert end is None if rank == stopped else isinstance(end, RankError), ends
    assert not out.exists()
    assert on_ranks(2, lambda rank: call(out, resume=True), tmp_path) == [None, None]
    assert content(out) == alone
    assert beside(out) == ["out"]


def test_a_second_group_is_kept_away(call: Merge, tmp_path: Path) -> None:
    """By the locks of all ranks, from the beginning to the end."""
    out, said = tmp_path / "out", tmp_path / "said"

    def work(rank: int) -> None:
        def other() -> None:
            if rank == 1:
                try:
                    call_alone(out)
                except OutputError as error:
                    said.write_text(str(error))

        counting(60, other)
        call(out)

    def call_alone(out: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Group, "current", classmethod(lambda cls: cls.alone()))
            call(out, resume=True)

    assert on_ranks(2, work, tmp_path) == [None, None]
    assert said.read_text().startswith("another run is writing")
