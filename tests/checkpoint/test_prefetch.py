"""checkpoint/prefetch.py: the same tensors as without it, each byte read once, never more held than may be."""

import errno
import gc
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, final

import pytest
import torch
from checkpoint_folders import MIXED, single_folder  # noqa: F401 - a fixture
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from threads import settles

from hpa_merge.checkpoint import Checkpoint, Prefetch
from hpa_merge.errors import CheckpointError

pytestmark = pytest.mark.usefixtures("_no_thread_is_left")

SIZES = {f"t{number}": 100 for number in range(8)} | {"large": 1000}
"""Bytes of each tensor of the checkpoint ``bytes``."""

SMALL = [name for name in SIZES if name != "large"]


@pytest.fixture(name="source")
def byte_checkpoint(tmp_path: Path) -> Iterator[Checkpoint]:
    (tmp_path / "config.json").write_text("{}")
    tensors = {name: torch.randint(0, 256, (size,)).to(torch.uint8) for name, size in SIZES.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    with Checkpoint.open(tmp_path, "NEW") as checkpoint:
        yield checkpoint


@final
class Reads:
    """Every ``preadv`` of a checkpoint of one shard, in the order in which they end; ``gate`` holds the thread's up."""

    def __init__(self, checkpoint: Checkpoint, patch: pytest.MonkeyPatch) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.ahead: list[str] = []  # names of tensors, one for each call of the thread
        self.at_once: list[str] = []
        self.begun = 0
        self.seconds = 0.0
        self.error: int | None = None
        self.bytes: Counter[int] = Counter()  # how often each was read, by its offset
        self._checkpoint, self._preadv = checkpoint, os.preadv
        patch.setattr(os, "preadv", self._read)

    def _read(self, descriptor: int, buffers: list[memoryview], offset: int) -> int:
        infos = self._checkpoint.tensors.values()
        name = next(info.name for info in infos if info.start <= offset < info.stop)
        in_thread = threading.current_thread() is not threading.main_thread()
        if in_thread:
            self.begun += 1
            time.sleep(self.seconds)
            assert self.gate.wait(120)
            if self.error:
                raise OSError(self.error, os.strerror(self.error))
        count = self._preadv(descriptor, buffers, offset)
        (self.ahead if in_thread else self.at_once).append(name)
        self.bytes.update(range(offset, offset + count))
        return count


@pytest.fixture
def reads(source: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(source, monkeypatch)


# --- as expected ---


def test_everything_is_read_ahead_and_once(source: Checkpoint, reads: Reads) -> None:
    with Prefetch(source, SMALL, 300) as prefetch:
        for number, name in enumerate(SMALL):
            settles(lambda: reads.ahead, SMALL[: number + 3])
            assert torch.equal(prefetch.read(name), source.read(name))
    assert reads.at_once == SMALL  # those of the comparison
    assert set(reads.bytes.values()) == {2}
    assert len(reads.bytes) == 800


@pytest.mark.parametrize("budget", [0, 99])
def test_without_room(budget: int, source: Checkpoint, reads: Reads) -> None:
    with Prefetch(source, SIZES, budget) as prefetch:
        assert any(thread.name == "reading NEW ahead" for thread in threading.enumerate()) == bool(budget)
        for name in SIZES:
            prefetch.read(name)
    assert reads.at_once == list(SIZES)
    assert reads.ahead == []


def test_what_is_larger_than_the_budget_is_read_when_it_is_asked_for(source: Checkpoint, reads: Reads) -> None:
    with Prefetch(source, ["t0", "large", "t1", "t2", "t3"], 200) as prefetch:
        settles(lambda: reads.ahead, ["t0", "t1"])
        for name in ("t0", "large", "t1", "t2", "t3"):
            prefetch.read(name)
    assert reads.at_once[0] == "large"
    assert set(reads.bytes.values()) == {1}


def test_every_dtype_and_shape(single: Path) -> None:
    with Checkpoint.open(single, "NEW") as source, Prefetch(source, MIXED, 10**6) as prefetch:
        settles(lambda: len(prefetch._ready), len(MIXED))
        for name, expected in MIXED.items():
            found = prefetch.read(name)
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
            assert torch.equal(found, expected)
            found.zero_() if found.numel() else None
            assert torch.equal(prefetch.read(name), expected)


def test_a_tensor_without_a_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    save_file({"": torch.ones(3), "a": torch.ones(4)}, tmp_path / "model.safetensors")
    with Checkpoint.open(tmp_path, "NEW") as source, Prefetch(source, source.tensors, 100) as prefetch:
        settles(lambda: len(prefetch._ready), 2)
        assert prefetch.read("").tolist() == [1, 1, 1]


def test_what_is_handed_over_is_not_held(source: Checkpoint, reads: Reads) -> None:
    with Prefetch(source, ["t0", "t1"], 1000) as prefetch:
        settles(lambda: reads.ahead, ["t0", "t1"])
        for name in ("t1", "t0"):
            there = weakref.ref(prefetch.read(name))
            gc.collect()
            assert there() is None
            assert torch.equal(prefetch.read(name), source.read(name))
    assert reads.at_once == ["t1", "t1", "t0", "t0"]


def test_what_is_being_read_is_waited_for(source: Checkpoint, reads: Reads) -> None:
    reads.gate.clear()
    with Prefetch(source, SMALL, 100) as prefetch:
        settles(lambda: reads.begun, 1)
        opener = threading.Timer(0.1, reads.gate.set)
        opener.start()
        assert prefetch.read("t0").numel() == 100
        opener.join()
    assert "t0" not in reads.at_once
    assert reads.ahead.count("t0") == 1


def test_page_locked(source: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned, empty = [], torch.empty

    def recorded(*arguments: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        pinned.append((arguments[0], pin_memory))
        return empty(*arguments, **options)

    monkeypatch.setattr(torch, "empty", recorded)
    with Prefetch(source, ["t0", "large"], 100, pin=True) as prefetch:
        settles(lambda: len(pinned), 1)
        prefetch.read("t0")
        prefetch.read("large")  # at once: not within the budget
    assert pinned == [((100,), True), ((1000,), False)]


# --- not as expected ---


def test_another_order(source: Checkpoint, reads: Reads) -> None:
    with Prefetch(source, SMALL, 200) as prefetch:
        settles(lambda: reads.ahead, ["t0", "t1"])
        assert prefetch.read("t5").numel() == 100
        settles(lambda: (reads.ahead, reads.at_once), (["t0", "t1"], ["t5"]))
        for name in ("t1", "t0", "t7", "t2", "t6", "t4", "t3"):
            prefetch.read(name)
        settles(lambda: set(reads.bytes.values()), {1})


def test_nobody_asks_for_what_is_here(source: Checkpoint, reads: Reads) -> None:
    with Prefetch(source, SMALL, 200) as prefetch:
        settles(lambda: reads.ahead, ["t0", "t1"])
        prefetch.read("t3")
        assert reads.at_once == ["t3"]
        prefetch.forget(["t0", "t1", "t2"])
        settles(lambda: reads.ahead, ["t0", "t1", "t4", "t5"])
        prefetch.expect(["t0", "t4", "t7", "t2"])  # t4 is here and t7 in the order
        prefetch.read("t4")
        prefetch.read("t5")
        settles(lambda: reads.ahead, ["t0", "t1", "t4", "t5", "t6", "t7"])
        prefetch.forget(["t6", "t7"])
        settles(lambda: reads.ahead[6:], ["t0", "t2"])


def test_what_is_being_read_is_forgotten(source: Checkpoint, reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpa_merge.checkpoint.prefetch.PIECE", 10)
    reads.gate.clear()
    with Prefetch(source, ["t0", "t1"], 100) as prefetch:
        settles(lambda: reads.begun, 1)
        prefetch.forget(["t0"])
        reads.gate.set()
        settles(lambda: reads.ahead, ["t0"] + ["t1"] * 10)
        assert torch.equal(prefetch.read("t0"), source.read("t0"))
        assert torch.equal(prefetch.read("t1"), source.read("t1"))


def test_an_error_of_what_is_forgotten(source: Checkpoint, reads: Reads) -> None:
    reads.gate.clear()
    with Prefetch(source, ["t0"], 100) as prefetch:
        settles(lambda: reads.begun, 1)
        prefetch.forget(["t0"])
        reads.error = errno.EIO
        reads.gate.set()
        settles(lambda: prefetch._held, 0)
        assert torch.equal(prefetch.read("t0"), source.read("t0"))


def test_what_is_here_is_not_expected_again(source: Checkpoint, reads: Reads) -> None:
    with Prefetch(source, ["t0"], 1000) as prefetch:
        settles(lambda: reads.ahead, ["t0"])
        prefetch.expect(["t0", "t1", "t1"])
        settles(lambda: reads.ahead, ["t0", "t1"])
        reads.gate.clear()
        prefetch.expect(["t2"])
        settles(lambda: reads.begun, 3)
        prefetch.expect(["t2"])
        reads.gate.set()
        settles(lambda: reads.ahead, ["t0", "t1", "t2"])


def test_an_unknown_name_is_our_mistake(source: Checkpoint) -> None:
    with pytest.raises(KeyError):
        Prefetch(source, ["no.such"], 100)
    with Prefetch(source, [], 100) as prefetch, pytest.raises(KeyError):
        prefetch.read("no.such")


@settings(deadline=None, max_examples=60)
@given(
    order=st.lists(st.sampled_from(list(SIZES))),
    asked=st.lists(st.tuples(st.sampled_from(["read", "forget", "expect"]), st.sampled_from(list(SIZES)))),
    budget=st.sampled_from([0, 50, 100, 250, 1000, 5000]),
)
def test_whatever_the_order(
    order: list[str], asked: list[tuple[str, str]], budget: int, shared: tuple[Checkpoint, dict[str, torch.Tensor]]
) -> None:
    source, expected = shared
    with Prefetch(source, order, budget) as prefetch:
        for what, name in asked:
            if what == "read":
                assert torch.equal(prefetch.read(name), expected[name])
            else:
                getattr(prefetch, what)([name])
            assert prefetch._held <= budget


@pytest.fixture(name="shared", scope="module")
def shared_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Checkpoint, dict[str, torch.Tensor]]]:
    folder = tmp_path_factory.mktemp("shared")
    (folder / "config.json").write_text("{}")
    tensors = {name: torch.randint(0, 256, (size,)).to(torch.uint8) for name, size in SIZES.items()}
    save_file(tensors, folder / "model.safetensors")
    with Checkpoint.open(folder, "NEW") as checkpoint:
        yield checkpoint, tensors


# --- errors and ends ---


def test_an_error_is_told_to_who_asks(source: Checkpoint, reads: Reads) -> None:
    reads.gate.clear()
    with Prefetch(source, SMALL, 300) as prefetch:
        settles(lambda: reads.begun, 1)
        reads.error = errno.EIO
        reads.gate.set()
        settles(lambda: reads.begun, 3)
        reads.error = None
        assert prefetch.read("t7").numel() == 100
        with pytest.raises(CheckpointError) as caught:
            prefetch.read("t1")
        assert str(caught.value).startswith(f"NEW {source.folder}: the tensor t1 cannot be read from model.safetensors")
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.EIO
        assert torch.equal(prefetch.read("t1"), source.read("t1"))  # it was told, and is tried again
        assert torch.equal(prefetch.read("t3"), source.read("t3"))
    assert "t0" not in reads.at_once  # whose error nobody was told


def test_an_error_while_it_is_waited_for(source: Checkpoint, reads: Reads) -> None:
    reads.gate.clear()
    reads.error = errno.ESTALE
    with Prefetch(source, ["t0"], 100) as prefetch:
        settles(lambda: reads.begun, 1)
        opener = threading.Timer(0.1, reads.gate.set)
        opener.start()
        with pytest.raises(CheckpointError, match="the tensor t0 cannot be read"):
            prefetch.read("t0")
        opener.join()


def test_the_end_comes_soon(source: Checkpoint, reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor that takes a hundred seconds is not read to its end."""
    monkeypatch.setattr("hpa_merge.checkpoint.prefetch.PIECE", 1)
    reads.seconds = 0.1
    prefetch = Prefetch(source, ["large"], 1000)
    settles(lambda: reads.begun > 2, True)
    prefetch.close()
    assert reads.begun < 1000  # of as many pieces
    prefetch.close()
    count = len(reads.ahead)
    prefetch.expect(SMALL)
    assert torch.equal(prefetch.read("large"), source.read("large"))
    assert len(reads.ahead) == count


@pytest.mark.parametrize("reader", ["full", "being read", "done"])
def test_the_end_frees_everything(reader: str, source: Checkpoint, reads: Reads) -> None:
    if reader == "being read":
        reads.gate.clear()
    prefetch = Prefetch(source, SMALL[:2] if reader == "done" else SMALL, 200)
    settles(lambda: reads.begun, 1 if reader == "being read" else 2)
    kept = [weakref.ref(tensor) for (tensor,) in prefetch._ready.values()]
    opener = threading.Timer(0.1, reads.gate.set)
    opener.start()
    prefetch.close()
    opener.join()
    assert (prefetch._held, len(prefetch._ready), len(prefetch._expected)) == (0, 0, 0)
    assert [tensor() for tensor in kept] == [None] * (0 if reader == "being read" else 2)


def test_an_interruption_while_it_waits(
    source: Checkpoint, reads: Reads, monkeypatch: pytest.MonkeyPatch, interrupt_soon: Callable[[], None]
) -> None:
    monkeypatch.setattr("hpa_merge.checkpoint.prefetch.PIECE", 1)
    reads.seconds = 0.1

    def wait() -> None:
        with Prefetch(source, ["large"], 1000) as prefetch:
            settles(lambda: reads.begun > 0, True)
            interrupt_soon()
            prefetch.read("large")

    with pytest.raises(KeyboardInterrupt):
        wait()
    assert reads.begun < 1000  # pieces: it was not read to its end


# --- a tensor in pieces ---


@pytest.mark.parametrize("nbytes", [1, 2, 7, 8, 9, 64, 2**26])
def test_pieces_are_the_tensor(nbytes: int, single: Path) -> None:
    with Checkpoint.open(single, "NEW") as source:
        for name, expected in MIXED.items():
            pieces = list(source.pieces(name, nbytes))
            assert all(piece.dtype == expected.dtype and piece.ndim == 1 for piece in pieces)
            assert all(piece.nbytes <= max(nbytes, expected.itemsize) for piece in pieces)
            assert torch.equal(torch.cat([*pieces, expected.new_empty(0)]), expected.reshape(-1))
            target = torch.empty_like(expected)
            parts = source.stored_pieces(*source.parts(name), nbytes=nbytes, into=target)
            assert all(part.untyped_storage().data_ptr() == target.data_ptr() for part in parts)
            assert torch.equal(target, expected)


def test_pieces_are_read_when_they_are_come_to(source: Checkpoint, reads: Reads) -> None:
    pieces = source.pieces("large", 300)
    assert reads.at_once == []
    assert [len(piece) for piece, _ in zip(pieces, range(2), strict=False)] == [300, 300]
    assert len(reads.at_once) <= 3
    assert [len(piece) for piece in source.pieces("large", 300)] == [300, 300, 300, 100]


def test_pieces_of_a_file_that_shrinks(source: Checkpoint) -> None:
    info = source.tensors["large"]
    os.truncate(source.folder / info.shard, info.start + 500)
    pieces = source.pieces("large", 400)
    assert len(next(pieces)) == 400
    with pytest.raises(CheckpointError, match=r"the tensor large cannot be read from .* become shorter since"):
        next(pieces)
