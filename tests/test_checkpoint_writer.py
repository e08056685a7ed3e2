"""checkpoint/writer.py and files.py: exact bytes, one publication, nothing lost."""

import errno
import json
import os
import struct
import threading
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from safetensors.torch import load_file, save_file

from hpa_merge.checkpoint import Checkpoint, CheckpointWriter, check_output
from hpa_merge.errors import CheckpointError, OutputError

INDEX = "model.safetensors.index.json"


def mixed(seed: int) -> dict[str, torch.Tensor]:
    """Every kind of tensor that a checkpoint may hold."""
    draw = torch.Generator().manual_seed(seed)
    return {
        f"{seed}.wide.weight": torch.randn(5, 7, generator=draw).bfloat16(),
        f"{seed}.half.weight": torch.randn(3, 2, generator=draw).half(),
        f"{seed}.norm.weight": torch.randn(9, generator=draw),
        f"{seed}.position_ids": torch.arange(11),
        f"{seed}.mask": torch.tensor([True, False, True]),
        f"{seed}.scalar": torch.tensor(0.5, dtype=torch.bfloat16),
        f"{seed}.nothing": torch.empty(0, 4),
    }


@pytest.fixture
def old(tmp_path: Path) -> Path:
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file(mixed(0), folder / "model.safetensors")
    return folder


@pytest.fixture(params=["single", "sharded", "padded"])
def new(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """NEW in one file, in three shards with an index, or in a file whose header has metadata, odd order and padding."""
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "config.json").write_text('{"a":  1}\n')
    if request.param == "single":
        save_file(mixed(1), folder / "model.safetensors", {"format": "pt"})
    elif request.param == "sharded":
        weight_map = {}
        for number in (1, 2, 3):
            shard = f"model-{number:05}-of-00003.safetensors"
            save_file(mixed(number), folder / shard)
            weight_map |= dict.fromkeys(mixed(number), shard)
        (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}, indent=3) + "\n\n")
    else:
        header = {
            "b.weight": {"data_offsets": [3, 11], "shape": [2, 2], "dtype": "BF16"},
            "__metadata__": {"z": "é", "format": "pt"},
            "a.flag": {"data_offsets": [0, 3], "shape": [3], "dtype": "U8"},
        }
        head = json.dumps(header, indent=1).encode() + b" " * 21
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(range(65, 76)))
    return folder


def everything(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by relative path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def complete(writer: CheckpointWriter, source: Checkpoint) -> None:
    for name in writer.remaining():
        writer.write(name, source.read(name))


def refused(out: Path, *inputs: Path, overwrite: bool = False, needed: int = 0) -> str:
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(OutputError) as caught:
        check_output(out, inputs, overwrite, needed=needed)
    assert sorted(out.parent.rglob("*")) == before
    return str(caught.value)


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
        assert writer.bytes_total == sum(tensor.nbytes for shard in source.shards for tensor in _load(new / shard))
        assert writer.remaining() == tuple(source.tensors)
        for count, name in enumerate(reversed(source.tensors), start=1):
            writer.write(name, source.read(name)) if how == "write" else writer.copy(name)
            assert writer.remaining() == tuple(source.tensors)[:-count]
        assert not (tmp_path / "out").exists()
        assert writer.publish({"hpa_report.json": b"{}"}) == tmp_path / "out"
        writer.abort()
    assert everything(tmp_path / "out") == everything(new) | {"hpa_report.json": b"{}"}
    assert (everything(old), everything(new)) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old", "out"]


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
        with pytest.raises(RuntimeError, match="cannot be published: it has been before"):
            writer.publish({})


def test_abort_leaves_nothing_and_never_raises(old: Path, tmp_path: Path) -> None:
    with Checkpoint.open(old, "NEW") as source:
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[old])
        writer.copy("0.norm.weight")
        writer.abort()
        writer.abort()
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


# --- side files ------------------------------------------------------------------------------------------------------


def test_side_files_go_along(old: Path, new: Path, tmp_path: Path) -> None:
    (new / "templates").mkdir()
    (new / "templates" / "tool.jinja").write_bytes(b"\r\n{{ x }}\x00")
    (new / "tokenizer.json").symlink_to(tmp_path / "blob")
    (tmp_path / "blob").write_text("{}")
    (new / "run.sh").write_text("#!/bin/sh")
    (new / "run.sh").chmod(0o700)
    for name in ("README.md", "hpa_report.json", "pytorch_model.bin", ".gitattributes", "optimizer.pt"):
        (new / name).write_text("NEW's")
    with Checkpoint.open(new, "NEW") as source:
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[old, new])
        complete(writer, source)
        writer.publish({"README.md": b"ours", "hpa_report.json": b"ours"})
    out = tmp_path / "out"
    expected = everything(new) | {"README.md": b"ours", "hpa_report.json": b"ours"}
    for name in ("pytorch_model.bin", ".gitattributes", "optimizer.pt"):
        del expected[name]
    assert everything(out) == expected
    assert not (out / "tokenizer.json").is_symlink()
    ordinary = (tmp_path / "blob").stat().st_mode
    assert {path.stat().st_mode for path in out.rglob("*") if path.is_file()} == {ordinary}


def test_the_index_comes_last(old: Path, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> NoReturn:
        raise OSError(errno.EIO, "broken disk")

    with Checkpoint.open(new, "NEW") as source:
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[old, new])
        complete(writer, source)
        assert not (writer.partial / INDEX).exists()
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OutputError) as caught:
            writer.publish({})
        assert str(caught.value) == (
            f"{writer.partial} cannot be written (broken disk): check the disk, or choose another place for OUT."
        )
        assert not (writer.partial / INDEX).exists()
        assert not writer.out.exists()
        monkeypatch.undo()
        writer.publish({})
    assert everything(tmp_path / "out") == everything(new)


# --- overwrite -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["checkpoint", "empty folder", "file", "link"])
def test_overwrite(kind: str, old: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("before")
    elif kind == "link":
        (tmp_path / "target").mkdir()
        (tmp_path / "target" / "config.json").write_text("before")
        out.symlink_to(tmp_path / "target")
    else:
        out.mkdir()
    if kind == "checkpoint":
        (out / "config.json").write_text("before")
        (out / "more").mkdir()
    with Checkpoint.open(old, "NEW") as source:
        writer = CheckpointWriter(source, out, overwrite=True, inputs=[old])
        complete(writer, source)
        if kind == "checkpoint":
            assert everything(out) == {"config.json": b"before"}
        writer.publish({})
    assert everything(out) == everything(old)
    target = ["target"] if kind == "link" else []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "out", *target]
    assert not target or everything(tmp_path / "target") == {"config.json": b"before"}


@pytest.mark.parametrize("interruption", [OSError(errno.EBUSY, "busy"), KeyboardInterrupt()])
def test_the_old_out_comes_back(
    interruption: BaseException, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("before")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name == "out.partial":
            raise interruption
        return rename(self, target)

    with Checkpoint.open(old, "NEW") as source:
        writer = CheckpointWriter(source, out, overwrite=True, inputs=[old])
        complete(writer, source)
        monkeypatch.setattr(Path, "rename", fail)
        with pytest.raises((OutputError, KeyboardInterrupt)):
            writer.publish({})
        monkeypatch.undo()
        writer.abort()
    assert everything(out) == {"config.json": b"before"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "out"]


def test_an_out_that_appears_meanwhile_is_kept(old: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Checkpoint.open(old, "NEW") as source:
        writer = CheckpointWriter(source, out, inputs=[old])
        complete(writer, source)
        out.mkdir()
        with pytest.raises(OutputError, match="exists already"):
            writer.publish({})
        writer.abort()
    assert not any(out.iterdir())


# --- what is refused: the place --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_out_exists(make: Any, old: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out)
    sentence = f"OUT {out} exists already: choose another folder, or replace it with --overwrite."
    assert refused(out, old) == sentence
    with Checkpoint.open(old, "NEW") as source, pytest.raises(OutputError) as caught:
        CheckpointWriter(source, out, inputs=[old])
    assert str(caught.value) == sentence
    assert not (tmp_path / "out.partial").exists()


def test_overwrite_deletes_checkpoints_only(old: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").touch()
    assert refused(out, old, overwrite=True) == (
        f"OUT {out} holds other things than a checkpoint (it has no config.json), and --overwrite would delete them: "
        "choose another folder."
    )


@pytest.mark.parametrize("relation", ["equal", "inside", "contains", "link", "working folder"])
def test_out_and_inputs_overlap(relation: str, old: Path, tmp_path: Path) -> None:
    out = {"equal": old, "inside": old / "sub" / "out", "contains": tmp_path}.get(relation, tmp_path / "out")
    place, source = out, old
    if relation == "link":
        out.symlink_to(old)
    elif relation == "working folder":
        place = source = old.rename(tmp_path / "out.partial")
    assert refused(out, Path("/elsewhere"), source, overwrite=True) == (
        f"OUT {place} overlaps the input {source}, and inputs are never written to: choose a folder outside of it."
    )


def test_an_input_behind_a_link_overlaps_too(old: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(old)
    assert "overlaps the input" in refused(old / "out", tmp_path / "link")


def test_leftovers_of_another_run(old: Path, tmp_path: Path) -> None:
    out, partial, replaced = (tmp_path / name for name in ("out", "out.partial", "out.replaced"))
    partial.mkdir()
    assert refused(out, old) == (
        f"{partial} is there from another run: delete it if that run is not going on any more."
    )
    partial.rename(replaced)
    assert refused(out, old) == (
        f"{replaced} holds the OUT that an interrupted run was about to replace: move it away or delete it."
    )


def test_two_runs_at_the_same_moment(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpa_merge.checkpoint.writer.check_output", lambda *_, **__: None)
    (tmp_path / "out.partial").mkdir()
    with Checkpoint.open(old, "NEW") as source, pytest.raises(OutputError, match="is there from another run"):
        CheckpointWriter(source, tmp_path / "out", inputs=[old])
    assert (tmp_path / "out.partial").exists()


def test_parent_missing_or_closed(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "none" / "out"
    assert refused(out, old) == (
        f"OUT {out} cannot be made, because the folder {out.parent} does not exist: create it first."
    )
    monkeypatch.setattr(os, "access", lambda *_: False)  # root, who may run this, may write anywhere
    out = tmp_path / "out"
    assert refused(out, old) == (
        f"OUT {out} cannot be made, because you may not write to {tmp_path}: choose another place."
    )


def test_not_enough_room(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (old / "model.safetensors").stat().st_size
    usage = type("usage", (), {"free": size - 1})
    monkeypatch.setattr("hpa_merge.checkpoint.writer.shutil.disk_usage", lambda _: usage)
    out = tmp_path / "out"
    assert refused(out, old, needed=15_640_000_000) == (
        f"OUT {out} needs 15.6 GB and only {size - 1} bytes are free there: free some space, or choose another disk."
    )
    with Checkpoint.open(old, "NEW") as source, pytest.raises(OutputError, match=f"needs {size} bytes and only"):
        CheckpointWriter(source, out, inputs=[old])
    usage.free = size
    check_output(out, [old], False, needed=size)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_relative_out(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Checkpoint.open("old", "NEW") as source:
        writer = CheckpointWriter(source, "out/", inputs=["old"])
        assert writer.partial == tmp_path / "out.partial"
        complete(writer, source)
        assert writer.publish({}) == tmp_path / "out"


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
