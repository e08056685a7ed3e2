"""async_writer.py: errors, interruptions and full disks; nothing is claimed after an error."""

import errno
import json
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_folders import everything, new_folder, old_folder  # noqa: F401 - fixtures
from failing_disk import ERRORS, Disk, sample
from recorder import Recorder, behind_of
from safetensors.torch import load_file
from threads import settles

from hpa_merge.checkpoint import AsyncWriter, Checkpoint, CheckpointWriter
from hpa_merge.errors import CheckpointError, OutputError

pytestmark = pytest.mark.usefixtures("_no_thread_is_left")

HUNDRED = torch.zeros(100, dtype=torch.uint8)


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
