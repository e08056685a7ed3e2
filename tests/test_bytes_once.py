"""Every byte of the inputs is read once and every byte of OUT written once, counted at the system calls.

Besides, both ends of every tensor are looked at, for the content digests: 2 KiB from either, once when OLD and NEW are
opened and once before OUT appears.
"""

import os
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cases import TinyCase

from hpa_merge import HPAConfig, merge
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.engine import memory as forecast

Tiny = Callable[..., TinyCase]

Ranges = dict[Path, list[tuple[int, int]]]


def path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


@pytest.fixture
def traffic(monkeypatch: pytest.MonkeyPatch) -> tuple[Ranges, Ranges]:
    """Which bytes of each weight file were read, and which were written or copied there."""
    read: Ranges = defaultdict(list)
    written: Ranges = defaultdict(list)
    preadv, pwrite, copy = os.preadv, os.pwrite, os.copy_file_range

    def counted_preadv(descriptor: int, buffers: Any, offset: int, *flags: int) -> int:
        done = preadv(descriptor, buffers, offset, *flags)
        read[path_of(descriptor)].append((offset, offset + done))
        return done

    def counted_pwrite(descriptor: int, data: Any, offset: int) -> int:
        done = pwrite(descriptor, data, offset)
        written[path_of(descriptor)].append((offset, offset + done))
        return done

    def counted_copy(source: int, target: int, count: int, offset_src: int, offset_dst: int) -> int:
        done = copy(source, target, count, offset_src, offset_dst)
        written[path_of(target)].append((offset_dst, offset_dst + done))
        return done

    monkeypatch.setattr(os, "preadv", counted_preadv)
    monkeypatch.setattr(os, "pwrite", counted_pwrite)
    monkeypatch.setattr(os, "copy_file_range", counted_copy)
    return read, written


def tensor_bytes(folder: Path, role: str) -> dict[Path, tuple[int, int]]:
    """Where the tensors of each weight file begin and end."""
    with Checkpoint.open(folder, role) as checkpoint:
        infos = list(checkpoint.tensors.values())
    files = {info.shard for info in infos}
    return {
        (folder / file).resolve(): (
            min(info.start for info in infos if info.shard == file),
            max(info.stop for info in infos if info.shard == file),
        )
        for file in files
    }


END = 2048


def without_samples(found: Ranges, *checkpoints: tuple[Path, str]) -> Ranges:
    """What was read beside both ends of every tensor, each of which was read twice more than the rest."""
    rest: Ranges = defaultdict(list, {path: list(ranges) for path, ranges in found.items()})
    for folder, role in checkpoints:
        with Checkpoint.open(folder, role) as checkpoint:
            infos = list(checkpoint.tensors.values())
        for info in infos:
            ends = [(info.start, info.start + END), (info.stop - END, info.stop)]
            for sample in 2 * (ends if info.nbytes > 2 * END else [(info.start, info.stop)]):
                rest[(folder / info.shard).resolve()].remove(sample)
    return rest


def assert_once(found: Ranges, expected: dict[Path, tuple[int, int]]) -> None:
    """The ranges of each file follow one another without a gap or an overlap."""
    for path, (start, stop) in expected.items():
        at = start
        for begin, end in sorted(found[path]):
            assert begin == at, (path, begin, at)
            at = end
        assert at == stop, path


def assert_once_at_most(found: Ranges, expected: dict[Path, tuple[int, int]]) -> None:
    for path in expected:
        assert found[path]
        assert all(first[1] <= second[0] for first, second in pairwise(sorted(found[path])))


@pytest.mark.parametrize("queue", [0, 5000, 2**31])
@pytest.mark.parametrize("name", ["llama", "gpt2", "llava", "qwen2_tied"])
def test_each_byte_once(
    name: str, queue: int, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traffic: tuple[Ranges, Ranges]
) -> None:
    monkeypatch.setattr(forecast, "QUEUE", queue)
    case, out = tiny(name, "bfloat16"), tmp_path / "out"
    merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task)
    read, written = traffic
    read = without_samples(read, (case.old, "OLD"), (case.new, "NEW"))
    old, new = tensor_bytes(case.old, "OLD"), tensor_bytes(case.new, "NEW")
    assert_once(read, new)
    assert_once_at_most(read, old)  # of OLD what comes after the last linear is not needed
    partial = {out.with_name("out.partial") / path.name: (0, stop) for path, (_, stop) in new.items()}
    assert_once(written, partial)  # with the head


@pytest.mark.parametrize("options", [{"vision": "old", "embeddings": "old"}, {"language": "old"}, {"head": "old"}])
def test_what_is_olds_is_read_once(
    options: dict[str, Any], tiny: Tiny, tmp_path: Path, traffic: tuple[Ranges, Ranges]
) -> None:
    case, out = tiny("llava", "bfloat16"), tmp_path / "out"
    config = HPAConfig(**options)
    merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task, config=config)
    read, written = traffic
    read = without_samples(read, (case.old, "OLD"), (case.new, "NEW"))
    old, new = tensor_bytes(case.old, "OLD"), tensor_bytes(case.new, "NEW")
    assert_once(read, new)
    assert_once_at_most(read, old)
    assert_once(written, {out.with_name("out.partial") / path.name: (0, stop) for path, (_, stop) in new.items()})


def test_with_statistics_each_byte_once_at_most(tiny: Tiny, tmp_path: Path, traffic: tuple[Ranges, Ranges]) -> None:
    case, out, stats = tiny("llama", "bfloat16"), tmp_path / "out", tmp_path / "stats"
    calibration = {"safety_calib": case.safety, "task_calib": case.task, "stats": stats}
    merge(case.old, case.new, tmp_path / "first", **calibration)
    read, written = traffic
    read.clear()
    written.clear()
    merge(case.old, case.new, out, **calibration)
    read = without_samples(read, (case.old, "OLD"), (case.new, "NEW"))
    assert_once(read, tensor_bytes(case.new, "NEW"))
    old = tensor_bytes(case.old, "OLD")
    assert_once_at_most(read, old)
    for path, (start, stop) in old.items():
        assert sum(end - begin for begin, end in read[path]) < stop - start  # not what is no linear
    new = tensor_bytes(case.new, "NEW")
    assert_once(written, {out.with_name("out.partial") / path.name: (0, stop) for path, (_, stop) in new.items()})
