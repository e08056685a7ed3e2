"""async_writer.py: the writer's calls in their order, each byte written once, nothing claimed after an error."""

import errno
import json
import os
import random
import tempfile
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
import torch
from checkpoint_folders import everything, new_folder, old_folder  # noqa: F401 - fixtures
from failing_disk import ERRORS, Disk, sample
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from threads import settles

from hpa_merge.checkpoint import AsyncWriter, Checkpoint, CheckpointWriter
from hpa_merge.errors import CheckpointError, OutputError

pytestmark = pytest.mark.usefixtures("_no_thread_is_left")

HUNDRED = torch.zeros(100, dtype=torch.uint8)


@final
class Recorder:
    """Stands in for a writer: notes the calls, each of which waits for ``gate``; one may fail."""

    def __init__(self, fails: int | None = None, error: BaseException | None = None) -> None:
        self.begun = 0
        self.calls: list[Any] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self._fails, self._error = fails, error

    def write(self, name: str, tensor: torch.Tensor) -> None:
        assert tensor.is_contiguous()  # else the thread would rearrange it
        self._call(name)

    def copy(self, name: str) -> None:
        self._call(name)

    def commit(self, entry: Any) -> None:
        self._call(entry)

    def _call(self, what: Any) -> None:
        self.begun += 1
        assert self.gate.wait(120)
        self.threads.add(threading.current_thread().name)
        self.calls.append(what)
        if len(self.calls) - 1 == self._fails and self._error is not None:
            raise self._error


def behind_of(writer: Recorder, budget: int) -> AsyncWriter:
    return AsyncWriter(writer, budget)  # type: ignore[arg-type]


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

NAMES = [f"t{number}" for number in range(6)]


@pytest.fixture(name="layout", scope="module")
def shared_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoint]:
    folder = tmp_path_factory.mktemp("layout")
    (folder / "config.json").write_text("{}")
    save_file({name: torch.randn(3, number) for number, name in enumerate(NAMES)}, folder / "model.safetensors")
    with Checkpoint.open(folder, "NEW") as checkpoint:
        yield checkpoint


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


# --- errors ---


@pytest.mark.parametrize("budget", [0, 1000])
@pytest.mark.parametrize(
    "error", [OutputError("the disk is full."), CheckpointError("it is gone."), KeyError("a"), KeyboardInterrupt()]
)
def test_an_error_comes_back_and_nothing_after_it_is_done(error: BaseException, budget: int) -> None:
    writer, raised = Recorder(fails=1, error=error), []
    behind = behind_of(writer, budget)

    def work() -> None:
        if budget:
            writer.gate.clear()  # all of it waits
        for name in ("a", "b", "c"):
            behind.write(name, HUNDRED)
        behind.commit("all three")
        writer.gate.set()
        behind.flush()

    further = (behind.flush, lambda: behind.copy("d"), lambda: behind.write("e", HUNDRED), lambda: behind.commit("f"))
    for call in (work, *further):
        with pytest.raises(type(error)) as told:
            call()
        raised.append(told.value)
    behind.close()
    assert all(one is error for one in raised)
    assert writer.calls == ["a", "b"]


def test_an_error_at_the_end_of_the_block() -> None:
    error = OutputError("the disk is full.")
    writer = Recorder(fails=0, error=error)

    def work() -> None:
        with behind_of(writer, 100) as behind:
            behind.copy("a")
            settles(lambda: writer.calls, ["a"])

    with pytest.raises(OutputError) as caught:
        work()
    assert caught.value is error


def test_an_error_while_the_caller_waits_for_room() -> None:
    writer = Recorder(fails=0, error=OutputError("the disk is full."))
    writer.gate.clear()
    behind = behind_of(writer, 100)
    behind.write("a", HUNDRED)
    opener = threading.Timer(0.1, writer.gate.set)
    opener.start()
    with pytest.raises(OutputError):
        behind.write("b", HUNDRED)
    opener.join()
    behind.close()
    assert writer.calls == ["a"]


@pytest.mark.parametrize("budget", [0, 100])
def test_after_the_end_nothing_is_written(budget: int) -> None:
    writer = Recorder()
    with behind_of(writer, budget) as behind:
        behind.copy("a")
    for call in (lambda: behind.copy("b"), lambda: behind.write("c", HUNDRED), lambda: behind.commit("d")):
        with pytest.raises(RuntimeError, match="after the end"):
            call()
    behind.close()
    assert writer.calls == ["a"]


def test_the_block_raises(new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is dropped, and when the writer is aborted nothing is written any more."""
    begun, gate, pwrite = threading.Event(), threading.Event(), os.pwrite

    def slow(*arguments: Any) -> int:
        begun.set()
        assert gate.wait(120)
        return pwrite(*arguments)

    with Checkpoint.open(new, "NEW") as source:
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[new])
        full = [name for name, info in source.tensors.items() if info.nbytes]
        tensors = [source.read(name) for name in full]
        monkeypatch.setattr(os, "pwrite", slow)
        opener = threading.Timer(0.1, gate.set)

        def work() -> None:
            with AsyncWriter(writer, 10**6) as behind:
                for name, tensor in zip(full, tensors, strict=True):
                    behind.write(name, tensor)
                    behind.commit(name)
                begun.wait(120)
                opener.start()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            work()
        assert full[0] not in writer.remaining()
        assert set(full[1:]) <= set(writer.remaining())
        assert len(Path(f"{writer.partial}.journal").read_bytes().splitlines()) == 1
        writer.abort()
        opener.join()
    assert "out.partial" not in {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("waits_in", ["write", "flush", "the end of the block"])
def test_an_interruption_while_it_waits(waits_in: str, interrupt_soon: Callable[[], None]) -> None:
    writer = Recorder()
    writer.gate.clear()
    opener = threading.Timer(0.5, writer.gate.set)  # after the interruption

    def work() -> None:
        with behind_of(writer, 100) as behind:
            behind.write("a", HUNDRED)
            behind.commit("b")
            settles(lambda: writer.begun, 1)
            interrupt_soon()
            opener.start()
            if waits_in == "write":
                behind.write("c", HUNDRED)
            elif waits_in == "flush":
                behind.flush()

    with pytest.raises(KeyboardInterrupt):
        work()
    assert writer.calls == ["a"]
    opener.join()


# --- a disk that fails ---


@pytest.mark.parametrize("budget", [0, 40, 10**6])
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
def test_a_call_that_fails(lasting: bool, budget: int, layout: Checkpoint, tmp_path: Path) -> None:
    """The journal claims what is there and nothing else; a resumed run does the rest."""

    def attempt(folder: Path, fails: Callable[[int, str], int | None], resume: bool = False) -> list[str]:
        folder.mkdir(exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, folder, fails)
            writer = CheckpointWriter(layout, folder / "out", inputs=[layout.folder], resume=resume)
            try:
                with AsyncWriter(writer, budget) as behind:
                    for number, name in enumerate(writer.remaining()):
                        behind.copy(name) if number % 2 else behind.write(name, layout.read(name))
                        behind.commit(name)
                writer.publish({})
            except BaseException:
                writer.abort(keep=True)
                raise
        return disk.calls

    calls = attempt(tmp_path / "counted", lambda number, name: None)
    failed = claims = 0
    for place, number in enumerate(sample(calls, 20)):
        code, folder = random.Random(place).choice(ERRORS), tmp_path / str(number)

        def fails(count: int, name: str, number: int = number, code: int = code) -> int | None:
            return code if (count >= number if lasting else count == number) else None

        error = None
        try:
            attempt(folder, fails)
        except OutputError as caught:
            error = caught
        if error is None:
            continue
        failed += 1
        assert isinstance(error.__cause__, OSError)
        assert error.__cause__.errno == code
        journal = folder / "out.partial.journal"
        if journal.exists():
            claimed = [name for line in journal.read_text().splitlines()[1:] for name in json.loads(line)["tensors"]]
            found = load_file(folder / "out.partial" / "model.safetensors") if claimed else {}
            claims += len(claimed)
            for name in claimed:
                assert torch.equal(found[name], layout.read(name)), (number, name)
        if not (folder / "out").exists():
            attempt(folder, lambda number, name: None, resume=True)
        assert everything(folder / "out") == everything(layout.folder)
    assert failed > 5
    assert claims > 5


def test_a_disk_that_is_full(layout: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = CheckpointWriter(layout, tmp_path / "out", inputs=[layout.folder])
    behind = AsyncWriter(writer, 10**6)
    behind.write("t1", layout.read("t1"))
    behind.commit(1)
    behind.flush()
    monkeypatch.setattr(os, "pwrite", full)
    behind.write("t2", layout.read("t2"))
    with pytest.raises(OutputError) as caught:
        behind.flush()
    behind.close()
    assert str(caught.value) == (
        f"{writer.partial / 'model.safetensors'} cannot be written (No space left on device): "
        "free some space, or choose another disk for OUT."
    )
    assert isinstance(caught.value.__cause__, OSError)
    assert len(Path(f"{writer.partial}.journal").read_bytes().splitlines()) == 2
    writer.abort()
