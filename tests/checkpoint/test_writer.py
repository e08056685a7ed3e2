"""checkpoint/writer.py and files.py: exact bytes, and what happens when the disk or we go wrong."""

import errno
import os
import threading
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from checkpoint_folders import complete, everything, new_folder, old_folder  # noqa: F401 - fixtures
from safetensors.torch import load_file

from hpa_merge.checkpoint import Checkpoint, CheckpointWriter, files
from hpa_merge.errors import CheckpointError, OutputError

# --- exact bytes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["write", "copy", "copy by hand", "copy without the call", "copy stops early"])
def test_the_same_tensors_are_the_same_bytes(
    how: str, old: Path, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> NoReturn:
        raise OSError(errno.EXDEV, "two file systems")

    if how == "copy by hand":
        monkeypatch.setattr(os, "copy_file_range", refuse)
    elif how == "copy without the call":
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    elif how == "copy stops early":
        monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    before = everything(old), everything(new)
    with Checkpoint.open(new, "NEW") as source:
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[old, new])
        assert writer.remaining() == tuple(source.tensors)
        for count, name in enumerate(reversed(source.tensors), start=1):
            writer.write(name, source.read(name)) if how == "write" else writer.copy(name)
            assert writer.remaining() == tuple(source.tensors)[:-count]
        assert not (tmp_path / "out").exists()
        writer.publish({"hpa_report.json": b"{}"})
        assert writer.out == tmp_path / "out"
        writer.abort()
    assert everything(tmp_path / "out") == everything(new) | {"hpa_report.json": b"{}"}
    assert (everything(old), everything(new)) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old", "out"]


@pytest.mark.parametrize("has_it", [True, False])
def test_the_disk_is_asked_to_begin(has_it: bool, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is large, where the system can; whatever it answers, the bytes are the same."""
    asked: list[tuple[int, int]] = []

    def refuse(descriptor: Any, start: Any, count: Any, how: Any) -> int:
        asked.append((start.value, count.value))
        return -1

    monkeypatch.setattr(files, "SYNC_FILE_RANGE", refuse if has_it else None)
    monkeypatch.setattr(files, "WORTH_STARTING", 20)
    with Checkpoint.open(old, "NEW") as source:
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[old])
        for number, name in enumerate(source.tensors):
            writer.write(name, source.read(name)) if number % 2 else writer.copy(name)
        writer.publish({})
        large = [(info.start, info.nbytes) for info in source.tensors.values() if info.nbytes >= 20]
    assert asked == (large if has_it else [])
    assert everything(tmp_path / "out") == everything(old)


def _load(path: Path) -> list[torch.Tensor]:
    return list(load_file(path).values())


def test_strided_and_differentiable_tensors_are_written_in_order(old: Path, tmp_path: Path) -> None:
    with Checkpoint.open(old, "NEW") as source:
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[old])
        wide = torch.randn(7, 5).bfloat16().T.requires_grad_()
        writer.write("0.wide.weight", wide)
        for name in writer.remaining():
            writer.copy(name)
        writer.publish({})
    assert torch.equal(load_file(tmp_path / "out" / "model.safetensors")["0.wide.weight"], wide)


def test_large_tensors_take_several_calls(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpa_merge.checkpoint.files.CHUNK", 3)
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    with Checkpoint.open(old, "NEW") as source:
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[old])
        for number, name in enumerate(source.tensors):
            writer.write(name, source.read(name)) if number % 2 else writer.copy(name)
        writer.publish({})
    assert everything(tmp_path / "out") == everything(old)


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, None])
def test_without_preallocation(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int | None) -> None:
    def refuse(*_: Any) -> NoReturn:
        raise OSError(error, "not here")

    if error is None:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    else:
        monkeypatch.setattr(os, "posix_fallocate", refuse)
    with Checkpoint.open(old, "NEW") as source:
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[old])
        assert (writer.partial / "model.safetensors").stat().st_size == (old / "model.safetensors").stat().st_size
        complete(writer, source)
        writer.publish({})
    assert everything(tmp_path / "out") == everything(old)


def test_threads_may_write_at_the_same_time(old: Path, tmp_path: Path) -> None:
    with Checkpoint.open(old, "NEW") as source:
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[old])
        threads = [threading.Thread(target=lambda n=name: writer.write(n, source.read(n))) for name in source.tensors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.publish({})
    assert everything(tmp_path / "out") == everything(old)


# --- mistakes of ours ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nbytes", [1, 20, 10**6])
def test_pieces_are_the_tensor(nbytes: int, old: Path, new: Path, tmp_path: Path) -> None:
    with Checkpoint.open(new, "NEW") as source:
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[old, new])
        for name in source.tensors:
            writer.write_pieces(name, source.pieces(name, nbytes))
        writer.publish({})
        assert everything(tmp_path / "out") == everything(new)


@pytest.mark.parametrize("change", [lambda x: x[1:], lambda x: torch.cat([x, x]), lambda x: x.float()])
def test_pieces_that_are_not_the_tensor(change: Any, old: Path, tmp_path: Path) -> None:
    with Checkpoint.open(old, "NEW") as source:
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[old])
        name = "0.wide.weight"
        with pytest.raises(ValueError, match=r"^0\.wide\.weight has to be \[5, 7\] torch\.bfloat16$"):
            writer.write_pieces(name, [change(source.read(name).reshape(-1))])
        assert name in writer.remaining()
        writer.abort()


def test_wrong_use(old: Path, tmp_path: Path) -> None:
    with Checkpoint.open(old, "NEW") as source:
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[old])
        with pytest.raises(
            ValueError, match=r"0\.norm\.weight has to be \[9\] torch\.float32, not \[3\] torch\.float32"
        ):
            writer.write("0.norm.weight", torch.zeros(3))
        with pytest.raises(ValueError, match=r"not \[9\] torch\.bfloat16"):
            writer.write("0.norm.weight", torch.zeros(9, dtype=torch.bfloat16))
        with pytest.raises(KeyError):
            writer.write("no.such", torch.zeros(1))
        writer.copy("0.norm.weight")
        with pytest.raises(RuntimeError, match=r"0\.norm\.weight is written twice"):
            writer.write("0.norm.weight", torch.zeros(9))
        with pytest.raises(RuntimeError, match="cannot be published: 6 tensors are missing, such as "):
            writer.publish({})
        assert not writer.out.exists()
        complete(writer, source)
        for name in ("../x", "sub/x", "/x", "model.safetensors"):
            with pytest.raises(ValueError, match="cannot be an extra file"):
                writer.publish({name: b""})
        writer.publish({})
        with pytest.raises(RuntimeError, match="cannot be published: it is published"):
            writer.publish({})


def test_abort_leaves_nothing_and_never_raises(old: Path, tmp_path: Path) -> None:
    with Checkpoint.open(old, "NEW") as source:
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[old])
        writer.copy("0.norm.weight")
        writer.abort()
        writer.abort()
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


# --- what is refused: by the disk ------------------------------------------------------------------------------------


def test_the_disk_fills_up_while_room_is_made(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with Checkpoint.open(old, "NEW") as source, pytest.raises(OutputError) as caught:
        CheckpointWriter(source, tmp_path / "out", inputs=[old])
    assert str(caught.value) == (
        f"{tmp_path / 'out.partial' / 'model.safetensors'} cannot be written (No space left on device): "
        "free some space, or choose another disk for OUT."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space, or choose another disk for OUT"),
        (errno.EACCES, "check the permissions, or choose another place for OUT"),
        (errno.EIO, "check the disk, or choose another place for OUT"),
    ],
)
def test_the_disk_refuses_a_tensor(
    number: int, remedy: str, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> NoReturn:
        raise OSError(number, os.strerror(number))

    with Checkpoint.open(old, "NEW") as source:
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[old])
        path = writer.partial / "model.safetensors"
        monkeypatch.setattr(os, "pwrite", fail)
        with pytest.raises(OutputError) as caught:
            writer.write("0.norm.weight", torch.zeros(9))
        assert str(caught.value) == f"{path} cannot be written ({os.strerror(number)}): {remedy}."
        monkeypatch.setattr(os, "copy_file_range", fail, raising=False)
        with pytest.raises(OutputError) as caught:
            writer.copy("0.mask")
        assert str(caught.value) == (
            f"{old / 'model.safetensors'} cannot be copied to {path} ({os.strerror(number)}): {remedy}."
        )
        monkeypatch.undo()
        assert {"0.norm.weight", "0.mask"} <= set(writer.remaining())
        with pytest.raises(RuntimeError, match="cannot be published"):
            writer.publish({})
        writer.abort()


def test_new_shrinks_during_the_run(old: Path, tmp_path: Path) -> None:
    with Checkpoint.open(old, "NEW") as source:
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[old])
        with (old / "model.safetensors").open("r+b") as file:
            file.truncate(10)
        with pytest.raises(OutputError, match="the file has become shorter since it was opened"):
            writer.copy("0.norm.weight")
        writer.abort()


def test_new_vanishes_during_the_run(old: Path, tmp_path: Path) -> None:
    with Checkpoint.open(old, "NEW") as source:
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[old])
        complete(writer, source)
        (old / "config.json").unlink()
        (old / "model.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
            CheckpointWriter(source, tmp_path / "other", inputs=[old])
        writer.abort()
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
