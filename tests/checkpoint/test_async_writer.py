"""async_writer.py: the writer's calls in their order, each byte written once, nothing claimed after an error."""

import os
import tempfile
import threading
import weakref
from collections import Counter
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
import torch
from checkpoint_folders import everything, new_folder, old_folder  # noqa: F401 - fixtures
from hypothesis import given, settings
from hypothesis import strategies as st
from recorder import NAMES, Recorder, behind_of
from safetensors.torch import load_file
from threads import settles

from hpa_merge.checkpoint import AsyncWriter, Checkpoint, CheckpointWriter

pytestmark = pytest.mark.usefixtures("_no_thread_is_left")

HUNDRED = torch.zeros(100, dtype=torch.uint8)


# --- order and room ---


@pytest.mark.parametrize("budget", [0, 1, 250, 10**6])
def test_calls_keep_their_order(budget: int) -> None:
    writer, expected = Recorder(), []
    with behind_of(writer, budget) as behind:
        for number in range(50):
            behind.write(f"w{number}", HUNDRED.view(20, 5).T)
            behind.copy(f"c{number}")
            behind.commit({"unit": number})
            expected += [f"w{number}", f"c{number}", {"unit": number}]
        behind.flush()
        assert writer.calls == expected
        behind.copy("last")
    assert writer.calls == [*expected, "last"]
    assert writer.threads == {"writing OUT behind" if budget else "MainThread"}


def test_no_more_waits_than_may() -> None:
    writer = Recorder()
    writer.gate.clear()
    with behind_of(writer, 250) as behind:
        accepted: list[int] = []

        def fill() -> None:
            for number, size in enumerate((100, 100, 100, 900, 100, 0)):
                behind.write(str(number), torch.zeros(size, dtype=torch.uint8))
                accepted.append(number)

        behind.commit("takes no room")
        caller = threading.Thread(target=fill)
        caller.start()
        settles(lambda: accepted, [0, 1])
        behind.copy("takes no room")
        gate, writer.gate = writer.gate, threading.Event()
        gate.set()  # the commit is done, and the first tensor waits for the next gate
        settles(lambda: (writer.calls, accepted), (["takes no room"], [0, 1]))
        gate, writer.gate = writer.gate, threading.Event()
        gate.set()
        settles(lambda: (writer.calls[1:], accepted), (["0"], [0, 1, 2]))
        writer.gate.set()
        caller.join()
    assert writer.calls[1:] == ["0", "1", "takes no room", "2", "3", "4", "5"]


def test_what_is_larger_than_the_budget_is_alone() -> None:
    writer = Recorder()
    writer.gate.clear()
    with behind_of(writer, 50) as behind:
        behind.write("large", HUNDRED)
        caller = threading.Thread(target=behind.write, args=("small", torch.zeros(1)))
        caller.start()
        settles(caller.is_alive, True)
        writer.gate.set()
        caller.join()
    assert writer.calls == ["large", "small"]


def passing(behind: AsyncWriter) -> weakref.ref[Any]:
    """Write a tensor of which nothing is kept here; its memory, as long as it is there."""
    memory = np.zeros(100, dtype=np.uint8)
    behind.write("passing", torch.from_numpy(memory))
    return weakref.ref(memory)


@pytest.mark.parametrize("dropped", [False, True])
def test_what_is_written_or_dropped_is_not_held(dropped: bool) -> None:
    writer = Recorder()
    behind = behind_of(writer, 1000)
    if dropped:
        writer.gate.clear()
        behind.copy("takes long")
        settles(lambda: writer.begun, 1)
        there = passing(behind)
        opener = threading.Timer(0.1, writer.gate.set)
        opener.start()
        behind.close()
        opener.join()
    else:
        there = passing(behind)
        behind.flush()
    assert there() is None
    behind.close()
    assert writer.calls == ["takes long" if dropped else "passing"]


def test_strided_differentiable_and_inference_tensors(old: Path, tmp_path: Path) -> None:
    with torch.inference_mode():
        half = torch.randn(2, 3).half().T
    wide = torch.randn(7, 5).bfloat16().T.requires_grad_()
    with Checkpoint.open(old, "NEW") as source:
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[old])
        with AsyncWriter(writer, 10) as behind:
            behind.write("0.wide.weight", wide)
            behind.write("0.half.weight", half)
            behind.flush()
            for name in writer.remaining():
                behind.copy(name)
        writer.publish({})
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(written["0.wide.weight"], wide)
    assert torch.equal(written["0.half.weight"], half)


# --- each byte once ---


@final
class Writes:
    """How often each byte of a file was written, by name and offset; and the calls in their order."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.bytes: dict[str, Counter[int]] = {}
        self.calls: list[str] = []
        self.by_copy = 0
        pwrite, copy, fsync, write = os.pwrite, os.copy_file_range, os.fsync, os.write

        def pwrite_(target: int, content: Any, offset: int) -> int:
            return self._note("pwrite", target, offset, pwrite(target, content, offset))

        def copy_(source: int, target: int, count: int, begin: int, offset: int) -> int:
            done = self._note("copy", target, offset, copy(source, target, count, begin, offset))
            self.by_copy += done
            return done

        def fsync_(target: int) -> None:
            self._note("fsync", target, 0, 0)
            fsync(target)

        def write_(target: int, content: Any) -> int:
            return self._note("write", target, 0, write(target, content))

        for name, call in (("pwrite", pwrite_), ("copy_file_range", copy_), ("fsync", fsync_), ("write", write_)):
            patch.setattr(os, name, call)

    def _note(self, what: str, target: int, offset: int, count: int) -> int:
        name = Path(f"/proc/self/fd/{target}").readlink().name
        if name.endswith((".safetensors", ".journal")):
            self.calls.append(f"{what} {name}")
            self.bytes.setdefault(name, Counter()).update(range(offset, offset + count))
        return count


@pytest.mark.parametrize("budget", [0, 100])
def test_each_byte_is_written_once_and_durable_before_it_is_claimed(
    budget: int, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Checkpoint.open(new, "NEW") as source:
        names, tensors = list(source.tensors), {name: source.read(name) for name in source.tensors}
        writes = Writes(monkeypatch)
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[new])
        begun = len(writes.calls)
        with AsyncWriter(writer, budget) as behind:
            for number, name in enumerate(names):
                if number % 2:
                    behind.write(name, tensors[name])
                    behind.commit(name)
                else:
                    behind.copy(name)
            behind.commit("the rest")
        calls = [call for call in writes.calls[begun:] if call.endswith(".safetensors")]
        dirty: set[str] = set()
        for call in writes.calls[begun:]:
            what, name = call.split(" ")
            if name.endswith(".journal"):
                assert not dirty
            elif what == "fsync":
                assert name in dirty  # what was not written to is not synced
                dirty.remove(name)
            elif what == "pwrite":  # what is copied is copied again by a run that is resumed
                dirty.add(name)
        assert calls
        writer.publish({})
        for shard in source.shards:
            assert writes.bytes[shard] == Counter(range((new / shard).stat().st_size))
        assert writes.by_copy == sum(source.tensors[name].nbytes for name in names[::2])
    assert everything(tmp_path / "out") == everything(new)


def test_every_shard_is_opened_once(new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, real = [], os.open

    def open_(path: Any, *arguments: Any, dir_fd: int | None = None, **options: Any) -> int:
        if dir_fd is not None and path.endswith(".safetensors"):
            opened.append(path)
        return real(path, *arguments, dir_fd=dir_fd, **options)

    with Checkpoint.open(new, "NEW") as source:
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", open_)
            writer = CheckpointWriter(source, tmp_path / "out", inputs=[new])
            for number, name in enumerate(source.tensors):
                writer.copy(name) if number % 2 else writer.write(name, source.read(name))
                writer.commit(name)
        writer.abort()
    assert sorted(opened) == list(source.shards)


# --- the same as without it ---


@settings(deadline=None, max_examples=40)
@given(
    order=st.permutations(NAMES),
    how=st.lists(st.sampled_from(["write", "copy"]), min_size=len(NAMES), max_size=len(NAMES)),
    commits=st.sets(st.sampled_from(NAMES)),
    budget=st.sampled_from([0, 1, 30, 10**6]),
)
def test_the_same_folder_and_journal(
    order: list[str], how: list[str], commits: set[str], budget: int, layout: Checkpoint
) -> None:
    with tempfile.TemporaryDirectory() as place:
        found = []
        for name, size in (("at once", None), ("behind", budget)):
            writer = CheckpointWriter(layout, Path(place) / name, inputs=[layout.folder])
            behind = AsyncWriter(writer, size) if size is not None else writer
            for tensor, call in zip(order, how, strict=True):
                if call == "write":
                    behind.write(tensor, layout.read(tensor) * 2)
                else:
                    behind.copy(tensor)
                if tensor in commits:
                    behind.commit({"unit": tensor})
            if isinstance(behind, AsyncWriter):
                behind.flush()
                behind.close()
            journal = (Path(place) / f"{name}.partial.journal").read_bytes()
            found.append((writer.manifest(), writer.remaining(), journal))
            writer.publish({})
        assert found[0] == found[1]
        assert len(found[0][2].splitlines()) == 1 + len(commits)
